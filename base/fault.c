/* SPDX-License-Identifier: Apache-2.0 */

/* What failed, said to a person. */

#include "base/fault.h"

#include <stdarg.h>
#include <stdio.h>

int tk_fault_set(struct tk_fault *fault, enum tk_fault_kind kind, int r, const char *fmt, ...)
{
        va_list ap;

        if (!fault || fault->kind != TK_FAULT_NONE)
                return r;

        fault->kind = kind;
        va_start(ap, fmt);
        vsnprintf(fault->text, sizeof(fault->text), fmt, ap);
        va_end(ap);
        return r;
}
