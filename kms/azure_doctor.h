/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The way to the root key in Key Vault, one step after the other: what works, and for what
 * does not, who has to do what. For `turnkeyfs doctor`; it changes nothing.
 */

#include "kms/azure.h"

enum tk_azure_finding_level { TK_AZURE_FINDING_OK, TK_AZURE_FINDING_WARN, TK_AZURE_FINDING_FAIL };

/* Borrowed for the call. */
struct tk_azure_finding {
        enum tk_azure_finding_level level;
        const char *step;        /* "vault", "token", ... */
        enum tk_fault_kind kind; /* of a failure */
        const char *text;        /* what was found; for a failure, what to do, too */
};

typedef void (*tk_azure_finding_fn)(void *context, const struct tk_azure_finding *finding);

/*
 * Go the way as far as it leads, and report each step. A step that others depend on is the
 * last one if it fails. Options as for tk_kms_azure_open; a bad one is reported as a finding.
 */
void tk_kms_azure_examine(const struct tk_kms_azure_options *options, tk_azure_finding_fn report,
                          void *context);
