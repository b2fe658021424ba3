/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How a mount's daemon tells `verify` what it finds: a JSON object a line, one of
 * {"finding": ...}, {"bytes": N}, {"totals": ...}. Between two parts of one release only.
 */

#include "fs/verify.h"
#include <jansson.h>

/* Texts without a newline, for the caller to free; NULL without memory. */
char *tk_verify_wire_finding(const struct tk_verify_finding *finding);
char *tk_verify_wire_bytes(uint64_t bytes);

/* The end: what tk_verify_run returned, with its fault, and the totals. */
char *tk_verify_wire_end(int r, const struct tk_fault *fault,
                         const struct tk_verify_totals *totals);

/* What the lines of one answer came to. */
struct tk_verify_wire {
        const struct tk_verify_callbacks *callbacks; /* told of findings and progress */
        struct tk_verify_totals totals;
        struct tk_fault fault;
        int r; /* of the end */
        bool ended;
};

/* Take @line. -EPROTO for one that is none of the above. */
TK_MUST_USE int tk_verify_wire_take(struct tk_verify_wire *wire, const char *line);
