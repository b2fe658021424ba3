/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Texts that may hold a secret, built piece by piece: request bodies, header lines.
 *
 * The bytes lie in a struct tk_secret from the first piece on. A finished text
 * ends in a NUL, which tk_secret_len counts. After a failure further pieces are
 * ignored and tk_text_take reports it. One builder is for one thread.
 */

#include "base/secret.h"

struct tk_text {
        struct tk_secret *secret; /* NULL: nothing yet */
        size_t len;
        int error; /* 0, or the first failure */
};

void tk_text_done(struct tk_text *text);

void tk_text_add(struct tk_text *text, const char *piece);
void tk_text_add_bytes(struct tk_text *text, const void *bytes, size_t len);
void tk_text_add_base64url(struct tk_text *text, const void *bytes, size_t len);

/* @piece as a JSON string with its quotes. */
void tk_text_add_json(struct tk_text *text, const char *piece);
void tk_text_add_number(struct tk_text *text, int64_t number);

/* One field of an HTML form, percent-encoded, with a '&' before all but the first. */
void tk_text_add_field(struct tk_text *text, const char *name, const void *value, size_t value_len);

/* What encodeURIComponent makes of it: letters, digits and -._~ stay. */
void tk_text_add_escaped(struct tk_text *text, const void *bytes, size_t len);

/* The finished text, which the caller frees; the builder is empty again. -ENOMEM, -EPERM. */
TK_MUST_USE int tk_text_take(struct tk_text *text, struct tk_secret **ret_secret);

/* The characters of a finished text. Borrowed. */
static inline const char *tk_text_of(const struct tk_secret *secret)
{
        return (const char *)tk_secret_bytes(secret);
}

/* Without the NUL. */
static inline size_t tk_text_len(const struct tk_secret *secret)
{
        return tk_secret_len(secret) - 1;
}
