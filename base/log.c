/* SPDX-License-Identifier: Apache-2.0 */

/* Log lines: one sink for the whole process, chosen once at start-up. */

#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>

enum { LINE_MAX_LEN = 2048, LIMIT_LINES = 20, LIMIT_PERIOD_S = 10 };

static _Atomic int log_level = TK_LOG_INFO;
static atomic_bool log_syslog;

static struct {
        pthread_mutex_t lock;
        time_t period_start; /* under lock */
        unsigned passed;     /* under lock: lines let through in this period */
        unsigned suppressed; /* under lock: lines dropped since the last one let through */
} limiter = {.lock = PTHREAD_MUTEX_INITIALIZER};

void tk_log_set_level(enum tk_log_level level)
{
        atomic_store(&log_level, level);
}

void tk_log_to_syslog(void)
{
        openlog("turnkeyfs", LOG_PID, LOG_DAEMON);
        atomic_store(&log_syslog, true);
}

/* Names in a line are whatever somebody made them: no control character reaches a terminal. */
static void defuse(char *line)
{
        for (; *line; line++)
                if ((unsigned char)*line < 0x20 || *line == 0x7f)
                        *line = '?';
}

static void emit(enum tk_log_level level, const char *line)
{
        static const struct {
                int priority;
                const char *word;
        } levels[] = {
                [TK_LOG_ERROR] = {LOG_ERR, "error"},
                [TK_LOG_WARNING] = {LOG_WARNING, "warning"},
                [TK_LOG_INFO] = {LOG_INFO, "info"},
                [TK_LOG_DEBUG] = {LOG_DEBUG, "debug"},
        };

        if (atomic_load(&log_syslog))
                syslog(levels[level].priority, "%s", line);
        else
                fprintf(stderr, "turnkeyfs: %s: %s\n", levels[level].word, line);
}

TK_PRINTF(2, 0) static void emit_va(enum tk_log_level level, const char *fmt, va_list ap)
{
        char line[LINE_MAX_LEN];

        vsnprintf(line, sizeof(line), fmt, ap);
        defuse(line);
        emit(level, line);
}

void tk_log(enum tk_log_level level, const char *fmt, ...)
{
        va_list ap;

        if ((int)level > atomic_load(&log_level))
                return;

        va_start(ap, fmt);
        emit_va(level, fmt, ap);
        va_end(ap);
}

/* Whether a limited line may pass now; @ret_suppressed lines went missing before it. */
static bool limiter_admit(unsigned *ret_suppressed)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        TK_LOCK_SCOPE(&limiter.lock);
        if (now.tv_sec - limiter.period_start >= LIMIT_PERIOD_S) {
                limiter.period_start = now.tv_sec;
                limiter.passed = 0;
        }
        if (limiter.passed >= LIMIT_LINES) {
                limiter.suppressed++;
                return false;
        }
        limiter.passed++;
        *ret_suppressed = limiter.suppressed;
        limiter.suppressed = 0;
        return true;
}

void tk_log_limited(enum tk_log_level level, const char *fmt, ...)
{
        unsigned suppressed = 0;
        va_list ap;

        if ((int)level > atomic_load(&log_level) || !limiter_admit(&suppressed))
                return;

        if (suppressed > 0)
                tk_log(level, "%u similar lines were left out", suppressed);
        va_start(ap, fmt);
        emit_va(level, fmt, ap);
        va_end(ap);
}
