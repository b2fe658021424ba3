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
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/lift.h"
#include "fs/op.h"
#include "fs/op_symlink.h"
#include "fs/rewrap.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static int open_dir_path(struct tk_fs *fs, struct tk_inode *parent)
{
        return tk_inode_open(fs->inodes, parent, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

static int lookup_at(struct tk_fs *fs, struct tk_inode *parent, int parentfd, const char *name,
                     struct tk_entry *ret_entry)
{
        int r;

        r = tk_lift_stat(fs, parentfd, name, &ret_entry->st);
        if (r < 0)
                return r;
        r = tk_inode_lookup(fs->inodes, parent, parentfd, name, &ret_entry->st, &ret_entry->inode);
        if (r < 0)
                return r;
        return tk_op_entry_present(fs, ret_entry);
}

int tk_op_lookup(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                 struct tk_entry *ret_entry)
{
        TK_AUTOCLOSE int parentfd = -1;

        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        return lookup_at(fs, parent, parentfd, name, ret_entry);
}

/*
 * Without privilege the owner needs write permission to set the key record: what is
 * not to have it gets its mode afterwards.
 */
static mode_t lift_of_owner(void)
{
        return geteuid() == 0 ? 0 : S_IRUSR | S_IWUSR;
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

/*
 * A new regular file with its key record, open; its DEK and record are returned
 * as well.
 */
static int make_file(struct tk_fs *fs, int parentfd, const char *name, mode_t mode,
                     const struct tk_caller *caller, struct tk_secret **ret_dek,
                     struct tk_record *ret_record)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_AUTOCLOSE int fd = -1;
        mode_t lift = lift_of_owner();
        struct tk_caller maker = *caller;
        int r;

        r = tk_keyattr_make(fs, &dek, ret_record);
        if (r < 0)
                return r;
        maker.umask &= ~lift;
        tk_creds_become(&maker);
        fd = tk_backing_create(parentfd, name, mode | lift);
        if (fd < 0)
                return fd;
        r = TK_PLANT(TK_PLANT_LATE_RECORD) ? 0 : tk_keyattr_store(fd, ret_record);
        if (r == 0)
                r = lower_mode(fd, mode, caller, lift);
        if (r < 0) {
                (void)!tk_backing_unlink(parentfd, name, false);
                return r;
        }
        *ret_dek = TK_TAKE(dek);
        return TK_TAKE_FD(fd);
}

int tk_op_create(struct tk_fs *fs, struct tk_inode *parent, const char *name, mode_t mode,
                 int flags, const struct tk_caller *caller, struct tk_entry *ret_entry,
                 struct tk_openfile **ret_file)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_AUTOCLOSE int parentfd = -1;
        TK_AUTOCLOSE int fd = -1;
        struct tk_record record;
        int r;

        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        fd = make_file(fs, parentfd, name, mode, caller, &dek, &record);
        if (fd < 0)
                return fd;
        if (fstat(fd, &ret_entry->st) < 0)
                return -errno;
        r = tk_inode_lookup(fs->inodes, parent, parentfd, name, &ret_entry->st, &ret_entry->inode);
        if (r < 0)
                return r;
        r = tk_openfile_adopt(fs, ret_entry->inode, TK_TAKE_FD(fd), TK_TAKE(dek), &record,
                              ret_file);
        if (r < 0)
                tk_inode_forget(fs->inodes, ret_entry->inode, 1);
        else
                tk_op_count_handle(fs, *ret_file, flags);
        return r;
}

int tk_op_mknod(struct tk_fs *fs, struct tk_inode *parent, const char *name, mode_t mode, dev_t dev,
                const struct tk_caller *caller, struct tk_entry *ret_entry)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_AUTOCLOSE int parentfd = -1;
        TK_AUTOCLOSE int fd = -1;
        struct tk_record record;
        int r = 0;

        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        if (S_ISREG(mode)) {
                fd = make_file(fs, parentfd, name, mode & 07777, caller, &dek, &record);
                if (fd < 0)
                        return fd;
        } else {
                tk_creds_become(caller);
                r = tk_backing_mknod(parentfd, name, mode, dev);
        }
        if (r < 0)
                return r;
        return lookup_at(fs, parent, parentfd, name, ret_entry);
}

/*
 * A new directory. With encrypted names it gets its key record at once; after a crash in
 * between it is empty, and gets one when it is first needed.
 */
static int make_dir(struct tk_fs *fs, int parentfd, const char *name, mode_t mode,
                    const struct tk_caller *caller)
{
        TK_AUTOCLOSE int fd = -1;
        mode_t lift = fs->names_encrypted ? lift_of_owner() : 0;
        struct tk_caller maker = *caller;
        int r;

        maker.umask &= ~lift;
        tk_creds_become(&maker);
        r = tk_backing_mkdir(parentfd, name, mode | lift);
        if (r < 0 || !fs->names_encrypted)
                return r;
        fd = openat(parentfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        r = fd < 0 ? -errno : tk_dirkey_make(fs, fd);
        if (r == 0)
                r = lower_mode(fd, mode, caller, lift);
        if (r < 0)
                (void)!tk_backing_unlink(parentfd, name, true);
        return r;
}

int tk_op_mkdir(struct tk_fs *fs, struct tk_inode *parent, const char *name, mode_t mode,
                const struct tk_caller *caller, struct tk_entry *ret_entry)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_AUTOCLOSE int parentfd = -1;
        int r;

        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        r = make_dir(fs, parentfd, name, mode, caller);
        if (r < 0)
                return r;
        return lookup_at(fs, parent, parentfd, name, ret_entry);
}

int tk_op_symlink(struct tk_fs *fs, const char *target, struct tk_inode *parent, const char *name,
                  const struct tk_caller *caller, struct tk_entry *ret_entry)
{
        TK_AUTOCLOSE int parentfd = -1;
        char stored[TK_TARGET_STORED_MAX + 1];
        int r;

        r = tk_op_seal_target(fs, target, stored);
        if (r < 0)
                return r;
        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        tk_creds_become(caller);
        r = tk_backing_symlink(stored, parentfd, name);
        if (r < 0)
                return r;
        return lookup_at(fs, parent, parentfd, name, ret_entry);
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

static void settle_name(struct tk_fs *fs, struct tk_inode *parent, int parentfd, const char *name)
{
        struct tk_inode *inode;
        struct stat st;

        if (!fs->rotating || fstatat(parentfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return;
        if (tk_inode_lookup(fs->inodes, parent, parentfd, name, &st, &inode) < 0) {
                fs->rotate_moves++;
                return;
        }
        settle_inode(fs, inode, st.st_mode);
        tk_inode_forget(fs->inodes, inode, 1);
}

int tk_op_link(struct tk_fs *fs, struct tk_inode *inode, struct tk_inode *parent, const char *name,
               struct tk_entry *ret_entry)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_AUTOCLOSE int parentfd = -1;
        TK_AUTOCLOSE int fd = -1;
        int r;

        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        fd = tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        settle_inode(fs, inode, tk_inode_type(inode));
        r = tk_backing_link(fd, parentfd, name);
        if (r < 0)
                return r;
        /* The newest name is the one most likely to stay: known by it, the others may go. */
        tk_inode_rename_begin(fs->inodes);
        tk_inode_moved(fs->inodes, parentfd, parent, name);
        tk_inode_rename_end(fs->inodes);
        return lookup_at(fs, parent, parentfd, name, ret_entry);
}

int tk_op_unlink(struct tk_fs *fs, struct tk_inode *parent, const char *name, bool directory)
{
        TK_AUTOCLOSE int parentfd = -1;
        struct tk_removal removal;
        int r;

        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        r = tk_inode_removal_begin(fs->inodes, parentfd, name, &removal);
        if (r < 0)
                return r;
        r = tk_backing_unlink(parentfd, name, directory);
        tk_inode_removal_end(&removal, r == 0);
        return r;
}

static int rename_at(struct tk_fs *fs, struct tk_inode *parent, int parentfd, const char *name,
                     struct tk_inode *new_parent, int new_parentfd, const char *new_name,
                     unsigned flags)
{
        int r;

        tk_inode_rename_begin(fs->inodes);
        r = tk_backing_rename(parentfd, name, new_parentfd, new_name, flags);
        if (r == 0) {
                tk_inode_moved(fs->inodes, new_parentfd, new_parent, new_name);
                if (flags & RENAME_EXCHANGE)
                        tk_inode_moved(fs->inodes, parentfd, parent, name);
        }
        tk_inode_rename_end(fs->inodes);
        return r;
}

int tk_op_rename(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                 struct tk_inode *new_parent, const char *new_name, unsigned flags)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_AUTOCLOSE int parentfd = -1;
        TK_AUTOCLOSE int new_parentfd = -1;
        struct tk_removal victim;
        int r;

        if (flags & RENAME_WHITEOUT)
                return -EINVAL;
        parentfd = open_dir_path(fs, parent);
        if (parentfd < 0)
                return parentfd;
        new_parentfd = open_dir_path(fs, new_parent);
        if (new_parentfd < 0)
                return new_parentfd;
        settle_name(fs, parent, parentfd, name);
        if (flags & RENAME_EXCHANGE)
                settle_name(fs, new_parent, new_parentfd, new_name);
        if (flags & RENAME_EXCHANGE)
                return rename_at(fs, parent, parentfd, name, new_parent, new_parentfd, new_name,
                                 flags);

        r = tk_inode_removal_begin(fs->inodes, new_parentfd, new_name, &victim);
        if (r < 0 && r != -ENOENT)
                return r;
        r = rename_at(fs, parent, parentfd, name, new_parent, new_parentfd, new_name, flags);
        tk_inode_removal_end(&victim, r == 0);
        return r;
}
