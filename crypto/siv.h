/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * AES-SIV (RFC 5297): deterministic authenticated encryption, which needs no IV.
 *
 * The same text under the same key and associated data gives the same
 * ciphertext, and that is all that it tells. Keys are 64 bytes (AES-256-SIV);
 * 32 bytes (AES-128-SIV) are taken, too, which is what the RFC's examples have.
 * One context serves one thread at a time; setting another key in it is cheap.
 */

#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>

enum {
        TK_SIV_KEY_LEN = 64,
        TK_SIV_TAG_LEN = 16, /* stands before the ciphertext */
};

struct tk_siv; /* opaque: siv.c */

/* -ENOMEM; -EIO if OpenSSL lacks AES in the modes that SIV is made of. */
TK_MUST_USE int tk_siv_new(struct tk_siv **ret_siv);
struct tk_siv *tk_siv_free(struct tk_siv *siv);
TK_DEFINE_CLEANUP(struct tk_siv *, tk_siv_free)

/* -EINVAL for a key of another length, -EIO if OpenSSL fails. */
TK_MUST_USE int tk_siv_set_key(struct tk_siv *siv, const struct tk_secret *key);

/* Wipe the key out of the context. */
void tk_siv_clear_key(struct tk_siv *siv);

/* One string that is authenticated with the text, not encrypted. */
struct tk_siv_ad {
        const void *bytes;
        size_t len;
};

/*
 * Encrypt @len bytes at @in into TK_SIV_TAG_LEN + @len bytes at @out, which may not
 * overlap them. @ad are @ad_count strings, whose number and order count; NULL: none.
 * -EIO if OpenSSL fails.
 */
TK_MUST_USE int tk_siv_seal(struct tk_siv *siv, const struct tk_siv_ad *ad, size_t ad_count,
                            const void *in, size_t len, uint8_t *out);

/*
 * Decrypt @len bytes at @in (tag and ciphertext) into @len - TK_SIV_TAG_LEN bytes at
 * @out. -EBADMSG, and the output wiped, if they don't authenticate or are too short.
 */
TK_MUST_USE int tk_siv_open(struct tk_siv *siv, const struct tk_siv_ad *ad, size_t ad_count,
                            const uint8_t *in, size_t len, void *out);
