/* SPDX-License-Identifier: Apache-2.0 */

/* Operations on directories. */

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/lift.h"
#include "fs/op.h"
#include <errno.h>
#include <fcntl.h>

struct tk_dir {
        struct tk_fs *fs;
        struct tk_dir *prev; /* under the open-file lock of fs: all open directories */
        struct tk_dir *next;
        pthread_mutex_t lock;
        DIR *stream;            /* under lock */
        struct dirent *pending; /* under lock: read from the stream, not yet taken */
        off_t off;              /* under lock: offset of what comes next */
        struct tk_inode *inode; /* borrowed: an open directory is known to the kernel */
};

static void enlist(struct tk_dir *dir)
{
        TK_LOCK_SCOPE(&dir->fs->openfiles_lock);
        dir->next = dir->fs->dirs;
        if (dir->next)
                dir->next->prev = dir;
        dir->fs->dirs = dir;
}

static void delist(struct tk_dir *dir)
{
        TK_LOCK_SCOPE(&dir->fs->openfiles_lock);
        if (dir->prev)
                dir->prev->next = dir->next;
        else
                dir->fs->dirs = dir->next;
        if (dir->next)
                dir->next->prev = dir->prev;
}

int tk_op_opendir(struct tk_fs *fs, struct tk_inode *inode, struct tk_dir **ret_dir)
{
        TK_CLEANUP(tk_freep) struct tk_dir *dir = NULL;
        int fd;

        dir = calloc(1, sizeof(*dir));
        if (!dir)
                return -ENOMEM;
        fd = tk_inode_open(fs->inodes, inode, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        dir->stream = fdopendir(fd);
        if (!dir->stream) {
                close(fd);
                return -ENOMEM;
        }
        pthread_mutex_init(&dir->lock, NULL);
        dir->inode = inode;
        dir->fs = fs;
        enlist(dir);
        *ret_dir = TK_TAKE(dir);
        return 0;
}

struct tk_dir *tk_op_releasedir(struct tk_dir *dir)
{
        if (!dir)
                return NULL;
        delist(dir);
        closedir(dir->stream);
        pthread_mutex_destroy(&dir->lock);
        free(dir);
        return NULL;
}

void tk_op_releasedir_all(struct tk_fs *fs)
{
        while (fs->dirs)
                tk_op_releasedir(fs->dirs);
}

int tk_op_fsyncdir(struct tk_dir *dir, bool data_only)
{
        return tk_backing_sync(dirfd(dir->stream), data_only);
}

static int next_entry(struct tk_dir *dir, struct dirent **ret_entry)
{
        if (!dir->pending) {
                errno = 0;
                dir->pending = readdir(dir->stream);
                if (!dir->pending && errno)
                        return -errno;
        }
        *ret_entry = dir->pending;
        return 0;
}

int tk_op_readdir(struct tk_dir *dir, off_t off, tk_dir_take take, void *context)
{
        struct dirent *entry = NULL;
        int r;

        TK_LOCK_SCOPE(&dir->lock);
        if (off != dir->off || off == 0) {
                if (off == 0)
                        rewinddir(dir->stream);
                else
                        seekdir(dir->stream, off);
                dir->pending = NULL;
                dir->off = off;
        }
        for (;;) {
                struct tk_dir_entry found;

                r = next_entry(dir, &entry);
                if (r < 0 || !entry)
                        return r;
                found = (struct tk_dir_entry){.name = entry->d_name,
                                              .ino = entry->d_ino,
                                              .type = entry->d_type,
                                              .next_off = entry->d_off};
                r = take(context, &found);
                if (r != 0)
                        return r < 0 ? r : 0;
                dir->pending = NULL;
                dir->off = entry->d_off;
        }
}

int tk_op_lookup_in(struct tk_fs *fs, struct tk_dir *dir, const char *name,
                    struct tk_entry *ret_entry)
{
        int parentfd = dirfd(dir->stream);
        int r;

        r = tk_lift_stat(fs, parentfd, name, &ret_entry->st);
        if (r < 0)
                return r;
        r = tk_inode_lookup(fs->inodes, dir->inode, parentfd, name, &ret_entry->st,
                            &ret_entry->inode);
        if (r < 0)
                return r;
        return tk_op_entry_present(fs, ret_entry);
}
