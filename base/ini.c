/* SPDX-License-Identifier: Apache-2.0 */

/*
 * INI text, entry by entry.
 *
 * inih cuts lines longer than its buffer in two without a word, and gives no
 * line numbers in every build: so lines are handed to it one at a time and
 * counted here.
 */

#include "base/ini.h"

#include <errno.h>
#include <ini.h>
#include <string.h>

struct parse {
        tk_ini_fn fn;
        void *context;
        const char *rest; /* text not yet read */
        int line;         /* number of the line read last */
        int r;            /* first failure */
        int failed_line;
};

static void fail(struct parse *parse, int r)
{
        if (parse->r == 0) {
                parse->r = r;
                parse->failed_line = parse->line;
        }
        parse->rest = "";
}

/* inih's reader, as fgets(3): one line, at most @size - 1 characters. */
static char *read_line(char *buf, int size, void *stream)
{
        struct parse *parse = stream;
        size_t len = strcspn(parse->rest, "\n");

        if (parse->rest[0] == '\0')
                return NULL;
        parse->line++;
        if (len + 1 >= (size_t)size) {
                fail(parse, -EMSGSIZE);
                return NULL;
        }
        memcpy(buf, parse->rest, len);
        buf[len] = '\0';
        parse->rest += len;
        if (parse->rest[0] == '\n')
                parse->rest++;
        return buf;
}

static int handle(void *user, const char *section, const char *name, const char *value)
{
        struct parse *parse = user;
        struct tk_ini_entry entry = {section, name, value, parse->line};
        int r;

        if (parse->r < 0)
                return 0;
        r = parse->fn(parse->context, &entry);
        if (r < 0)
                fail(parse, r);
        return r >= 0;
}

int tk_ini_parse(const char *text, tk_ini_fn fn, void *context, int *ret_line)
{
        struct parse parse = {.fn = fn, .context = context, .rest = text};
        int bad_line = ini_parse_stream(read_line, &parse, handle, &parse);

        if (parse.r == 0 && bad_line > 0) {
                parse.r = -EINVAL;
                parse.failed_line = bad_line;
        } else if (parse.r == 0 && bad_line < 0) {
                parse.r = -ENOMEM;
        }
        if (parse.r < 0)
                *ret_line = parse.failed_line;
        return parse.r;
}
