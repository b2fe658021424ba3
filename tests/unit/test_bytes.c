/* SPDX-License-Identifier: Apache-2.0 */

/* Integers, hexadecimal, base64url. */

#include "tests/unit/support.h"
#include <errno.h>

static void test_be__known_bytes(void **state)
{
        static const uint8_t bytes[] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
        uint8_t out[8];

        assert_int_equal(tk_get_be16(bytes), 0x0123);
        assert_int_equal(tk_get_be32(bytes), 0x01234567);
        assert_true(tk_get_be64(bytes) == 0x0123456789abcdefULL);
        assert_true(tk_get_be32(bytes + 4) == 0x89abcdefU);

        tk_put_be64(out, 0x0123456789abcdefULL);
        assert_memory_equal(out, bytes, 8);
        tk_put_be32(out, 0x01234567);
        assert_memory_equal(out, bytes, 4);
        tk_put_be16(out, 0x0123);
        assert_memory_equal(out, bytes, 2);
}

static void test_bytes_are_zero__any_byte_counts(void **state)
{
        uint8_t bytes[33] = {0};

        assert_true(tk_bytes_are_zero(bytes, sizeof(bytes)));
        assert_true(tk_bytes_are_zero(bytes, 0));
        for (size_t i = 0; i < sizeof(bytes); i++) {
                bytes[i] = 0x80;
                assert_false(tk_bytes_are_zero(bytes, sizeof(bytes)));
                assert_true(tk_bytes_are_zero(bytes, i));
                bytes[i] = 0;
        }
}

static void test_hex__both_ways(void **state)
{
        uint8_t bytes[256];
        uint8_t back[256];
        char text[513];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)i;
        tk_hex_encode(bytes, sizeof(bytes), text);
        assert_int_equal(strlen(text), 512);
        assert_memory_equal(text, "000102030405060708090a0b0c0d0e0f10", 34);
        assert_int_equal(tk_hex_decode(text, back, sizeof(back)), 0);
        assert_memory_equal(back, bytes, sizeof(bytes));

        tk_hex_encode(bytes, 0, text);
        assert_string_equal(text, "");
}

static void test_hex_decode__strict(void **state)
{
        uint8_t bytes[4];

        assert_int_equal(tk_hex_decode("aBcDeF09", bytes, 4), 0);
        assert_memory_equal(bytes, "\xab\xcd\xef\x09", 4);
        assert_int_equal(tk_hex_decode("", bytes, 0), 0);

        assert_int_equal(tk_hex_decode("aBcDeF0", bytes, 4), -EINVAL);
        assert_int_equal(tk_hex_decode("aBcDeF099", bytes, 4), -EINVAL);
        assert_int_equal(tk_hex_decode("0x000000", bytes, 4), -EINVAL);
        assert_int_equal(tk_hex_decode("0000000g", bytes, 4), -EINVAL);
        assert_int_equal(tk_hex_decode("000000 0", bytes, 4), -EINVAL);
        assert_int_equal(tk_hex_decode("-1000000", bytes, 4), -EINVAL);
}

/* RFC 4648, section 10, without the padding. */
static void test_base64url__rfc4648(void **state)
{
        static const char *const vectors[][2] = {
                {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
                {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"},
        };

        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                size_t plain_len = strlen(vectors[i][0]);
                uint8_t back[16];
                char text[16];
                size_t len = 99;

                tk_base64url_encode((const uint8_t *)vectors[i][0], plain_len, text);
                assert_string_equal(text, vectors[i][1]);
                assert_int_equal(strlen(text), tk_base64url_len(plain_len));
                assert_int_equal(tk_base64url_decode(text, back, sizeof(back), &len), 0);
                assert_int_equal(len, plain_len);
                assert_memory_equal(back, vectors[i][0], plain_len);
        }
}

static void test_base64url__every_byte_at_every_length(void **state)
{
        uint8_t bytes[256];
        uint8_t back[256];
        char text[344];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)(255 - i);
        for (size_t n = 0; n <= sizeof(bytes); n++) {
                size_t len;

                tk_base64url_encode(bytes, n, text);
                assert_int_equal(tk_base64url_decode(text, back, n, &len), 0);
                assert_int_equal(len, n);
                assert_memory_equal(back, bytes, n);
        }
}

static void test_base64url_decode__strict(void **state)
{
        static const char *const bad[] = {
                "Z",    "Zg==",   "Zm8=", "Zm9vY", "Zm 9v", "Zm+v",
                "Zm/v", "Zm9v\n", "Zh",   "Zm9",   "Z.9v",  "\xc3\xa4zz",
        };
        uint8_t bytes[16];
        size_t len = 7;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                if (tk_base64url_decode(bad[i], bytes, sizeof(bytes), &len) != -EINVAL)
                        fail_msg("accepted: %s", bad[i]);
        assert_int_equal(tk_base64url_decode("Zm9v", bytes, 2, &len), -EOVERFLOW);
        assert_int_equal(len, 7);
        assert_int_equal(tk_base64url_decode("-_-_", bytes, 3, &len), 0);
        assert_memory_equal(bytes, "\xfb\xff\xbf", 3);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_be__known_bytes),
                TK_TEST(test_bytes_are_zero__any_byte_counts),
                TK_TEST(test_hex__both_ways),
                TK_TEST(test_hex_decode__strict),
                TK_TEST(test_base64url__rfc4648),
                TK_TEST(test_base64url__every_byte_at_every_length),
                TK_TEST(test_base64url_decode__strict),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
