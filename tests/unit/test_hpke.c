/* SPDX-License-Identifier: Apache-2.0 */

/* HPKE: a known answer, and that nothing but the right key in the right context opens. */

#include "crypto/hpke.h"
#include "crypto/random.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <string.h>

static const char info[] = "Ode on a Grecian Urn";
static const char text[] = "Beauty is truth, truth beauty";

static struct tk_hpke_context context_of(const char *aad)
{
        return (struct tk_hpke_context){.info = (const uint8_t *)info,
                                        .info_len = strlen(info),
                                        .aad = (const uint8_t *)aad,
                                        .aad_len = strlen(aad)};
}

/*
 * The keys of RFC 9180, A.1.1, which has AES-128-GCM; the ciphertext for AES-256-GCM is that of
 * another implementation, which gives the RFC's for AES-128-GCM.
 */
static void test_hpke_open__known_answer(void **state)
{
        TK_CLEANUP(tk_secret_freep)
        struct tk_secret *key = tk_test_secret_hex(
                "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
        TK_CLEANUP(tk_secret_freep) struct tk_secret *opened = NULL;
        struct tk_hpke_context context = context_of("Count-0");
        uint8_t expected[TK_HPKE_PUBLIC_LEN];
        uint8_t public_key[TK_HPKE_PUBLIC_LEN];
        uint8_t sealed[128];
        size_t len;

        (void)tk_test_unhex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
                            expected, sizeof(expected));
        assert_int_equal(tk_hpke_public(key, public_key), 0);
        assert_memory_equal(public_key, expected, sizeof(expected));
        len = tk_test_unhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
                            "090b7dc225419f7da9e8b460becfbb96a26c7964d79b8010d397fa838530a32a"
                            "397b14f5776db19ff5e57734e0",
                            sealed, sizeof(sealed));
        assert_int_equal(tk_hpke_open(key, &context, sealed, len, &opened), 0);
        assert_int_equal(tk_secret_len(opened), strlen(text));
        assert_memory_equal(tk_secret_bytes(opened), text, strlen(text));
}

static struct tk_secret *new_pair(uint8_t public_key[TK_HPKE_PUBLIC_LEN])
{
        struct tk_secret *key = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &key), 0);
        assert_int_equal(tk_hpke_public(key, public_key), 0);
        return key;
}

static void test_hpke_seal__opens_and_is_never_the_same(void **state)
{
        struct tk_hpke_context context = context_of("aad");

        for (size_t len = 1; len < 200; len += 13) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *message = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *opened = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
                uint8_t public_key[TK_HPKE_PUBLIC_LEN];
                uint8_t sealed[256];
                uint8_t other[256];

                key = new_pair(public_key);
                assert_int_equal(tk_random_secret(len, &message), 0);
                assert_int_equal(tk_hpke_seal(public_key, &context, message, sealed), 0);
                assert_int_equal(tk_hpke_seal(public_key, &context, message, other), 0);
                assert_memory_not_equal(sealed, other, TK_HPKE_PUBLIC_LEN);
                assert_int_equal(
                        tk_hpke_open(key, &context, sealed, len + TK_HPKE_OVERHEAD, &opened), 0);
                assert_true(tk_secret_equal(message, opened));
        }
}

static void test_hpke_open__nothing_else_opens(void **state)
{
        enum { LEN = TK_KEY_LEN + TK_HPKE_OVERHEAD };
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *stranger = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *message = NULL;
        struct tk_hpke_context context = context_of("aad");
        struct tk_hpke_context other_aad = context_of("aae");
        struct tk_hpke_context other_info = context_of("aad");
        struct tk_secret *opened = NULL;
        uint8_t public_key[TK_HPKE_PUBLIC_LEN];
        uint8_t ignored[TK_HPKE_PUBLIC_LEN];
        uint8_t sealed[LEN];

        key = new_pair(public_key);
        stranger = new_pair(ignored);
        other_info.info_len--;
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &message), 0);
        assert_int_equal(tk_hpke_seal(public_key, &context, message, sealed), 0);
        assert_int_equal(tk_hpke_open(stranger, &context, sealed, LEN, &opened), -EBADMSG);
        assert_int_equal(tk_hpke_open(key, &other_aad, sealed, LEN, &opened), -EBADMSG);
        assert_int_equal(tk_hpke_open(key, &other_info, sealed, LEN, &opened), -EBADMSG);
        for (size_t len = 0; len < LEN; len++)
                assert_int_equal(tk_hpke_open(key, &context, sealed, len, &opened), -EBADMSG);
        for (size_t bit = 0; bit < (size_t)LEN * 8; bit++) {
                /* X25519 ignores the highest bit of a point, HPKE does not. */
                tk_test_flip(sealed, bit);
                assert_int_equal(tk_hpke_open(key, &context, sealed, LEN, &opened), -EBADMSG);
                tk_test_flip(sealed, bit);
        }
        assert_null(opened);
}

/* Points of small order give a secret that everybody knows: nothing is sealed to them. */
static void test_hpke__points_of_small_order(void **state)
{
        static const char *const points[] = {
                "0000000000000000000000000000000000000000000000000000000000000000",
                "0100000000000000000000000000000000000000000000000000000000000000",
                "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
                "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        };
        struct tk_hpke_context context = context_of("aad");
        TK_CLEANUP(tk_secret_freep) struct tk_secret *message = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_secret *opened = NULL;
        uint8_t sealed[TK_KEY_LEN + TK_HPKE_OVERHEAD] = {0};
        uint8_t public_key[TK_HPKE_PUBLIC_LEN];

        key = new_pair(public_key);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &message), 0);
        for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
                (void)tk_test_unhex(points[i], public_key, sizeof(public_key));
                assert_int_equal(tk_hpke_seal(public_key, &context, message, sealed), -EBADMSG);
                memcpy(sealed, public_key, sizeof(public_key));
                assert_int_equal(tk_hpke_open(key, &context, sealed, sizeof(sealed), &opened),
                                 -EBADMSG);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_hpke_open__known_answer),
                TK_TEST(test_hpke_seal__opens_and_is_never_the_same),
                TK_TEST(test_hpke_open__nothing_else_opens),
                TK_TEST(test_hpke__points_of_small_order),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
