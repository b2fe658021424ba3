/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations on names.
 *
 * New files are made under the caller's identity. A file gets its key record
 * before its name is handed out; a crash in between leaves a file without bytes
 * and without record, which is no damage.
 */

#include "base/plant.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/lift.h"
#include "fs/names.h"
#include "fs/op.h"
#include "fs/op_symlink.h"
#include "fs/rewrap.h"
#include "fs/sibling.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

/* One name in one directory, for the length of an operation. */
struct place {
        struct tk_inode *parent;
        struct tk_inode_dir dir;
        int fd; /* of `dir` */
        struct tk_name name;
};

static void place_done(struct place *place)
{
        tk_inode_dir_put(&place->dir);
}

#define PLACE_SCOPE(var) TK_CLEANUP(place_done) struct place var = {.dir = {.fd = -1}}

static int place_open(struct tk_fs *fs, struct tk_inode *parent, struct place *place)
{
        int r = tk_inode_dir_get(fs->inodes, parent, &place->dir);

        place->parent = parent;
        place->fd = place->dir.fd;
        return r;
}

/* The place of an entry that is there. */
static int place_find(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                      struct place *place)
{
        int r = place_open(fs, parent, place);

        return r < 0 ? r : tk_names_find(fs, parent, place->fd, name, &place->name);
}

/* The place of an entry that is to be made. */
static int place_need(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                      struct place *place)
{
        int r = place_open(fs, parent, place);

        return r < 0 ? r : tk_names_need(fs, parent, place->fd, name, &place->name);
}

/*
 * Around the making of an entry, and around its failure, for the sibling of a long
 * name. Nothing that may wait for a KMS goes in between.
 */
static int add_begin(struct tk_fs *fs, const struct place *place)
{
        int r;

        tk_sibling_lock(fs, &place->name, NULL);
        r = tk_sibling_add(fs, place->fd, &place->name);
        if (r < 0)
                tk_sibling_unlock(fs, &place->name, NULL);
        return r;
}

/* Returns @r, how it went. */
static int add_end(struct tk_fs *fs, const struct place *place, int r)
{
        if (r < 0)
                tk_sibling_tidy(place->fd, &place->name);
        tk_sibling_unlock(fs, &place->name, NULL);
        return r;
}

static int lookup_at(struct tk_fs *fs, const struct place *place, struct tk_entry *ret_entry)
{
        int r;

        r = tk_lift_stat(fs, place->fd, place->name.backing, &ret_entry->st);
        if (r < 0)
                return r;
        r = tk_inode_lookup(fs->inodes, place->parent, place->fd, place->name.backing,
                            &ret_entry->st, &ret_entry->inode);
        if (r < 0)
                return r;
        return tk_op_entry_present(fs, ret_entry);
}

/* What was just made can't be had, for @error, which is returned: it goes again. */
static int unmake(struct tk_fs *fs, const struct place *place, bool directory, int error)
{
        tk_sibling_lock(fs, &place->name, NULL);
        (void)!tk_backing_unlink(place->fd, place->name.backing, directory);
        tk_sibling_tidy(place->fd, &place->name);
        tk_sibling_unlock(fs, &place->name, NULL);
        return error;
}

static int lookup_made(struct tk_fs *fs, const struct place *place, bool directory,
                       struct tk_entry *ret_entry)
{
        int r = lookup_at(fs, place, ret_entry);

        return r < 0 ? unmake(fs, place, directory, r) : 0;
}

int tk_op_lookup(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                 struct tk_entry *ret_entry)
{
        PLACE_SCOPE(place);
        int r;

        r = place_find(fs, parent, name, &place);
        return r < 0 ? r : lookup_at(fs, &place, ret_entry);
}

/*
 * Without privilege the owner needs write permission to set the key record: what is
 * not to have it gets its mode afterwards.
 */
static mode_t lift_of_owner(void)
{
        static _Atomic int privileged = -1; /* asked once: it does not change */

        if (privileged < 0)
                privileged = geteuid() == 0;
        return privileged ? 0 : S_IRUSR | S_IWUSR;
}

/* Give @fd, made with @lift beside what @caller asked for, the mode it is to have. */
static int lower_mode(int fd, mode_t mode, const struct tk_caller *caller, mode_t lift)
{
        mode_t wanted = mode & ~caller->umask & lift;
        struct stat st;

        if (wanted == lift)
                return 0;
        if (fstat(fd, &st) < 0)
                return -errno;
        return tk_backing_chmod(fd, (st.st_mode & 07777 & ~lift) | wanted);
}

/* The record of what was just made, and then its mode; without them it goes again. */
static int complete(int fd, const struct place *place, mode_t mode, const struct tk_caller *caller,
                    const struct tk_record *record)
{
        int r;

        r = TK_PLANT(TK_PLANT_LATE_RECORD) ? 0 : tk_keyattr_store(fd, record);
        if (r == 0)
                r = lower_mode(fd, mode, caller, lift_of_owner());
        if (r < 0)
                (void)!tk_backing_unlink(place->fd, place->name.backing, S_ISDIR(mode));
        return r;
}

/* Make things as @caller, but so that their owner can set the key record. */
static void become_maker(const struct tk_caller *caller)
{
        struct tk_caller maker = *caller;

        maker.umask &= ~lift_of_owner();
        tk_creds_become(&maker);
}

/*
 * A new regular file with its key record, open; its DEK and record are returned
 * as well.
 */
static int make_file(struct tk_fs *fs, const struct place *place, mode_t mode,
                     const struct tk_caller *caller, struct tk_secret **ret_dek,
                     struct tk_record *ret_record)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_AUTOCLOSE int fd = -1;
        int r;

        r = tk_keyattr_make(fs, &dek, ret_record);
        if (r < 0)
                return r;
        become_maker(caller);
        r = add_begin(fs, place);
        if (r < 0)
                return r;
        fd = tk_backing_create(place->fd, place->name.backing, mode | lift_of_owner());
        r = fd < 0 ? fd : complete(fd, place, mode, caller, ret_record);
        r = add_end(fs, place, r);
        if (r < 0)
                return r;
        *ret_dek = TK_TAKE(dek);
        return TK_TAKE_FD(fd);
}

int tk_op_create(struct tk_fs *fs, struct tk_inode *parent, const char *name, mode_t mode,
                 int flags, const struct tk_caller *caller, struct tk_entry *ret_entry,
                 struct tk_openfile **ret_file)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        PLACE_SCOPE(place);
        TK_AUTOCLOSE int fd = -1;
        struct tk_record record;
        int r;

        r = place_need(fs, parent, name, &place);
        if (r < 0)
                return r;
        fd = make_file(fs, &place, mode, caller, &dek, &record);
        if (fd < 0)
                return fd;
        r = fstat(fd, &ret_entry->st) < 0 ? -errno : 0;
        if (r == 0)
                r = tk_inode_lookup(fs->inodes, parent, place.fd, place.name.backing,
                                    &ret_entry->st, &ret_entry->inode);
        if (r < 0)
                return unmake(fs, &place, false, r);
        r = tk_openfile_adopt(fs, ret_entry->inode, TK_TAKE_FD(fd), TK_TAKE(dek), &record,
                              &ret_entry->st, ret_file);
        if (r < 0) {
                tk_inode_forget(fs->inodes, ret_entry->inode, 1);
                return unmake(fs, &place, false, r);
        }
        tk_op_count_handle(fs, *ret_file, flags);
        return 0;
}

/* A fifo, socket or device: it has no key record. */
static int make_special(struct tk_fs *fs, const struct place *place, mode_t mode, dev_t dev,
                        const struct tk_caller *caller)
{
        int r;

        tk_creds_become(caller);
        r = add_begin(fs, place);
        if (r < 0)
                return r;
        r = tk_backing_mknod(place->fd, place->name.backing, mode, dev);
        return add_end(fs, place, r);
}

int tk_op_mknod(struct tk_fs *fs, struct tk_inode *parent, const char *name, mode_t mode, dev_t dev,
                const struct tk_caller *caller, struct tk_entry *ret_entry)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        PLACE_SCOPE(place);
        TK_AUTOCLOSE int fd = -1;
        struct tk_record record;
        int r;

        r = place_need(fs, parent, name, &place);
        if (r < 0)
                return r;
        if (S_ISREG(mode)) {
                fd = make_file(fs, &place, mode & 07777, caller, &dek, &record);
                r = fd;
        } else {
                r = make_special(fs, &place, mode, dev, caller);
        }
        return r < 0 ? r : lookup_made(fs, &place, false, ret_entry);
}

/*
 * A new directory. With encrypted names it gets its key record at once; after a crash in
 * between it is empty, and gets one when it is first needed.
 */
static int make_dir(struct tk_fs *fs, const struct place *place, mode_t mode,
                    const struct tk_caller *caller)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_AUTOCLOSE int fd = -1;
        struct tk_record record;
        int r;

        r = tk_keyattr_make(fs, &dek, &record);
        if (r < 0)
                return r;
        become_maker(caller);
        r = add_begin(fs, place);
        if (r < 0)
                return r;
        r = tk_backing_mkdir(place->fd, place->name.backing, mode | lift_of_owner());
        if (r == 0) {
                fd = openat(place->fd, place->name.backing,
                            O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                r = fd < 0 ? -errno : complete(fd, place, mode | S_IFDIR, caller, &record);
        }
        return add_end(fs, place, r);
}

int tk_op_mkdir(struct tk_fs *fs, struct tk_inode *parent, const char *name, mode_t mode,
                const struct tk_caller *caller, struct tk_entry *ret_entry)
{
        TK_EPOCH_SCOPE(&fs->changes);
        PLACE_SCOPE(place);
        int r;

        r = place_need(fs, parent, name, &place);
        if (r < 0)
                return r;
        if (fs->names_encrypted) {
                r = make_dir(fs, &place, mode, caller);
        } else {
                tk_creds_become(caller);
                r = tk_backing_mkdir(place.fd, place.name.backing, mode);
        }
        return r < 0 ? r : lookup_made(fs, &place, true, ret_entry);
}

int tk_op_symlink(struct tk_fs *fs, const char *target, struct tk_inode *parent, const char *name,
                  const struct tk_caller *caller, struct tk_entry *ret_entry)
{
        PLACE_SCOPE(place);
        char stored[TK_TARGET_STORED_MAX + 1];
        int r;

        r = tk_op_seal_target(fs, target, stored);
        if (r == 0)
                r = place_need(fs, parent, name, &place);
        if (r < 0)
                return r;
        tk_creds_become(caller);
        r = add_begin(fs, &place);
        if (r < 0)
                return r;
        r = tk_backing_symlink(stored, place.fd, place.name.backing);
        r = add_end(fs, &place, r);
        return r < 0 ? r : lookup_made(fs, &place, false, ret_entry);
}

/*
 * While a rotation walks the tree, a file that moves could pass from the part not
 * yet seen to the part already seen: its record is made current first. A directory
 * with all that is in it can't be: the walk is repeated. Within an epoch with the move,
 * so that no pass begins in between.
 */
static void settle_inode(struct tk_fs *fs, struct tk_inode *inode, mode_t type)
{
        if (!fs->rotating)
                return;
        if (S_ISDIR(type) || (S_ISREG(type) && tk_rewrap_inode(fs, inode) < 0))
                fs->rotate_moves++;
}

static void settle_place(struct tk_fs *fs, const struct place *place)
{
        struct tk_inode *inode;
        struct stat st;

        if (!fs->rotating || fstatat(place->fd, place->name.backing, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return;
        if (tk_inode_lookup(fs->inodes, place->parent, place->fd, place->name.backing, &st,
                            &inode) < 0) {
                fs->rotate_moves++;
                return;
        }
        settle_inode(fs, inode, st.st_mode);
        tk_inode_forget(fs->inodes, inode, 1);
}

/* A sibling that is made for a file that is there: its owner is charged. */
static void charge_owner(int fd, const char *name, const struct place *place)
{
        struct stat st;

        if (place->name.is_long && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) == 0)
                tk_creds_charge(st.st_uid);
}

int tk_op_link(struct tk_fs *fs, struct tk_inode *inode, struct tk_inode *parent, const char *name,
               struct tk_entry *ret_entry)
{
        TK_EPOCH_SCOPE(&fs->changes);
        PLACE_SCOPE(place);
        TK_AUTOCLOSE int fd = -1;
        int r;

        r = place_need(fs, parent, name, &place);
        if (r < 0)
                return r;
        fd = tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        settle_inode(fs, inode, tk_inode_type(inode));
        charge_owner(fd, "", &place);
        r = add_begin(fs, &place);
        if (r < 0)
                return r;
        r = add_end(fs, &place, tk_backing_link(fd, place.fd, place.name.backing));
        if (r < 0)
                return r;
        /* The newest name is the one most likely to stay: known by it, the others may go. */
        tk_inode_rename_begin(fs->inodes);
        tk_inode_moved(fs->inodes, place.fd, parent, place.name.backing);
        tk_inode_rename_end(fs->inodes);
        tk_openfile_note_attributes(fs, inode);
        return lookup_at(fs, &place, ret_entry);
}

static int remove_at(struct tk_fs *fs, const struct place *place, bool directory)
{
        const char *name = place->name.backing;
        struct tk_removal removal;
        int r;

        tk_sibling_lock(fs, &place->name, NULL);
        r = tk_inode_removal_begin(fs->inodes, place->fd, name, &removal);
        if (r == 0) {
                r = tk_backing_unlink(place->fd, name, directory);
                tk_inode_removal_end(&removal, r == 0);
        }
        tk_sibling_tidy(place->fd, &place->name);
        tk_sibling_unlock(fs, &place->name, NULL);
        return r;
}

/* Whether a directory was in the way that turned out to hold orphans only, and now nothing. */
static bool made_way(struct tk_fs *fs, const struct place *place, int r)
{
        return (r == -ENOTEMPTY || r == -EEXIST) && fs->names_encrypted &&
               tk_sibling_purge(fs, place->fd, place->name.backing) == 0;
}

int tk_op_unlink(struct tk_fs *fs, struct tk_inode *parent, const char *name, bool directory)
{
        PLACE_SCOPE(place);
        int r;

        r = place_find(fs, parent, name, &place);
        if (r < 0)
                return r;
        r = remove_at(fs, &place, directory);
        if (directory && made_way(fs, &place, r))
                r = remove_at(fs, &place, directory);
        return r;
}

static int rename_inode(struct tk_fs *fs, const struct place *from, const struct place *to,
                        unsigned flags)
{
        int r;

        tk_inode_rename_begin(fs->inodes);
        r = tk_backing_rename(from->fd, from->name.backing, to->fd, to->name.backing, flags);
        if (r == 0) {
                tk_inode_moved(fs->inodes, to->fd, to->parent, to->name.backing);
                if (flags & RENAME_EXCHANGE)
                        tk_inode_moved(fs->inodes, from->fd, from->parent, from->name.backing);
        }
        tk_inode_rename_end(fs->inodes);
        return r;
}

/* The same, and the end of what was there before. */
static int replace_inode(struct tk_fs *fs, const struct place *from, const struct place *to,
                         unsigned flags)
{
        struct tk_removal victim;
        int r;

        if (flags & RENAME_EXCHANGE)
                return rename_inode(fs, from, to, flags);
        r = tk_inode_removal_begin(fs->inodes, to->fd, to->name.backing, &victim);
        if (r < 0 && r != -ENOENT)
                return r;
        r = rename_inode(fs, from, to, flags);
        tk_inode_removal_end(&victim, r == 0);
        return r;
}

static int rename_at(struct tk_fs *fs, const struct place *from, const struct place *to,
                     unsigned flags)
{
        int r;

        charge_owner(from->fd, from->name.backing, to);
        tk_sibling_lock(fs, &from->name, &to->name);
        r = tk_sibling_add(fs, to->fd, &to->name);
        if (r == 0)
                r = replace_inode(fs, from, to, flags);
        tk_sibling_tidy(to->fd, &to->name);
        tk_sibling_tidy(from->fd, &from->name);
        tk_sibling_unlock(fs, &from->name, &to->name);
        return r;
}

/* A file has this name now: an fsync of it makes the name durable as well. */
static void note_name(struct tk_fs *fs, const struct place *place)
{
        struct tk_inode *inode;
        struct stat st;

        if (!fs->journal || fstatat(place->fd, place->name.backing, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode))
                return;
        inode = tk_inode_find(fs->inodes, &st);
        if (!inode)
                return;
        tk_openfile_note_attributes(fs, inode);
        tk_inode_unref(fs->inodes, inode);
}

int tk_op_rename(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                 struct tk_inode *new_parent, const char *new_name, unsigned flags)
{
        TK_EPOCH_SCOPE(&fs->changes);
        PLACE_SCOPE(from);
        PLACE_SCOPE(to);
        int r;

        if (flags & RENAME_WHITEOUT)
                return -EINVAL;
        r = place_find(fs, parent, name, &from);
        if (r == 0)
                r = place_need(fs, new_parent, new_name, &to);
        if (r < 0)
                return r;
        settle_place(fs, &from);
        if (flags & RENAME_EXCHANGE)
                settle_place(fs, &to);
        r = rename_at(fs, &from, &to, flags);
        if (!(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)) && made_way(fs, &to, r))
                r = rename_at(fs, &from, &to, flags);
        if (r == 0)
                note_name(fs, &to);
        if (r == 0 && flags & RENAME_EXCHANGE)
                note_name(fs, &from);
        return r;
}
