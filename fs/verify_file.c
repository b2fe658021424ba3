/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Verify: one file, one symlink, or the attributes of something.
 *
 * Beside a live mount a file is opened as the mount has it open, so that its content is
 * read under the same locks, with what the journal has not put in place yet.
 */

#include "fs/verify_internal.h"

#include "fs/backing.h"
#include "fs/content_internal.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/op_symlink.h"
#include "fs/userattr.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { WRITING_NS = 20 * 1000 * 1000 }; /* longer than a record takes to be written */

static void report_attribute(struct tk_verify_walk *walk, const char *name, int error)
{
        struct tk_verify_finding finding = {
                .kind = TK_VERIFY_ATTRIBUTE, .path = walk->path, .attribute = name, .error = error};

        walk->totals.findings++;
        walk->callbacks->finding(walk->callbacks->context, &finding);
}

/* Attributes and symlinks ----------------------------------------------------------- */

static void verify_attribute(struct tk_verify_walk *walk, int fd, struct tk_userattr *attr,
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

static int verify_attribute_list(struct tk_verify_walk *walk, int fd, const struct tk_secret *dek)
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
void tk_verify_attributes(struct tk_verify_walk *walk, int fd, const struct tk_secret *dek)
{
        int r = walk->fs->names_encrypted ? verify_attribute_list(walk, fd, dek) : 0;

        if (r < 0)
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, r);
}

void tk_verify_symlink(struct tk_verify_walk *walk, int dirfd, const char *name)
{
        TK_AUTOCLOSE int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        char target[PATH_MAX];
        int r;

        walk->totals.others++;
        r = fd < 0 ? -errno : tk_op_open_target(walk->fs, fd, target, sizeof(target));
        if (r < 0)
                tk_verify_report(walk, r == -EBADMSG ? TK_VERIFY_TARGET : TK_VERIFY_UNREADABLE, 0,
                                 0, r);
}

/* Files -------------------------------------------------------------------------- */

/* As a request would read it. */
static int load_block(struct tk_verify_walk *walk, struct tk_openfile *file, uint64_t block)
{
        TK_RANGE_SCOPE(range);
        int r;

        tk_range_hold(&file->ranges, &range, block, block, false);
        r = tk_openfile_need_dek(walk->fs, file);
        return r < 0 ? r
                     : tk_content_load_block(walk->fs, file, walk->scratch, block, file->size,
                                             walk->scratch->head);
}

/* A request's worth of blocks failed: find out which, one by one, and report runs of them. */
static void find_bad_blocks(struct tk_verify_walk *walk, struct tk_openfile *file, uint64_t off,
                            uint64_t end)
{
        uint64_t run_start = 0;
        uint64_t run_len = 0;
        int run_error = 0;

        for (; off < end; off += TK_BLOCK_LEN) {
                uint64_t len = tk_block_valid(tk_block_of(off), end);
                int r = load_block(walk, file, tk_block_of(off));

                if (r < 0)
                        walk->totals.bad_blocks++;
                if (run_len > 0 && r != run_error) {
                        tk_verify_report(walk, TK_VERIFY_BLOCK, run_start, run_len, run_error);
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
                tk_verify_report(walk, TK_VERIFY_BLOCK, run_start, run_len, run_error);
}

static void verify_content(struct tk_verify_walk *walk, struct tk_openfile *file)
{
        uint64_t size = file->size;

        for (uint64_t off = 0; off < size && tk_verify_may_go_on(walk) == 0;
             off += TK_REQUEST_MAX) {
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
                tk_verify_progress(walk);
        }
}

/* Whether one of attribute and copy is lost; @keyattr is then to be done with. */
static bool lost_record(struct tk_verify_walk *walk, int fd, struct tk_keyattr *keyattr)
{
        struct stat st;

        if (fstat(fd, &st) < 0 || tk_keyattr_load(walk->fs, fd, (uint64_t)st.st_size, keyattr) < 0)
                return false; /* reported when the file does not open */
        if (keyattr->attribute_bad || keyattr->copy_bad)
                return true;
        tk_secret_free(keyattr->dek);
        return false;
}

static int restore_record(int dirfd, const char *backing, const struct tk_keyattr *keyattr)
{
        TK_AUTOCLOSE int fd = openat(dirfd, backing, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

        return fd < 0 ? -errno : tk_keyattr_heal(fd, keyattr);
}

/*
 * Whether attribute and copy both serve; one that does not is reported, but no loss yet. A live
 * mount may be writing one just now, and restores a lost one itself when the file is opened.
 */
static void verify_record(struct tk_verify_walk *walk, int dirfd, const char *backing, int fd)
{
        struct tk_verify_finding finding = {
                .kind = TK_VERIFY_RECORD_LOST, .path = walk->path, .error = -EBADMSG};
        const struct timespec moment = {.tv_nsec = WRITING_NS};
        struct tk_keyattr keyattr;

        if (!lost_record(walk, fd, &keyattr))
                return;
        if (walk->callbacks->live) {
                tk_secret_free(keyattr.dek);
                nanosleep(&moment, NULL);
                if (!lost_record(walk, fd, &keyattr))
                        return;
        }
        if (walk->callbacks->repair && !walk->callbacks->live)
                finding.repair_error = restore_record(dirfd, backing, &keyattr);
        finding.restored = walk->callbacks->repair && finding.repair_error == 0;
        walk->totals.restored += finding.restored;
        tk_secret_free(keyattr.dek);
        tk_verify_hand_out(walk, &finding);
}

/* A file that can't be written there ends the walk: there is something for its user to do. */
static void salvage(struct tk_verify_walk *walk, struct tk_openfile *file)
{
        int r = tk_verify_salvage(walk, file);

        walk->totals.salvaged += r == 0;
        if (r < 0 && walk->end == 0)
                walk->end = tk_fault_set(walk->fault, TK_FAULT_PERMISSION, r,
                                         "cannot write '%s' to the directory for salvaged files: "
                                         "%s",
                                         walk->path, strerror(-r));
}

/* @file is open, alone or as the mount has it. */
static void verify_open(struct tk_verify_walk *walk, struct tk_openfile *file, int fd)
{
        uint64_t before = walk->totals.findings;
        TK_RANGE_SCOPE(range);

        if (file->seal_error < 0)
                tk_verify_report(walk, TK_VERIFY_SEAL, 0, file->size, file->seal_error);
        verify_content(walk, file);
        if (walk->callbacks->salvage && walk->totals.findings > before)
                salvage(walk, file);
        /* Holding a range keeps the key from being wiped. */
        tk_range_hold(&file->ranges, &range, 0, 0, false);
        if (tk_openfile_need_dek(walk->fs, file) == 0)
                tk_verify_attributes(walk, fd, file->dek);
}

static void verify_alone(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                         const char *backing, int fd)
{
        TK_AUTOCLOSE int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        struct tk_openfile *file;
        int r;

        if (own < 0) {
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
                return;
        }
        r = tk_openfile_load_alone(walk->fs, TK_TAKE_FD(own), &file);
        if (r < 0) {
                tk_verify_report_record(walk, TK_VERIFY_RECORD, dir->names.fd, backing, r);
                return;
        }
        verify_open(walk, file, fd);
        tk_openfile_free_alone(file);
}

/* What the mount can't open nobody writes: it is looked at as without a mount. */
static void verify_served(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                          const char *backing, int fd)
{
        struct tk_openfile *file = NULL;
        struct tk_entry entry;
        struct stat st;
        int r;

        r = tk_op_lookup_in(walk->fs, dir->served, backing, &entry);
        if (r < 0) {
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, r);
                return;
        }
        r = fstat(fd, &st) < 0 || st.st_ino != tk_inode_number(entry.inode)
                    ? -ESTALE
                    : tk_openfile_get(walk->fs, entry.inode, false, &file);
        if (r == 0) {
                verify_open(walk, file, fd);
                tk_openfile_put(walk->fs, file);
        } else if (!tk_verify_is_none(walk, r)) {
                verify_alone(walk, dir, backing, fd);
        }
        tk_inode_forget(walk->fs->inodes, entry.inode, 1);
}

void tk_verify_file(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                    const char *backing)
{
        TK_AUTOCLOSE int fd =
                openat(dir->names.fd, backing, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

        walk->totals.files++;
        if (fd < 0) {
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
                return;
        }
        verify_record(walk, dir->names.fd, backing, fd);
        if (dir->served)
                verify_served(walk, dir, backing, fd);
        else
                verify_alone(walk, dir, backing, fd);
        tk_verify_progress(walk);
}
