/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* HMAC-SHA-256 (FIPS 198-1, RFC 2104) and SHA-256 (FIPS 180-4). Thread-safe. */

#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>

enum { TK_MAC_LEN = 32 };

TK_MUST_USE int tk_mac_hmac(const struct tk_secret *key, const void *bytes, size_t len,
                            uint8_t ret_mac[TK_MAC_LEN]);

/* A checksum against accidents; it proves nothing about who wrote the bytes. */
TK_MUST_USE int tk_mac_sha256(const void *bytes, size_t len, uint8_t ret_digest[TK_MAC_LEN]);

/* SHA-256 of what comes in pieces: for one thread. */
struct tk_sha256; /* opaque: mac.c */

TK_MUST_USE int tk_sha256_new(struct tk_sha256 **ret_hash);
struct tk_sha256 *tk_sha256_free(struct tk_sha256 *hash);
TK_DEFINE_CLEANUP(struct tk_sha256 *, tk_sha256_free)

TK_MUST_USE int tk_sha256_add(struct tk_sha256 *hash, const void *bytes, size_t len);

/* The digest of everything since new, or since the last end. */
TK_MUST_USE int tk_sha256_end(struct tk_sha256 *hash, uint8_t ret_digest[TK_MAC_LEN]);
