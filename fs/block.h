/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One block of content: plaintext to ciphertext and cell, and back. No I/O.
 *
 * Layout: docs/format.md, "Content". A group's key is put into the scratch
 * first; then any number of its blocks are sealed or opened.
 */

#include "fs/scratch.h"

/* Derive the content key of @group from @dek and load it. */
TK_MUST_USE int tk_block_use_group(struct tk_scratch *scratch, const struct tk_secret *dek,
                                   uint64_t group);

/*
 * Encrypt the first @len bytes (0 to 4096) of @data in place and write the cell.
 * @len 0 makes an explicit hole. @iv is TK_AEAD_IV_LEN fresh random bytes.
 */
TK_MUST_USE int tk_block_seal(struct tk_scratch *scratch, uint64_t block, uint16_t mount,
                              const uint8_t *iv, uint8_t *data, uint32_t len,
                              uint8_t cell[TK_CELL_LEN]);

/*
 * Decrypt @data in place by its cell; what the cell does not cover of the first
 * @valid bytes becomes zeros, as does a hole. -EBADMSG if it does not
 * authenticate or claims more than @valid bytes; @data is then zeros.
 */
TK_MUST_USE int tk_block_open(struct tk_scratch *scratch, uint64_t block,
                              const uint8_t cell[TK_CELL_LEN], uint8_t *data, uint32_t valid);

/* Bytes of a block that its cell says are encrypted. */
uint32_t tk_block_cell_len(const uint8_t cell[TK_CELL_LEN]);

/* Whether a cell stands for a hole, explicit or not. */
bool tk_block_cell_is_hole(const uint8_t cell[TK_CELL_LEN]);
