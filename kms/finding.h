/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What `turnkeyfs doctor` finds out on the way to a root key, one step after the other. */

#include "base/fault.h"

enum tk_kms_finding_level { TK_KMS_FINDING_OK, TK_KMS_FINDING_WARN, TK_KMS_FINDING_FAIL };

/* Borrowed for the call. */
struct tk_kms_finding {
        enum tk_kms_finding_level level;
        const char *step;        /* "vault", "token", ... */
        enum tk_fault_kind kind; /* of a failure */
        const char *text;        /* what was found; for a failure, what to do, too */
};

typedef void (*tk_kms_finding_fn)(void *context, const struct tk_kms_finding *finding);
