/* SPDX-License-Identifier: Apache-2.0 */

/* Bytes from a disk, made fit for a terminal and for JSON. */

#include "cli/text.h"

#include "base/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

/* jansson is strict about UTF-8, and is asked so that there is one opinion. */
bool tk_text_is_utf8(const char *text)
{
        json_t *string = json_string(text);
        bool valid = string != NULL;

        json_decref(string);
        return valid;
}

/* In UTF-8, 0xc2 begins the control characters from U+0080 to U+009F. */
static bool is_plain(unsigned char c, unsigned char next, bool utf8)
{
        if (c < 0x20 || c == 0x7f || c == '\\')
                return false;
        if (c < 0x80)
                return true;
        return utf8 && !(c == 0xc2 && next < 0xa0);
}

static char *escape(const char *text)
{
        bool utf8 = tk_text_is_utf8(text);
        char *out = malloc(4 * strlen(text) + 1);
        char *to = out;

        if (!out)
                return NULL;
        for (const unsigned char *from = (const unsigned char *)text; *from; from++) {
                if (is_plain(from[0], from[1], utf8)) {
                        *to++ = (char)from[0];
                        continue;
                }
                to += sprintf(to, "\\x%02x", from[0]);
                if (utf8 && from[0] == 0xc2) /* its second byte means nothing alone */
                        to += sprintf(to, "\\x%02x", *++from);
        }
        *to = '\0';
        return out;
}

void tk_text_print(FILE *out, const char *text)
{
        TK_CLEANUP(tk_freep) char *escaped = escape(text);

        fputs(escaped ? escaped : "?", out);
}

json_t *tk_text_json(const char *text)
{
        TK_CLEANUP(tk_freep) char *escaped = NULL;

        if (tk_text_is_utf8(text))
                return json_string(text);
        escaped = escape(text);
        return escaped ? json_string(escaped) : NULL;
}

const char *tk_text_size(uint64_t bytes, char out[16])
{
        static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
        size_t unit = 0;
        uint64_t unit_bytes = 1024;

        if (bytes < 1024) {
                snprintf(out, 16, "%u B", (unsigned)bytes);
                return out;
        }
        while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes / 1024 >= unit_bytes) {
                unit_bytes *= 1024;
                unit++;
        }
        snprintf(out, 16, "%.1f %s", (double)bytes / (double)unit_bytes, units[unit]);
        return out;
}

const char *tk_text_time(int64_t unix_seconds, char out[32])
{
        time_t when = (time_t)unix_seconds;
        struct tm utc;

        if (!gmtime_r(&when, &utc) || strftime(out, 32, "%Y-%m-%d %H:%M:%S UTC", &utc) == 0)
                snprintf(out, 32, "%" PRId64, unix_seconds);
        return out;
}

int tk_text_print_json(json_t *root)
{
        int r;

        if (!root)
                return -ENOMEM;
        r = json_dumpf(root, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF ? -EIO : 0;
        json_decref(root);
        return r;
}

char *tk_text_dump_json(json_t *root)
{
        size_t len = root ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
        char *text = len > 0 ? malloc(len + 1) : NULL;

        if (text) {
                (void)json_dumpb(root, text, len, JSON_COMPACT);
                text[len] = '\0';
        }
        json_decref(root);
        return text;
}

json_t *tk_text_hex_json(const char *text)
{
        size_t len = strlen(text);
        TK_CLEANUP(tk_freep) char *hex = malloc(2 * len + 1);

        if (!hex)
                return NULL;
        tk_hex_encode((const uint8_t *)text, len, hex);
        return json_string(hex);
}

json_t *tk_text_wire(const char *text)
{
        TK_CLEANUP(tk_freep) char *encoded = NULL;
        size_t len;

        if (!text)
                return json_null();
        len = strlen(text);
        encoded = malloc(tk_base64url_len(len) + 1);
        if (!encoded)
                return NULL;
        tk_base64url_encode((const uint8_t *)text, len, encoded);
        return json_string(encoded);
}

char *tk_text_of_wire(const json_t *value)
{
        const char *encoded = json_string_value(value);
        TK_CLEANUP(tk_freep) char *text = encoded ? malloc(strlen(encoded) + 1) : NULL;
        size_t len;

        if (!text || tk_base64url_decode(encoded, (uint8_t *)text, strlen(encoded), &len) < 0)
                return NULL;
        text[len] = '\0';
        return TK_TAKE(text);
}
