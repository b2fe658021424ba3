/* SPDX-License-Identifier: Apache-2.0 */

/* Texts that may hold a secret, built piece by piece. */

#include "kms/text.h"

#include "base/bytes.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_LEN = 1024, BASE64_STEP = 48 };

static const char unreserved[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

void tk_text_done(struct tk_text *text)
{
        text->secret = tk_secret_free(text->secret);
        *text = (struct tk_text){0};
}

/* Room for @more bytes and a NUL. */
static bool reserve(struct tk_text *text, size_t more)
{
        struct tk_secret *larger;
        size_t need = text->len + more + 1;
        size_t size = text->secret ? tk_secret_len(text->secret) : 0;

        if (text->error || need <= size)
                return !text->error;
        if (size == 0)
                size = FIRST_LEN;
        while (size < need)
                size *= 2;
        text->error = tk_secret_new(size, &larger);
        if (text->error)
                return false;
        if (text->len > 0)
                memcpy(tk_secret_bytes_mutable(larger), tk_secret_bytes(text->secret), text->len);
        tk_secret_free(text->secret);
        text->secret = larger;
        return true;
}

void tk_text_add_bytes(struct tk_text *text, const void *bytes, size_t len)
{
        if (!reserve(text, len) || len == 0)
                return;
        memcpy(tk_secret_bytes_mutable(text->secret) + text->len, bytes, len);
        text->len += len;
}

void tk_text_add(struct tk_text *text, const char *piece)
{
        tk_text_add_bytes(text, piece, strlen(piece));
}

void tk_text_add_number(struct tk_text *text, int64_t number)
{
        char digits[24];

        snprintf(digits, sizeof(digits), "%" PRId64, number);
        tk_text_add(text, digits);
}

/* In steps of whole groups, so that the pieces join to one encoding. */
void tk_text_add_base64url(struct tk_text *text, const void *bytes, size_t len)
{
        const uint8_t *from = bytes;
        char step[BASE64_STEP / 3 * 4 + 1];

        while (len > 0) {
                size_t n = len < BASE64_STEP ? len : BASE64_STEP;

                tk_base64url_encode(from, n, step);
                tk_text_add(text, step);
                from += n;
                len -= n;
        }
        tk_wipe(step, sizeof(step));
}

void tk_text_add_json(struct tk_text *text, const char *piece)
{
        tk_text_add(text, "\"");
        for (const char *at = piece; *at; at++) {
                unsigned char c = (unsigned char)*at;
                char escape[8];

                if (c == '"' || c == '\\')
                        snprintf(escape, sizeof(escape), "\\%c", c);
                else if (c < 0x20 || c == 0x7f)
                        snprintf(escape, sizeof(escape), "\\u%04x", c);
                else
                        snprintf(escape, sizeof(escape), "%c", c);
                tk_text_add(text, escape);
        }
        tk_text_add(text, "\"");
}

void tk_text_add_escaped(struct tk_text *text, const void *bytes, size_t len)
{
        const uint8_t *from = bytes;

        for (size_t i = 0; i < len; i++) {
                char escape[4];

                if (from[i] && strchr(unreserved, from[i]))
                        snprintf(escape, sizeof(escape), "%c", from[i]);
                else
                        snprintf(escape, sizeof(escape), "%%%02X", from[i]);
                tk_text_add(text, escape);
                tk_wipe(escape, sizeof(escape));
        }
}

void tk_text_add_field(struct tk_text *text, const char *name, const void *value, size_t value_len)
{
        if (text->len > 0)
                tk_text_add(text, "&");
        tk_text_add(text, name);
        tk_text_add(text, "=");
        tk_text_add_escaped(text, value, value_len);
}

int tk_text_take(struct tk_text *text, struct tk_secret **ret_secret)
{
        int r;

        tk_text_add_bytes(text, "", 0);
        r = text->error;
        if (r == 0) {
                tk_secret_bytes_mutable(text->secret)[text->len] = '\0';
                tk_secret_truncate(text->secret, text->len + 1);
                *ret_secret = TK_TAKE(text->secret);
        }
        tk_text_done(text);
        return r;
}
