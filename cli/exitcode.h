/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Exit codes: one per class of failure, the numbers of enum tk_fault_kind.
 * docs/cli.md lists them.
 */

#include "base/fault.h"

/* The exit code of a command that returned @r with @fault. */
static inline int tk_exit_code(int r, const struct tk_fault *fault)
{
        if (r >= 0)
                return TK_FAULT_NONE;
        return fault->kind != TK_FAULT_NONE ? (int)fault->kind : (int)TK_FAULT_INTERNAL;
}
