/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The `local` provider: root key versions in a keystore file on this machine.
 *
 * File layout: docs/kms-local.md. The keystore is INI text of mode 0600,
 * replaced atomically, and optionally protected by a passphrase (scrypt).
 */

#include "kms/kms.h"

struct tk_kms_local_options {
        const char *keystore;               /* path of the file */
        const struct tk_secret *passphrase; /* borrowed for the call; NULL: none given */
};

/*
 * Make a new keystore with one root key version, durably. An existing file is
 * never overwritten: -EEXIST. Missing parent directories are made with mode 0700.
 */
TK_MUST_USE int tk_kms_local_create(const struct tk_kms_local_options *options,
                                    struct tk_fault *fault);

/*
 * Open a keystore. -ENOENT (missing), -EBADMSG (damaged, or readable by others
 * than its owner: the fault says which), -EKEYREJECTED (wrong or missing passphrase).
 */
TK_MUST_USE int tk_kms_local_open(const struct tk_kms_local_options *options,
                                  struct tk_kms **ret_kms, struct tk_fault *fault);

/*
 * `key delete` gives the keystore this suffix, and recover takes it away again, both
 * durably. -ENOENT: there is no deleted keystore; -EEXIST: there is one in its place.
 */
#define TK_LOCAL_DELETED ".deleted"
TK_MUST_USE int tk_kms_local_recover(const char *path, struct tk_fault *fault);

/* Whether the keystore at @path wants a passphrase: 1 yes, 0 no, or as tk_kms_local_open. */
TK_MUST_USE int tk_kms_local_wants_passphrase(const char *path, struct tk_fault *fault);
