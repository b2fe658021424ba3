/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which token and key a PKCS#11 URI (RFC 7512) names. */

#include "base/fault.h"
#include "kms/kms.h"
#include <p11-kit/p11-kit.h>
#include <p11-kit/uri.h>

/* CKA_ID in hexadecimal is the version: it has to fit there. */
enum { TK_P11_ID_MAX = (TK_KMS_VERSION_MAX - 1) / 2, TK_P11_LABEL_MAX = 96 };

struct tk_p11_uri {
        P11KitUri *token;                /* to match tokens with */
        char key_id[TK_KMS_KEY_ID_MAX];  /* token and label only, as the volume records it */
        char label[TK_P11_LABEL_MAX];    /* CKA_LABEL of all versions */
        char pinned[TK_KMS_VERSION_MAX]; /* id=, in hexadecimal; empty: none */
        bool only_secret;                /* type=secret-key */
        bool only_private;               /* type=private */
};

/* -EINVAL and a fault that says why; -ENOMEM. Free with tk_p11_uri_done, also after a failure. */
TK_MUST_USE int tk_p11_uri_parse(const char *text, struct tk_p11_uri *ret_uri,
                                 struct tk_fault *fault);
void tk_p11_uri_done(struct tk_p11_uri *uri);

/* Whether @key_id, of a volume, names the same token and label. */
bool tk_p11_uri_same_key(const struct tk_p11_uri *uri, const char *key_id);
