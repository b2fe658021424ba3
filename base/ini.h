/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * INI text, entry by entry: the one door to inih.
 *
 * Used for the configuration, the volume file and the keystore. A value that
 * goes on in an indented line arrives as a further entry of the same name.
 */

#include "base/cleanup.h"

struct tk_ini_entry {
        const char *section;
        const char *name;
        const char *value;
        int line; /* from 1 */
};

/* Called for each entry in turn; a negative return ends the parse with it. */
typedef int (*tk_ini_fn)(void *context, const struct tk_ini_entry *entry);

/*
 * Parse the NUL-terminated @text. Returns 0; -EINVAL for a line that is no INI,
 * with its number; -EMSGSIZE for a line above the library's limit (198
 * characters), with its number; or what @fn returned, with the entry's line.
 */
TK_MUST_USE int tk_ini_parse(const char *text, tk_ini_fn fn, void *context, int *ret_line);
