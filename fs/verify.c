/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Verify: walk the tree and authenticate everything in it.
 *
 * The walk goes by descriptors, depth first, and reads with the same code that
 * serves a mount.
 */

#include "fs/verify.h"

#include "fs/backing.h"
#include "fs/content_internal.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/op_symlink.h"
#include "fs/userattr.h"
#include "fs/verify_names.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct walk {
        struct tk_fs *fs;
        const struct tk_verify_callbacks *callbacks;
        struct tk_verify_totals totals;
        struct tk_scratch *scratch;
        char *path; /* of the file in hand, grown as needed */
        size_t path_max;
};

/* A directory in hand, and the entries whose names could not be read. */
struct directory {
        struct tk_verify_names names;
        struct bad_name {
                char backing[NAME_MAX + 1];
                int error;
        } * bad;
        size_t bad_count;
};

static void report(struct walk *walk, enum tk_verify_kind kind, uint64_t off, uint64_t len,
                   int error)
{
        struct tk_verify_finding finding = {
                .kind = kind, .path = walk->path, .offset = off, .length = len, .error = error};

        walk->totals.findings++;
        walk->callbacks->finding(walk->callbacks->context, &finding);
}

/* The KEK version that the record of @name in @dirfd names, if it is a retired one, else 0. */
static uint16_t retired_version(struct walk *walk, int dirfd, const char *name, bool with_copy)
{
        TK_AUTOCLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        struct tk_volume *volume = walk->fs->volume;
        uint16_t version = fd < 0 ? 0 : tk_keyattr_version(walk->fs, fd, with_copy);

        if (version == 0 || version > tk_volume_kek_count(volume) ||
            tk_volume_kek_at(volume, version - 1U).active)
                return 0;
        if (version > walk->totals.retired_version)
                walk->totals.retired_version = version;
        walk->totals.retired++;
        return version;
}

/* The file or directory @name in @dirfd has no usable key record. */
static void report_record(struct walk *walk, enum tk_verify_kind kind, int dirfd, const char *name,
                          int error)
{
        struct tk_verify_finding finding = {
                .kind = kind,
                .path = walk->path,
                .retired = retired_version(walk, dirfd, name, kind == TK_VERIFY_RECORD),
                .error = error};

        walk->totals.findings++;
        walk->totals.records++;
        walk->callbacks->finding(walk->callbacks->context, &finding);
}

static void report_attribute(struct walk *walk, const char *name, int error)
{
        struct tk_verify_finding finding = {
                .kind = TK_VERIFY_ATTRIBUTE, .path = walk->path, .attribute = name, .error = error};

        walk->totals.findings++;
        walk->callbacks->finding(walk->callbacks->context, &finding);
}

static void progress(const struct walk *walk)
{
        if (walk->callbacks->progress)
                walk->callbacks->progress(walk->callbacks->context, &walk->totals);
}

/* Attributes and symlinks ----------------------------------------------------------- */

static void verify_attribute(struct walk *walk, int fd, struct tk_userattr *attr,
                             const char *stored)
{
        TK_CLEANUP(tk_freep) uint8_t *sealed = malloc((size_t)2 * XATTR_SIZE_MAX);
        char name[TK_USERATTR_NAME_MAX + 1];
        ssize_t n;
        int r;

        r = tk_userattr_open_name(attr, stored, name);
        if (r < 0) {
                report_attribute(walk, stored, r);
                return;
        }
        n = sealed ? tk_backing_getxattr(fd, stored, sealed, XATTR_SIZE_MAX) : -ENOMEM;
        r = n < 0 ? (int)n
                  : tk_userattr_open_value(attr, name, sealed, (size_t)n, sealed + XATTR_SIZE_MAX);
        if (r < 0)
                report_attribute(walk, name, r);
}

static int verify_attribute_list(struct walk *walk, int fd, const struct tk_secret *dek)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = NULL;
        TK_CLEANUP(tk_freep) char *list = malloc(XATTR_LIST_MAX);
        ssize_t n;
        int r = 0;

        if (!list)
                return -ENOMEM;
        n = tk_backing_listxattr(fd, list, XATTR_LIST_MAX);
        if (n < 0)
                return (int)n;
        for (const char *at = list; at < list + n && r == 0; at += strlen(at) + 1) {
                if (!tk_userattr_is_stored(at))
                        continue;
                r = attr ? 0 : tk_userattr_new(dek, &attr);
                if (r == 0)
                        verify_attribute(walk, fd, attr, at);
        }
        return r;
}

/* The encrypted attributes of a file or directory whose key is @dek. */
static void verify_attributes(struct walk *walk, int fd, const struct tk_secret *dek)
{
        int r = walk->fs->names_encrypted ? verify_attribute_list(walk, fd, dek) : 0;

        if (r < 0)
                report(walk, TK_VERIFY_UNREADABLE, 0, 0, r);
}

static void verify_symlink(struct walk *walk, int dirfd, const char *name)
{
        TK_AUTOCLOSE int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        char target[PATH_MAX];
        int r;

        walk->totals.others++;
        r = fd < 0 ? -errno : tk_op_open_target(walk->fs, fd, target, sizeof(target));
        if (r < 0)
                report(walk, r == -EBADMSG ? TK_VERIFY_TARGET : TK_VERIFY_UNREADABLE, 0, 0, r);
}

/* Files -------------------------------------------------------------------------- */

/* A request's worth of blocks failed: find out which, one by one, and report runs of them. */
static void find_bad_blocks(struct walk *walk, struct tk_openfile *file, uint64_t off, uint64_t end)
{
        uint64_t run_start = 0;
        uint64_t run_len = 0;
        int run_error = 0;

        for (; off < end; off += TK_BLOCK_LEN) {
                uint64_t len = tk_block_valid(tk_block_of(off), end);
                int r = tk_content_load_block(walk->fs, file, walk->scratch, tk_block_of(off),
                                              file->size, walk->scratch->head);

                if (r < 0)
                        walk->totals.bad_blocks++;
                if (run_len > 0 && r != run_error) {
                        report(walk, TK_VERIFY_BLOCK, run_start, run_len, run_error);
                        run_len = 0;
                }
                if (r < 0 && run_len == 0) {
                        run_start = off;
                        run_error = r;
                }
                if (r < 0)
                        run_len += len;
        }
        if (run_len > 0)
                report(walk, TK_VERIFY_BLOCK, run_start, run_len, run_error);
}

static void verify_content(struct walk *walk, struct tk_openfile *file)
{
        uint64_t size = file->size;

        for (uint64_t off = 0; off < size; off += TK_REQUEST_MAX) {
                uint64_t left = size - off;
                uint64_t len = left < TK_REQUEST_MAX ? left : TK_REQUEST_MAX;
                uint64_t data_off;
                const uint8_t *data;
                int r;

                /* Large holes cost nothing. */
                r = tk_content_seek(walk->fs, file, off, SEEK_DATA, &data_off);
                if (r == -ENXIO)
                        data_off = size;
                /* A hole below the seal is none. */
                if (off >= file->sealed && (r == 0 || r == -ENXIO)) {
                        uint64_t skip = (data_off - off) / TK_REQUEST_MAX * TK_REQUEST_MAX;

                        if (skip > 0) {
                                walk->totals.bytes += skip;
                                off += skip - TK_REQUEST_MAX;
                                continue;
                        }
                }
                if (tk_content_read(walk->fs, file, off, len, &data) < 0)
                        find_bad_blocks(walk, file, off, off + len);
                walk->totals.bytes += len;
                progress(walk);
        }
}

/* Whether attribute and copy both serve; one that does not is reported, but no loss yet. */
static void verify_record(struct walk *walk, int fd, uint64_t backing_size)
{
        struct tk_keyattr keyattr;

        if (tk_keyattr_load(walk->fs, fd, backing_size, &keyattr) < 0)
                return; /* reported when the file did not open */
        if (keyattr.attribute_bad || keyattr.copy_bad)
                report(walk, TK_VERIFY_RECORD_LOST, 0, 0, -EBADMSG);
        tk_secret_free(keyattr.dek);
}

static void verify_file(struct walk *walk, int dirfd, const char *name)
{
        struct tk_openfile *file;
        struct stat st;
        int fd;
        int r;

        walk->totals.files++;
        fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0) {
                report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
                if (fd >= 0)
                        close(fd);
                return;
        }
        verify_record(walk, fd, (uint64_t)st.st_size);
        r = tk_openfile_load_alone(walk->fs, fd, &file);
        if (r < 0) {
                report_record(walk, TK_VERIFY_RECORD, dirfd, name, r);
                return;
        }
        if (file->seal_error < 0)
                report(walk, TK_VERIFY_SEAL, 0, file->size, file->seal_error);
        verify_content(walk, file);
        verify_attributes(walk, fd, file->dek);
        tk_openfile_free_alone(file);
        progress(walk);
}

/* Directories ---------------------------------------------------------------------- */

/* Append @name to the path. Returns the length to go back to, or -ENOMEM. */
static ssize_t path_push(struct walk *walk, const char *name)
{
        size_t len = strlen(walk->path);
        size_t need = len + 1 + strlen(name) + 1;

        if (need > walk->path_max) {
                char *path = realloc(walk->path, need * 2);

                if (!path)
                        return -ENOMEM;
                walk->path = path;
                walk->path_max = need * 2;
        }
        sprintf(walk->path + len, "%s%s", len > 0 ? "/" : "", name);
        return (ssize_t)len;
}

static int verify_dir(struct walk *walk, int fd);

static int verify_subdir(struct walk *walk, int dirfd, const char *name)
{
        int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0) {
                report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
                return 0;
        }
        return verify_dir(walk, fd);
}

/* By its backing name, whatever it is called: the path says that already. */
static int verify_inode(struct walk *walk, int dirfd, const char *backing)
{
        struct stat st;

        if (fstatat(dirfd, backing, &st, AT_SYMLINK_NOFOLLOW) < 0)
                report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
        else if (S_ISDIR(st.st_mode))
                return verify_subdir(walk, dirfd, backing);
        else if (S_ISREG(st.st_mode))
                verify_file(walk, dirfd, backing);
        else if (S_ISLNK(st.st_mode))
                verify_symlink(walk, dirfd, backing);
        else
                walk->totals.others++;
        return 0;
}

static int note_bad_name(struct directory *dir, const char *backing, int error)
{
        struct bad_name *bad = reallocarray(dir->bad, dir->bad_count + 1, sizeof(*bad));

        if (!bad)
                return -ENOMEM;
        dir->bad = bad;
        bad += dir->bad_count++;
        snprintf(bad->backing, sizeof(bad->backing), "%s", backing);
        bad->error = error;
        return 0;
}

static int verify_entry(struct walk *walk, struct directory *dir, const char *backing)
{
        char name[TK_NAMES_MAX + 1];
        ssize_t back;
        int r;

        r = tk_verify_names_read(&dir->names, backing, name);
        back = path_push(walk, r == 0 ? name : backing);
        if (back < 0)
                return (int)back;
        if (r < 0)
                r = note_bad_name(dir, backing, r);
        if (r == 0)
                r = verify_inode(walk, dir->names.fd, backing);
        walk->path[back] = '\0';
        return r;
}

static void report_name(struct walk *walk, const struct bad_name *bad, const char *renamed_to,
                        int repair_error)
{
        bool lost = bad->error == -ENOENT;
        struct tk_verify_finding finding = {.kind = lost ? TK_VERIFY_SIBLING : TK_VERIFY_NAME,
                                            .path = walk->path,
                                            .renamed_to = renamed_to,
                                            .repair_error = repair_error,
                                            .error = lost ? -EBADMSG : bad->error};

        walk->totals.findings++;
        walk->callbacks->finding(walk->callbacks->context, &finding);
}

/* After the walk through the directory, which must not meet an entry again by its new name. */
static int settle_name(struct walk *walk, struct directory *dir, const struct bad_name *bad)
{
        TK_CLEANUP(tk_freep) char *renamed_to = NULL;
        bool repair = walk->callbacks->repair;
        char name[TK_NAMES_MAX + 1];
        size_t dir_len = strlen(walk->path);
        ssize_t back;
        int r;

        back = path_push(walk, bad->backing);
        if (back < 0)
                return (int)back;
        r = repair ? tk_verify_names_recover(&dir->names, bad->backing, name) : 0;
        if (repair && r == 0 &&
            asprintf(&renamed_to, "%.*s%s%s", (int)dir_len, walk->path, dir_len > 0 ? "/" : "",
                     name) < 0)
                return -ENOMEM;
        walk->totals.names++;
        walk->totals.repairs += renamed_to != NULL;
        report_name(walk, bad, renamed_to, r);
        walk->path[back] = '\0';
        return 0;
}

static void verify_sibling(struct walk *walk, const struct directory *dir, const char *name)
{
        if (!tk_verify_names_is_orphan(&dir->names, name))
                return;
        walk->totals.orphans++;
        if (walk->callbacks->repair)
                (void)!tk_backing_unlink(dir->names.fd, name, false);
}

static int verify_entries(struct walk *walk, struct directory *dir, DIR *stream)
{
        const struct dirent *entry;
        int r = 0;

        while (r == 0) {
                errno = 0;
                entry = readdir(stream);
                if (!entry)
                        break;
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                if (walk->fs->names_encrypted && tk_names_is_sibling(entry->d_name))
                        verify_sibling(walk, dir, entry->d_name);
                else
                        r = verify_entry(walk, dir, entry->d_name);
        }
        if (r == 0 && errno)
                report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
        for (size_t i = 0; r == 0 && i < dir->bad_count; i++)
                r = settle_name(walk, dir, &dir->bad[i]);
        return r;
}

/* Takes over @fd. Negative only if the walk can't go on. */
static int verify_dir(struct walk *walk, int fd)
{
        struct directory dir = {0};
        DIR *stream = fdopendir(fd);
        int r;

        if (!stream) {
                close(fd);
                return -ENOMEM;
        }
        walk->totals.directories++;
        r = tk_verify_names_begin(walk->fs, fd, &dir.names);
        if (r < 0)
                report_record(walk, TK_VERIFY_DIRECTORY, fd, ".", r == -ENODATA ? -EBADMSG : r);
        if (dir.names.key)
                verify_attributes(walk, fd, tk_dirkey_dek(dir.names.key));
        r = verify_entries(walk, &dir, stream);
        tk_verify_names_end(&dir.names);
        free(dir.bad);
        closedir(stream);
        return r;
}

int tk_verify_run(struct tk_fs *fs, const struct tk_verify_callbacks *callbacks,
                  struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        struct walk walk = {.fs = fs, .callbacks = callbacks};
        int fd;
        int r;

        r = tk_scratch_get(&walk.scratch);
        if (r < 0)
                return r;
        walk.path_max = 256;
        walk.path = calloc(1, walk.path_max);
        if (!walk.path)
                return -ENOMEM;
        fd = openat(fs->rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = fd < 0 ? -errno : verify_dir(&walk, fd);
        free(walk.path);
        *ret_totals = walk.totals;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot walk %s/root: %s",
                                    tk_volume_path(fs->volume), strerror(-r));
        return 0;
}
