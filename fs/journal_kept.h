/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Journal entries that are kept: of files that could not be opened or written, or whose key
 * could not be had, when the journal was replayed, and of files that a mount holds
 * (journal_held.c). They are put in place before such a file is served, in this mount or a
 * later one (docs/format.md, "Journal").
 *
 * They lie in a file of their own in the journal's directory, of which the volume file
 * says that it counts. Thread-safe, once it is started.
 */

#include "fs/journal_read.h"

struct tk_journal_kept; /* opaque: journal_kept.c */

/* Which entries are to be kept. */
typedef bool tk_journal_kept_wanted(void *context, const uint8_t proof[TK_JOURNAL_PROOF_LEN]);

/*
 * Write what @sources hold for files that are @wanted, durably. @ret_chain is what the volume
 * file is to say; 0: there is nothing to keep.
 */
TK_MUST_USE int tk_journal_kept_write(struct tk_fs *fs, struct tk_journal_reader *reader,
                                      const struct tk_journal_source *sources, unsigned count,
                                      tk_journal_kept_wanted *wanted, void *context,
                                      uint64_t *ret_chain);

/* The kept entries that count. -ENOENT: their file is missing. The descriptor is the caller's. */
TK_MUST_USE int tk_journal_kept_open(struct tk_fs *fs, struct tk_journal_source *ret_source);

/* Remove files of kept entries that don't count. */
void tk_journal_kept_sweep(struct tk_fs *fs);

/* From now on files with kept entries are held back: fs->kept. */
TK_MUST_USE int tk_journal_kept_start(struct tk_fs *fs, struct tk_journal_reader *reader);
struct tk_journal_kept *tk_journal_kept_free(struct tk_journal_kept *kept);

/* Of how many files something is kept. */
unsigned tk_journal_kept_count(const struct tk_fs *fs);

/* Before @file is served: put in place, durably, what is kept of it. */
TK_MUST_USE int tk_journal_kept_put(struct tk_fs *fs, struct tk_openfile *file);

/*
 * Of files that are open: keep what @area holds of those with the @count @proofs, durably, behind
 * what is kept already; and: the file with @proof is in place, nothing of it is kept any more.
 */
TK_MUST_USE int tk_journal_kept_add(struct tk_fs *fs, const struct tk_journal_source *area,
                                    uint8_t (*proofs)[TK_JOURNAL_PROOF_LEN], unsigned count);
TK_MUST_USE int tk_journal_kept_forget(struct tk_fs *fs, uint8_t proof[TK_JOURNAL_PROOF_LEN]);
