/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Escrow restore.
 *
 * The tree and the escrow come in the same order and are merged. A record is put back
 * only where the tree's own does not serve, and only if it opens something of the file:
 * so an old escrow, or one whose paths mean other files by now, does no harm.
 */

#include "fs/escrow.h"

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/treewalk.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct restore {
        struct tk_fs *fs;
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

/* The DEK of the escrow's record; 1 if it is not usable, which has been reported. */
static int unwrap(const struct place *place, struct tk_secret **ret_dek)
{
        struct restore *restore = place->restore;
        const struct tk_escrow_entry *entry = place->entry;
        struct tk_volume *volume = restore->fs->volume;
        uint16_t version = 0;
        int r;

        r = tk_record_kek_version(entry->record.bytes, entry->record_len, &version);
        if (r == 0)
                r = tk_keyring_unwrap(restore->fs->keyring, &entry->record, ret_dek);
        if (r != -EBADMSG && r != -ENOTSUP)
                return r;
        if (version > 0 && version <= tk_volume_kek_count(volume) &&
            !tk_volume_kek_at(volume, version - 1U).active) {
                if (version > restore->totals.retired_version)
                        restore->totals.retired_version = version;
                report(restore, TK_ESCROW_RETIRED, place->path, 0);
        } else {
                report(restore, TK_ESCROW_BAD, place->path, 0);
        }
        return 1;
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

static int put_back(const struct place *place)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct restore *restore = place->restore;
        int r;

        if (!restore->options->force && is_newer_in_tree(place)) {
                report(restore, TK_ESCROW_NEWER, place->path, 0);
                return 0;
        }
        r = unwrap(place, &dek);
        if (r != 0)
                return r < 0 ? r : 0;
        r = place->directory ? 1 : tk_keyattr_fits(restore->fs, place->fd, place->size, dek);
        if (r < 0)
                return r;
        if (r == 0) {
                report(restore, TK_ESCROW_MISFIT, place->path, 0);
                return 0;
        }
        r = tk_keyattr_store(place->fd, &place->entry->record);
        if (r == 0)
                r = heal_copy(place);
        if (r == 0)
                report(restore, TK_ESCROW_RESTORED, place->path, 0);
        return r;
}

static int report_missing(const struct place *place)
{
        report(place->restore, is_newer_in_tree(place) ? TK_ESCROW_NEWER : TK_ESCROW_MISSING,
               place->path, 0);
        return 0;
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
        if (place->entry)
                return put_back(place);
        return r == -ENODATA ? 0 : report_missing(place);
}

static int restore_directory(struct place *place)
{
        struct tk_record record = {0};
        ssize_t n = tk_backing_getxattr(place->fd, TK_KEYATTR_NAME, record.bytes, TK_RECORD_MAX);
        int r = 0;

        if (n < 0 && n != -ENODATA && n != -ERANGE)
                return (int)n;
        if (n > 0 && (size_t)n == tk_record_len(&record))
                r = tk_keyring_check(place->restore->fs->keyring, &record);
        if (r < 0)
                return r;
        if (r > 0 && !(place->restore->options->force && place->entry))
                return 0;
        if (place->entry)
                return put_back(place);
        return n == -ENODATA ? 0 : report_missing(place);
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
        *(place.directory ? &restore->totals.directories : &restore->totals.files) += 1;
        return place.directory ? restore_directory(&place) : restore_file(&place);
}

static int visit(void *context, const struct tk_treewalk_entry *found)
{
        struct restore *restore = context;
        const struct tk_escrow_progress *progress = &restore->options->progress;
        const struct tk_escrow_entry *next;
        bool same_path;
        int r;

        r = drain(restore, found->path);
        if (r < 0)
                return r;
        next = restore->next;
        same_path = next && strcmp(next->path, found->path) == 0;
        r = visit_place(restore, found,
                        same_path && next->directory == S_ISDIR(found->st.st_mode) ? next : NULL);
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

        r = advance(&restore);
        if (r == 0)
                r = tk_treewalk_run(fs->rootfd, &callbacks);
        if (r == 0)
                r = drain(&restore, NULL);
        if (r == 0 && syncfs(fs->rootfd) < 0)
                r = -errno;
        *ret_totals = restore.totals;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot restore the key records "
                                    "of %s: %s",
                                    tk_volume_path(fs->volume), strerror(-r));
        return 0;
}
