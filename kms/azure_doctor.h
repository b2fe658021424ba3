/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The way to the root key in Key Vault, one step after the other: what works, and for what
 * does not, who has to do what. For `turnkeyfs doctor`; it changes nothing.
 */

#include "kms/azure.h"
#include "kms/finding.h"

/*
 * Go the way as far as it leads, and report each step. A step that others depend on is the
 * last one if it fails. Options as for tk_kms_azure_open; a bad one is reported as a finding.
 */
void tk_kms_azure_examine(const struct tk_kms_azure_options *options, tk_kms_finding_fn report,
                          void *context);
