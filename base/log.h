/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Log lines: levels and sinks.
 *
 * Thread-safe. A line goes to stderr (foreground) or to syslog (background).
 * There is no call that takes a struct tk_secret: secrets can't be printed.
 */

#include "base/cleanup.h"

/* TK_LOG_NONE is for tk_log_set_level alone: no line passes. */
enum tk_log_level { TK_LOG_NONE = -1, TK_LOG_ERROR, TK_LOG_WARNING, TK_LOG_INFO, TK_LOG_DEBUG };

/* Lines above @level are dropped. The default is TK_LOG_INFO. */
void tk_log_set_level(enum tk_log_level level);

/* From now on lines go to syslog(3), facility daemon. Not to be called twice. */
void tk_log_to_syslog(void);

TK_PRINTF(2, 3) void tk_log(enum tk_log_level level, const char *fmt, ...);

/*
 * As tk_log, for lines that a damaged disk or an attacker could cause by the
 * million: at most 20 in 10 seconds pass, the rest are counted and the count is
 * said with the next line that passes.
 */
TK_PRINTF(2, 3) void tk_log_limited(enum tk_log_level level, const char *fmt, ...);
