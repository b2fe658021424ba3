/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Directories without a usable record, which the escrow does not have where they are:
 * they may have been moved or renamed since. A record is theirs if it opens their names.
 */

#include "fs/escrow_file.h"
#include "fs/fs.h"

struct tk_escrow_moved; /* opaque: escrow_moved.c */

TK_MUST_USE int tk_escrow_moved_new(struct tk_fs *fs, struct tk_escrow_moved **ret_moved);
struct tk_escrow_moved *tk_escrow_moved_free(struct tk_escrow_moved *moved);
TK_DEFINE_CLEANUP(struct tk_escrow_moved *, tk_escrow_moved_free)

/*
 * Look for the record of the directory @fd later. @why is the caller's. -ENOSPC if there
 * are too many, -ENODATA if it has no name to go by.
 */
TK_MUST_USE int tk_escrow_moved_add(struct tk_escrow_moved *moved, const char *path, int fd,
                                    int why);

/*
 * Look through all of @escrow. @found is called for each directory whose record is found,
 * which is @entry's; a negative return ends the search with it.
 */
TK_MUST_USE int tk_escrow_moved_search(struct tk_escrow_moved *moved,
                                       struct tk_escrow_reader *escrow,
                                       int (*found)(void *context, const char *path,
                                                    const struct tk_escrow_entry *entry),
                                       void *context);

/* Call @left for each that was not found. */
void tk_escrow_moved_left(const struct tk_escrow_moved *moved,
                          void (*left)(void *context, const char *path, int why), void *context);
