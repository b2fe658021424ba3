/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * HPKE (RFC 9180) in its base mode, one message for each encapsulation: whoever has the
 * public key can seal, whoever has the private one can open. Nothing says who sealed it.
 *
 * DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. A sealed message is the encapsulated
 * key 32 | ciphertext | tag 16. Thread-safe.
 */

#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>

enum {
        TK_HPKE_PUBLIC_LEN = 32,
        TK_HPKE_OVERHEAD = TK_HPKE_PUBLIC_LEN + 16,
};

/* What both sides have to agree on. */
struct tk_hpke_context {
        const uint8_t *info; /* at most TK_HPKE_INFO_MAX bytes */
        size_t info_len;
        const uint8_t *aad;
        size_t aad_len;
};

enum { TK_HPKE_INFO_MAX = 128 };

/* The public half of @private_key: any TK_KEY_LEN bytes are one. */
TK_MUST_USE int tk_hpke_public(const struct tk_secret *private_key,
                               uint8_t ret_public[TK_HPKE_PUBLIC_LEN]);

/*
 * Seal @message: @ret_sealed holds TK_HPKE_OVERHEAD bytes more. -EBADMSG if @public_key is
 * none that anything can be sealed to.
 */
TK_MUST_USE int tk_hpke_seal(const uint8_t public_key[TK_HPKE_PUBLIC_LEN],
                             const struct tk_hpke_context *context, const struct tk_secret *message,
                             uint8_t *ret_sealed);

/* The message inside. -EBADMSG if it was not sealed to this key in this context. */
TK_MUST_USE int tk_hpke_open(const struct tk_secret *private_key,
                             const struct tk_hpke_context *context, const uint8_t *sealed,
                             size_t sealed_len, struct tk_secret **ret_message);
