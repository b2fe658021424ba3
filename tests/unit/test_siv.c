/* SPDX-License-Identifier: Apache-2.0 */

/* AES-SIV: the RFC's vectors, another implementation's for the long key, and every bit counts. */
#include "crypto/random.h"
#include "crypto/siv.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <openssl/evp.h>

enum { TEXT_MAX = 1024, AD_MAX = 3 };

struct vector {
        const char *key;
        const char *ad[AD_MAX]; /* NULL: no more */
        const char *plain;
        const char *sealed; /* tag and ciphertext */
};

#define LONG_KEY                                                                                   \
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"                         \
        "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

/* RFC 5297, A.1 and A.2; those under the long key were made with python3-cryptography. */
static const struct vector vectors[] = {
        {"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
         {"101112131415161718191a1b1c1d1e1f2021222324252627"},
         "112233445566778899aabbccddee",
         "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"},
        {"7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
         {"00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
          "102030405060708090a0", "09f911029d74e35bd84156c5635688c0"},
         "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e6720534956"
         "2d414553",
         "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f7"
         "48ba8af829ea64ad544a272e9c485b62a3fd5c0d"},
        {LONG_KEY, {NULL}, "61", "ba092609c39c78a53203bb6c759c7396d9"},
        {LONG_KEY,
         {NULL},
         "303132333435363738396162636465",
         "96326db39e6c8a0d3adfd6f6794fcc058d5337a415b0f9aa786b4a0dc45235"},
        {LONG_KEY,
         {NULL},
         "30313233343536373839616263646566",
         "df101a0c5f8eb90a0fe9891adaaf16a8c4df02080e7fa1603eb826a453f1bf63"},
        {LONG_KEY,
         {NULL},
         "61206e616d65206f66206d6f7265207468616e206f6e6520626c6f636b",
         "cc76041793b2387562e861f4e40d2ad401560552bf2d48446c30155365edb5b2"
         "a93722bbb84c677dd794278b19"},
        {LONG_KEY,
         {NULL},
         "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
         "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
         "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
         "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
         "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
         "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
         "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
         "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfe",
         "7caf729df07edec5d230ba97daa1c6d5a02e48ec5289f9e2c3a19bf924b5d55d"
         "5d987212093d9b2c797b79eabafacd77b841114e190ce152b1ff16e2a136e3af"
         "35b1d9af143b1fd67c09435372f53c59f84b81b5fcaa4955135b5acf7096d0ea"
         "17e4f3bb31cb421bbce8d8a27fb8b35a57ccd9e3ae5a22736e87962b59832517"
         "6164fc59f1a2c2f68eac4f7b398035bebe0e761c745dc1a4e649576b74948b7e"
         "41c3909ec3fc3e62de24a1cc39a9d1f14107c8fc44fc6900f30e0bdc370ce2b6"
         "57c473c5e82f242c22990185bafcee9f2658925c3e3fb4267555cd4fc4a0bfcf"
         "213f37839896b7bf275e097d1cf7a5a5276c4680e60725bb834b7de11bd8d27b"
         "2b420df6c70df459faabd7b6f8173b"},
        {LONG_KEY,
         {"757365722e6e616d65"},
         "76616c7565",
         "9039b26bc857c870bbafd83fa11e2dc6b91c41a948"},
        {LONG_KEY,
         {"78787878787878787878787878787878",
          "7979797979797979797979797979797979797979797979797979797979797979"
          "79"},
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "0000000000000000000000000000000000000000000000000000000000000000"
         "000000000000000000000000",
         "7067a7f71dbfcc61e5c49be2baa60cf4d952586813d6720ab59901415375be0a"
         "3160ac7f1b081851dbfd9ab6f92b76051440e693adcb924a2b36bc5e046c3434"
         "4a481bfdb421744f331961003c332fd8aa60d0dd323671ebd3cacc13d075f02b"
         "cf002f2e31581411da313d935db6e9adc99d6fc2c488e50443176945d9036062"
         "7be7675ffff0a8ae3b0756bbfe298896b9678ee4db93ea6b69460f401335429b"
         "c2b90556aef122a668f9cd8c6a18d0172ed69e570af8eb759aa519a9422e4c17"
         "12bfbf0db8c9773ed8c217012a49040b9f4b67d36bc1879561fa1b5683bf9c7f"
         "2b73c563318ce7beb7c2585484d492d518029caea1dd095c011bdb1768a4c1c8"
         "7c46d578b24612a0bd2e89aa0c7d8664c647c0d38b5c10720c27b2aacdf925bf"
         "868f225bf87fa8e8b2dc778d46dcc48c961af41605c66f35f39adcef"},
};

/* A vector's bytes and a context with its key. */
struct unpacked {
        uint8_t ad_bytes[AD_MAX][64], plain[TEXT_MAX], sealed[TEXT_MAX];
        struct tk_siv_ad ad[AD_MAX];
        size_t ad_count, len, sealed_len;
        struct tk_secret *key;
        struct tk_siv *siv;
};

static void unpack(const struct vector *vector, struct unpacked *v)
{
        memset(v, 0, sizeof(*v));
        for (; v->ad_count < AD_MAX && vector->ad[v->ad_count]; v->ad_count++) {
                v->ad[v->ad_count].bytes = v->ad_bytes[v->ad_count];
                v->ad[v->ad_count].len =
                        tk_test_unhex(vector->ad[v->ad_count], v->ad_bytes[v->ad_count], 64);
        }
        v->len = tk_test_unhex(vector->plain, v->plain, sizeof(v->plain));
        v->sealed_len = tk_test_unhex(vector->sealed, v->sealed, sizeof(v->sealed));
        assert_int_equal(v->sealed_len, v->len + TK_SIV_TAG_LEN);
        v->key = tk_test_secret_hex(vector->key);
        assert_int_equal(tk_siv_new(&v->siv), 0);
        assert_int_equal(tk_siv_set_key(v->siv, v->key), 0);
}

static void release(struct unpacked *v)
{
        tk_secret_free(v->key);
        tk_siv_free(v->siv);
}

static int open_it(struct unpacked *v, const uint8_t *sealed, size_t len, uint8_t *out)
{
        return tk_siv_open(v->siv, v->ad, v->ad_count, sealed, len, out);
}

static void test_siv__seals_and_opens_the_vectors(void **state)
{
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                struct unpacked v;
                uint8_t out[TEXT_MAX];

                unpack(&vectors[i], &v);
                assert_int_equal(tk_siv_seal(v.siv, v.ad, v.ad_count, v.plain, v.len, out), 0);
                assert_memory_equal(out, v.sealed, v.sealed_len);
                assert_int_equal(open_it(&v, v.sealed, v.sealed_len, out), 0);
                assert_memory_equal(out, v.plain, v.len);
                release(&v);
        }
}

static void test_open__refuses_every_changed_bit_and_wipes_its_output(void **state)
{
        struct unpacked v;
        uint8_t out[TEXT_MAX];

        unpack(&vectors[1], &v);
        for (size_t bit = 0; bit < 8 * v.sealed_len; bit++) {
                tk_test_flip(v.sealed, bit);
                memset(out, 0xaa, sizeof(out));
                assert_int_equal(open_it(&v, v.sealed, v.sealed_len, out), -EBADMSG);
                assert_true(tk_bytes_are_zero(out, v.len));
                tk_test_flip(v.sealed, bit);
        }
        release(&v);
}

static void test_open__binds_every_associated_string_and_their_order(void **state)
{
        struct tk_siv_ad first;
        struct unpacked v;
        uint8_t out[TEXT_MAX];

        unpack(&vectors[1], &v);
        v.ad_bytes[2][0] ^= 1;
        assert_int_equal(open_it(&v, v.sealed, v.sealed_len, out), -EBADMSG);
        v.ad_bytes[2][0] ^= 1;
        assert_int_equal(tk_siv_open(v.siv, v.ad, 2, v.sealed, v.sealed_len, out), -EBADMSG);
        first = v.ad[0];
        v.ad[0] = v.ad[1];
        v.ad[1] = first;
        assert_int_equal(open_it(&v, v.sealed, v.sealed_len, out), -EBADMSG);
        release(&v);
}

static void test_open__refuses_what_is_too_short(void **state)
{
        struct unpacked v;
        uint8_t out[TEXT_MAX];

        unpack(&vectors[0], &v);
        for (size_t len = 0; len < v.sealed_len; len++)
                assert_int_equal(open_it(&v, v.sealed, len, out), -EBADMSG);
        release(&v);
}

/* Lengths around every border inside: an empty text, blocks, chunks of blocks. */
static void test_siv__round_trips_texts_of_every_length(void **state)
{
        static uint8_t plain[1200], sealed[TK_SIV_TAG_LEN + sizeof(plain)], out[sizeof(plain)];
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret_hex(LONG_KEY);
        TK_CLEANUP(tk_siv_freep) struct tk_siv *siv = NULL;

        for (size_t i = 0; i < sizeof(plain); i++)
                plain[i] = (uint8_t)(i * 7);
        assert_int_equal(tk_siv_new(&siv), 0);
        assert_int_equal(tk_siv_set_key(siv, key), 0);
        for (size_t len = 0; len < sizeof(plain); len++) {
                struct tk_siv_ad ad = {.bytes = plain + sizeof(plain) - len, .len = len};

                assert_int_equal(tk_siv_seal(siv, &ad, 1, plain, len, sealed), 0);
                assert_int_equal(tk_siv_open(siv, &ad, 1, sealed, TK_SIV_TAG_LEN + len, out), 0);
                assert_memory_equal(out, plain, len);
                sealed[0] ^= 1;
                assert_int_equal(tk_siv_open(siv, &ad, 1, sealed, TK_SIV_TAG_LEN + len, out),
                                 -EBADMSG);
        }
}

/* What OpenSSL's own AES-256-SIV makes of @len bytes at @plain, without associated data. */
static void library_seal(const struct tk_secret *key, const uint8_t *plain, size_t len,
                         uint8_t *sealed)
{
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        int n;

        assert_non_null(cipher);
        assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, tk_secret_bytes(key), NULL, NULL), 1);
        assert_int_equal(EVP_EncryptUpdate(ctx, sealed + TK_SIV_TAG_LEN, &n, plain, (int)len), 1);
        assert_int_equal(n, len);
        assert_int_equal(EVP_EncryptFinal_ex(ctx, sealed + TK_SIV_TAG_LEN + n, &n), 1);
        assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TK_SIV_TAG_LEN, sealed),
                         1);
        EVP_CIPHER_CTX_free(ctx);
        EVP_CIPHER_free(cipher);
}

static void test_seal__does_what_the_library_does(void **state)
{
        enum { ROUNDS = 3, NAME_LEN_MAX = 600 };
        uint8_t plain[NAME_LEN_MAX], ours[TK_SIV_TAG_LEN + NAME_LEN_MAX],
                theirs[TK_SIV_TAG_LEN + NAME_LEN_MAX];
        TK_CLEANUP(tk_siv_freep) struct tk_siv *siv = NULL;

        assert_int_equal(tk_siv_new(&siv), 0);
        for (int round = 0; round < ROUNDS; round++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;

                assert_int_equal(tk_random_secret(TK_SIV_KEY_LEN, &key), 0);
                assert_int_equal(tk_siv_set_key(siv, key), 0);
                for (size_t len = 1; len <= NAME_LEN_MAX; len++) {
                        assert_int_equal(tk_random_bytes(plain, len), 0);
                        assert_int_equal(tk_siv_seal(siv, NULL, 0, plain, len, ours), 0);
                        library_seal(key, plain, len, theirs);
                        assert_memory_equal(ours, theirs, TK_SIV_TAG_LEN + len);
                }
        }
}

static void test_set_key__takes_another_key_of_either_length(void **state)
{
        struct unpacked a, b;
        uint8_t out[TEXT_MAX];

        unpack(&vectors[0], &a);
        unpack(&vectors[2], &b);
        for (int turn = 0; turn < 2; turn++) {
                assert_int_equal(tk_siv_set_key(a.siv, b.key), 0);
                assert_int_equal(tk_siv_open(a.siv, b.ad, b.ad_count, b.sealed, b.sealed_len, out),
                                 0);
                assert_int_equal(tk_siv_set_key(a.siv, a.key), 0);
                assert_int_equal(open_it(&a, a.sealed, a.sealed_len, out), 0);
        }
        tk_secret_truncate(a.key, 31);
        assert_int_equal(tk_siv_set_key(a.siv, a.key), -EINVAL);
        release(&a);
        release(&b);
}

static void test_clear_key__forgets_the_key(void **state)
{
        struct unpacked v;
        uint8_t out[TEXT_MAX];

        unpack(&vectors[2], &v);
        tk_siv_clear_key(v.siv);
        assert_true(open_it(&v, v.sealed, v.sealed_len, out) < 0);
        assert_int_equal(tk_siv_set_key(v.siv, v.key), 0);
        assert_int_equal(open_it(&v, v.sealed, v.sealed_len, out), 0);
        release(&v);
}

static void test_seal__without_a_key_is_refused(void **state)
{
        TK_CLEANUP(tk_siv_freep) struct tk_siv *siv = NULL;
        uint8_t out[TEXT_MAX];

        assert_int_equal(tk_siv_new(&siv), 0);
        assert_int_equal(tk_siv_seal(siv, NULL, 0, "name", 4, out), -EINVAL);
        assert_int_equal(tk_siv_open(siv, NULL, 0, out, 20, out + 20), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_siv__seals_and_opens_the_vectors),
                TK_TEST(test_open__refuses_every_changed_bit_and_wipes_its_output),
                TK_TEST(test_open__binds_every_associated_string_and_their_order),
                TK_TEST(test_open__refuses_what_is_too_short),
                TK_TEST(test_siv__round_trips_texts_of_every_length),
                TK_TEST(test_seal__does_what_the_library_does),
                TK_TEST(test_set_key__takes_another_key_of_either_length),
                TK_TEST(test_clear_key__forgets_the_key),
                TK_TEST(test_seal__without_a_key_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
