/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations on extended attributes. The key record's attribute and, with names =
 * encrypted, those that hold the user namespace are ours: they are neither seen nor
 * touched through the mount. Other namespaces pass through, without anything asked.
 */

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/op.h"
#include "fs/op_userattr.h"
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

static bool is_ours(const struct tk_fs *fs, const char *name)
{
        return strcmp(name, TK_KEYATTR_NAME) == 0 ||
               (fs->names_encrypted && tk_userattr_is_stored(name));
}

static bool is_encrypted(const struct tk_fs *fs, const char *name)
{
        return fs->names_encrypted && tk_userattr_is_in_space(name);
}

/* Nothing else can have attributes of the user namespace. */
static bool may_have_user(const struct tk_inode *inode)
{
        return S_ISREG(tk_inode_type(inode)) || S_ISDIR(tk_inode_type(inode));
}

ssize_t tk_op_getxattr(struct tk_fs *fs, struct tk_inode *inode, const char *name, void *value,
                       size_t max)
{
        TK_REACH_SCOPE(reach);
        int r;

        if (is_ours(fs, name) || (is_encrypted(fs, name) && !may_have_user(inode)))
                return -ENODATA;
        r = tk_op_reach(fs, inode, &reach);
        if (r < 0)
                return r;
        if (is_encrypted(fs, name))
                return tk_op_userattr_get(fs, inode, reach.fd, name, value, max);
        return tk_backing_getxattr(reach.fd, name, value, max);
}

/* Close the list over the key record's name. Returns the new length. */
static size_t leave_out_record(char *list, size_t len)
{
        for (char *name = list; name < list + len; name += strlen(name) + 1) {
                size_t name_len = strlen(name) + 1;

                if (strcmp(name, TK_KEYATTR_NAME) != 0)
                        continue;
                memmove(name, name + name_len, len - (size_t)(name - list) - name_len);
                return len - name_len;
        }
        return len;
}

ssize_t tk_op_listxattr(struct tk_fs *fs, struct tk_inode *inode, char *list, size_t max)
{
        TK_CLEANUP(tk_freep) char *all = NULL;
        TK_REACH_SCOPE(reach);
        ssize_t n;
        int r;

        r = tk_op_reach(fs, inode, &reach);
        if (r < 0)
                return r;
        all = malloc(TK_XATTR_LIST_MAX);
        if (!all)
                return -ENOMEM;
        n = tk_backing_listxattr(reach.fd, all, TK_XATTR_LIST_MAX);
        if (n >= 0)
                n = fs->names_encrypted ? tk_op_userattr_list(fs, inode, reach.fd, all, (size_t)n)
                                        : (ssize_t)leave_out_record(all, (size_t)n);
        if (n < 0)
                return n;
        if (max > 0 && (size_t)n > max)
                return -ERANGE;
        if (max > 0)
                memcpy(list, all, (size_t)n);
        return n;
}

int tk_op_setxattr(struct tk_fs *fs, struct tk_inode *inode, const char *name, const void *value,
                   size_t len, int flags)
{
        TK_REACH_SCOPE(reach);
        struct stat st;
        int r;

        if (is_ours(fs, name) || (is_encrypted(fs, name) && !may_have_user(inode)))
                return -EPERM;
        r = tk_op_reach(fs, inode, &reach);
        if (r < 0)
                return r;
        if (is_encrypted(fs, name))
                return tk_op_userattr_set(fs, inode, reach.fd, name, value, len, flags);
        if (fstat(reach.fd, &st) < 0)
                return -errno;
        tk_creds_charge(st.st_uid);
        return tk_backing_setxattr(reach.fd, name, value, len, flags);
}

int tk_op_removexattr(struct tk_fs *fs, struct tk_inode *inode, const char *name)
{
        TK_REACH_SCOPE(reach);
        int r;

        if (is_ours(fs, name))
                return -ENODATA;
        if (is_encrypted(fs, name) && !may_have_user(inode))
                return -EPERM;
        r = tk_op_reach(fs, inode, &reach);
        if (r < 0)
                return r;
        if (is_encrypted(fs, name))
                return tk_op_userattr_remove(fs, inode, reach.fd, name);
        return tk_backing_removexattr(reach.fd, name);
}
