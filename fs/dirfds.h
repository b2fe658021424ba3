/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Descriptors of directories, kept for the next request that names something in them:
 * opening one takes longer than what it is opened for. A few only; the newest stay.
 *
 * Told apart by the address of the inode, so that an inode that goes must be dropped.
 * Thread-safe.
 */

#include "base/cleanup.h"
#include <stdbool.h>

struct tk_inode;
struct tk_dirfds; /* opaque: dirfds.c */

TK_MUST_USE int tk_dirfds_new(struct tk_dirfds **ret_dirfds);
struct tk_dirfds *tk_dirfds_free(struct tk_dirfds *dirfds);
TK_DEFINE_CLEANUP(struct tk_dirfds *, tk_dirfds_free)

/* The descriptor of @inode, with one more user until it is put; -ENOENT if none is kept. */
TK_MUST_USE int tk_dirfds_get(struct tk_dirfds *dirfds, const struct tk_inode *inode);

/*
 * Keep @fd for @inode, with one user. False if its place is in use: then @fd stays the
 * caller's.
 */
TK_MUST_USE bool tk_dirfds_keep(struct tk_dirfds *dirfds, const struct tk_inode *inode, int fd);
void tk_dirfds_put(struct tk_dirfds *dirfds, const struct tk_inode *inode);

/* @inode is gone, and has no user any more. */
void tk_dirfds_drop(struct tk_dirfds *dirfds, const struct tk_inode *inode);
