/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Sealed values: IV 12 | ciphertext | tag 16, AES-256-GCM with a fresh random IV
 * (docs/format.md). Keys lie so on disk, and other values of any length. Thread-safe.
 */

#include "crypto/aead.h"

enum {
        TK_SEALED_OVERHEAD = TK_AEAD_IV_LEN + TK_AEAD_TAG_LEN,
        TK_SEALED_KEY_LEN = TK_KEY_LEN + TK_SEALED_OVERHEAD,
};

/* Seal @len bytes at @bytes under @key: @ret_sealed holds TK_SEALED_OVERHEAD more. */
TK_MUST_USE int tk_sealed_make_bytes(const struct tk_secret *key, const void *aad, size_t aad_len,
                                     const void *bytes, size_t len, uint8_t *ret_sealed);

/*
 * The bytes inside, TK_SEALED_OVERHEAD fewer than @sealed_len. -EBADMSG, and nothing
 * of them left, if they were not sealed under @key with this AAD.
 */
TK_MUST_USE int tk_sealed_open_bytes(const struct tk_secret *key, const void *aad, size_t aad_len,
                                     const uint8_t *sealed, size_t sealed_len, void *ret_bytes);

/* Seal @key under @kek. -EINVAL for keys of another size. */
TK_MUST_USE int tk_sealed_make(const struct tk_secret *kek, const void *aad, size_t aad_len,
                               const struct tk_secret *key, uint8_t ret_sealed[TK_SEALED_KEY_LEN]);

/* The key inside. -EBADMSG if it was not sealed under @kek with this AAD. */
TK_MUST_USE int tk_sealed_open(const struct tk_secret *kek, const void *aad, size_t aad_len,
                               const uint8_t sealed[TK_SEALED_KEY_LEN], struct tk_secret **ret_key);
