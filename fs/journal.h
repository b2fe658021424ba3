/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The redo journal of a mount: overwrites of durable blocks are appended to it, flushed
 * by group commit, and only then put in place, by a thread of its own.
 *
 * Until an entry is in place, reads see it: the overlay. Nothing here waits for a range
 * lock, so that all may be called with one held. Thread-safe.
 */

#include "base/fault.h"
#include "fs/fs.h"
#include "fs/journal_batch.h"
#include <limits.h>

struct tk_journal; /* opaque: journal.c */
struct tk_openfile;

enum {
        TK_JOURNAL_LEN_MIN = 1024 * 1024,
        TK_JOURNAL_LEN_DEFAULT = 16 * 1024 * 1024,
};

#define TK_JOURNAL_DIR "journal"
#define TK_JOURNAL_NAME "journal"

/* Make the journal of @len bytes, zero-filled and durable, in the directory @dirfd (CIPHERDIR). */
TK_MUST_USE int tk_journal_create(int dirfd, uint64_t len);

/* The key that authenticates batches, derived from the volume key. */
TK_MUST_USE int tk_journal_mac_key(struct tk_fs *fs, struct tk_secret **ret_key);

/*
 * Start journaling on @fs, whose journal was replayed. It is made, with @len bytes, if
 * it is missing or too short.
 */
TK_MUST_USE int tk_journal_new(struct tk_fs *fs, uint64_t len, struct tk_journal **ret_journal,
                               struct tk_fault *fault);

/*
 * Flush everything, put it in place, make that durable and leave an empty journal. The
 * first error is returned; then the journal keeps what the next mount replays.
 */
TK_MUST_USE int tk_journal_finish(struct tk_journal *journal);

/* End the thread; what was not finished stays in the journal. */
struct tk_journal *tk_journal_free(struct tk_journal *journal);

/*
 * Append an entry of @file: type, flags, at, cell and page of @item. Waits while memory is
 * full. An error: nothing was appended. The file's entries come one at a time for the
 * same block, which its range lock sees to.
 */
TK_MUST_USE int tk_journal_append(struct tk_journal *journal, struct tk_openfile *file,
                                  const struct tk_journal_item *item);

/*
 * Blocks @first to @last of @file are going to be appended. Holes among them that are on
 * their way in place keep their space from now on, or are in place when this returns.
 */
void tk_journal_keep_space(struct tk_journal *journal, struct tk_openfile *file, uint64_t first,
                           uint64_t last);

/* The first block from @first on, up to @last + 1, whose newest content is no page on its way. */
uint64_t tk_journal_skip_pages(struct tk_journal *journal, struct tk_openfile *file, uint64_t first,
                               uint64_t last);

/*
 * Have all entries of @file that were appended so far durable in the journal. An error, too, if
 * they can't be put in place (journal_held.c).
 */
TK_MUST_USE int tk_journal_commit(struct tk_journal *journal, struct tk_openfile *file);

/* The same, and in place. */
TK_MUST_USE int tk_journal_settle(struct tk_journal *journal, struct tk_openfile *file);

/* Whether the journal on disk may hold entries of @file: a crash would replay them. */
bool tk_journal_is_live(struct tk_journal *journal, const struct tk_openfile *file);

/* The same of a size. */
bool tk_journal_has_size(struct tk_journal *journal, const struct tk_openfile *file);

/*
 * Lay the overlay over blocks @first to @last that were read: their @cells, 32 bytes
 * each, and their @data, 4096 bytes each (NULL: only cells). @gen is the file's
 * overlay_gen before they were read. -EAGAIN: read again.
 */
TK_MUST_USE int tk_journal_overlay(struct tk_journal *journal, struct tk_openfile *file,
                                   uint64_t first, uint64_t last, uint64_t gen, uint8_t *cells,
                                   uint8_t *data);

/* How it is: fs.h. */
void tk_journal_look(struct tk_journal *journal, struct tk_journal_status *ret_status);

/*
 * A name was removed or changed: paths that the journal noted may be wrong, and if a file lost its
 * last name, and nobody has it open, its space is to be free soon.
 */
void tk_journal_note_names(struct tk_journal *journal);

/*
 * How many files are held (journal_held.c): what is in the journal can't be put in their places. Of
 * the first, where it lies below, and why.
 */
unsigned tk_journal_held_files(struct tk_journal *journal, char ret_path[PATH_MAX], int *ret_error);
