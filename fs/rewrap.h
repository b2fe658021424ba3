/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Rewrap: the DEK of a file or directory from an old KEK version to the current one.
 * Content is not touched; attribute and copy are rewritten, and the mtime stays. A
 * directory has no copy, and with names = plain no record.
 */

#include "fs/openfile.h"

/* What the functions below did. */
enum {
        TK_REWRAP_CURRENT = 0, /* nothing: the record was current */
        TK_REWRAP_DONE = 1,
        TK_REWRAP_NONE = 2, /* nothing: there is no record, nor need there be one */
};

/* Idempotent, and safe against a crash at any point: the DEK stays the same. Thread-safe. */
TK_MUST_USE int tk_rewrap_file(struct tk_fs *fs, struct tk_openfile *file);

/*
 * The same for @inode: a regular file, opened for the moment if it is not open, or a
 * directory, by one thread at a time. Others have no record.
 */
TK_MUST_USE int tk_rewrap_inode(struct tk_fs *fs, struct tk_inode *inode);

/* The KEK version that the attribute of @inode names; 0 if it can't be read. */
uint16_t tk_rewrap_version(struct tk_fs *fs, struct tk_inode *inode);
