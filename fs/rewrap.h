/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Rewrap: a file's DEK from an old KEK version to the current one. Content is not
 * touched; attribute and copy are rewritten, and the mtime stays.
 */

#include "fs/openfile.h"

/* What tk_rewrap_file did. */
enum {
        TK_REWRAP_CURRENT = 0, /* nothing: the record was current */
        TK_REWRAP_DONE = 1,
};

/* Idempotent, and safe against a crash at any point: the DEK stays the same. Thread-safe. */
TK_MUST_USE int tk_rewrap_file(struct tk_fs *fs, struct tk_openfile *file);

/* The same for the regular file @inode, opened for the moment if it is not open. */
TK_MUST_USE int tk_rewrap_inode(struct tk_fs *fs, struct tk_inode *inode);
