/* SPDX-License-Identifier: Apache-2.0 */

/* Process hygiene. */

#include "cli/hygiene.h"

#include "base/log.h"
#include "base/secret.h"
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static atomic_bool all_locked;
static enum tk_conf_log_target log_target;

void tk_hygiene_set_level(const struct tk_conf *conf)
{
        static const enum tk_log_level levels[] = {
                [TK_CONF_LOG_ERROR] = TK_LOG_ERROR,
                [TK_CONF_LOG_WARNING] = TK_LOG_WARNING,
                [TK_CONF_LOG_INFO] = TK_LOG_INFO,
                [TK_CONF_LOG_DEBUG] = TK_LOG_DEBUG,
        };

        tk_log_set_level(levels[conf->log.level]);
}

int tk_hygiene_start(const struct tk_conf *conf, struct tk_fault *fault)
{
        /* 1, not 0: a core_pattern that pipes to a program minds no other limit. */
        const struct rlimit none = {1, 1};

        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno,
                                    "cannot turn core dumps off: %s", strerror(errno));
        tk_hygiene_set_level(conf);
        log_target = conf->log.target;
        tk_secret_require_lock(conf->memory.require_lock);
        return 0;
}

void tk_hygiene_log(bool background)
{
        enum tk_log_target target = TK_LOG_STDERR;
        int r;

        if (log_target == TK_CONF_LOG_JOURNAL ||
            (log_target == TK_CONF_LOG_AUTO && tk_log_stderr_is_journal()))
                target = TK_LOG_JOURNAL;
        else if (log_target == TK_CONF_LOG_SYSLOG || background)
                target = TK_LOG_SYSLOG;
        r = tk_log_to(target);
        if (r < 0)
                tk_log(TK_LOG_WARNING, "the journal can't be reached: %s; logging to syslog",
                       strerror(-r));
}

/*
 * Whether a mapping beyond the limit still works after mlockall(2): a process that
 * is held to its limit would fail in the middle of its work instead.
 */
static bool limit_does_not_bind(rlim_t limit)
{
        void *pages;
        size_t len;

        if (limit == RLIM_INFINITY)
                return true;
        len = (size_t)limit + (size_t)(1 << 20);
        pages = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages == MAP_FAILED)
                return false;
        munmap(pages, len);
        return true;
}

bool tk_hygiene_can_lock_all(void)
{
        struct rlimit limit = {0, 0};

        (void)getrlimit(RLIMIT_MEMLOCK, &limit);
        if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
                return false;
        if (limit_does_not_bind(limit.rlim_cur))
                return true;
        munlockall();
        return false;
}

int tk_hygiene_lock_memory(const struct tk_conf *conf, struct tk_fault *fault)
{
        struct rlimit limit = {0, 0};

        if (tk_hygiene_can_lock_all()) {
                atomic_store(&all_locked, true);
                return 0;
        }
        (void)getrlimit(RLIMIT_MEMLOCK, &limit);
        if (conf->memory.require_lock)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -EPERM,
                                    "memory can't be locked against swapping, which [memory] lock "
                                    "= require asks for: the limit is %ju KiB; raise it to "
                                    "unlimited (ulimit -l, LimitMEMLOCK=) or run as root",
                                    (uintmax_t)limit.rlim_cur / 1024);
        tk_log(TK_LOG_WARNING,
               "only the keys are locked against swapping, as the limit is %ju KiB: file content "
               "may reach swap; raise the limit to unlimited (ulimit -l, LimitMEMLOCK=), or use "
               "encrypted swap",
               (uintmax_t)limit.rlim_cur / 1024);
        return 0;
}

const char *tk_hygiene_locked(void)
{
        if (!tk_secret_all_locked())
                return "none";
        return atomic_load(&all_locked) ? "all" : "keys";
}

/* The lowest of @keep from @first on, or UINT_MAX. */
static unsigned next_kept(const int *keep, size_t count, unsigned first)
{
        unsigned next = UINT_MAX;

        for (size_t i = 0; i < count; i++)
                if (keep[i] >= 0 && (unsigned)keep[i] >= first && (unsigned)keep[i] < next)
                        next = (unsigned)keep[i];
        return next;
}

void tk_hygiene_close_inherited(const int *keep, size_t count)
{
        unsigned first = STDERR_FILENO + 1;

        for (;;) {
                unsigned kept = next_kept(keep, count, first);

                if (kept > first)
                        (void)close_range(first, kept == UINT_MAX ? kept : kept - 1, 0);
                if (kept == UINT_MAX)
                        return;
                first = kept + 1;
        }
}

void tk_hygiene_raise_files(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
                limit.rlim_cur = limit.rlim_max;
                if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                        tk_log(TK_LOG_WARNING, "cannot raise the limit of open files: %s",
                               strerror(errno));
        }
}

void tk_hygiene_daemon(void)
{
        tk_hygiene_raise_files();
        umask(0);
}
