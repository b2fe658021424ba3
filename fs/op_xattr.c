/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations on extended attributes. The key record's attribute is ours: it is
 * neither seen nor touched through the mount.
 */

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/op.h"
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

enum { LIST_MAX = 65536 };

static bool is_ours(const char *name)
{
        return strcmp(name, TK_KEYATTR_NAME) == 0;
}

ssize_t tk_op_getxattr(struct tk_fs *fs, struct tk_inode *inode, const char *name, void *value,
                       size_t max)
{
        TK_AUTOCLOSE int fd = -1;

        if (is_ours(name))
                return -ENODATA;
        fd = tk_op_reach(fs, inode);
        if (fd < 0)
                return fd;
        return tk_backing_getxattr(fd, name, value, max);
}

/* Close the list over our own name. Returns the new length. */
static size_t leave_out_ours(char *list, size_t len)
{
        for (char *name = list; name < list + len; name += strlen(name) + 1) {
                size_t name_len = strlen(name) + 1;

                if (!is_ours(name))
                        continue;
                memmove(name, name + name_len, len - (size_t)(name - list) - name_len);
                return len - name_len;
        }
        return len;
}

ssize_t tk_op_listxattr(struct tk_fs *fs, struct tk_inode *inode, char *list, size_t max)
{
        TK_CLEANUP(tk_freep) char *all = NULL;
        TK_AUTOCLOSE int fd = -1;
        ssize_t n;
        size_t len;

        fd = tk_op_reach(fs, inode);
        if (fd < 0)
                return fd;
        all = malloc(LIST_MAX);
        if (!all)
                return -ENOMEM;
        n = tk_backing_listxattr(fd, all, LIST_MAX);
        if (n < 0)
                return n;
        len = leave_out_ours(all, (size_t)n);
        if (max > 0 && len > max)
                return -ERANGE;
        if (max > 0)
                memcpy(list, all, len);
        return (ssize_t)len;
}

int tk_op_setxattr(struct tk_fs *fs, struct tk_inode *inode, const char *name, const void *value,
                   size_t len, int flags)
{
        TK_AUTOCLOSE int fd = -1;
        struct stat st;

        if (is_ours(name))
                return -EPERM;
        fd = tk_op_reach(fs, inode);
        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        tk_creds_charge(st.st_uid);
        return tk_backing_setxattr(fd, name, value, len, flags);
}

int tk_op_removexattr(struct tk_fs *fs, struct tk_inode *inode, const char *name)
{
        TK_AUTOCLOSE int fd = -1;

        if (is_ours(name))
                return -ENODATA;
        fd = tk_op_reach(fs, inode);
        if (fd < 0)
                return fd;
        return tk_backing_removexattr(fd, name);
}
