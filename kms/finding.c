/* SPDX-License-Identifier: Apache-2.0 */

/* Steps on the way to a root key, told to doctor. */

#include "kms/finding.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void tk_kms_say(const struct tk_kms_report *report, enum tk_kms_finding_level level,
                const char *step, const char *fmt, ...)
{
        char text[TK_FAULT_TEXT_MAX];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        report->fn(report->context,
                   &(struct tk_kms_finding){.level = level, .step = step, .text = text});
}

int tk_kms_say_failed(const struct tk_kms_report *report, const char *step, int r,
                      const struct tk_fault *fault)
{
        bool described = fault->kind != TK_FAULT_NONE;

        report->fn(report->context,
                   &(struct tk_kms_finding){.level = TK_KMS_FINDING_FAIL,
                                            .step = step,
                                            .kind = described ? fault->kind : TK_FAULT_INTERNAL,
                                            .text = described ? fault->text : strerror(-r)});
        return r;
}
