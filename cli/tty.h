/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Asking on the terminal: for a secret, for a yes. */

#include "base/fault.h"
#include "base/secret.h"

/*
 * Show @prompt on /dev/tty and read one line of at most @max bytes without echo.
 * The terminal is put back as it was, also when a signal ends or stops the
 * process meanwhile. The secret keeps its newline. -ENXIO, -ENOENT or -ENOTTY if
 * there is no terminal. For one thread at a time.
 */
TK_MUST_USE int tk_tty_ask(const char *prompt, size_t max, struct tk_secret **ret_secret);

/* Show @question on /dev/tty: 1 if "yes" was typed, 0 otherwise, or as tk_tty_ask. */
TK_MUST_USE int tk_tty_confirm(const char *question);

/*
 * The same before @command (its first word, for messages) takes something away: 0 only for a
 * yes; otherwise a fault, also if there is no terminal.
 */
TK_MUST_USE int tk_tty_want_yes(const char *command, const char *question, struct tk_fault *fault);
