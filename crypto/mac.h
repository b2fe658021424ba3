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
