/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Checks for `doctor`: each says one line, "ok", "warn" or "FAIL", with what was
 * found and, unless it is ok, what to do.
 */

#include "base/fault.h"
#include "conf/conf.h"

struct tk_doctor {
        const struct tk_conf *conf;
        const char *cipherdir;         /* NULL: no volume is to be checked */
        enum tk_fault_kind first_kind; /* of the first FAIL */
        unsigned warnings;
        unsigned failures;
};

TK_PRINTF(3, 4)
void tk_doctor_ok(struct tk_doctor *doctor, const char *what, const char *fmt, ...);

/* @todo says what to do; NULL: the detail says so already. */
TK_PRINTF(4, 5)
void tk_doctor_warn(struct tk_doctor *doctor, const char *what, const char *todo, const char *fmt,
                    ...);
TK_PRINTF(5, 6)
void tk_doctor_fail(struct tk_doctor *doctor, enum tk_fault_kind kind, const char *what,
                    const char *todo, const char *fmt, ...);

/* A FAIL made of a function's result and its fault, which says what to do. */
void tk_doctor_fail_with(struct tk_doctor *doctor, const char *what, int r,
                         const struct tk_fault *fault);

/* FUSE, CPU, memory, swap. */
void tk_doctor_check_machine(struct tk_doctor *doctor);

/* The encrypted directory, its filesystem, its keys and its lock. */
void tk_doctor_check_volume(struct tk_doctor *doctor);
