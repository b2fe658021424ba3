/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What `verify` found, as text and as JSON: docs/cli.md. */

#include "fs/verify.h"
#include <jansson.h>

/* One finding; NULL without memory. */
json_t *tk_verify_finding_json(const struct tk_verify_finding *finding);
void tk_verify_print_finding(const struct tk_verify_finding *finding);

/* All: @findings, an array of the above, is borrowed. */
TK_MUST_USE int tk_verify_print_json(struct tk_volume *volume, json_t *findings,
                                     const struct tk_verify_totals *totals);
void tk_verify_print_totals(const struct tk_verify_totals *totals, bool repair);

/* For totals with findings: -EBADMSG, and a fault that says what to do about them. */
TK_MUST_USE int tk_verify_judge(const struct tk_volume *volume,
                                const struct tk_verify_totals *totals, struct tk_fault *fault);
