/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * AES-256-GCM (NIST SP 800-38D) with 96-bit IVs and 128-bit tags.
 *
 * One context serves one thread at a time: set a key, then seal or open any
 * number of messages under it. Input and output may be the same buffer.
 */

#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>

enum { TK_AEAD_IV_LEN = 12, TK_AEAD_TAG_LEN = 16 };

struct tk_aead; /* opaque: aead.c */

/* -ENOMEM; -EIO if OpenSSL has no AES-256-GCM. */
TK_MUST_USE int tk_aead_new(struct tk_aead **ret_aead);
struct tk_aead *tk_aead_free(struct tk_aead *aead);
TK_DEFINE_CLEANUP(struct tk_aead *, tk_aead_free)

/* @key is TK_KEY_LEN bytes; a copy of its schedule stays in the context. */
TK_MUST_USE int tk_aead_set_key(struct tk_aead *aead, const struct tk_secret *key);

/* Wipe the key out of the context. */
void tk_aead_clear_key(struct tk_aead *aead);

struct tk_aead_msg {
        const uint8_t *iv;  /* TK_AEAD_IV_LEN bytes */
        const uint8_t *aad; /* authenticated, not encrypted */
        size_t aad_len;
        const uint8_t *in;
        uint8_t *out; /* @len bytes */
        size_t len;
};

/* Encrypt and make the tag. -EIO if OpenSSL fails. */
TK_MUST_USE int tk_aead_seal(struct tk_aead *aead, const struct tk_aead_msg *msg,
                             uint8_t ret_tag[TK_AEAD_TAG_LEN]);

/* Decrypt and check the tag. -EBADMSG, and the output wiped, if it does not hold. */
TK_MUST_USE int tk_aead_open(struct tk_aead *aead, const struct tk_aead_msg *msg,
                             const uint8_t tag[TK_AEAD_TAG_LEN]);

/* Name and version of the library behind it, such as "OpenSSL 3.0.15 3 Sep 2024". */
const char *tk_aead_library(void);
