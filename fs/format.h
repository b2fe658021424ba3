/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Sizes and offsets of file content, and their arithmetic (docs/format.md, "Content").
 *
 * A block is 4096 bytes of plaintext with an index from 0; a group is a tag page
 * and 124 data pages. A slot is a block's place in its group, 0 to 123. Group 0
 * begins at the base: 0, or behind one page for the record (dek_wrap = kms).
 */

#include <stdbool.h>
#include <stdint.h>

enum {
        TK_BLOCK_LEN = 4096,
        TK_GROUP_BLOCKS = 124,
        TK_CELL_LEN = 32,
        TK_HEADER_CELLS = 4,
        TK_HEADER_LEN = TK_HEADER_CELLS * TK_CELL_LEN,
        TK_GROUP_LEN = TK_GROUP_BLOCKS * TK_BLOCK_LEN,          /* plaintext bytes */
        TK_GROUP_STRIDE = (TK_GROUP_BLOCKS + 1) * TK_BLOCK_LEN, /* backing bytes */
};
_Static_assert((TK_HEADER_CELLS + TK_GROUP_BLOCKS) * TK_CELL_LEN == TK_BLOCK_LEN,
               "the cells of a group fill its tag page");
_Static_assert(TK_GROUP_LEN == 507904 && TK_GROUP_STRIDE == 512000, "docs/format.md");

/* The largest plaintext size: its backing size still is an off_t. */
#define TK_SIZE_MAX ((uint64_t)1 << 62)

static inline uint64_t tk_block_of(uint64_t off)
{
        return off / TK_BLOCK_LEN;
}

static inline uint64_t tk_group_of_block(uint64_t block)
{
        return block / TK_GROUP_BLOCKS;
}

static inline unsigned tk_slot_of_block(uint64_t block)
{
        return (unsigned)(block % TK_GROUP_BLOCKS);
}

static inline uint64_t tk_group_of(uint64_t off)
{
        return off / TK_GROUP_LEN;
}

/* Backing offset of a group's tag page. */
static inline uint64_t tk_tag_page_off(uint64_t group)
{
        return group * TK_GROUP_STRIDE;
}

static inline uint64_t tk_cell_off(uint64_t block)
{
        return tk_tag_page_off(tk_group_of_block(block)) + TK_HEADER_LEN +
               (uint64_t)tk_slot_of_block(block) * TK_CELL_LEN;
}

static inline uint64_t tk_data_off(uint64_t block)
{
        return tk_tag_page_off(tk_group_of_block(block)) + TK_BLOCK_LEN +
               (uint64_t)tk_slot_of_block(block) * TK_BLOCK_LEN;
}

enum { TK_SEAL_LEN = 32, TK_SEAL_SLOTS = 2, TK_SEAL_HEADER_OFF = 64 };
_Static_assert(TK_SEAL_HEADER_OFF + TK_SEAL_SLOTS * TK_SEAL_LEN == TK_HEADER_LEN,
               "the header is a key record and two seal slots");

/* Where a seal slot lies, from the beginning of group 0. */
static inline uint64_t tk_seal_off(unsigned slot)
{
        return TK_SEAL_HEADER_OFF + (uint64_t)slot * TK_SEAL_LEN;
}

/* Backing size of a file of @size plaintext bytes. */
static inline uint64_t tk_backing_size(uint64_t size)
{
        return size + (size + TK_GROUP_LEN - 1) / TK_GROUP_LEN * TK_BLOCK_LEN;
}

/* Plaintext size of a backing file of @backing_size bytes. */
static inline uint64_t tk_plain_size(uint64_t backing_size)
{
        uint64_t rest = backing_size % TK_GROUP_STRIDE;

        return backing_size / TK_GROUP_STRIDE * TK_GROUP_LEN +
               (rest > TK_BLOCK_LEN ? rest - TK_BLOCK_LEN : 0);
}

/* The same for a file whose group 0 begins at @base. */
static inline uint64_t tk_backing_size_at(uint64_t base, uint64_t size)
{
        return size > 0 ? base + tk_backing_size(size) : 0;
}

static inline uint64_t tk_plain_size_at(uint64_t base, uint64_t backing_size)
{
        return backing_size > base ? tk_plain_size(backing_size - base) : 0;
}

/* Bytes of @block that lie below @size: 0 to 4096. */
static inline uint32_t tk_block_valid(uint64_t block, uint64_t size)
{
        uint64_t start = block * TK_BLOCK_LEN;

        if (size <= start)
                return 0;
        return size - start < TK_BLOCK_LEN ? (uint32_t)(size - start) : TK_BLOCK_LEN;
}
