/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Symlinks: their targets, which are encrypted with the names. Such a symlink leads
 * nowhere below: its target is no path.
 */

#include "fs/op_symlink.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/op.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

int tk_op_seal_target(struct tk_fs *fs, const char *target,
                      char ret_stored[TK_TARGET_STORED_MAX + 1])
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        size_t len = strlen(target);
        int r;

        if (!fs->names_encrypted) {
                if (len > TK_TARGET_STORED_MAX)
                        return -ENAMETOOLONG;
                memcpy(ret_stored, target, len + 1);
                return 0;
        }
        r = tk_keyring_target_key(fs->keyring, &key);
        return r < 0 ? r : tk_target_seal(key, target, ret_stored);
}

/* What the backing symlink holds, NUL-terminated. */
static int read_stored(int fd, char *ret_stored, size_t max)
{
        ssize_t n = readlinkat(fd, "", ret_stored, max);

        if (n < 0)
                return -errno;
        if ((size_t)n == max)
                return -ENAMETOOLONG;
        ret_stored[n] = '\0';
        return 0;
}

int tk_op_open_target(struct tk_fs *fs, int fd, char *target, size_t max)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        char stored[TK_TARGET_STORED_MAX + 1];
        int r;

        if (!fs->names_encrypted)
                return read_stored(fd, target, max);
        r = tk_keyring_target_key(fs->keyring, &key);
        if (r == 0)
                r = read_stored(fd, stored, sizeof(stored));
        return r < 0 ? r : tk_target_open(key, stored, target, max);
}

int tk_op_readlink(struct tk_fs *fs, struct tk_inode *inode, char *target, size_t max)
{
        TK_AUTOCLOSE int fd = -1;
        char path[PATH_MAX];
        int r;

        fd = tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        r = tk_op_open_target(fs, fd, target, max);
        if (r == -EBADMSG) {
                fs->stats.target_failures++;
                tk_fs_log_path(fs, fd, path, sizeof(path));
                tk_log_limited(TK_LOG_ERROR,
                               "%s: the symlink's target does not authenticate: damaged or "
                               "tampered with; restore it from a backup or make it anew",
                               path);
        }
        return r;
}
