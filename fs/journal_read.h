/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Batches read one behind the other: from an area of the journal, or from the file that
 * keeps what could not be replayed yet (journal_kept.h). Not thread-safe.
 */

#include "fs/fs.h"
#include "fs/journal_batch.h"
#include "fs/openfile.h"

/* Where batches lie. */
struct tk_journal_source {
        int fd;
        uint64_t begin;
        uint64_t len;
        uint64_t chain; /* the one that counts; 0: those of mounts that await replay */
};

struct tk_journal_reader {
        struct tk_volume *volume;
        struct tk_secret *mac_key;
        uint8_t *batch; /* TK_JOURNAL_BATCH_MAX bytes: the one read last */
        const struct tk_journal_item **items;
        struct tk_journal_item *item_space;
        struct tk_journal_head head;
        bool stale; /* a batch held, but did not count */

        const struct tk_journal_source *source;
        uint64_t off;
        uint64_t chain;
        uint64_t sequence; /* of the last batch; 0: none */
};

/* To be ended with done, also after a failure. */
TK_MUST_USE int tk_journal_reader_init(struct tk_journal_reader *reader, struct tk_fs *fs);
void tk_journal_reader_done(struct tk_journal_reader *reader);

void tk_journal_reader_begin(struct tk_journal_reader *reader,
                             const struct tk_journal_source *source);

/* The next batch that holds, follows and counts: 1; 0 at the end; or an error of reading. */
TK_MUST_USE int tk_journal_reader_next(struct tk_journal_reader *reader);

/* Put in place what the batch holds for its file number @index, which is @file. Entries, or an
 * error. */
TK_MUST_USE int tk_journal_reader_put(struct tk_journal_reader *reader, unsigned index,
                                      const struct tk_openfile *file);
