/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Verify: walk the tree and authenticate everything in it.
 *
 * The walk goes by descriptors, depth first, and reads with the same code that
 * serves a mount.
 */

#include "fs/verify_internal.h"

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/revoke.h"
#include "fs/scratch.h"
#include "fs/sibling.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Findings -------------------------------------------------------------------------- */

static bool is_about_keys(int error)
{
        return error == -ENOKEY || error == -EKEYREVOKED || error == -EKEYEXPIRED;
}

bool tk_verify_is_none(struct tk_verify_walk *walk, int error)
{
        if (!walk->callbacks->live)
                return false;
        if (is_about_keys(error) && walk->end == 0)
                walk->end = tk_revoke_gate(walk->fs, false);
        return walk->end < 0 || error == -ENOENT || error == -ESTALE;
}

int tk_verify_may_go_on(struct tk_verify_walk *walk)
{
        if (walk->end == 0 && walk->callbacks->stop && atomic_load(walk->callbacks->stop))
                walk->end = -ECANCELED;
        if (walk->end == 0 && walk->callbacks->live)
                walk->end = tk_revoke_gate(walk->fs, false);
        return walk->end;
}

void tk_verify_hand_out(struct tk_verify_walk *walk, const struct tk_verify_finding *finding)
{
        walk->totals.findings++;
        walk->callbacks->finding(walk->callbacks->context, finding);
}

void tk_verify_report(struct tk_verify_walk *walk, enum tk_verify_kind kind, uint64_t off,
                      uint64_t len, int error)
{
        struct tk_verify_finding finding = {
                .kind = kind, .path = walk->path, .offset = off, .length = len, .error = error};

        if (!tk_verify_is_none(walk, error))
                tk_verify_hand_out(walk, &finding);
}

/* The KEK version that the record of @name in @dirfd names, if it is a retired one, else 0. */
static uint16_t retired_version(struct tk_verify_walk *walk, int dirfd, const char *name,
                                bool with_copy)
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
void tk_verify_report_record(struct tk_verify_walk *walk, enum tk_verify_kind kind, int dirfd,
                             const char *name, int error)
{
        struct tk_verify_finding finding = {.kind = kind, .path = walk->path, .error = error};

        if (tk_verify_is_none(walk, error))
                return;
        finding.retired = retired_version(walk, dirfd, name, kind == TK_VERIFY_RECORD);
        walk->totals.records++;
        tk_verify_hand_out(walk, &finding);
}

void tk_verify_progress(const struct tk_verify_walk *walk)
{
        if (walk->callbacks->progress)
                walk->callbacks->progress(walk->callbacks->context, &walk->totals);
}

/* Directories ---------------------------------------------------------------------- */

/* Append @name to the path. Returns the length to go back to, or -ENOMEM. */
static ssize_t path_push(struct tk_verify_walk *walk, const char *name)
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

static int verify_dir(struct tk_verify_walk *walk, int fd, struct tk_inode *inode);

static int verify_subdir(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                         const char *backing)
{
        struct tk_entry entry = {0};
        int fd = openat(dir->names.fd, backing, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int r = fd < 0 ? -errno : 0;

        if (r == 0 && dir->served)
                r = tk_op_lookup_in(walk->fs, dir->served, backing, &entry);
        if (r < 0) {
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, r);
                if (fd >= 0)
                        close(fd);
                return 0;
        }
        r = verify_dir(walk, fd, entry.inode);
        if (entry.inode)
                tk_inode_forget(walk->fs->inodes, entry.inode, 1);
        return r;
}

/* By its backing name, whatever it is called: the path says that already. */
static int verify_inode(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                        const char *backing)
{
        struct stat st;

        if (fstatat(dir->names.fd, backing, &st, AT_SYMLINK_NOFOLLOW) < 0)
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
        else if (S_ISDIR(st.st_mode))
                return verify_subdir(walk, dir, backing);
        else if (S_ISREG(st.st_mode))
                tk_verify_file(walk, dir, backing);
        else if (S_ISLNK(st.st_mode))
                tk_verify_symlink(walk, dir->names.fd, backing);
        else
                walk->totals.others++;
        return 0;
}

static bool is_there(int dirfd, const char *backing)
{
        struct stat st;

        return fstatat(dirfd, backing, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int note_bad_name(struct tk_verify_dir *dir, const char *backing, int error)
{
        struct tk_verify_bad_name *bad = reallocarray(dir->bad, dir->bad_count + 1, sizeof(*bad));

        if (!bad)
                return -ENOMEM;
        dir->bad = bad;
        bad += dir->bad_count++;
        snprintf(bad->backing, sizeof(bad->backing), "%s", backing);
        bad->error = error;
        return 0;
}

static int verify_entry(struct tk_verify_walk *walk, struct tk_verify_dir *dir, const char *backing)
{
        char name[TK_NAMES_MAX + 1];
        ssize_t back;
        int r;

        r = tk_verify_names_read(&dir->names, backing, name);
        if (r < 0 && !is_there(dir->names.fd, backing))
                return 0; /* removed meanwhile, its sibling with it */
        back = path_push(walk, r == 0 ? name : backing);
        if (back < 0)
                return (int)back;
        if (r < 0)
                r = note_bad_name(dir, backing, r);
        if (r == 0)
                r = verify_inode(walk, dir, backing);
        walk->path[back] = '\0';
        return r;
}

static void report_name(struct tk_verify_walk *walk, const struct tk_verify_bad_name *bad,
                        const char *renamed_to, int repair_error)
{
        bool lost = bad->error == -ENOENT;
        struct tk_verify_finding finding = {.kind = lost ? TK_VERIFY_SIBLING : TK_VERIFY_NAME,
                                            .path = walk->path,
                                            .renamed_to = renamed_to,
                                            .repair_error = repair_error,
                                            .error = lost ? -EBADMSG : bad->error};

        tk_verify_hand_out(walk, &finding);
}

/* As a rename: a rotation that runs beside it must not miss the entry. */
static int recover_name(struct tk_verify_walk *walk, struct tk_verify_dir *dir, const char *backing,
                        char ret_name[TK_NAMES_MAX + 1])
{
        TK_EPOCH_SCOPE(&walk->fs->changes);

        walk->fs->rotate_moves++;
        return tk_verify_names_recover(&dir->names, backing, ret_name);
}

/* After the walk through the directory, which must not meet an entry again by its new name. */
static int settle_name(struct tk_verify_walk *walk, struct tk_verify_dir *dir,
                       const struct tk_verify_bad_name *bad)
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
        r = repair ? recover_name(walk, dir, bad->backing, name) : 0;
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

static void verify_sibling(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                           const char *name)
{
        if (!tk_verify_names_is_orphan(&dir->names, name))
                return;
        walk->totals.orphans++;
        if (walk->callbacks->repair && !walk->callbacks->live)
                (void)!tk_backing_unlink(dir->names.fd, name, false);
}

static int verify_entries(struct tk_verify_walk *walk, struct tk_verify_dir *dir, DIR *stream)
{
        const struct dirent *entry;
        int r = 0;

        while (r == 0 && (r = tk_verify_may_go_on(walk)) == 0) {
                errno = 0;
                entry = readdir(stream);
                if (!entry)
                        break;
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                if (walk->fs->names_encrypted &&
                    tk_sibling_is(dir->names.fd, entry->d_name, entry->d_type))
                        verify_sibling(walk, dir, entry->d_name);
                else
                        r = verify_entry(walk, dir, entry->d_name);
        }
        if (r == 0 && errno)
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, -errno);
        for (size_t i = 0; r == 0 && i < dir->bad_count; i++)
                r = settle_name(walk, dir, &dir->bad[i]);
        return r;
}

/* The entries of the directory that @dir and @stream were begun with. */
static int verify_begun(struct tk_verify_walk *walk, struct tk_verify_dir *dir, DIR *stream)
{
        int fd = dir->names.fd;
        int r;

        r = tk_verify_names_begin(walk->fs, fd, &dir->names);
        if (r < 0)
                tk_verify_report_record(walk, TK_VERIFY_DIRECTORY, fd, ".",
                                        r == -ENODATA ? -EBADMSG : r);
        if (dir->names.key)
                tk_verify_attributes(walk, fd, tk_dirkey_dek(dir->names.key));
        r = verify_entries(walk, dir, stream);
        tk_verify_names_end(&dir->names);
        free(dir->bad);
        return r;
}

/* Takes over @fd; @inode is the same as the mount has it, or NULL. Negative only if the walk can't
 * go on. */
static int verify_dir(struct tk_verify_walk *walk, int fd, struct tk_inode *inode)
{
        struct tk_verify_dir dir = {.names.fd = fd};
        DIR *stream = fdopendir(fd);
        int r = 0;

        if (!stream) {
                close(fd);
                return -ENOMEM;
        }
        walk->totals.directories++;
        if (inode)
                r = tk_op_opendir(walk->fs, inode, &dir.served);
        if (r < 0)
                tk_verify_report(walk, TK_VERIFY_UNREADABLE, 0, 0, r);
        else
                r = verify_begun(walk, &dir, stream);
        if (dir.served)
                tk_op_releasedir(dir.served);
        closedir(stream);
        return r < 0 && walk->end == 0 && r != -ENOMEM ? 0 : r;
}

int tk_verify_run(struct tk_fs *fs, const struct tk_verify_callbacks *callbacks,
                  struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        struct tk_verify_walk walk = {.fs = fs, .callbacks = callbacks, .fault = fault};
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
        r = fd < 0 ? -errno
                   : verify_dir(&walk, fd, callbacks->live ? tk_inode_root(fs->inodes) : NULL);
        *ret_totals = walk.totals;
        free(walk.path);
        if (is_about_keys(r))
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, r,
                                    "stopped: the keys of %s were withdrawn meanwhile",
                                    tk_volume_path(fs->volume));
        if (r < 0 && fault->kind == TK_FAULT_NONE)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot walk %s/root: %s",
                                    tk_volume_path(fs->volume), strerror(-r));
        return r;
}
