/* SPDX-License-Identifier: Apache-2.0 */

/* What failed, said to a person. */

#include "base/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void tk_fault_describe(struct tk_fault *fault, enum tk_fault_kind kind, const char *fmt, ...)
{
        va_list ap;

        if (!fault || fault->kind != TK_FAULT_NONE)
                return;

        fault->kind = kind;
        va_start(ap, fmt);
        vsnprintf(fault->text, sizeof(fault->text), fmt, ap);
        va_end(ap);
}

void tk_fault_add(struct tk_fault *fault, const char *fmt, ...)
{
        size_t len = strlen(fault->text);
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(fault->text + len, sizeof(fault->text) - len, fmt, ap);
        va_end(ap);
}
