/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One batch of the journal: bytes in, bytes out (docs/format.md, "Journal"). No I/O.
 *
 * A batch is a descriptor of one or more pages, which lists files and entries, and
 * then one page for each entry of type block. The descriptor's MAC covers the
 * checksums of the pages: a batch holds whole, or not at all.
 */

#include "base/secret.h"
#include "fs/format.h"
#include "fs/identity.h"

enum {
        TK_JOURNAL_HEAD_LEN = 128,
        TK_JOURNAL_FILE_LEN = 64, /* and the path behind it */
        TK_JOURNAL_ENTRY_LEN = 48,
        TK_JOURNAL_PROOF_LEN = 16,
        TK_JOURNAL_PATH_MAX = 512,
        /* Of one batch; a journal's size may allow fewer pages. */
        TK_JOURNAL_FILES_MAX = 64,
        TK_JOURNAL_ENTRIES_MAX = 1024,
        TK_JOURNAL_PAGES_MAX = 512,
        TK_JOURNAL_DESCRIPTOR_MAX =
                (TK_JOURNAL_HEAD_LEN +
                 TK_JOURNAL_FILES_MAX * (TK_JOURNAL_FILE_LEN + TK_JOURNAL_PATH_MAX) +
                 TK_JOURNAL_ENTRIES_MAX * TK_JOURNAL_ENTRY_LEN + TK_BLOCK_LEN - 1) /
                TK_BLOCK_LEN * TK_BLOCK_LEN,
        TK_JOURNAL_BATCH_MAX = TK_JOURNAL_DESCRIPTOR_MAX + TK_JOURNAL_PAGES_MAX * TK_BLOCK_LEN,
};

enum tk_journal_type {
        TK_JOURNAL_BLOCK = 1, /* a block's new cell and page */
        TK_JOURNAL_HOLE = 2,  /* a block's new cell; it has no page */
        TK_JOURNAL_SIZE = 3,  /* the file's new size */
        TK_JOURNAL_MTIME = 4, /* the file's modification time */
        TK_JOURNAL_SEAL = 5,  /* a seal slot's new content */
};

enum {
        TK_JOURNAL_KEEP = 1, /* of a hole: the space stays allocated */
        TK_JOURNAL_GROW = 2, /* of a size: a larger file stays as it is */
};

/* A change to one file. */
struct tk_journal_item {
        uint8_t type;
        uint8_t flags;
        uint16_t file;             /* its number in the batch */
        uint32_t crc;              /* of what the cell covers of the page */
        uint64_t at;               /* block; size; seconds; slot */
        uint8_t cell[TK_CELL_LEN]; /* of an mtime: nanoseconds, 4 bytes */
        const uint8_t *page;       /* of a block */
};

struct tk_journal_file {
        uint8_t proof[TK_JOURNAL_PROOF_LEN]; /* derived from the file's DEK */
        struct tk_identity identity;
        const char *path; /* below CIPHERDIR/root, not terminated; a hint */
        uint16_t path_len;
};

struct tk_journal_head {
        uint64_t chain;    /* random: what the batches of one use of an area have in common */
        uint64_t sequence; /* counts batches */
        uint32_t pages;    /* of the whole batch */
        uint32_t descriptor_len;
        uint16_t mount;
        uint16_t files;
        uint16_t entries;
        uint64_t tree; /* of the handles and inode numbers: tk_identity_tree */
};

/* Bytes of a cell's block that are encrypted: what its page holds. */
uint32_t tk_journal_item_len(const struct tk_journal_item *item);

/* A descriptor being made in @bytes, TK_JOURNAL_DESCRIPTOR_MAX of them. Files first, then entries.
 */
struct tk_journal_writer {
        uint8_t *bytes;
        size_t len;
        uint16_t files;
        uint16_t entries;
        uint32_t pages; /* of data */
};

void tk_journal_write_begin(struct tk_journal_writer *writer, uint8_t *bytes);
void tk_journal_write_file(struct tk_journal_writer *writer, const struct tk_journal_file *file);
void tk_journal_write_item(struct tk_journal_writer *writer, const struct tk_journal_item *item);

/* Fill in the head: chain, sequence, mount and tree are taken from @head. */
TK_MUST_USE int tk_journal_write_end(struct tk_journal_writer *writer,
                                     const struct tk_journal_head *head,
                                     const struct tk_secret *mac_key);

/* The head in the first page of a batch. -EBADMSG if it can't be one. Nothing is proved yet. */
TK_MUST_USE int tk_journal_parse_head(const uint8_t page[TK_BLOCK_LEN],
                                      struct tk_journal_head *ret_head);

/* Whether the whole batch of @head->pages pages holds: MAC, checksums, and numbers. -EBADMSG. */
TK_MUST_USE int tk_journal_check(const uint8_t *batch, const struct tk_journal_head *head,
                                 const struct tk_secret *mac_key);

/* File and entry number @i of a batch that was checked; pointers are into it. */
struct tk_journal_file tk_journal_file_at(const uint8_t *batch, const struct tk_journal_head *head,
                                          unsigned i);

/* Walk the entries: @cursor begins as zeros. False behind the last one. */
struct tk_journal_cursor {
        unsigned entry;
        unsigned page;
        size_t off;
};
bool tk_journal_next_item(const uint8_t *batch, const struct tk_journal_head *head,
                          struct tk_journal_cursor *cursor, struct tk_journal_item *ret_item);
