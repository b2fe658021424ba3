/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What content.c (read, write) and content_space.c (size, holes) share. Every
 * function here wants the range of blocks it touches held by the caller.
 */

#include "fs/content.h"

struct tk_journal_item;

/*
 * One block's plaintext, with zeros behind its end, into @dst (4096 bytes). @size
 * is the file's size that the caller goes by.
 */
TK_MUST_USE int tk_content_load_block(struct tk_fs *fs, struct tk_openfile *file,
                                      struct tk_scratch *scratch, uint64_t block, uint64_t size,
                                      uint8_t *dst);

/*
 * Encrypt the first @len bytes of @data in place and write it as @block, through the
 * journal if it is durable.
 */
TK_MUST_USE int tk_content_store_block(struct tk_fs *fs, struct tk_openfile *file,
                                       struct tk_scratch *scratch, uint64_t block, uint8_t *data,
                                       uint32_t len);

/* Make group 0 present, with the copy of the key record. Wants block 0 held exclusively. */
TK_MUST_USE int tk_content_ensure_header(struct tk_openfile *file);

/* The cells of @count blocks from @first on, in one group, as they are or will be in place. */
TK_MUST_USE int tk_content_read_cells(struct tk_fs *fs, struct tk_openfile *file, uint64_t first,
                                      uint64_t count, uint8_t *cells);

/* The same blocks in place: whether none has a cell. 1, 0 or a negative errno. */
TK_MUST_USE int tk_content_cells_absent(const struct tk_openfile *file, uint64_t first,
                                        uint64_t count);

/*
 * Cut the backing file to what @size bytes need, and clear the cells above. Wants
 * all blocks from @size on held exclusively.
 */
TK_MUST_USE int tk_content_cut(struct tk_openfile *file, uint64_t size);

/*
 * Hand @item to the journal. A cut of the file to nothing is flushed before: if a crash undid it,
 * replay would lay the entry over what was there.
 */
TK_MUST_USE int tk_content_journal(struct tk_fs *fs, struct tk_openfile *file,
                                   const struct tk_journal_item *item);

/* The same of an encrypted block, or a hole, whose space is kept or not. */
TK_MUST_USE int tk_content_journal_block(struct tk_fs *fs, struct tk_openfile *file, uint64_t block,
                                         const uint8_t cell[TK_CELL_LEN], const uint8_t *data);
TK_MUST_USE int tk_content_journal_hole(struct tk_fs *fs, struct tk_openfile *file, uint64_t block,
                                        const uint8_t cell[TK_CELL_LEN], bool keep);

/*
 * Blocks @first to @last of one group are going to the journal: see that they can be put
 * in place later, by taking the space for holes now.
 */
TK_MUST_USE int tk_content_want_space(struct tk_fs *fs, struct tk_openfile *file, uint64_t first,
                                      uint64_t last);

/* Before a write, without a range: after a cut, let fewer blocks count as durable if they may. */
void tk_content_relieve(struct tk_fs *fs, struct tk_openfile *file);

/* Raise @value to @to, if it is less. */
static inline void tk_content_raise(_Atomic uint64_t *value, uint64_t to)
{
        uint64_t old = atomic_load(value);

        while (old < to && !atomic_compare_exchange_weak(value, &old, to))
                ;
}
