/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Replay: what a mount that did not end cleanly left in its journal is put in place.
 */

#include "base/fault.h"
#include "fs/fs.h"

struct tk_replay_totals {
        uint64_t batches;
        uint64_t entries; /* put in place */
        uint64_t files;
        uint64_t gone;  /* files of the journal that are not there any more */
        uint64_t kept;  /* files that can't be opened now: their entries are kept */
        int kept_error; /* why, for one of them */
};

/*
 * Put everything in place, durably, and empty the journal. What belongs to files that can't be
 * opened now is kept for later (journal_kept.h). It can be done again after any failure. A missing
 * journal is an empty one. -EROFS with a fault if there is something to do and the encrypted
 * directory can't be written.
 */
TK_MUST_USE int tk_journal_replay(struct tk_fs *fs, struct tk_replay_totals *ret_totals,
                                  struct tk_fault *fault);
