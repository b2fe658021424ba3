/* SPDX-License-Identifier: Apache-2.0 */

/* Operations on attributes. */

#include "fs/backing.h"
#include "fs/content.h"
#include "fs/format.h"
#include "fs/fs_internal.h"
#include "fs/lift.h"
#include "fs/op.h"
#include "fs/target.h"
#include <errno.h>
#include <fcntl.h>

void tk_op_present(const struct tk_fs *fs, struct stat *st)
{
        if (S_ISREG(st->st_mode))
                st->st_size = (off_t)tk_plain_size_at(fs->base, (uint64_t)st->st_size);
        else if (S_ISLNK(st->st_mode) && fs->names_encrypted)
                st->st_size = (off_t)tk_target_len((size_t)st->st_size);
}

int tk_op_reach(struct tk_fs *fs, struct tk_inode *inode, struct tk_reach *ret_reach)
{
        struct tk_openfile *file = tk_openfile_peek(fs, inode);

        *ret_reach = (struct tk_reach){.fs = fs, .file = file};
        ret_reach->fd = file ? file->fd : tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);
        return ret_reach->fd < 0 ? ret_reach->fd : 0;
}

void tk_op_reach_end(struct tk_reach *reach)
{
        if (reach->file)
                tk_openfile_put(reach->fs, reach->file);
        else if (reach->fd >= 0)
                close(reach->fd);
}

/* Status of the backing file @fd, which @file is if it is open, else NULL. */
static int stat_fd(struct tk_fs *fs, int fd, const struct tk_openfile *file, struct stat *ret_st)
{
        int r = tk_lift_stat(fs, fd, "", ret_st);

        if (r < 0)
                return r;
        if (file)
                tk_openfile_present(file, ret_st);
        else
                tk_op_present(fs, ret_st);
        return 0;
}

static int stat_dir(struct tk_fs *fs, struct tk_inode *inode, struct stat *ret_st)
{
        struct tk_inode_dir dir;
        int r;

        r = tk_inode_dir_get(fs->inodes, inode, &dir);
        if (r < 0)
                return r;
        r = stat_fd(fs, dir.fd, NULL, ret_st);
        tk_inode_dir_put(&dir);
        return r;
}

/* Status of an inode through @file, if it is open, else through a descriptor for the moment. */
static int stat_through(struct tk_fs *fs, struct tk_inode *inode, const struct tk_openfile *file,
                        struct stat *ret_st)
{
        TK_AUTOCLOSE int fd = -1;

        if (file)
                return stat_fd(fs, file->fd, file, ret_st);
        if (S_ISDIR(tk_inode_type(inode)))
                return stat_dir(fs, inode, ret_st);
        fd = tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);
        return fd < 0 ? fd : stat_fd(fs, fd, NULL, ret_st);
}

int tk_op_entry_present(struct tk_fs *fs, struct tk_entry *entry)
{
        struct tk_openfile *file;

        tk_op_present(fs, &entry->st);
        if (!S_ISREG(entry->st.st_mode))
                return 0;
        file = tk_openfile_peek(fs, entry->inode);
        if (file) {
                tk_openfile_present(file, &entry->st);
                tk_openfile_put(fs, file);
        }
        return 0;
}

int tk_op_getattr(struct tk_fs *fs, struct tk_inode *inode, struct stat *ret_st)
{
        struct tk_openfile *file;
        int r;

        file = tk_openfile_peek(fs, inode);
        r = stat_through(fs, inode, file, ret_st);
        if (file)
                tk_openfile_put(fs, file);
        return r;
}

/* Not while it is lifted: what is put back then would undo it. */
static int set_mode(struct tk_fs *fs, int fd, mode_t mode)
{
        TK_LOCK_SCOPE(&fs->lift_lock);
        return tk_backing_chmod(fd, mode);
}

static int set_size(struct tk_fs *fs, struct tk_inode *inode, uint64_t size)
{
        struct tk_openfile *file;
        int r;

        r = tk_openfile_get(fs, inode, true, &file);
        if (r < 0)
                return r;
        r = tk_content_truncate(fs, file, size);
        if (r == 0) {
                /* Until the kernel says another. */
                TK_LOCK_SCOPE(&file->times_lock);
                clock_gettime(CLOCK_REALTIME_COARSE, &file->mtime);
        }
        tk_openfile_put(fs, file);
        return r;
}

static int set_owner(struct tk_fs *fs, struct tk_inode *inode, int fd, const struct tk_setattr *set)
{
        struct tk_openfile *file;
        int r;

        r = tk_backing_chown(fd, set->what & TK_SETATTR_UID ? set->uid : (uid_t)-1,
                             set->what & TK_SETATTR_GID ? set->gid : (gid_t)-1);
        if (r < 0 || !(set->what & TK_SETATTR_UID))
                return r;
        file = tk_openfile_peek(fs, inode);
        if (file) {
                file->owner = set->uid;
                tk_openfile_put(fs, file);
        }
        return 0;
}

/* What was set is what the kernel has. */
static void learn_mtime(struct tk_openfile *file, int fd, const struct timespec *mtime)
{
        struct stat st;

        if (mtime->tv_nsec != UTIME_NOW)
                file->mtime = *mtime;
        else if (fstat(fd, &st) == 0)
                file->mtime = st.st_mtim;
}

static int set_times(struct tk_fs *fs, struct tk_inode *inode, int fd, const struct tk_setattr *set)
{
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
        struct tk_openfile *file = tk_openfile_peek(fs, inode);
        int r;

        if (set->what & TK_SETATTR_ATIME)
                times[0] = set->atime;
        if (set->what & TK_SETATTR_MTIME)
                times[1] = set->mtime;
        if (file) {
                pthread_mutex_lock(&file->times_lock);
                if (set->what & TK_SETATTR_MTIME) {
                        file->journal.touched_ns = 0;
                        file->mtime_unsynced = true;
                }
                if (set->what & TK_SETATTR_ATIME)
                        file->attributes_unsynced = true;
        }
        r = tk_backing_utimens(fd, times);
        if (file && r == 0 && set->what & TK_SETATTR_MTIME)
                learn_mtime(file, fd, &set->mtime);
        if (file) {
                pthread_mutex_unlock(&file->times_lock);
                tk_openfile_put(fs, file);
        }
        return r;
}

/* Set-group-id without group execution once meant locking: members of the group keep it. */
int tk_op_kill_setid(int fd, const struct tk_kill_setid *caller)
{
        struct stat st;
        mode_t mode;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        mode = st.st_mode & 07777 & ~S_ISUID;
        if (mode & S_ISGID && (mode & S_IXGRP || !caller->in_group(caller->context, st.st_gid)))
                mode &= ~S_ISGID;
        if (mode == (st.st_mode & 07777))
                return 0;
        r = tk_backing_chmod(fd, mode);
        return r < 0 ? r : TK_SETID_KILLED;
}

int tk_op_setattr(struct tk_fs *fs, struct tk_inode *inode, const struct tk_setattr *set,
                  struct stat *ret_st)
{
        TK_REACH_SCOPE(reach);
        int fd;
        int r;

        r = tk_op_reach(fs, inode, &reach);
        if (r < 0)
                return r;
        fd = reach.fd;
        if (set->what & TK_SETATTR_SIZE)
                r = set_size(fs, inode, set->size);
        if (r == 0 && set->kill_setid)
                r = tk_op_kill_setid(fd, set->kill_setid);
        if (r == TK_SETID_KILLED || set->what & (TK_SETATTR_UID | TK_SETATTR_GID | TK_SETATTR_MODE))
                tk_openfile_note_attributes(fs, inode);
        r = r == TK_SETID_KILLED ? 0 : r;
        if (r == 0 && set->what & (TK_SETATTR_UID | TK_SETATTR_GID))
                r = set_owner(fs, inode, fd, set);
        /* The mode after the owner: a change of owner clears set-id bits. */
        if (r == 0 && set->what & TK_SETATTR_MODE)
                r = set_mode(fs, fd, set->mode & 07777);
        if (r == 0 && set->what & (TK_SETATTR_ATIME | TK_SETATTR_MTIME))
                r = set_times(fs, inode, fd, set);
        return r < 0 ? r : stat_fd(fs, fd, reach.file, ret_st);
}

int tk_op_statfs(struct tk_fs *fs, struct statvfs *ret_st)
{
        return fstatvfs(fs->rootfd, ret_st) < 0 ? -errno : 0;
}
