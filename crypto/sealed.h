/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A sealed key: one 256-bit key under another, IV 12 | ciphertext 32 | tag 16
 * (docs/format.md). Used wherever a key lies on disk. Thread-safe.
 */

#include "crypto/aead.h"

enum { TK_SEALED_KEY_LEN = TK_AEAD_IV_LEN + TK_KEY_LEN + TK_AEAD_TAG_LEN };

/* Seal @key under @kek with a fresh random IV. -EINVAL for keys of another size. */
TK_MUST_USE int tk_sealed_make(const struct tk_secret *kek, const void *aad, size_t aad_len,
                               const struct tk_secret *key, uint8_t ret_sealed[TK_SEALED_KEY_LEN]);

/* The key inside. -EBADMSG if it was not sealed under @kek with this AAD. */
TK_MUST_USE int tk_sealed_open(const struct tk_secret *kek, const void *aad, size_t aad_len,
                               const uint8_t sealed[TK_SEALED_KEY_LEN], struct tk_secret **ret_key);
