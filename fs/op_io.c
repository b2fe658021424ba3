/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations on open files, but for their content (content.h).
 *
 * O_APPEND, O_SYNC and locks are the kernel's: with the writeback cache it does
 * the appending and the syncing, and one mount needs no locks of ours.
 */

#include "fs/content_sync.h"
#include "fs/fs_internal.h"
#include "fs/op.h"
#include <errno.h>
#include <fcntl.h>

static bool may_write(int flags)
{
        return (flags & O_ACCMODE) != O_RDONLY;
}

void tk_op_count_handle(struct tk_fs *fs, struct tk_openfile *file, int flags)
{
        TK_LOCK_SCOPE(&fs->openfiles_lock);
        file->writers += may_write(flags);
}

int tk_op_open(struct tk_fs *fs, struct tk_inode *inode, int flags, struct tk_openfile **ret_file)
{
        int r;

        if (!S_ISREG(tk_inode_type(inode)))
                return -ELOOP;
        r = tk_openfile_get(fs, inode, may_write(flags), ret_file);
        if (r == 0)
                tk_op_count_handle(fs, *ret_file, flags);
        return r;
}

void tk_op_release(struct tk_fs *fs, struct tk_openfile *file, int flags)
{
        pthread_mutex_lock(&fs->openfiles_lock);
        file->writers -= may_write(flags);
        pthread_mutex_unlock(&fs->openfiles_lock);
        if (may_write(flags))
                tk_openfile_keep_mtime(file);
        tk_openfile_put(fs, file);
}

bool tk_op_has_writers(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_LOCK_SCOPE(&fs->openfiles_lock);
        return file->writers > 0;
}

int tk_op_fsync(struct tk_fs *fs, struct tk_openfile *file, bool data_only)
{
        int r = tk_content_sync(fs, file, data_only);

        if (r == 0)
                tk_stats_count(&fs->stats, TK_STATS_FSYNC, 0);
        return r;
}
