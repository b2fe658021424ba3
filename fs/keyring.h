/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Keyring: what wraps and unwraps DEKs, by KEK version.
 *
 * With dek_wrap = kek it holds the KEK versions in memory. With dek_wrap = kms it
 * holds none: each version stands for one of the root key, and the KMS is asked,
 * which may block; DEKs that it gave are kept for a lease. Filled while the
 * volume is opened; afterwards it is used by any thread.
 */

#include "crypto/record.h"
#include "kms/kms.h"
#include <stdint.h>

struct tk_keyring; /* opaque: keyring.c */

TK_MUST_USE int tk_keyring_new(const uint8_t volume_id[TK_VOLUME_ID_LEN],
                               struct tk_keyring **ret_ring);
struct tk_keyring *tk_keyring_free(struct tk_keyring *ring);
TK_DEFINE_CLEANUP(struct tk_keyring *, tk_keyring_free)

/* Takes over @kek as @version. -EEXIST if that version is there, -EINVAL for version 0. */
TK_MUST_USE int tk_keyring_add(struct tk_keyring *ring, uint16_t version, struct tk_secret *kek);

/*
 * From now on DEKs go to @kms, which is borrowed; @mac_key, which is taken over,
 * authenticates records; DEKs are kept for @lease_ms.
 */
TK_MUST_USE int tk_keyring_use_kms(struct tk_keyring *ring, struct tk_kms *kms,
                                   struct tk_secret *mac_key, int64_t lease_ms);

/* @root says which version of the root key stands for @version; its blob is ignored. */
TK_MUST_USE int tk_keyring_add_root(struct tk_keyring *ring, uint16_t version,
                                    const struct tk_kms_wrap *root);

/* The highest version, which new records are wrapped under; 0 if there is none. */
uint16_t tk_keyring_current(const struct tk_keyring *ring);

/* -ENOKEY if the keyring is empty; or what the KMS says. */
TK_MUST_USE int tk_keyring_wrap(struct tk_keyring *ring, const struct tk_secret *dek,
                                struct tk_record *ret_record);

/* -EBADMSG if the record is damaged or names a KEK version that is not live; or what the KMS says.
 */
TK_MUST_USE int tk_keyring_unwrap(struct tk_keyring *ring, const struct tk_record *record,
                                  struct tk_secret **ret_dek);
