/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Names as the backing directory has them. Layout: docs/format.md, "Names".
 */

#include <stdbool.h>
#include <string.h>

#define TK_NAMES_SIBLING_END ".name"

enum {
        TK_NAMES_HASHED_LEN = 44,                       /* "@" and the hash of a long name */
        TK_NAMES_SIBLING_LEN = TK_NAMES_HASHED_LEN + 5, /* with ".name" behind it */
};

/* Whether @name is not an entry, but holds the ciphertext of a long one's name. */
static inline bool tk_names_is_sibling(const char *name)
{
        return name[0] == '@' && strlen(name) == TK_NAMES_SIBLING_LEN &&
               strcmp(name + TK_NAMES_HASHED_LEN, TK_NAMES_SIBLING_END) == 0;
}
