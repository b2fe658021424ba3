/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Symlink targets, for op_name.c and verify. */

#include "fs/fs.h"
#include "fs/target.h"

/*
 * What the backing symlink is to hold for @target: the target itself with names =
 * plain. -ENAMETOOLONG if no symlink can hold it; or what the keyring says.
 */
TK_MUST_USE int tk_op_seal_target(struct tk_fs *fs, const char *target,
                                  char ret_stored[TK_TARGET_STORED_MAX + 1]);

/* The target, NUL-terminated, of the backing symlink @fd; as tk_op_readlink, not logged. */
TK_MUST_USE int tk_op_open_target(struct tk_fs *fs, int fd, char *target, size_t max);
