/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From the path of a file in the mount to that of its backing file, and back, for
 * people. Both are relative, to the mount and to CIPHERDIR/root; the caller frees what
 * is returned. The directories on the way must be there, the last component need not.
 * Thread-safe.
 */

#include "fs/fs.h"

/*
 * -ENOENT or -ENOTDIR if a directory on the way is not there, -EINVAL for a path with
 * "..", -ENAMETOOLONG, or why the names of a directory can't be had.
 */
TK_MUST_USE int tk_translate_to_backing(struct tk_fs *fs, const char *path, char **ret_backing);

/* The same; -EBADMSG for a component that is no name of its directory. */
TK_MUST_USE int tk_translate_to_plain(struct tk_fs *fs, const char *backing, char **ret_path);
