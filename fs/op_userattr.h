/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Attributes of the user namespace with names = encrypted, for op_xattr.c and verify.
 *
 * @fd is a descriptor of any kind for the inode's backing file. Outcomes are those
 * of the system calls, on names and values as applications see them. A file's key is
 * had as for opening it, and only if the file has such attributes.
 */

#include "fs/inode.h"
#include "fs/userattr.h"

enum { TK_XATTR_LIST_MAX = 65536 }; /* Linux gives no longer list of attributes */

/* -EBADMSG if the attribute is damaged (logged, counted). @max 0: the size. */
TK_MUST_USE ssize_t tk_op_userattr_get(struct tk_fs *fs, struct tk_inode *inode, int fd,
                                       const char *name, void *value, size_t max);
TK_MUST_USE int tk_op_userattr_set(struct tk_fs *fs, struct tk_inode *inode, int fd,
                                   const char *name, const void *value, size_t len, int flags);
TK_MUST_USE int tk_op_userattr_remove(struct tk_fs *fs, struct tk_inode *inode, int fd,
                                      const char *name);

/*
 * Turn the @len bytes of @list, as the backing filesystem gives them, into the list that
 * applications see, in place. A name that is damaged is left out (logged, counted).
 * Returns the new length.
 */
TK_MUST_USE ssize_t tk_op_userattr_list(struct tk_fs *fs, struct tk_inode *inode, int fd,
                                        char *list, size_t len);
