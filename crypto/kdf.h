/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Keys from keys (HKDF-Expand, RFC 5869), and from passphrases (scrypt, RFC 7914).
 *
 * Every derived key has one label; the table of labels is docs/format.md.
 * Thread-safe.
 */

#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>

/*
 * HKDF-Expand with SHA-256: @out is filled from @key (a uniform key of TK_KEY_LEN
 * bytes or more) and info = @label || @context. -EIO if OpenSSL fails.
 */
TK_MUST_USE int tk_kdf_expand(const struct tk_secret *key, const char *label,
                              const uint8_t *context, size_t context_len, struct tk_secret *out);

/* scrypt's costs: needs 128 * r * n bytes of memory. */
struct tk_kdf_scrypt {
        uint64_t n; /* a power of two */
        uint32_t r;
        uint32_t p;
};

/* @out is filled from the passphrase; -EINVAL for costs out of range, -ENOMEM above 1 GiB. */
TK_MUST_USE int tk_kdf_scrypt(const struct tk_secret *passphrase, const uint8_t *salt,
                              size_t salt_len, const struct tk_kdf_scrypt *cost,
                              struct tk_secret *out);
