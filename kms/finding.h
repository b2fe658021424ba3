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

/* Who is told. */
struct tk_kms_report {
        tk_kms_finding_fn fn;
        void *context;
};

/* Tell what was found at @step. */
TK_PRINTF(4, 5)
void tk_kms_say(const struct tk_kms_report *report, enum tk_kms_finding_level level,
                const char *step, const char *fmt, ...);

/* Tell a failure @r with its fault, which need not say anything. Returns @r. */
int tk_kms_say_failed(const struct tk_kms_report *report, const char *step, int r,
                      const struct tk_fault *fault);
