/* SPDX-License-Identifier: Apache-2.0 */

/* AES-256-GCM: published vectors, and every bit counts. */

#include "crypto/aead.h"
#include "tests/unit/support.h"
#include <errno.h>

enum { TEXT_MAX = 64 };

struct vector {
        const char *key, *iv, *aad, *plain, *cipher, *tag;
};

/*
 * The first four: McGrew and Viega, "The Galois/Counter Mode of Operation", test
 * cases 13 to 16 (17 and 18 have IVs of other lengths, which this module does not
 * take). The others: NIST CAVP, gcmEncryptExtIV256.rsp, the first of four groups.
 */
static const struct vector vectors[] = {
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "000000000000000000000000", "", "00000000000000000000000000000000",
         "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
        {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
         "cafebabefacedbaddecaf888", "",
         "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
         "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
         "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
         "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
         "b094dac5d93471bdec1a502270e3cc6c"},
        {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
         "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
         "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
         "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
         "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
         "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
         "76fc6ece0f4e1768cddf8853bb2d551b"},
        {"b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4",
         "516c33929df5a3284ff463d7", "", "", "", "bdc1ac884d332457a1d2664f168c76f0"},
        {"78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223",
         "d79cf22d504cc793c3fb6c8a", "b96baa8c1c75a671bfb2d08d06be5f36", "", "",
         "3e5d486aa2e30b22e040b85723a06e76"},
        {"31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22",
         "0d18e06c7c725ac9e362e1ce", "", "2db5168e932556f8089a0622981d017d",
         "fa4362189661d163fcd6a56d8bf0405a", "d636ac1bbedd5cc3ee727dc2ab4a9489"},
        {"92e11dcdaa866f5ce790fd24501f92509aacf4cb8b1339d50c9c1240935dd08b",
         "ac93a1a6145299bde902f21a", "1e0889016f67601c8ebea4943bc23ad6",
         "2d71bcfa914e4ac045b2aa60955fad24", "8995ae2e6df3dbf96fac7b7137bae67f",
         "eca5aa77d51d4a0a14d9c51e1da474ab"},
};

/* A vector's bytes and a context with its key. */
struct unpacked {
        uint8_t iv[TK_AEAD_IV_LEN], aad[TEXT_MAX], plain[TEXT_MAX], cipher[TEXT_MAX];
        uint8_t tag[TK_AEAD_TAG_LEN];
        size_t aad_len, len;
        struct tk_secret *key;
        struct tk_aead *aead;
};

static void unpack(const struct vector *vector, struct unpacked *v)
{
        assert_int_equal(tk_test_unhex(vector->iv, v->iv, sizeof(v->iv)), TK_AEAD_IV_LEN);
        assert_int_equal(tk_test_unhex(vector->tag, v->tag, sizeof(v->tag)), TK_AEAD_TAG_LEN);
        v->aad_len = tk_test_unhex(vector->aad, v->aad, sizeof(v->aad));
        v->len = tk_test_unhex(vector->plain, v->plain, sizeof(v->plain));
        assert_int_equal(tk_test_unhex(vector->cipher, v->cipher, sizeof(v->cipher)), v->len);
        v->key = tk_test_secret_hex(vector->key);
        assert_int_equal(tk_aead_new(&v->aead), 0);
        assert_int_equal(tk_aead_set_key(v->aead, v->key), 0);
}

static void release(struct unpacked *v)
{
        tk_secret_free(v->key);
        tk_aead_free(v->aead);
}

static int seal(struct unpacked *v, uint8_t *out, uint8_t *ret_tag)
{
        return tk_aead_seal(v->aead,
                            &(struct tk_aead_msg){.iv = v->iv,
                                                  .aad = v->aad,
                                                  .aad_len = v->aad_len,
                                                  .in = v->plain,
                                                  .out = out,
                                                  .len = v->len},
                            ret_tag);
}

static int open_sealed(struct unpacked *v, uint8_t *out)
{
        return tk_aead_open(v->aead,
                            &(struct tk_aead_msg){.iv = v->iv,
                                                  .aad = v->aad,
                                                  .aad_len = v->aad_len,
                                                  .in = v->cipher,
                                                  .out = out,
                                                  .len = v->len},
                            v->tag);
}

static void test_aead__published_vectors(void **state)
{
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                struct unpacked v = {0};
                uint8_t tag[TK_AEAD_TAG_LEN];
                uint8_t out[TEXT_MAX];

                unpack(&vectors[i], &v);
                /* Twice: one context serves many messages, in both directions. */
                for (int round = 0; round < 2; round++) {
                        assert_int_equal(seal(&v, out, tag), 0);
                        assert_memory_equal(out, v.cipher, v.len);
                        assert_memory_equal(tag, v.tag, sizeof(tag));
                        assert_int_equal(open_sealed(&v, out), 0);
                        assert_memory_equal(out, v.plain, v.len);
                }
                release(&v);
        }
}

/* @bytes is part of @v: with any of its bits flipped the message must not open. */
static void assert_bits_count(struct unpacked *v, uint8_t *bytes, size_t len)
{
        for (size_t bit = 0; bit < len * 8; bit++) {
                uint8_t out[TEXT_MAX];

                memset(out, 0x5a, sizeof(out));
                tk_test_flip(bytes, bit);
                assert_int_equal(open_sealed(v, out), -EBADMSG);
                assert_true(tk_bytes_are_zero(out, v->len)); /* no plaintext is left */
                tk_test_flip(bytes, bit);
        }
}

static void test_aead_open__every_bit_counts(void **state)
{
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                struct unpacked v = {0};
                uint8_t out[TEXT_MAX];

                unpack(&vectors[i], &v);
                assert_bits_count(&v, v.tag, sizeof(v.tag));
                assert_bits_count(&v, v.iv, sizeof(v.iv));
                assert_bits_count(&v, v.aad, v.aad_len);
                assert_bits_count(&v, v.cipher, v.len);
                assert_int_equal(open_sealed(&v, out), 0);
                release(&v);
        }
}

static void test_aead_open__every_key_bit_counts(void **state)
{
        struct unpacked v = {0};

        unpack(&vectors[3], &v);
        for (size_t bit = 0; bit < tk_secret_len(v.key) * 8; bit++) {
                uint8_t out[TEXT_MAX];

                tk_test_flip(tk_secret_bytes_mutable(v.key), bit);
                assert_int_equal(tk_aead_set_key(v.aead, v.key), 0);
                assert_int_equal(open_sealed(&v, out), -EBADMSG);
                tk_test_flip(tk_secret_bytes_mutable(v.key), bit);
        }
        release(&v);
}

static void test_aead_open__truncated(void **state)
{
        struct unpacked v = {0};
        uint8_t out[TEXT_MAX];
        size_t full;

        unpack(&vectors[3], &v);
        full = v.len;
        for (v.len = 0; v.len < full; v.len++)
                assert_int_equal(open_sealed(&v, out), -EBADMSG);
        full = v.aad_len;
        for (v.aad_len = 0; v.aad_len < full; v.aad_len++)
                assert_int_equal(open_sealed(&v, out), -EBADMSG);
        assert_int_equal(open_sealed(&v, out), 0);
        release(&v);
}

/* One buffer for both, as content is sealed, at lengths around the cipher's block. */
static void test_aead__in_place(void **state)
{
        static const size_t lens[] = {0, 1, 15, 16, 17, 31, 33, 4095, 4096, 65536};
        TK_CLEANUP(tk_freep) uint8_t *text = malloc(65536);
        struct unpacked v = {0};

        assert_non_null(text);
        unpack(&vectors[3], &v);
        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
                struct tk_aead_msg msg = {.iv = v.iv, .in = text, .out = text, .len = lens[i]};
                uint8_t tag[TK_AEAD_TAG_LEN];

                for (size_t at = 0; at < lens[i]; at++)
                        text[at] = (uint8_t)(at * 7);
                assert_int_equal(tk_aead_seal(v.aead, &msg, tag), 0);
                assert_int_equal(tk_aead_open(v.aead, &msg, tag), 0);
                for (size_t at = 0; at < lens[i]; at++)
                        assert_int_equal(text[at], (uint8_t)(at * 7));
        }
        release(&v);
}

static void test_aead_set_key__length(void **state)
{
        static const size_t lens[] = {0, 16, 24, 31, 33, 64};
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;

        assert_int_equal(tk_aead_new(&aead), 0);
        for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;

                assert_int_equal(tk_secret_new(lens[i], &key), 0);
                assert_int_equal(tk_aead_set_key(aead, key), -EINVAL);
        }
}

static void test_aead_clear_key__no_key_is_left(void **state)
{
        struct unpacked v = {0};
        uint8_t tag[TK_AEAD_TAG_LEN];
        uint8_t out[TEXT_MAX];

        unpack(&vectors[3], &v);
        tk_aead_clear_key(v.aead);
        assert_int_equal(seal(&v, out, tag), -EIO);
        assert_true(open_sealed(&v, out) < 0);
        assert_int_equal(tk_aead_set_key(v.aead, v.key), 0);
        assert_int_equal(open_sealed(&v, out), 0);
        release(&v);
        assert_null(tk_aead_free(NULL));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_aead__published_vectors),
                TK_TEST(test_aead_open__every_bit_counts),
                TK_TEST(test_aead_open__every_key_bit_counts),
                TK_TEST(test_aead_open__truncated),
                TK_TEST(test_aead__in_place),
                TK_TEST(test_aead_set_key__length),
                TK_TEST(test_aead_clear_key__no_key_is_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
