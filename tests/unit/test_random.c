/* SPDX-License-Identifier: Apache-2.0 */

/* Random bytes: all of them, and not twice the same. */

#include "crypto/random.h"
#include "tests/unit/support.h"

static void test_random_bytes__writes_no_more(void **state)
{
        uint8_t bytes[40];

        for (size_t len = 0; len <= 32; len++) {
                memset(bytes, 0x5a, sizeof(bytes));
                assert_int_equal(tk_random_bytes(bytes, len), 0);
                for (size_t i = len; i < sizeof(bytes); i++)
                        assert_int_equal(bytes[i], 0x5a);
        }
        assert_int_equal(tk_random_bytes(NULL, 0), 0);
}

static void test_random_bytes__differ(void **state)
{
        uint8_t a[32], b[32];

        assert_int_equal(tk_random_bytes(a, sizeof(a)), 0);
        assert_int_equal(tk_random_bytes(b, sizeof(b)), 0);
        assert_memory_not_equal(a, b, sizeof(a));
}

/* 8 Mi fair coins: 10 standard deviations are 14,482. Every page is written. */
static void test_random_bytes__large(void **state)
{
        enum { LEN = 1 << 20, BITS = LEN * 8, TEN_SIGMA = 14482 };
        TK_CLEANUP(tk_freep) uint8_t *bytes = calloc(1, LEN);
        long ones = 0;

        assert_non_null(bytes);
        assert_int_equal(tk_random_bytes(bytes, LEN), 0);
        for (size_t i = 0; i < LEN; i++)
                ones += __builtin_popcount(bytes[i]);
        assert_in_range(ones, BITS / 2 - TEN_SIGMA, BITS / 2 + TEN_SIGMA);
        for (size_t i = 0; i < LEN; i += 4096)
                assert_false(tk_bytes_are_zero(bytes + i, 4096));
}

static void test_random_secret__new_each_time(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *a = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *b = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &a), 0);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &b), 0);
        assert_int_equal(tk_secret_len(a), TK_KEY_LEN);
        assert_false(tk_secret_equal(a, b));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_random_bytes__writes_no_more),
                TK_TEST(test_random_bytes__differ),
                TK_TEST(test_random_bytes__large),
                TK_TEST(test_random_secret__new_each_time),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
