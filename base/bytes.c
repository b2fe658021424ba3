/* SPDX-License-Identifier: Apache-2.0 */

/* Bytes and their texts. Decoders are strict: one byte string has one text. */

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

static const char base64url_alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void tk_hex_encode(const uint8_t *bytes, size_t len, char *out)
{
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < len; i++) {
                out[2 * i] = digits[bytes[i] >> 4];
                out[2 * i + 1] = digits[bytes[i] & 15];
        }
        out[2 * len] = '\0';
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

int tk_hex_decode(const char *text, uint8_t *bytes, size_t len)
{
        if (strlen(text) != 2 * len)
                return -EINVAL;

        for (size_t i = 0; i < len; i++) {
                int high = hex_digit(text[2 * i]);
                int low = hex_digit(text[2 * i + 1]);

                if (high < 0 || low < 0)
                        return -EINVAL;
                bytes[i] = (uint8_t)(high << 4 | low);
        }
        return 0;
}

void tk_base64url_encode(const uint8_t *bytes, size_t len, char *out)
{
        uint32_t bits = 0;
        unsigned held = 0;

        for (size_t i = 0; i < len; i++) {
                bits = bits << 8 | bytes[i];
                held += 8;
                while (held >= 6) {
                        held -= 6;
                        *out++ = base64url_alphabet[bits >> held & 63];
                }
        }
        if (held > 0)
                *out++ = base64url_alphabet[bits << (6 - held) & 63];
        *out = '\0';
}

static int base64url_digit(char c)
{
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        return c == '-' ? 62 : c == '_' ? 63 : -1;
}

int tk_base64url_decode(const char *text, uint8_t *bytes, size_t max, size_t *ret_len)
{
        size_t text_len = strlen(text);
        size_t len = text_len * 3 / 4;
        uint32_t bits = 0;
        unsigned held = 0;

        if (text_len % 4 == 1)
                return -EINVAL;
        if (len > max)
                return -EOVERFLOW;

        for (size_t i = 0; i < text_len; i++) {
                int digit = base64url_digit(text[i]);

                if (digit < 0)
                        return -EINVAL;
                bits = bits << 6 | (uint32_t)digit;
                held += 6;
                if (held >= 8) {
                        held -= 8;
                        *bytes++ = (uint8_t)(bits >> held);
                }
        }
        if (bits & ((1U << held) - 1))
                return -EINVAL;
        *ret_len = len;
        return 0;
}
