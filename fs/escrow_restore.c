/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Escrow restore.
 *
 * The tree and the escrow come in the same order and are merged. A record is put back
 * only where the tree's own does not serve, and only if it opens something of the file:
 * so an old escrow, or one whose paths mean other files by now, does no harm. Directories
 * that are left are then looked for in the whole escrow: they may have been moved.
 */

#include "fs/escrow.h"

#include "fs/backing.h"
#include "fs/dirkey.h"
#include "fs/escrow_moved.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/lift.h"
#include "fs/treewalk.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

struct restore {
        struct tk_fs *fs;
        struct tk_escrow_moved *moved;
        struct tk_escrow_reader *escrow;
        const struct tk_escrow_entry *next; /* of escrow; NULL: at its end */
        const struct tk_escrow_restore_options *options;
        struct tk_escrow_restore_totals totals;
};

/* A file or directory of the tree. */
struct place {
        struct restore *restore;
        const char *path;
        int fd;
        bool directory;
        uint64_t size;                       /* of the backing file */
        const struct tk_escrow_entry *entry; /* what the escrow has of it; NULL: nothing */
};

static void report(struct restore *restore, enum tk_escrow_outcome outcome, const char *path,
                   int error)
{
        restore->totals.count[outcome]++;
        restore->options->found(restore->options->context, outcome, path, error);
}

static int advance(struct restore *restore)
{
        int r = tk_escrow_reader_next(restore->escrow, &restore->next);

        if (r <= 0)
                restore->next = NULL;
        return r < 0 ? r : 0;
}

/* What the escrow has before @path (NULL: all) is not in the tree. */
static int drain(struct restore *restore, const char *path)
{
        int r = 0;

        while (r == 0 && restore->next &&
               (!path || tk_treewalk_compare(restore->next->path, path) < 0)) {
                report(restore, TK_ESCROW_UNMATCHED, restore->next->path, 0);
                r = advance(restore);
        }
        return r;
}

/* Whether @r is about the keys of all files, so that going on would be in vain. */
static bool is_about_keys(int r)
{
        return r == -ENOKEY || r == -EKEYREVOKED || r == -EKEYEXPIRED;
}

/* One place failed with @r: it is said, and the walk goes on. */
static int skip(struct restore *restore, const char *path, int r)
{
        if (is_about_keys(r) || r == -ENOMEM)
                return r;
        report(restore, TK_ESCROW_FAILED, path, r);
        return 0;
}

/* The KEK version that the attribute of @place names; 0 if it is none that could be right. */
static uint16_t version_in_tree(const struct place *place)
{
        struct tk_record record = {0};
        uint16_t version = 0;
        ssize_t n = tk_backing_getxattr(place->fd, TK_KEYATTR_NAME, record.bytes, TK_RECORD_MAX);

        if (n <= 0 || tk_record_kek_version(record.bytes, (size_t)n, &version) < 0)
                return 0;
        return version;
}

static bool is_newer_in_tree(const struct place *place)
{
        return version_in_tree(place) > tk_volume_kek_count(place->restore->fs->volume);
}

/* Whether the escrow's record is under a retired KEK version, which is noted. */
static bool is_retired(const struct place *place)
{
        struct restore *restore = place->restore;
        struct tk_volume *volume = restore->fs->volume;
        const struct tk_escrow_entry *entry = place->entry;
        uint16_t version = 0;

        if (tk_record_kek_version(entry->record.bytes, entry->record_len, &version) < 0 ||
            version > tk_volume_kek_count(volume) || tk_volume_kek_at(volume, version - 1U).active)
                return false;
        if (version > restore->totals.retired_version)
                restore->totals.retired_version = version;
        return true;
}

/* Whether the escrow's record opens something of the directory: 1 or 0, or a negative errno. */
static int directory_fits(const struct place *place, const struct tk_record *record)
{
        struct tk_fs *fs = place->restore->fs;
        struct tk_dirkey *key;
        int r;

        r = tk_dirkey_from_record(fs, record, &key);
        if (r < 0)
                return r;
        r = tk_dirkey_fits(fs, place->fd, key);
        tk_dirkey_put(fs, key);
        return r;
}

static int file_fits(const struct place *place, const struct tk_record *record)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_fs *fs = place->restore->fs;
        int r = tk_keyring_unwrap(fs->keyring, record, &dek);

        return r < 0 ? r : tk_keyattr_fits(fs, place->fd, place->size, dek);
}

/* TK_ESCROW_RESTORED if the escrow's record serves, or why it does not; or a negative errno. */
static int judge(const struct place *place)
{
        int r;

        if (!place->entry)
                return TK_ESCROW_MISSING;
        r = place->directory ? directory_fits(place, &place->entry->record)
                             : file_fits(place, &place->entry->record);
        if (r == -EBADMSG || r == -ENOTSUP)
                return is_retired(place) ? TK_ESCROW_RETIRED : TK_ESCROW_BAD;
        return r < 0 ? r : r > 0 ? TK_ESCROW_RESTORED : TK_ESCROW_MISFIT;
}

/* Rewrite the file's copy from its attribute, if it needs that. */
static int heal_copy(const struct place *place)
{
        struct tk_keyattr keyattr;
        TK_AUTOCLOSE int fd = -1;
        int r;

        if (place->directory || place->size == 0)
                return 0;
        r = tk_keyattr_load(place->restore->fs, place->fd, place->size, &keyattr);
        if (r < 0)
                return r;
        tk_secret_free(keyattr.dek);
        if (!keyattr.copy_bad && !keyattr.attribute_bad)
                return 0;
        fd = tk_backing_reopen(place->fd, O_RDWR);
        return fd < 0 ? fd : tk_keyattr_heal(fd, &keyattr);
}

/* A directory that was moved may have its record elsewhere in the escrow. */
static int leave(const struct place *place, int why)
{
        struct restore *restore = place->restore;
        int r = -ENODATA;

        if (place->directory && restore->fs->names_encrypted)
                r = tk_escrow_moved_add(restore->moved, place->path, place->fd, why);
        if (r == -ENODATA || r == -ENOSPC) {
                report(restore, (enum tk_escrow_outcome)why, place->path, 0);
                r = 0;
        }
        return r;
}

/* The tree's record does not serve, or is to be replaced. */
static int put_back(const struct place *place)
{
        struct restore *restore = place->restore;
        int r;

        if (!restore->options->force && is_newer_in_tree(place)) {
                report(restore, TK_ESCROW_NEWER, place->path, 0);
                return 0;
        }
        r = judge(place);
        if (r != TK_ESCROW_RESTORED)
                return r < 0 ? r : leave(place, r);
        r = tk_keyattr_store(place->fd, &place->entry->record);
        if (r == 0)
                r = heal_copy(place);
        if (r == 0)
                report(restore, TK_ESCROW_RESTORED, place->path, 0);
        return r;
}

/* The record of a file that has one which serves, in the attribute or in its copy. */
static int heal(const struct place *place, const struct tk_keyattr *keyattr)
{
        TK_AUTOCLOSE int fd = -1;
        int r;

        if (!keyattr->attribute_bad && !keyattr->copy_bad)
                return 0;
        fd = tk_backing_reopen(place->fd, O_RDWR);
        r = fd < 0 ? fd : tk_keyattr_heal(fd, keyattr);
        if (r == 0)
                report(place->restore, TK_ESCROW_FROM_COPY, place->path, 0);
        return r;
}

static int restore_file(struct place *place)
{
        struct tk_fs *fs = place->restore->fs;
        bool force = place->restore->options->force && place->entry;
        struct tk_keyattr keyattr;
        int r;

        if (!force) {
                r = tk_keyattr_is_sound(fs, place->fd, place->size);
                if (r != 0)
                        return r < 0 ? r : 0;
        }
        r = tk_keyattr_load(fs, place->fd, place->size, &keyattr);
        if (r == 0) {
                tk_secret_free(keyattr.dek);
                if (!force)
                        return heal(place, &keyattr);
        }
        if (r < 0 && r != -EBADMSG && r != -ENODATA)
                return r;
        return r == -ENODATA && !place->entry ? 0 : put_back(place);
}

/* Whether the record in the tree serves: 1 or 0, or a negative errno. */
static int directory_serves(const struct place *place, const struct tk_record *record)
{
        struct tk_fs *fs = place->restore->fs;
        int r = tk_keyring_check(fs->keyring, record);

        /* To see more the KMS would have to be asked for every directory. */
        if (r <= 0 || tk_volume_dek_wrap(fs->volume) == TK_DEK_WRAP_KMS)
                return r;
        return directory_fits(place, record);
}

static int restore_directory(struct place *place)
{
        struct tk_fs *fs = place->restore->fs;
        struct tk_record record = {0};
        ssize_t n = tk_backing_getxattr(place->fd, TK_KEYATTR_NAME, record.bytes, TK_RECORD_MAX);
        int r = 0;

        if (n < 0 && n != -ENODATA && n != -ERANGE)
                return (int)n;
        if (n > 0 && (size_t)n == tk_record_len(&record))
                r = directory_serves(place, &record);
        if (r == 0 && n == -ENODATA && !place->entry)
                r = fs->names_encrypted ? tk_dirkey_is_bare(place->fd) : 1; /* needs none */
        if (r < 0 || (r > 0 && !(place->restore->options->force && place->entry)))
                return r < 0 ? r : 0;
        return put_back(place);
}

static int visit_place(struct restore *restore, const struct tk_treewalk_entry *found,
                       const struct tk_escrow_entry *entry)
{
        int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
        TK_AUTOCLOSE int fd = openat(found->dirfd, found->name, flags);
        struct place place = {.restore = restore, .path = found->path, .entry = entry};
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        place.fd = fd;
        place.directory = S_ISDIR(st.st_mode);
        place.size = (uint64_t)st.st_size;
        return place.directory ? restore_directory(&place) : restore_file(&place);
}

/* The same without privilege, where the mode forbids the owner something. */
static int visit_lifted(struct restore *restore, const struct tk_treewalk_entry *found,
                        const struct tk_escrow_entry *entry)
{
        TK_AUTOCLOSE int fd = openat(found->dirfd, found->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct tk_lift lift;
        int ended;
        int r;

        if (fd < 0)
                return -errno;
        r = tk_lift_begin(restore->fs, fd, S_ISDIR(found->st.st_mode) ? S_IRWXU : S_IRUSR | S_IWUSR,
                          &lift);
        if (r < 0)
                return r;
        r = visit_place(restore, found, entry);
        ended = tk_lift_end(&lift);
        return r < 0 ? r : ended;
}

static int visit(void *context, const struct tk_treewalk_entry *found)
{
        struct restore *restore = context;
        const struct tk_escrow_progress *progress = &restore->options->progress;
        const struct tk_escrow_entry *next;
        bool directory = S_ISDIR(found->st.st_mode);
        bool same_path;
        int r;

        *(directory ? &restore->totals.directories : &restore->totals.files) += 1;
        r = drain(restore, found->path);
        if (r < 0)
                return r;
        next = restore->next;
        same_path = next && strcmp(next->path, found->path) == 0;
        if (!same_path || next->directory != directory)
                next = NULL;
        r = visit_place(restore, found, next);
        if (r == -EACCES)
                r = visit_lifted(restore, found, next);
        if (r < 0)
                r = skip(restore, found->path, r);
        if (r == 0 && same_path)
                r = advance(restore);
        if (progress->update)
                progress->update(progress->context,
                                 restore->totals.files + restore->totals.directories);
        return r;
}

static int cannot_look(void *context, const char *path, int error)
{
        return skip(context, path, error);
}

/* Moved directories ------------------------------------------------------- */

static int open_beneath(int rootfd, const char *path)
{
        struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                               .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
        int fd = (int)syscall(SYS_openat2, rootfd, path[0] ? path : ".", &how, sizeof(how));

        return fd < 0 ? -errno : fd;
}

static int put_moved_back(void *context, const char *path, const struct tk_escrow_entry *entry)
{
        struct restore *restore = context;
        TK_AUTOCLOSE int fd = open_beneath(restore->fs->rootfd, path);
        int r;

        r = fd < 0 ? fd : tk_keyattr_store(fd, &entry->record);
        if (r < 0)
                return skip(restore, path, r);
        report(restore, TK_ESCROW_RESTORED, path, 0);
        return 0;
}

static void report_left(void *context, const char *path, int why)
{
        report(context, (enum tk_escrow_outcome)why, path, 0);
}

static int restore_moved(struct restore *restore)
{
        int r = tk_escrow_moved_search(restore->moved, restore->escrow, put_moved_back, restore);

        if (r == 0)
                tk_escrow_moved_left(restore->moved, report_left, restore);
        return r;
}

uint64_t tk_escrow_unusable(const struct tk_escrow_restore_totals *totals)
{
        return totals->count[TK_ESCROW_MISSING] + totals->count[TK_ESCROW_MISFIT] +
               totals->count[TK_ESCROW_BAD] + totals->count[TK_ESCROW_RETIRED] +
               totals->count[TK_ESCROW_NEWER] + totals->count[TK_ESCROW_FAILED];
}

int tk_escrow_restore(struct tk_fs *fs, struct tk_escrow_reader *escrow,
                      const struct tk_escrow_restore_options *options,
                      struct tk_escrow_restore_totals *ret_totals, struct tk_fault *fault)
{
        struct restore restore = {.fs = fs, .escrow = escrow, .options = options};
        const struct tk_treewalk_callbacks callbacks = {
                .visit = visit, .failed = cannot_look, .context = &restore};
        int r;

        r = tk_escrow_moved_new(fs, &restore.moved);
        if (r == 0)
                r = advance(&restore);
        if (r == 0)
                r = tk_treewalk_run(fs->rootfd, &callbacks);
        if (r == 0)
                r = drain(&restore, NULL);
        if (r == 0)
                r = restore_moved(&restore);
        if (r == 0 && syncfs(fs->rootfd) < 0)
                r = -errno;
        tk_escrow_moved_free(restore.moved);
        *ret_totals = restore.totals;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot restore the key records "
                                    "of %s: %s",
                                    tk_volume_path(fs->volume), strerror(-r));
        return 0;
}
