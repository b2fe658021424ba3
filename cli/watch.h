/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* `status --watch`: a screen that is drawn again and again, or blocks of text where there is none.
 */

#include "base/fault.h"
#include <stdio.h>

/*
 * Watch the volume in @cipherdir until a signal asks to end: 0. Looks every @interval seconds
 * (text; NULL: 1). As lines of JSON with @json. A fault only for an interval that is none, and
 * for a volume that can't be opened at first.
 */
TK_MUST_USE int tk_watch(const char *cipherdir, const char *interval, bool json,
                         struct tk_fault *fault);

/*
 * Write @text, lines that each end with a newline, @width columns wide: the rest of a longer line
 * goes below it, indented. At most @rows lines, and @end after each but the last one.
 */
void tk_watch_fold(FILE *out, const char *text, unsigned width, unsigned rows, const char *end);
