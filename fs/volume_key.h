/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The volume key: sealed under KEK versions, and what is derived from it. Bytes in,
 * bytes out (docs/format.md, "Keys" and "Volume file"). Thread-safe.
 */

#include "fs/volume_text.h"

/* Seal @volume_key under @kek, version @version of the volume @id. */
TK_MUST_USE int tk_volume_key_seal(const uint8_t id[TK_VOLUME_ID_LEN], uint16_t version,
                                   const struct tk_secret *kek, const struct tk_secret *volume_key,
                                   uint8_t ret_sealed[TK_SEALED_KEY_LEN]);

/* -EBADMSG if it was not sealed under @kek as @version of @id. */
TK_MUST_USE int tk_volume_key_unseal(const uint8_t id[TK_VOLUME_ID_LEN], uint16_t version,
                                     const struct tk_secret *kek,
                                     const uint8_t sealed[TK_SEALED_KEY_LEN],
                                     struct tk_secret **ret_volume_key);

/* The key that the volume file's MAC is made with. */
TK_MUST_USE int tk_volume_key_derive_mac(const struct tk_secret *volume_key,
                                         struct tk_secret **ret_mac_key);

/* The key that authenticates the records of dek_wrap = kms. */
TK_MUST_USE int tk_volume_key_derive_record_mac(const struct tk_secret *volume_key,
                                                struct tk_secret **ret_mac_key);

/* The key that seals symlink targets. */
TK_MUST_USE int tk_volume_key_derive_target(const struct tk_secret *volume_key,
                                            struct tk_secret **ret_target_key);

/* The public commitment to the volume key, in hexadecimal. */
TK_MUST_USE int tk_volume_key_fingerprint(const struct tk_secret *volume_key,
                                          char ret_fingerprint[TK_FINGERPRINT_LEN + 1]);
