/* SPDX-License-Identifier: Apache-2.0 */

/* One block and its cell: what was sealed opens, in its place only, and nothing else does. */

#include "support.h"

#include "crypto/random.h"
#include "fs/block.h"
#include <errno.h>

enum { MOUNT = 3, BLOCK = 130 /* in group 1 */ };

struct sealed {
        uint8_t cell[TK_CELL_LEN];
        uint8_t data[TK_BLOCK_LEN];
        uint8_t plain[TK_BLOCK_LEN];
};

static struct tk_scratch *scratch;
static struct tk_secret *dek;

static int setup(void **state)
{
        assert_int_equal(tk_scratch_get(&scratch), 0);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &dek), 0);
        return 0;
}

static int teardown(void **state)
{
        dek = tk_secret_free(dek);
        tk_scratch_drop();
        return tk_test_no_secrets(state);
}

static void use_group_of(uint64_t block)
{
        assert_int_equal(tk_block_use_group(scratch, dek, tk_group_of_block(block)), 0);
}

static void seal(uint64_t block, uint32_t len, struct sealed *sealed)
{
        uint8_t iv[TK_AEAD_IV_LEN];

        assert_int_equal(tk_random_bytes(iv, sizeof(iv)), 0);
        for (size_t i = 0; i < TK_BLOCK_LEN; i++)
                sealed->plain[i] = i < len ? (uint8_t)(i * 7 + len) : 0;
        memcpy(sealed->data, sealed->plain, TK_BLOCK_LEN);
        use_group_of(block);
        assert_int_equal(tk_block_seal(scratch, block, MOUNT, iv, sealed->data, len, sealed->cell),
                         0);
}

/* Opens a copy: @sealed stays as it is. */
static int open_copy(const struct sealed *sealed, uint64_t block, uint32_t valid, uint8_t *data)
{
        memcpy(data, sealed->data, TK_BLOCK_LEN);
        return tk_block_open(scratch, block, sealed->cell, data, valid);
}

static void check_refused(const struct sealed *sealed, uint64_t block, uint32_t valid)
{
        uint8_t data[TK_BLOCK_LEN];

        assert_int_equal(open_copy(sealed, block, valid, data), -EBADMSG);
        assert_true(tk_bytes_are_zero(data, valid));
}

static void test_block__every_length(void **state)
{
        for (uint32_t len = 1; len <= TK_BLOCK_LEN; len++) {
                struct sealed sealed;
                uint8_t data[TK_BLOCK_LEN];

                seal(BLOCK, len, &sealed);
                assert_int_equal(tk_block_cell_len(sealed.cell), len);
                assert_false(tk_block_cell_is_hole(sealed.cell));
                assert_int_equal(tk_get_be16(sealed.cell + 30), MOUNT);
                /* With all of the block valid, the rest is zeros; with just its length, too. */
                assert_int_equal(open_copy(&sealed, BLOCK, TK_BLOCK_LEN, data), 0);
                assert_memory_equal(data, sealed.plain, TK_BLOCK_LEN);
                assert_int_equal(open_copy(&sealed, BLOCK, len, data), 0);
                assert_memory_equal(data, sealed.plain, len);
                /* A cell that claims more than the file has is not believed. */
                check_refused(&sealed, BLOCK, len - 1);
        }
}

static void test_block__ciphertext_differs(void **state)
{
        struct sealed a;
        struct sealed b;

        seal(BLOCK, TK_BLOCK_LEN, &a);
        seal(BLOCK, TK_BLOCK_LEN, &b);
        assert_memory_equal(a.plain, b.plain, TK_BLOCK_LEN);
        assert_memory_not_equal(a.data, a.plain, TK_BLOCK_LEN);
        assert_memory_not_equal(a.data, b.data, TK_BLOCK_LEN);
}

static void test_block__holes(void **state)
{
        struct sealed sealed;
        uint8_t data[TK_BLOCK_LEN];

        seal(BLOCK, 0, &sealed);
        assert_true(tk_block_cell_is_hole(sealed.cell));
        assert_false(tk_bytes_are_zero(sealed.cell, TK_CELL_LEN));
        memset(sealed.data, 0xA5, TK_BLOCK_LEN);
        assert_int_equal(open_copy(&sealed, BLOCK, TK_BLOCK_LEN, data), 0);
        assert_true(tk_bytes_are_zero(data, TK_BLOCK_LEN));

        /* An absent cell, whatever lies in the page. */
        memset(sealed.cell, 0, TK_CELL_LEN);
        assert_true(tk_block_cell_is_hole(sealed.cell));
        assert_int_equal(open_copy(&sealed, BLOCK, TK_BLOCK_LEN, data), 0);
        assert_true(tk_bytes_are_zero(data, TK_BLOCK_LEN));
        assert_int_equal(open_copy(&sealed, BLOCK, 17, data), 0);
        assert_true(tk_bytes_are_zero(data, 17));
}

/* A hole is authenticated: none can be made of a block that has bytes. */
static void test_block__hole_is_not_forged(void **state)
{
        struct sealed sealed;

        seal(BLOCK, 100, &sealed);
        tk_put_be16(sealed.cell + 28, 0);
        check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
        seal(BLOCK, 0, &sealed);
        check_refused(&sealed, BLOCK + 1, TK_BLOCK_LEN);
}

static void test_block__every_bit_of_a_cell(void **state)
{
        static const uint32_t lens[] = {0, 1, 100, TK_BLOCK_LEN};

        for (size_t l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
                struct sealed sealed;

                seal(BLOCK, lens[l], &sealed);
                for (size_t bit = 0; bit < (size_t)8 * TK_CELL_LEN; bit++) {
                        tk_test_flip(sealed.cell, bit);
                        check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
                        tk_test_flip(sealed.cell, bit);
                }
        }
}

static void test_block__every_byte_of_data(void **state)
{
        struct sealed sealed;

        seal(BLOCK, TK_BLOCK_LEN, &sealed);
        for (size_t bit = 0; bit < (size_t)8 * TK_BLOCK_LEN; bit += 7) {
                tk_test_flip(sealed.data, bit);
                check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
                tk_test_flip(sealed.data, bit);
        }
}

static void test_block__wrong_place(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *other = NULL;
        struct sealed sealed;
        uint8_t data[TK_BLOCK_LEN];

        seal(BLOCK, 100, &sealed);
        for (uint64_t block = BLOCK - 5; block < BLOCK + 5; block++)
                if (block != BLOCK)
                        check_refused(&sealed, block, TK_BLOCK_LEN);
        check_refused(&sealed, BLOCK | (uint64_t)1 << 40, TK_BLOCK_LEN);
        /* The same index under another group's key. */
        assert_int_equal(tk_block_use_group(scratch, dek, 0), 0);
        check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
        /* The same group of another file. */
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &other), 0);
        assert_int_equal(tk_block_use_group(scratch, other, tk_group_of_block(BLOCK)), 0);
        check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
        use_group_of(BLOCK);
        assert_int_equal(open_copy(&sealed, BLOCK, TK_BLOCK_LEN, data), 0);
}

static void test_block__wrong_mount(void **state)
{
        struct sealed sealed;

        seal(BLOCK, 100, &sealed);
        tk_put_be16(sealed.cell + 30, MOUNT + 1);
        check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
}

/* Lengths above a block, which a cell has bits for. */
static void test_block__length_beyond_a_block(void **state)
{
        struct sealed sealed;

        seal(BLOCK, TK_BLOCK_LEN, &sealed);
        for (uint32_t len = TK_BLOCK_LEN + 1; len <= UINT16_MAX; len += 59) {
                tk_put_be16(sealed.cell + 28, (uint16_t)len);
                check_refused(&sealed, BLOCK, TK_BLOCK_LEN);
        }
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_block__every_length),
                TEST(test_block__ciphertext_differs),
                TEST(test_block__holes),
                TEST(test_block__hole_is_not_forged),
                TEST(test_block__every_bit_of_a_cell),
                TEST(test_block__every_byte_of_data),
                TEST(test_block__wrong_place),
                TEST(test_block__wrong_mount),
                TEST(test_block__length_beyond_a_block),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
