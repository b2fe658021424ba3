/* SPDX-License-Identifier: Apache-2.0 */

/* One block of content and its cell. */

#include "fs/block.h"

#include "base/bytes.h"
#include "crypto/kdf.h"
#include <errno.h>
#include <string.h>

enum {
        OFF_IV = 0,
        OFF_TAG = OFF_IV + TK_AEAD_IV_LEN,
        OFF_LEN = OFF_TAG + TK_AEAD_TAG_LEN,
        OFF_MOUNT = OFF_LEN + 2,
        AAD_LEN = 8 + 2 + 2,
};
_Static_assert(OFF_MOUNT + 2 == TK_CELL_LEN, "docs/format.md: cell");

int tk_block_use_group(struct tk_scratch *scratch, const struct tk_secret *dek, uint64_t group)
{
        uint8_t context[8];
        int r;

        tk_put_be64(context, group);
        r = tk_kdf_expand(dek, "turnkeyfs content", context, sizeof(context), scratch->subkey);
        if (r < 0)
                return r;
        return tk_aead_set_key(scratch->aead, scratch->subkey);
}

static void make_aad(uint64_t block, const uint8_t cell[TK_CELL_LEN], uint8_t aad[AAD_LEN])
{
        tk_put_be64(aad, block);
        memcpy(aad + 8, cell + OFF_LEN, 4);
}

int tk_block_seal(struct tk_scratch *scratch, uint64_t block, uint16_t mount, const uint8_t *iv,
                  uint8_t *data, uint32_t len, uint8_t cell[TK_CELL_LEN])
{
        uint8_t aad[AAD_LEN];

        memcpy(cell + OFF_IV, iv, TK_AEAD_IV_LEN);
        tk_put_be16(cell + OFF_LEN, (uint16_t)len);
        tk_put_be16(cell + OFF_MOUNT, mount);
        make_aad(block, cell, aad);
        return tk_aead_seal(scratch->aead,
                            &(struct tk_aead_msg){.iv = cell + OFF_IV,
                                                  .aad = aad,
                                                  .aad_len = sizeof(aad),
                                                  .in = data,
                                                  .out = data,
                                                  .len = len},
                            cell + OFF_TAG);
}

int tk_block_open(struct tk_scratch *scratch, uint64_t block, const uint8_t cell[TK_CELL_LEN],
                  uint8_t *data, uint32_t valid)
{
        uint32_t len = tk_block_cell_len(cell);
        uint8_t aad[AAD_LEN];
        int r;

        if (tk_bytes_are_zero(cell, TK_CELL_LEN)) {
                memset(data, 0, valid);
                return 0;
        }
        if (len > valid) {
                memset(data, 0, valid);
                return -EBADMSG;
        }
        make_aad(block, cell, aad);
        r = tk_aead_open(scratch->aead,
                         &(struct tk_aead_msg){.iv = cell + OFF_IV,
                                               .aad = aad,
                                               .aad_len = sizeof(aad),
                                               .in = data,
                                               .out = data,
                                               .len = len},
                         cell + OFF_TAG);
        memset(data + len, 0, valid - len);
        return r;
}

uint32_t tk_block_cell_len(const uint8_t cell[TK_CELL_LEN])
{
        return tk_get_be16(cell + OFF_LEN);
}

bool tk_block_cell_is_hole(const uint8_t cell[TK_CELL_LEN])
{
        return tk_block_cell_len(cell) == 0;
}
