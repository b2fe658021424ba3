/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Bytes and their texts: big-endian integers, hexadecimal, base64url (RFC 4648, section 5). */

#include "base/cleanup.h"
#include <stddef.h>
#include <stdint.h>

static inline void tk_put_be16(uint8_t *p, uint16_t v)
{
        p[0] = (uint8_t)(v >> 8);
        p[1] = (uint8_t)v;
}

static inline uint16_t tk_get_be16(const uint8_t *p)
{
        return (uint16_t)((p[0] << 8) | p[1]);
}

static inline void tk_put_be32(uint8_t *p, uint32_t v)
{
        tk_put_be16(p, (uint16_t)(v >> 16));
        tk_put_be16(p + 2, (uint16_t)v);
}

static inline uint32_t tk_get_be32(const uint8_t *p)
{
        return ((uint32_t)tk_get_be16(p) << 16) | tk_get_be16(p + 2);
}

static inline void tk_put_be64(uint8_t *p, uint64_t v)
{
        tk_put_be32(p, (uint32_t)(v >> 32));
        tk_put_be32(p + 4, (uint32_t)v);
}

static inline uint64_t tk_get_be64(const uint8_t *p)
{
        return ((uint64_t)tk_get_be32(p) << 32) | tk_get_be32(p + 4);
}

static inline bool tk_bytes_are_zero(const uint8_t *p, size_t len)
{
        for (size_t i = 0; i < len; i++)
                if (p[i])
                        return false;
        return true;
}

/* Lower-case hexadecimal of @len bytes, NUL-terminated: @out holds 2 * len + 1 characters. */
void tk_hex_encode(const uint8_t *bytes, size_t len, char *out);

/* Exactly @len bytes from a NUL-terminated text of either case; -EINVAL otherwise. */
TK_MUST_USE int tk_hex_decode(const char *text, uint8_t *bytes, size_t len);

/* Characters that tk_base64url_encode writes, without the NUL. */
static inline size_t tk_base64url_len(size_t len)
{
        return (len * 4 + 2) / 3;
}

/* base64url without padding, NUL-terminated: @out holds tk_base64url_len(len) + 1. */
void tk_base64url_encode(const uint8_t *bytes, size_t len, char *out);

/*
 * Decode a NUL-terminated text without padding. At most @max bytes are written
 * to @bytes. Returns 0 and the count; -EINVAL for a character outside the
 * alphabet, an impossible length or stray bits; -EOVERFLOW if it needs more room.
 */
TK_MUST_USE int tk_base64url_decode(const char *text, uint8_t *bytes, size_t max, size_t *ret_len);
