/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Keyring: the KEK versions in memory, by number.
 *
 * Filled while the volume is opened; afterwards it is read by any thread. A DEK
 * is wrapped under the newest version and unwrapped under the one its record names.
 */

#include "crypto/record.h"
#include <stdint.h>

struct tk_keyring; /* opaque: keyring.c */

TK_MUST_USE int tk_keyring_new(const uint8_t volume_id[TK_VOLUME_ID_LEN],
                               struct tk_keyring **ret_ring);
struct tk_keyring *tk_keyring_free(struct tk_keyring *ring);
TK_DEFINE_CLEANUP(struct tk_keyring *, tk_keyring_free)

/* Takes over @kek as @version. -EEXIST if that version is there, -EINVAL for version 0. */
TK_MUST_USE int tk_keyring_add(struct tk_keyring *ring, uint16_t version, struct tk_secret *kek);

/* The highest version, which new records are wrapped under; 0 if there is none. */
uint16_t tk_keyring_current(const struct tk_keyring *ring);

/* -ENOKEY if the keyring is empty. */
TK_MUST_USE int tk_keyring_wrap(struct tk_keyring *ring, const struct tk_secret *dek,
                                struct tk_record *ret_record);

/* -EBADMSG if the record is damaged or names a KEK version that is not live. */
TK_MUST_USE int tk_keyring_unwrap(struct tk_keyring *ring, const struct tk_record *record,
                                  struct tk_secret **ret_dek);
