/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The files that a journal names, found again in the tree.
 *
 * A file is found by its handle, else by its last path, else in one walk of the tree for
 * all that are left; its DEK proves that it is the one. A copy of the volume holds files
 * with the same DEK: handles and inode numbers count only in the tree that they were
 * written for. Not thread-safe.
 */

#include "fs/fs.h"
#include "fs/journal_batch.h"
#include "fs/openfile.h"

enum tk_journal_found_state {
        TK_JOURNAL_SOUGHT,
        TK_JOURNAL_FOUND,
        TK_JOURNAL_GONE,    /* it is not there any more */
        TK_JOURNAL_REFUSED, /* what may be it can't be opened, or its key can't be had, now */
};

/* A file of the journal. */
struct tk_journal_found {
        struct tk_journal_found *next;
        uint8_t proof[TK_JOURNAL_PROOF_LEN];
        struct tk_identity identity; /* zeros in another tree */
        char *hint;                  /* path below root when it was journaled; NULL: none */
        enum tk_journal_found_state state;
        int error;                /* why it is refused */
        struct tk_openfile *file; /* NULL: not open now */
        char *place;              /* path below root where it was found, while it is not open */
        bool changed;             /* since it was opened */
};

struct tk_journal_finder {
        struct tk_fs *fs;
        uint64_t tree;
        struct tk_journal_found *files;
        unsigned open_count;
        unsigned open_max; /* descriptors that may be held, about */
};

void tk_journal_finder_init(struct tk_journal_finder *finder, struct tk_fs *fs);
void tk_journal_finder_done(struct tk_journal_finder *finder);

/* @entry, of a batch that was written for @tree, is to be found; once for each proof. */
TK_MUST_USE int tk_journal_finder_add(struct tk_journal_finder *finder,
                                      const struct tk_journal_file *entry, uint64_t tree);

/* Find all. An error is about this process, such as -ENOMEM, not about a file. */
TK_MUST_USE int tk_journal_finder_run(struct tk_journal_finder *finder);

/* The file with @proof, which was added. */
struct tk_journal_found *tk_journal_finder_get(struct tk_journal_finder *finder,
                                               const uint8_t proof[TK_JOURNAL_PROOF_LEN]);

/* Have @found->file open; another one may be synced and closed for it. */
TK_MUST_USE int tk_journal_finder_open(struct tk_journal_finder *finder,
                                       struct tk_journal_found *found);

/* The proof of @file's DEK. */
TK_MUST_USE int tk_journal_proof_of(const struct tk_openfile *file,
                                    uint8_t ret_proof[TK_JOURNAL_PROOF_LEN]);
