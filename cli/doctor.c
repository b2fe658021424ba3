/* SPDX-License-Identifier: Apache-2.0 */

/* What the checks of `doctor` say: a line each, and the count. */

#include "cli/doctor.h"

#include "cli/text.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

TK_PRINTF(4, 0)
static void say(const char *level, const char *what, const char *todo, const char *fmt, va_list ap)
{
        char detail[2048];

        vsnprintf(detail, sizeof(detail), fmt, ap);
        printf("%-5s %s: ", level, what);
        tk_text_print(stdout, detail);
        if (todo)
                printf(" -> %s", todo);
        putchar('\n');
}

void tk_doctor_ok(struct tk_doctor *doctor, const char *what, const char *fmt, ...)
{
        va_list ap;

        (void)doctor;
        va_start(ap, fmt);
        say("ok", what, NULL, fmt, ap);
        va_end(ap);
}

void tk_doctor_warn(struct tk_doctor *doctor, const char *what, const char *todo, const char *fmt,
                    ...)
{
        va_list ap;

        doctor->warnings++;
        va_start(ap, fmt);
        say("warn", what, todo, fmt, ap);
        va_end(ap);
}

static void count_failure(struct tk_doctor *doctor, enum tk_fault_kind kind)
{
        if (doctor->failures++ == 0)
                doctor->first_kind = kind;
}

void tk_doctor_fail(struct tk_doctor *doctor, enum tk_fault_kind kind, const char *what,
                    const char *todo, const char *fmt, ...)
{
        va_list ap;

        count_failure(doctor, kind);
        va_start(ap, fmt);
        say("FAIL", what, todo, fmt, ap);
        va_end(ap);
}

void tk_doctor_fail_with(struct tk_doctor *doctor, const char *what, int r,
                         const struct tk_fault *fault)
{
        bool described = fault->kind != TK_FAULT_NONE;

        tk_doctor_fail(doctor, described ? fault->kind : TK_FAULT_INTERNAL, what, NULL, "%s",
                       described ? fault->text : strerror(-r));
}
