/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Log lines: levels and sinks.
 *
 * Thread-safe. A line goes to stderr, to syslog(3) or to the journal, over its native protocol; one
 * that the journal doesn't take, to syslog. Neither is waited for: a line that finds no room is
 * lost, and the next one that finds some is preceded by the number of those.
 * There is no call that takes a struct tk_secret: secrets can't be printed.
 */

#include "base/cleanup.h"

/* TK_LOG_NONE is for tk_log_set_level alone: no line passes. */
enum tk_log_level { TK_LOG_NONE = -1, TK_LOG_ERROR, TK_LOG_WARNING, TK_LOG_INFO, TK_LOG_DEBUG };

/* Lines above @level are dropped. The default is TK_LOG_INFO. */
void tk_log_set_level(enum tk_log_level level);

enum tk_log_target {
        TK_LOG_STDERR, /* the default */
        TK_LOG_SYSLOG, /* syslog(3), facility daemon */
        TK_LOG_JOURNAL,
};

/* Whether stderr is a stream of the journal's: $JOURNAL_STREAM names its device and inode. */
bool tk_log_stderr_is_journal(void);

/*
 * From now on lines go to @target. The journal's socket is opened now; without one lines go to
 * syslog, and -errno is returned. What was open is closed: in a child, call it before others of
 * its descriptors may have the numbers. Not to be called while other threads log.
 */
int tk_log_to(enum tk_log_target target);

/* Whether lines may hold names of files as a mount shows them: they may, unless told otherwise. */
void tk_log_allow_names(bool allow);
bool tk_log_names(void);

/* The volume that each line of the journal names from now on (TURNKEYFS_VOLUME). Copied. */
void tk_log_set_volume(const char *volume);

/* Where a line was made: for the journal, and to tell kinds of lines apart. */
struct tk_log_origin {
        const char *file;
        const char *func;
        int line;
};
#define TK_LOG_HERE (&(const struct tk_log_origin){__FILE__, __func__, __LINE__})

#define tk_log(level, ...) tk_log_at(level, TK_LOG_HERE, __VA_ARGS__)

/*
 * As tk_log, for lines that a damaged disk or an attacker could cause by the
 * million: of one kind, that is from one place in the source, at most 20 in 10 seconds pass;
 * the rest are counted, and the count is said with the next line of that kind that passes.
 */
#define tk_log_limited(level, ...) tk_log_limited_at(level, TK_LOG_HERE, __VA_ARGS__)

TK_PRINTF(3, 4)
void tk_log_at(enum tk_log_level level, const struct tk_log_origin *origin, const char *fmt, ...);
TK_PRINTF(3, 4)
void tk_log_limited_at(enum tk_log_level level, const struct tk_log_origin *origin, const char *fmt,
                       ...);
