/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Journal entries put in place: by a mount, after their flush, and by replay.
 *
 * Everything here can be done again with the same result.
 */

#include "fs/journal_batch.h"
#include <time.h>

struct tk_journal_target {
        int fd;
        uint64_t base;           /* backing offset of group 0 */
        struct timespec touched; /* the mtime is at least this; zeros: as it was */
};

/*
 * @count entries of one file, in their order, which lie in one array. The file's mtime
 * afterwards is the one before, but for `touched` and entries of that type.
 */
TK_MUST_USE int tk_journal_apply(const struct tk_journal_target *target,
                                 const struct tk_journal_item **items, size_t count);
