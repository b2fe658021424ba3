/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Keyring: what wraps and unwraps DEKs, by KEK version.
 *
 * With dek_wrap = kek it holds the KEK versions in memory. With dek_wrap = kms it
 * holds none: each version stands for one of the root key, and the KMS is asked,
 * which may block; DEKs that it gave are kept for a lease. Thread-safe; no lock is
 * held across cryptography or a call to the KMS.
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
 * DEKs are wrapped by root keys: @mac_key, which is taken over, authenticates
 * records; DEKs are kept for @lease_ms. Before the first add_root.
 */
TK_MUST_USE int tk_keyring_use_roots(struct tk_keyring *ring, struct tk_secret *mac_key,
                                     int64_t lease_ms);

/*
 * @version is a version of a root key of @kms, which is borrowed for the life of
 * the keyring: the one that @root names. Its blob is ignored.
 */
TK_MUST_USE int tk_keyring_add_root(struct tk_keyring *ring, uint16_t version, struct tk_kms *kms,
                                    const struct tk_kms_wrap *root);

/* Takes over @key, which seals symlink targets (names = encrypted). */
void tk_keyring_set_target_key(struct tk_keyring *ring, struct tk_secret *key);

/* A copy of it, which the caller frees. -ENOKEY if there is none, or what the keyring was closed
 * with. */
TK_MUST_USE int tk_keyring_target_key(struct tk_keyring *ring, struct tk_secret **ret_key);

/* @version is live no more: its key is wiped as soon as nobody uses it. */
void tk_keyring_retire(struct tk_keyring *ring, uint16_t version);

/*
 * Every key is wiped as soon as nobody uses it, kept DEKs too, and asked for one the
 * keyring answers @error (negative) until reopen; versions and the target key are
 * added again before. So it does where the KMS is being asked: what a call brings that
 * began before is dropped.
 */
void tk_keyring_close(struct tk_keyring *ring, int error);
void tk_keyring_reopen(struct tk_keyring *ring);

/*
 * A copy of the key of @version, which the caller frees. -ENOKEY if it is a root key's; -EBADMSG
 * if that version is not live; or what the keyring was closed with.
 */
TK_MUST_USE int tk_keyring_dup_kek(struct tk_keyring *ring, uint16_t version,
                                   struct tk_secret **ret_kek);

/* How many DEKs that the KMS unwrapped are kept. */
size_t tk_keyring_cached_deks(struct tk_keyring *ring);

/* The highest version, which new records are wrapped under; 0 if there is none. */
uint16_t tk_keyring_current(struct tk_keyring *ring);

/* -ENOKEY if the keyring is empty; what it was closed with; or what the KMS says. */
TK_MUST_USE int tk_keyring_wrap(struct tk_keyring *ring, const struct tk_secret *dek,
                                struct tk_record *ret_record);

/* -EBADMSG if the record is damaged or names a KEK version that is not live; or what the KMS says.
 */
TK_MUST_USE int tk_keyring_unwrap(struct tk_keyring *ring, const struct tk_record *record,
                                  struct tk_secret **ret_dek);

/*
 * Whether @record was made by this volume and its KEK version is live: 1 or 0, or what
 * the keyring was closed with. The KMS is not asked.
 */
TK_MUST_USE int tk_keyring_check(struct tk_keyring *ring, const struct tk_record *record);
