/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The configuration turned into an open key provider. */

#include "conf/conf.h"
#include "crypto/record.h"
#include "kms/kms.h"

/* Which volume the provider is for. Borrowed. */
struct tk_provider_volume {
        const uint8_t *id; /* TK_VOLUME_ID_LEN bytes */
        const char *cipherdir;
};

/*
 * The keystore's path: the configured one, or the default place for @volume. The
 * caller frees it. A path inside the CIPHERDIR is refused with a fault.
 */
TK_MUST_USE int tk_provider_locate(const struct tk_conf *conf,
                                   const struct tk_provider_volume *volume, char **ret_keystore,
                                   struct tk_fault *fault);

/*
 * Open the provider with the keystore at @keystore, from tk_provider_locate,
 * asking for its passphrase if it wants one.
 */
TK_MUST_USE int tk_provider_open(const struct tk_conf *conf, const char *keystore,
                                 struct tk_kms **ret_kms, struct tk_fault *fault);

/* The same for a new volume: a keystore is made if none is there; @ret_made says so. */
TK_MUST_USE int tk_provider_make(const struct tk_conf *conf, const char *keystore, bool *ret_made,
                                 struct tk_kms **ret_kms, struct tk_fault *fault);
