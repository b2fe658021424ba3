/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as INI: entries come with whole strings and a line that is there. */

#include "base/ini.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct seen {
        int line; /* of the last entry */
        size_t text_len;
};

static void require(bool holds)
{
        if (!holds)
                abort();
}

static int on_entry(void *context, const struct tk_ini_entry *entry)
{
        struct seen *seen = context;

        require(strlen(entry->section) < 200 && strlen(entry->name) < 200);
        require(strlen(entry->value) < 200 && strlen(entry->value) <= seen->text_len);
        require(entry->line > seen->line);
        seen->line = entry->line;
        return strcmp(entry->name, "stop") == 0 ? -EDOM : 0;
}

static int count_lines(const char *text)
{
        int count = 1;

        for (; *text; text++)
                count += *text == '\n';
        return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        TK_CLEANUP(tk_freep) char *text = malloc(len + 1);
        struct seen seen = {.text_len = len};
        int line = -1;
        int r;

        require(text);
        if (len > 0)
                memcpy(text, bytes, len);
        text[len] = '\0';

        r = tk_ini_parse(text, on_entry, &seen, &line);
        if (r == 0) {
                require(line == -1);
                return 0;
        }
        require(r == -EINVAL || r == -EMSGSIZE || r == -EDOM);
        require(line >= 1 && line <= count_lines(text));
        return 0;
}
