/* SPDX-License-Identifier: Apache-2.0 */

/* Log lines: one sink for the whole process, chosen at start-up; and how many may pass. */

#include "base/log.h"

#include "base/journald.h"
#include "base/syslog.h"
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>

enum { LINE_MAX_LEN = 2048, LIMIT_LINES = 20, LIMIT_PERIOD_S = 10, KINDS = 64 };

static _Atomic int log_level = TK_LOG_INFO;
static atomic_bool names_allowed = true;
static _Atomic int log_target = TK_LOG_STDERR;
static atomic_uint lost; /* lines, since the last one that was taken */

/* Lines of one kind; more kinds than there is room for share the last place. */
struct kind {
        const char *file; /* NULL: the place is free */
        int line;
        time_t period_start;
        unsigned passed;     /* in this period */
        unsigned suppressed; /* since the last one let through */
};

static struct {
        pthread_mutex_t lock;
        struct kind kinds[KINDS]; /* under lock */
} limiter = {.lock = PTHREAD_MUTEX_INITIALIZER};

void tk_log_set_level(enum tk_log_level level)
{
        atomic_store(&log_level, level);
}

bool tk_log_stderr_is_journal(void)
{
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): before there are threads */
        const char *stream = getenv("JOURNAL_STREAM");
        char name[48];
        struct stat st;

        if (!stream || fstat(STDERR_FILENO, &st) < 0)
                return false;
        snprintf(name, sizeof(name), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
        return strcmp(name, stream) == 0;
}

int tk_log_to(enum tk_log_target target)
{
        int r;

        tk_journald_close();
        tk_syslog_close();
        r = target == TK_LOG_JOURNAL ? tk_journald_open() : 0;
        if (r < 0)
                target = TK_LOG_SYSLOG;
        if (target != TK_LOG_STDERR) /* for the journal as well, see send_line() */
                tk_syslog_open();
        atomic_store(&log_target, target);
        return r;
}

void tk_log_allow_names(bool allow)
{
        atomic_store(&names_allowed, allow);
}

bool tk_log_names(void)
{
        return atomic_load(&names_allowed);
}

void tk_log_set_volume(const char *volume)
{
        tk_journald_set_volume(volume);
}

/* Names in a line are whatever somebody made them: no control character reaches a terminal. */
static void defuse(char *line)
{
        for (; *line; line++)
                if ((unsigned char)*line < 0x20 || *line == 0x7f)
                        *line = '?';
}

static int send_line(int target, int priority, const struct tk_log_origin *origin, const char *line)
{
        if (target == TK_LOG_JOURNAL && tk_journald_send(priority, origin, line) == 0)
                return 0;
        /* The journal restarts, or is full: syslog may still take it. */
        return tk_syslog_send(priority, line);
}

/* Behind what is to be said of lines before it. */
static void send_or_count(int target, int priority, const struct tk_log_origin *origin,
                          const char *line)
{
        unsigned missing = atomic_exchange(&lost, 0);
        char text[64];
        int r = 0;

        if (missing > 0) {
                snprintf(text, sizeof(text), "%u lines of the log were lost", missing);
                r = send_line(target, LOG_WARNING, TK_LOG_HERE, text);
        }
        if (r == 0) {
                missing = 0;
                r = send_line(target, priority, origin, line);
        }
        if (r < 0)
                atomic_fetch_add(&lost, missing + 1);
}

static void emit(enum tk_log_level level, const struct tk_log_origin *origin, const char *line)
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
        int target = atomic_load(&log_target);

        if (target == TK_LOG_STDERR)
                fprintf(stderr, "turnkeyfs: %s: %s\n", levels[level].word, line);
        else
                send_or_count(target, levels[level].priority, origin, line);
}

TK_PRINTF(3, 0)
static void emit_va(enum tk_log_level level, const struct tk_log_origin *origin, const char *fmt,
                    va_list ap)
{
        char line[LINE_MAX_LEN];

        vsnprintf(line, sizeof(line), fmt, ap);
        defuse(line);
        emit(level, origin, line);
}

void tk_log_at(enum tk_log_level level, const struct tk_log_origin *origin, const char *fmt, ...)
{
        va_list ap;

        if ((int)level > atomic_load(&log_level))
                return;

        va_start(ap, fmt);
        emit_va(level, origin, fmt, ap);
        va_end(ap);
}

/* The lock is held. */
static struct kind *kind_of(const struct tk_log_origin *origin)
{
        struct kind *kind = limiter.kinds;

        while (kind < limiter.kinds + KINDS - 1 && kind->file &&
               (kind->file != origin->file || kind->line != origin->line))
                kind++;
        if (!kind->file)
                *kind = (struct kind){.file = origin->file, .line = origin->line};
        return kind;
}

/* Whether a limited line may pass now; @ret_suppressed of its kind went missing before it. */
static bool limiter_admit(const struct tk_log_origin *origin, unsigned *ret_suppressed)
{
        struct timespec now;
        struct kind *kind;

        clock_gettime(CLOCK_MONOTONIC, &now);
        TK_LOCK_SCOPE(&limiter.lock);
        kind = kind_of(origin);
        if (now.tv_sec - kind->period_start >= LIMIT_PERIOD_S) {
                kind->period_start = now.tv_sec;
                kind->passed = 0;
        }
        if (kind->passed >= LIMIT_LINES) {
                kind->suppressed++;
                return false;
        }
        kind->passed++;
        *ret_suppressed = kind->suppressed;
        kind->suppressed = 0;
        return true;
}

void tk_log_limited_at(enum tk_log_level level, const struct tk_log_origin *origin, const char *fmt,
                       ...)
{
        unsigned suppressed = 0;
        va_list ap;

        if ((int)level > atomic_load(&log_level) || !limiter_admit(origin, &suppressed))
                return;

        if (suppressed > 0)
                tk_log_at(level, origin, "%u similar lines were left out", suppressed);
        va_start(ap, fmt);
        emit_va(level, origin, fmt, ap);
        va_end(ap);
}
