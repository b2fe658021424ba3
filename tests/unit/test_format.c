/* SPDX-License-Identifier: Apache-2.0 */

/* Sizes and offsets of content, both ways, over every border. */

#include "support.h"

#include "fs/format.h"
#include <inttypes.h>

/* The definition in docs/format.md, written another way. */
static uint64_t expected_backing(uint64_t size)
{
        uint64_t groups = size / TK_GROUP_LEN + (size % TK_GROUP_LEN != 0);

        return size + groups * 4096;
}

static void check_size(uint64_t size)
{
        uint64_t backing = tk_backing_size(size);

        assert_true(backing == expected_backing(size));
        assert_true(tk_plain_size(backing) == size);
        assert_true(backing <= INT64_MAX);
        if (size > 0) {
                uint64_t last = tk_block_of(size - 1);

                /* The last block lies at the end, as long as what is left of the file. */
                assert_true(tk_data_off(last) + tk_block_valid(last, size) == backing);
                assert_int_equal(tk_block_valid(last + 1, size), 0);
        }
}

static void test_backing_size__borders(void **state)
{
        static const uint64_t steps[] = {TK_BLOCK_LEN, TK_GROUP_LEN, TK_GROUP_STRIDE};

        assert_int_equal(tk_backing_size(0), 0);
        assert_int_equal(tk_backing_size(1), 4097);
        assert_int_equal(tk_backing_size(TK_GROUP_LEN), TK_GROUP_STRIDE);
        assert_int_equal(tk_backing_size(TK_GROUP_LEN + 1), TK_GROUP_STRIDE + 4097);
        for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++)
                for (uint64_t n = 0; n < 400; n++)
                        for (uint64_t size = n * steps[s] - (n > 0 ? 3 : 0);
                             size <= n * steps[s] + 3; size++)
                                check_size(size);
        for (uint64_t size = TK_SIZE_MAX - 2 * (uint64_t)TK_GROUP_LEN; size < TK_SIZE_MAX;
             size += 4093)
                check_size(size);
        check_size(TK_SIZE_MAX);
}

static void test_backing_size__random(void **state)
{
        uint64_t x = 88172645463325252U;

        for (int i = 0; i < 200000; i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                check_size((x & (TK_SIZE_MAX - 1)) >> (x >> 58));
        }
}

/* Backing sizes that no plaintext has, such as a cut tag page, stand for what lies whole below. */
static void test_plain_size__cut_tag_page(void **state)
{
        for (uint64_t groups = 0; groups < 3; groups++) {
                uint64_t start = groups * TK_GROUP_STRIDE;

                for (uint64_t rest = 0; rest <= TK_BLOCK_LEN; rest++)
                        assert_int_equal(tk_plain_size(start + rest), groups * TK_GROUP_LEN);
                assert_int_equal(tk_plain_size(start + TK_BLOCK_LEN + 1),
                                 groups * TK_GROUP_LEN + 1);
        }
}

/* The same behind a page for the record. */
static void test_sizes__with_a_base(void **state)
{
        assert_int_equal(tk_backing_size_at(4096, 0), 0);
        for (uint64_t backing = 0; backing <= UINT64_C(2) * 4096; backing++)
                assert_int_equal(tk_plain_size_at(4096, backing), 0);
        for (uint64_t size = 1; size < 3 * (uint64_t)TK_GROUP_LEN; size += 509) {
                assert_int_equal(tk_backing_size_at(4096, size), 4096 + expected_backing(size));
                assert_int_equal(tk_plain_size_at(4096, 4096 + expected_backing(size)), size);
                assert_int_equal(tk_backing_size_at(0, size), expected_backing(size));
                assert_int_equal(tk_plain_size_at(0, expected_backing(size)), size);
        }
        assert_true(tk_backing_size_at(4096, TK_SIZE_MAX) <= INT64_MAX);
}

/* Nothing overlaps: tag pages, cells and data pages tile each group. */
static void test_offsets__tile_a_group(void **state)
{
        for (uint64_t group = 0; group < 4; group++) {
                uint64_t at = tk_tag_page_off(group);

                assert_int_equal(at, group * TK_GROUP_STRIDE);
                for (uint64_t slot = 0; slot < TK_GROUP_BLOCKS; slot++) {
                        uint64_t block = group * TK_GROUP_BLOCKS + slot;

                        assert_int_equal(tk_group_of_block(block), group);
                        assert_int_equal(tk_slot_of_block(block), slot);
                        assert_int_equal(tk_group_of(block * TK_BLOCK_LEN), group);
                        assert_int_equal(tk_group_of(block * TK_BLOCK_LEN + TK_BLOCK_LEN - 1),
                                         group);
                        assert_int_equal(tk_cell_off(block), at + 128 + slot * 32);
                        assert_int_equal(tk_data_off(block), at + 4096 + slot * 4096);
                }
                assert_int_equal(tk_data_off((group + 1) * TK_GROUP_BLOCKS - 1) + TK_BLOCK_LEN,
                                 tk_tag_page_off(group + 1));
        }
}

static void test_block_valid__below_size(void **state)
{
        assert_int_equal(tk_block_valid(0, 0), 0);
        assert_int_equal(tk_block_valid(0, 1), 1);
        assert_int_equal(tk_block_valid(0, 4095), 4095);
        assert_int_equal(tk_block_valid(0, 4096), 4096);
        assert_int_equal(tk_block_valid(0, TK_SIZE_MAX), 4096);
        assert_int_equal(tk_block_valid(1, 4096), 0);
        assert_int_equal(tk_block_valid(1, 4097), 1);
        assert_int_equal(tk_block_valid(TK_SIZE_MAX / TK_BLOCK_LEN - 1, TK_SIZE_MAX), 4096);
        assert_int_equal(tk_block_valid(TK_SIZE_MAX / TK_BLOCK_LEN, TK_SIZE_MAX), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_backing_size__borders),    TK_TEST(test_backing_size__random),
                TK_TEST(test_plain_size__cut_tag_page), TK_TEST(test_offsets__tile_a_group),
                TK_TEST(test_block_valid__below_size),  TK_TEST(test_sizes__with_a_base),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
