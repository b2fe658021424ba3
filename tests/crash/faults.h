/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls below that fail, and allocations: for each operation of ace, each error, and the
 * Nth call for every N until the operation is through without it.
 *
 * The application gets that error or success; what was there stays readable, with each
 * block old or new; the same operation succeeds when nothing fails any more; and what it
 * then makes durable survives a crash.
 */

#include <stdint.h>

struct tk_faults {
        uint64_t seed;
        unsigned share; /* of `shares` processes, this one */
        unsigned shares;
        uint64_t runs;
        uint64_t failed; /* of these, the operation returned the error */
        uint64_t violations;
};

void tk_faults_run(struct tk_faults *faults);
