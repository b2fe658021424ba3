/* SPDX-License-Identifier: Apache-2.0 */

/* HMAC-SHA-256 and SHA-256: published vectors. */

#include "crypto/mac.h"
#include "tests/unit/support.h"

/* A run of equal bytes, or a text. */
struct run {
        const char *text; /* NULL: @count bytes of @byte */
        uint8_t byte;
        size_t count;
};

#define TEXT(t)                                                                                    \
        {                                                                                          \
                t, 0, 0                                                                            \
        }
#define BYTES(b, n)                                                                                \
        {                                                                                          \
                NULL, b, n                                                                         \
        }

/* RFC 4231, section 4; of test case 5 the RFC gives the first 16 bytes only. */
static const struct {
        struct run key, data;
        const char *mac;
} hmac_vectors[] = {
        {BYTES(0x0b, 20), TEXT("Hi There"),
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {TEXT("Jefe"), TEXT("what do ya want for nothing?"),
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {BYTES(0xaa, 20), BYTES(0xdd, 50),
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {TEXT("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13"
              "\x14\x15\x16\x17\x18\x19"),
         BYTES(0xcd, 50), "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
        {BYTES(0x0c, 20), TEXT("Test With Truncation"), "a3b6167473100ee06e0c796c2955552b"},
        {BYTES(0xaa, 131), TEXT("Test Using Larger Than Block-Size Key - Hash Key First"),
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
        {BYTES(0xaa, 131),
         TEXT("This is a test using a larger than block-size key and a larger than block-size "
              "data. The key needs to be hashed before being used by the HMAC algorithm."),
         "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
};

/* FIPS 180-4 by way of NIST's example values, and the empty message. */
static const struct {
        struct run data;
        const char *digest;
} sha256_vectors[] = {
        {TEXT(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {TEXT("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {TEXT("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {BYTES('a', 1000000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
};

/* The run's bytes, freed by the caller. */
static uint8_t *expand(const struct run *run, size_t *ret_len)
{
        size_t len = run->text ? strlen(run->text) : run->count;
        uint8_t *bytes = malloc(len + 1);

        assert_non_null(bytes);
        memset(bytes, run->byte, len + 1);
        if (run->text)
                memcpy(bytes, run->text, len);
        *ret_len = len;
        return bytes;
}

static void test_mac_hmac__rfc4231(void **state)
{
        for (size_t i = 0; i < sizeof(hmac_vectors) / sizeof(hmac_vectors[0]); i++) {
                size_t key_len, len;
                TK_CLEANUP(tk_freep) uint8_t *key_bytes = expand(&hmac_vectors[i].key, &key_len);
                TK_CLEANUP(tk_freep) uint8_t *bytes = expand(&hmac_vectors[i].data, &len);
                TK_CLEANUP(tk_secret_freep)
                struct tk_secret *key = tk_test_secret(key_bytes, key_len);
                uint8_t wanted[TK_MAC_LEN], mac[TK_MAC_LEN];
                size_t wanted_len = tk_test_unhex(hmac_vectors[i].mac, wanted, sizeof(wanted));

                assert_int_equal(tk_mac_hmac(key, bytes, len, mac), 0);
                assert_memory_equal(mac, wanted, wanted_len);
        }
}

static void test_mac_hmac__every_bit_counts(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret("Jefe", 4);
        uint8_t text[] = "what do ya want for nothing?";
        uint8_t wanted[TK_MAC_LEN], mac[TK_MAC_LEN];

        assert_int_equal(tk_mac_hmac(key, text, sizeof(text), wanted), 0);
        for (size_t bit = 0; bit < sizeof(text) * 8; bit++) {
                tk_test_flip(text, bit);
                assert_int_equal(tk_mac_hmac(key, text, sizeof(text), mac), 0);
                assert_memory_not_equal(mac, wanted, sizeof(mac));
                tk_test_flip(text, bit);
        }
        for (size_t bit = 0; bit < 32; bit++) {
                tk_test_flip(tk_secret_bytes_mutable(key), bit);
                assert_int_equal(tk_mac_hmac(key, text, sizeof(text), mac), 0);
                assert_memory_not_equal(mac, wanted, sizeof(mac));
                tk_test_flip(tk_secret_bytes_mutable(key), bit);
        }
}

static void test_mac_sha256__fips180(void **state)
{
        for (size_t i = 0; i < sizeof(sha256_vectors) / sizeof(sha256_vectors[0]); i++) {
                size_t len;
                TK_CLEANUP(tk_freep) uint8_t *bytes = expand(&sha256_vectors[i].data, &len);
                uint8_t wanted[TK_MAC_LEN], digest[TK_MAC_LEN];

                tk_test_unhex(sha256_vectors[i].digest, wanted, sizeof(wanted));
                assert_int_equal(tk_mac_sha256(bytes, len, digest), 0);
                assert_memory_equal(digest, wanted, sizeof(digest));
        }
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_mac_hmac__rfc4231),
                TK_TEST(test_mac_hmac__every_bit_counts),
                TK_TEST(test_mac_sha256__fips180),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
