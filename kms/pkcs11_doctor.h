/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The way to the root key in a token, one step after the other: what works, and for what
 * does not, who has to do what. For `turnkeyfs doctor`; it changes nothing.
 */

#include "kms/finding.h"
#include "kms/pkcs11.h"

/*
 * Go the way as far as it leads, and report each step. Options as for tk_kms_pkcs11_open; a
 * bad one is reported as a finding.
 */
void tk_kms_pkcs11_examine(const struct tk_kms_pkcs11_options *options, tk_kms_finding_fn report,
                           void *context);
