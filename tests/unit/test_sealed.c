/* SPDX-License-Identifier: Apache-2.0 */

/* Values under a key: the layout, and that nothing else opens them. */

#include "crypto/random.h"
#include "crypto/sealed.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <string.h>

static struct tk_secret *new_key(void)
{
        struct tk_secret *key = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &key), 0);
        return key;
}

static void test_sealed_make__layout(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = new_key();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        uint8_t sealed[TK_SEALED_KEY_LEN];
        uint8_t plain[TK_KEY_LEN];

        (void)state;
        assert_int_equal(TK_SEALED_KEY_LEN, 60);
        assert_int_equal(tk_sealed_make(kek, "aad", 3, key, sealed), 0);
        assert_int_equal(tk_aead_new(&aead), 0);
        assert_int_equal(tk_aead_set_key(aead, kek), 0);
        assert_int_equal(tk_aead_open(aead,
                                      &(struct tk_aead_msg){.iv = sealed,
                                                            .aad = (const uint8_t *)"aad",
                                                            .aad_len = 3,
                                                            .in = sealed + 12,
                                                            .out = plain,
                                                            .len = 32},
                                      sealed + 44),
                         0);
        assert_memory_equal(plain, tk_secret_bytes(key), TK_KEY_LEN);
}

static void test_sealed_open__every_bit_counts(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = new_key();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *found = NULL;
        struct tk_secret *none = NULL;
        uint8_t sealed[TK_SEALED_KEY_LEN];

        (void)state;
        assert_int_equal(tk_sealed_make(kek, "aad", 3, key, sealed), 0);
        for (size_t bit = 0; bit < sizeof(sealed) * 8; bit++) {
                sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
                assert_int_equal(tk_sealed_open(kek, "aad", 3, sealed, &none), -EBADMSG);
                assert_null(none);
                sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_int_equal(tk_sealed_open(kek, "aae", 3, sealed, &none), -EBADMSG);
        assert_int_equal(tk_sealed_open(kek, "aad", 2, sealed, &none), -EBADMSG);
        assert_int_equal(tk_sealed_open(key, "aad", 3, sealed, &none), -EBADMSG);
        assert_int_equal(tk_sealed_open(kek, "aad", 3, sealed, &found), 0);
        assert_true(tk_secret_equal(found, key));
}

static void test_sealed_make__refuses_other_sizes(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = new_key();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *half = NULL;
        uint8_t sealed[TK_SEALED_KEY_LEN];

        (void)state;
        assert_int_equal(tk_random_secret(TK_KEY_LEN / 2, &half), 0);
        assert_int_equal(tk_sealed_make(kek, NULL, 0, half, sealed), -EINVAL);
        assert_int_equal(tk_sealed_make(half, NULL, 0, kek, sealed), -EINVAL);
}

static void test_sealed_bytes__every_length(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        static const size_t lens[] = {0, 1, 15, 16, 17, 4096, 65536};
        uint8_t *sealed = malloc(65536 + TK_SEALED_OVERHEAD);
        uint8_t *bytes = malloc(65536);
        uint8_t *found = malloc(65536);

        (void)state;
        assert_true(sealed && bytes && found);
        memset(bytes, 'x', 65536);
        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
                size_t sealed_len = lens[i] + TK_SEALED_OVERHEAD;

                memset(found, 0, 65536);
                assert_int_equal(tk_sealed_make_bytes(key, "aad", 3, bytes, lens[i], sealed), 0);
                assert_int_equal(tk_sealed_open_bytes(key, "aad", 3, sealed, sealed_len, found), 0);
                assert_memory_equal(found, bytes, lens[i]);
                assert_int_equal(tk_sealed_open_bytes(key, "aa", 2, sealed, sealed_len, found),
                                 -EBADMSG);
                assert_true(lens[i] == 0 || found[0] == 0); /* nothing is left of it */
                assert_int_equal(tk_sealed_open_bytes(key, "aad", 3, sealed, sealed_len - 1, found),
                                 -EBADMSG);
                sealed[sealed_len - 1] ^= 1;
                assert_int_equal(tk_sealed_open_bytes(key, "aad", 3, sealed, sealed_len, found),
                                 -EBADMSG);
        }
        free(found);
        free(bytes);
        free(sealed);
}

static void test_sealed_open_bytes__too_short(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        uint8_t sealed[TK_SEALED_OVERHEAD] = {0};
        uint8_t found[1];

        (void)state;
        for (size_t len = 0; len <= sizeof(sealed); len++)
                assert_int_equal(tk_sealed_open_bytes(key, NULL, 0, sealed, len, found), -EBADMSG);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_sealed_make__layout),
                TK_TEST(test_sealed_open__every_bit_counts),
                TK_TEST(test_sealed_make__refuses_other_sizes),
                TK_TEST(test_sealed_bytes__every_length),
                TK_TEST(test_sealed_open_bytes__too_short),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
