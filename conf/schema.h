/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The option table: every section and key that a configuration may hold.
 *
 * Used by parse.c, by `turnkeyfs help config` and by the test that compares it
 * with docs/configuration.md. Constant, so any thread may read it.
 */

#include "conf/conf.h"
#include <stddef.h>

/* How the field of an option is laid out. */
enum tk_conf_kind { TK_CONF_VALUE, TK_CONF_TEXT, TK_CONF_SECRET };

struct tk_conf_option {
        const char *section;
        const char *name;
        const char *type;     /* what a value may be, as said to people */
        const char *fallback; /* the default, as said to people */
        const char *help;     /* one line */
        enum tk_conf_kind kind;
        unsigned size; /* of the field in struct tk_conf */
        size_t offset; /* of it there */
        /* Store @value in @field. -EINVAL if it is not of the option's type; -ENOMEM. */
        int (*set)(const char *value, void *field);
        bool hide; /* complaints don't repeat the value: it may be a secret by mistake */
};

/* The @i-th option; NULL after the last one. Options of a section stand together. */
const struct tk_conf_option *tk_conf_option_at(size_t i);

/* The number of the option @name in @section, or -1. */
int tk_conf_option_find(const char *section, const char *name);

/* Whether @option has another value in @a than in @b; a secret: whether it comes from elsewhere. */
bool tk_conf_option_differs(const struct tk_conf_option *option, const struct tk_conf *a,
                            const struct tk_conf *b);

/* Whether @section holds the options of a provider, whose name it is. */
bool tk_conf_is_provider(const char *section);

/* How many options there are at most: room for one note each. */
enum { TK_CONF_OPTIONS_MAX = 64 };
