/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Envelopes: how a root key that is not there follows a rotation.
 *
 * In a volume with several protectors the root key of each wraps a secret, once, from which
 * a key pair is derived; KEK versions are sealed to its public half, which lies in the volume
 * file. The pair is bound to the volume key by its fingerprint: a public half that somebody
 * has read serves to make no other volume. Layout: docs/format.md, "Several protectors".
 * Thread-safe.
 */

#include "fs/volume.h"

/*
 * A new envelope under the root key of @kms: its current version, or @version (NULL: none
 * given), proved by an unwrap. @fingerprint is the volume's. @ret_wrap is complete but for
 * its numbers and the sealed KEK. @ret_secret, which opens it, may be NULL.
 */
TK_MUST_USE int tk_protector_make(const uint8_t id[TK_VOLUME_ID_LEN], const char *fingerprint,
                                  struct tk_kms *kms, const char *version,
                                  struct tk_volume_wrap *ret_wrap, struct tk_secret **ret_secret,
                                  struct tk_fault *fault);

/* Seal @kek into @wrap, which has its numbers: by the public half that is in it. */
TK_MUST_USE int tk_protector_seal(const uint8_t id[TK_VOLUME_ID_LEN], const struct tk_secret *kek,
                                  struct tk_volume_wrap *wrap);

/*
 * The KEK in @wrap, by the @secret that the root key unwrapped. -EBADMSG if it was not sealed
 * for this volume, fingerprint, KEK version and protector.
 */
TK_MUST_USE int tk_protector_open(const uint8_t id[TK_VOLUME_ID_LEN], const char *fingerprint,
                                  const struct tk_volume_wrap *wrap, const struct tk_secret *secret,
                                  struct tk_secret **ret_kek);
