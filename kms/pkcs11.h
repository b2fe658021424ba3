/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The `pkcs11` provider: the root key lies in a token, such as an HSM or a TPM, behind a
 * PKCS#11 module.
 *
 * What the owner of the token sees and has to do: docs/kms-pkcs11.md. Calls block at most
 * for the deadline, also when the module hangs. Besides the errors of kms.h: -EACCES, the
 * token does not let us log in; nothing was said about the key. -ENOKEY with TK_FAULT_PASSPHRASE:
 * it did not say whether the PIN is wrong; after the deadline it is asked once more. A second
 * such answer is -EACCES, unless the token let us in before.
 */

#include "kms/kms.h"

/* Everything is borrowed for the call, but for @reread. */
struct tk_kms_pkcs11_options {
        const char *module;          /* path of the module's library */
        const char *uri;             /* pkcs11:token=TOKEN;object=LABEL (RFC 7512), id= pins */
        const struct tk_secret *pin; /* NULL: none */
        bool attended;               /* somebody has just typed the PIN */
        unsigned deadline_ms;        /* for a call with all its attempts; default 20 s */
        bool expiry_revokes;         /* nothing is unwrapped outside a version's dates */
        /*
         * Reads the PIN anew, before a login; the caller frees it. NULL: it can't be. Called
         * by any thread. @reread_context is taken over, also on failure, and given to @reread_free.
         */
        int (*reread)(void *context, struct tk_secret **ret_pin);
        void (*reread_free)(void *context);
        void *reread_context;
};

/*
 * No I/O: the module is loaded by the first call. -EINVAL and a TK_FAULT_CONFIG for a URI
 * that can't work; -ENOTSUP if this program was built without PKCS#11.
 */
TK_MUST_USE int tk_kms_pkcs11_open(const struct tk_kms_pkcs11_options *options,
                                   struct tk_kms **ret_kms, struct tk_fault *fault);

/* Whether @uri is one that tk_kms_pkcs11_open takes: 0, or -EINVAL and a fault that says why. */
TK_MUST_USE int tk_kms_pkcs11_check_uri(const char *uri, struct tk_fault *fault);
