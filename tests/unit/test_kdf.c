/* SPDX-License-Identifier: Apache-2.0 */

/* HKDF-Expand and scrypt: published vectors and limits. */

#include "crypto/kdf.h"
#include "tests/unit/support.h"
#include <errno.h>

/* RFC 5869, appendix A, test cases 1 to 3: the expand step. */
static const struct {
        const char *prk, *info, *okm;
} hkdf_vectors[] = {
        {"077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5", "f0f1f2f3f4f5f6f7f8f9",
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
         "34007208d5b887185865"},
        {"06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
         "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
         "d0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeef"
         "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
         "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
         "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
         "cc30c58179ec3e87c14c01d5c1f3434f1d87"},
        {"19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04", "",
         "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
         "9d201395faa4b61a96c8"},
};

/* RFC 7914, section 12; its fourth vector takes 1 GiB. */
static const struct {
        const char *passphrase, *salt;
        struct tk_kdf_scrypt cost;
        const char *out;
} scrypt_vectors[] = {
        {"",
         "",
         {16, 1, 1},
         "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
         "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"},
        {"password",
         "NaCl",
         {1024, 8, 16},
         "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
         "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"},
        {"pleaseletmein",
         "SodiumChloride",
         {16384, 8, 1},
         "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
         "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"},
};

static void test_kdf_expand__rfc5869(void **state)
{
        for (size_t i = 0; i < sizeof(hkdf_vectors) / sizeof(hkdf_vectors[0]); i++) {
                TK_CLEANUP(tk_secret_freep)
                struct tk_secret *prk = tk_test_secret_hex(hkdf_vectors[i].prk);
                TK_CLEANUP(tk_secret_freep)
                struct tk_secret *okm = tk_test_secret_hex(hkdf_vectors[i].okm);
                TK_CLEANUP(tk_secret_freep) struct tk_secret *out = NULL;
                uint8_t info[128];
                size_t info_len = tk_test_unhex(hkdf_vectors[i].info, info, sizeof(info));

                assert_int_equal(tk_secret_new(tk_secret_len(okm), &out), 0);
                assert_int_equal(tk_kdf_expand(prk, "", info, info_len, out), 0);
                assert_true(tk_secret_equal(out, okm));
        }
}

static struct tk_secret *expand(const struct tk_secret *key, const char *label, const char *context)
{
        struct tk_secret *out = NULL;

        assert_int_equal(tk_secret_new(TK_KEY_LEN, &out), 0);
        assert_int_equal(tk_kdf_expand(key, label, (const uint8_t *)context, strlen(context), out),
                         0);
        return out;
}

static void test_kdf_expand__info_is_label_then_context(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret_hex(hkdf_vectors[0].prk);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *whole = expand(key, "", "label context");
        TK_CLEANUP(tk_secret_freep) struct tk_secret *split = expand(key, "label ", "context");
        TK_CLEANUP(tk_secret_freep) struct tk_secret *other = expand(key, "label ", "contexu");
        TK_CLEANUP(tk_secret_freep) struct tk_secret *bare = expand(key, "label ", "");
        TK_CLEANUP(tk_secret_freep) struct tk_secret *null = NULL;

        assert_true(tk_secret_equal(whole, split));
        assert_false(tk_secret_equal(split, other));
        assert_false(tk_secret_equal(split, bare));
        assert_int_equal(tk_secret_new(TK_KEY_LEN, &null), 0);
        assert_int_equal(tk_kdf_expand(key, "label ", NULL, 0, null), 0);
        assert_true(tk_secret_equal(null, bare));
}

static void test_kdf_expand__info_limit(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret_hex(hkdf_vectors[0].prk);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *out = NULL;
        uint8_t context[256] = {0};

        assert_int_equal(tk_secret_new(TK_KEY_LEN, &out), 0);
        assert_int_equal(tk_kdf_expand(key, "label", context, 251, out), 0);
        assert_int_equal(tk_kdf_expand(key, "label", context, 252, out), -EINVAL);
}

static void test_kdf_scrypt__rfc7914(void **state)
{
        for (size_t i = 0; i < sizeof(scrypt_vectors) / sizeof(scrypt_vectors[0]); i++) {
                const char *salt = scrypt_vectors[i].salt;
                TK_CLEANUP(tk_secret_freep)
                struct tk_secret *passphrase = tk_test_secret(scrypt_vectors[i].passphrase,
                                                              strlen(scrypt_vectors[i].passphrase));
                TK_CLEANUP(tk_secret_freep)
                struct tk_secret *wanted = tk_test_secret_hex(scrypt_vectors[i].out);
                TK_CLEANUP(tk_secret_freep) struct tk_secret *out = NULL;

                assert_int_equal(tk_secret_new(64, &out), 0);
                assert_int_equal(tk_kdf_scrypt(passphrase, (const uint8_t *)salt, strlen(salt),
                                               &scrypt_vectors[i].cost, out),
                                 0);
                assert_true(tk_secret_equal(out, wanted));
        }
}

static void test_kdf_scrypt__costs_out_of_range(void **state)
{
        static const struct {
                struct tk_kdf_scrypt cost;
                int r;
        } bad[] = {
                {{0, 8, 1}, -EINVAL},          {{1, 8, 1}, -EINVAL},
                {{1000, 8, 1}, -EINVAL},       {{1024, 0, 1}, -EINVAL},
                {{1024, 65, 1}, -EINVAL},      {{1024, 8, 0}, -EINVAL},
                {{1024, 8, 65}, -EINVAL},      {{1ULL << 40, 1, 1}, -EINVAL},
                {{1ULL << 63, 8, 1}, -EINVAL}, {{1 << 21, 8, 1}, -ENOMEM},
                {{1 << 30, 64, 1}, -ENOMEM},   {{1024, UINT32_MAX, 1}, -EINVAL},
        };
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = tk_test_secret("p", 1);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *out = NULL;

        assert_int_equal(tk_secret_new(TK_KEY_LEN, &out), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(tk_kdf_scrypt(passphrase, NULL, 0, &bad[i].cost, out), bad[i].r);
        assert_true(tk_bytes_are_zero(tk_secret_bytes(out), TK_KEY_LEN));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_kdf_expand__rfc5869),
                TK_TEST(test_kdf_expand__info_is_label_then_context),
                TK_TEST(test_kdf_expand__info_limit),
                TK_TEST(test_kdf_scrypt__rfc7914),
                TK_TEST(test_kdf_scrypt__costs_out_of_range),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
