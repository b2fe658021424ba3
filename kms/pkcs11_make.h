/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* New versions of the root key in the token. */

#include "kms/pkcs11_internal.h"

/*
 * Generate a version as @spec says, newer than all of @versions; its name goes into the
 * job. In the token it is sensitive and not extractable.
 */
TK_MUST_USE int tk_p11_make(struct tk_p11_use *use, const struct tk_kms_key_spec *spec,
                            const struct tk_p11_versions *versions);

/* Whether @key is one that can be imported: an RSA private key in PEM, or 32 bytes. */
TK_MUST_USE int tk_p11_check_import(const struct tk_secret *key, struct tk_fault *fault);

/* The same as tk_p11_make, of a key that was brought along. */
TK_MUST_USE int tk_p11_import(struct tk_p11_use *use, const struct tk_secret *key,
                              const struct tk_p11_versions *versions);
