/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The keeper.
 *
 * The decisions are lease.c's; here are the clock, the calls and the log lines. A
 * change of state is said once, with what the KMS said.
 */

#include "fs/keeper.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "crypto/random.h"
#include "fs/fs_internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct tk_keeper {
        struct tk_fs *fs;
        struct tk_keeper_options options; /* rotation_window_ms: under lock */
        struct tk_revoke_kernel kernel;   /* calls below, with the keeper as context */
        struct tk_revoke_kernel given;
        pthread_mutex_t kernel_lock; /* held while the kernel is made to drop an inode */
        bool halted;                 /* under kernel_lock */
        pthread_t thread;

        pthread_mutex_t lock;
        pthread_cond_t woken;
        bool stop;                       /* under lock */
        struct tk_lease lease;           /* under lock; its grace by any thread, else by ours */
        uint64_t probes;                 /* under lock */
        int64_t round_ms;                /* under lock: when the thread last looked up */
        int64_t poll_ms;                 /* under lock: when to ask for the current version */
        int64_t polled_ms;               /* under lock: when it was last answered; -1: never */
        enum tk_lease_state closed;      /* under lock: what closed the mount last */
        char trouble[TK_FAULT_TEXT_MAX]; /* under lock */
        char version_trouble[TK_FAULT_TEXT_MAX]; /* under lock */
};

static uint32_t draw(void)
{
        uint32_t number = 0;

        (void)!tk_random_bytes(&number, sizeof(number)); /* only spreads the load */
        return number;
}

/* Unless nobody serves any more what the kernel would write back. */
static void invalidate(void *context, struct tk_inode *inode)
{
        struct tk_keeper *keeper = context;

        TK_LOCK_SCOPE(&keeper->kernel_lock);
        if (!keeper->halted)
                keeper->given.invalidate(keeper->given.context, inode);
}

void tk_keeper_halt(struct tk_keeper *keeper)
{
        TK_LOCK_SCOPE(&keeper->kernel_lock);
        keeper->halted = true;
}

static int64_t next_poll(const struct tk_keeper *keeper, int64_t now)
{
        int64_t window = keeper->options.rotation_window_ms;

        return window > 0 ? now + window / 5 + (int64_t)(draw() % (uint32_t)(window / 20 + 1))
                          : INT64_MAX;
}

/* No confirmation, for one of three reasons, which differ in who has to act, and until when. */
static void say_degraded(struct tk_keeper *keeper, const struct tk_fault *fault, const char *why)
{
        const char *path = tk_volume_path(keeper->fs->volume);

        if (keeper->lease.answer == TK_LEASE_UNKNOWN_US)
                tk_log(TK_LOG_ERROR,
                       "%s: the KMS does not accept this machine's identity; served until the "
                       "revocation window ends: %s",
                       path, why);
        else if (fault->kind == TK_FAULT_KMS_UNREACHABLE)
                tk_log(TK_LOG_WARNING,
                       "%s: the KMS can't be reached; served until the outage grace ends: %s", path,
                       why);
        else
                tk_log(TK_LOG_ERROR,
                       "%s: the KMS does not confirm the key, which it gave out before; served "
                       "until the outage grace ends: %s",
                       path, why);
}

static void say(struct tk_keeper *keeper, enum tk_lease_state state, const struct tk_fault *fault)
{
        const char *path = tk_volume_path(keeper->fs->volume);
        const char *why = fault->kind ? fault->text : "no reason was given";

        switch (state) {
        case TK_LEASE_ACTIVE:
                tk_log(TK_LOG_INFO, "%s: the key can be used again; served as before", path);
                break;
        case TK_LEASE_DEGRADED:
                say_degraded(keeper, fault, why);
                break;
        default:
                tk_log(TK_LOG_ERROR, "%s: locked, the key is %s: %s", path, tk_lease_name(state),
                       why);
        }
}

/* A rotation that the revocation ended goes on at once, not with the next poll. */
static void reopen(struct tk_keeper *keeper, struct tk_fault *fault)
{
        struct tk_fs *fs = keeper->fs;

        if (tk_revoke_reopen(fs, fault) < 0) {
                tk_log_limited(TK_LOG_ERROR, "%s: still locked: %s", tk_volume_path(fs->volume),
                               fault->text);
                return;
        }
        say(keeper, TK_LEASE_ACTIVE, fault);
        TK_LOCK_SCOPE(&keeper->lock);
        if (keeper->options.rotation_window_ms > 0)
                keeper->poll_ms = tk_clock_ms();
}

/* The mount follows the lease. Keys that can't be unwrapped after all leave it closed. */
static void follow(struct tk_keeper *keeper, enum tk_lease_state before, enum tk_lease_state state,
                   struct tk_fault *fault)
{
        int error = tk_lease_errno(state);
        struct tk_fs *fs = keeper->fs;

        if (error < 0) {
                TK_LOCK_SCOPE(&keeper->lock);
                keeper->closed = state;
        }
        if (state != before && (error < 0 || fs->gate == 0))
                say(keeper, state, fault);
        if (error < 0 && (state != before || fs->gate == 0))
                tk_revoke_close(fs, error, &keeper->kernel);
        else if (error < 0)
                tk_revoke_again(fs, &keeper->kernel);
        else if (fs->gate < 0 && state == TK_LEASE_ACTIVE)
                reopen(keeper, fault);
}

/* For the gate. While it is closed, nobody looks. The lock is held. */
static void publish_lease(struct tk_keeper *keeper)
{
        if (tk_lease_errno(keeper->lease.state) == 0)
                keeper->fs->lease_until_ms = tk_lease_until(&keeper->lease);
}

static void probe(struct tk_keeper *keeper)
{
        struct tk_fault fault = {0};
        enum tk_lease_answer answer_before;
        enum tk_lease_state before;
        enum tk_lease_state state;
        int64_t asked = tk_clock_ms();
        int r;

        r = tk_volume_probe(keeper->fs->volume, &fault);
        {
                TK_LOCK_SCOPE(&keeper->lock);
                before = keeper->lease.state;
                answer_before = keeper->lease.answer;
                state = tk_lease_hear(&keeper->lease, tk_lease_answer_of(r), asked, tk_clock_ms(),
                                      draw());
                publish_lease(keeper);
                keeper->probes++;
                snprintf(keeper->trouble, sizeof(keeper->trouble), "%s", r < 0 ? fault.text : "");
        }
        /* An outage in which the identity is refused, too: somebody has to act before it ends. */
        if (state == TK_LEASE_DEGRADED && before == state && keeper->lease.answer != answer_before)
                say(keeper, state, &fault);
        follow(keeper, before, state, &fault);
}

/* The grace, or the window of a refused identity, may end between two probes. */
static void let_time_pass(struct tk_keeper *keeper)
{
        struct tk_fault fault = {0};
        enum tk_lease_state before;
        enum tk_lease_state state;

        {
                TK_LOCK_SCOPE(&keeper->lock);
                before = keeper->lease.state;
                state = tk_lease_wait(&keeper->lease, tk_clock_ms());
                tk_fault_set(&fault, TK_FAULT_KMS_UNREACHABLE, 0, "%s", keeper->trouble);
        }
        if (state != before)
                follow(keeper, before, state, &fault);
}

static void poll_root(struct tk_keeper *keeper)
{
        struct tk_fault fault = {0};
        int r;

        r = keeper->fs->gate;
        if (r == 0 && keeper->options.before_look)
                keeper->options.before_look(keeper->options.context);
        if (r == 0)
                r = tk_volume_has_new_root(keeper->fs->volume, &fault);
        /* A rotation that a revocation or a failure ended: tried again until it is through. */
        if (r == 0 && tk_volume_active_count(keeper->fs->volume) > 1)
                r = 1;
        {
                TK_LOCK_SCOPE(&keeper->lock);
                keeper->poll_ms = next_poll(keeper, tk_clock_ms());
                if (r >= 0)
                        keeper->polled_ms = tk_clock_ms();
                if (r >= 0 || fault.kind)
                        snprintf(keeper->version_trouble, sizeof(keeper->version_trouble), "%s",
                                 r < 0 ? fault.text : "");
        }
        if (r > 0)
                keeper->options.rotate(keeper->options.context);
        else if (r < 0 && fault.kind)
                tk_log_limited(TK_LOG_WARNING,
                               "%s: cannot ask for the root key's current version: %s",
                               tk_volume_path(keeper->fs->volume), fault.text);
}

/* When something is due next; a degraded lease may run out before its next probe. */
static int64_t next_due(const struct tk_keeper *keeper)
{
        int64_t due =
                keeper->lease.next_ms < keeper->poll_ms ? keeper->lease.next_ms : keeper->poll_ms;
        int64_t end = tk_lease_until(&keeper->lease);

        return keeper->lease.state == TK_LEASE_DEGRADED && end < due ? end : due;
}

/* Sleep until something is due. False when it is time to stop. */
static bool wait_due(struct tk_keeper *keeper, bool *ret_probe, bool *ret_poll)
{
        int64_t now;

        TK_LOCK_SCOPE(&keeper->lock);
        while (!keeper->stop && (now = tk_clock_ms()) < next_due(keeper)) {
                int64_t left = next_due(keeper) - now;
                struct timespec until;

                keeper->round_ms = now;
                /* The condition's clock stands still while the machine sleeps: look up often. */
                left = left < 1000 ? left : 1000;
                until = tk_thread_deadline(left);
                pthread_cond_timedwait(&keeper->woken, &keeper->lock, &until);
        }
        now = tk_clock_ms();
        keeper->round_ms = now;
        *ret_probe = now >= keeper->lease.next_ms;
        *ret_poll = now >= keeper->poll_ms;
        return !keeper->stop;
}

static void *run(void *context)
{
        struct tk_keeper *keeper = context;
        bool due_probe;
        bool due_poll;

        while (wait_due(keeper, &due_probe, &due_poll)) {
                if (due_probe)
                        probe(keeper);
                else
                        let_time_pass(keeper);
                if (due_poll)
                        poll_root(keeper);
        }
        return NULL;
}

int tk_keeper_new(struct tk_fs *fs, const struct tk_keeper_options *options,
                  const struct tk_revoke_kernel *kernel, struct tk_keeper **ret_keeper)
{
        struct tk_keeper *keeper;

        keeper = calloc(1, sizeof(*keeper));
        if (!keeper)
                return -ENOMEM;
        keeper->fs = fs;
        keeper->options = *options;
        keeper->given = *kernel;
        keeper->kernel = (struct tk_revoke_kernel){.invalidate = invalidate, .context = keeper};
        pthread_mutex_init(&keeper->kernel_lock, NULL);
        keeper->polled_ms = -1;
        tk_lease_start(&keeper->lease, &options->lease, tk_clock_ms(), draw());
        publish_lease(keeper);
        keeper->round_ms = tk_clock_ms();
        keeper->poll_ms = next_poll(keeper, tk_clock_ms());
        pthread_mutex_init(&keeper->lock, NULL);
        tk_thread_cond_init(&keeper->woken);
        if (tk_thread_start(run, keeper, &keeper->thread) < 0) {
                pthread_cond_destroy(&keeper->woken);
                pthread_mutex_destroy(&keeper->lock);
                pthread_mutex_destroy(&keeper->kernel_lock);
                free(keeper);
                return -EAGAIN;
        }
        *ret_keeper = keeper;
        return 0;
}

void tk_keeper_set_windows(struct tk_keeper *keeper, int64_t grace_ms, int64_t rotation_window_ms)
{
        TK_LOCK_SCOPE(&keeper->lock);
        keeper->lease.config.grace_ms = grace_ms;
        publish_lease(keeper);
        if (keeper->options.rotation_window_ms != rotation_window_ms) {
                keeper->options.rotation_window_ms = rotation_window_ms;
                keeper->poll_ms = next_poll(keeper, tk_clock_ms());
        }
        pthread_cond_signal(&keeper->woken);
}

struct tk_keeper *tk_keeper_free(struct tk_keeper *keeper)
{
        if (!keeper)
                return NULL;
        pthread_mutex_lock(&keeper->lock);
        keeper->stop = true;
        pthread_cond_signal(&keeper->woken);
        pthread_mutex_unlock(&keeper->lock);
        pthread_join(keeper->thread, NULL);
        keeper->fs->lease_until_ms = INT64_MAX;
        pthread_cond_destroy(&keeper->woken);
        pthread_mutex_destroy(&keeper->lock);
        pthread_mutex_destroy(&keeper->kernel_lock);
        free(keeper);
        return NULL;
}

/* The thread would look up within a second, too. */
static void wake(struct tk_fs *fs)
{
        TK_LOCK_SCOPE(&fs->keeper_lock);
        if (fs->keeper)
                pthread_cond_signal(&fs->keeper->woken);
}

void tk_keeper_await(struct tk_fs *fs)
{
        static const struct timespec pause = {.tv_nsec = 2000000};

        wake(fs);
        while (fs->gate == 0 && tk_clock_ms() >= fs->lease_until_ms)
                nanosleep(&pause, NULL);
}

/* Keys that are confirmed again have to be unwrapped before anything is served. Locked. */
static enum tk_lease_state state_now(const struct tk_keeper *keeper)
{
        bool closed = keeper->fs->gate < 0;

        return closed && tk_lease_errno(keeper->lease.state) == 0 ? keeper->closed
                                                                  : keeper->lease.state;
}

/* Nothing, once the mount is closed. Locked. */
static int64_t left_ms(const struct tk_keeper *keeper, int64_t now)
{
        int64_t left = tk_lease_until(&keeper->lease) - now;

        return tk_lease_errno(state_now(keeper)) < 0 || left < 0 ? 0 : left;
}

void tk_keeper_status(struct tk_keeper *keeper, struct tk_keeper_status *ret_status)
{
        int64_t now = tk_clock_ms();

        TK_LOCK_SCOPE(&keeper->lock);
        *ret_status = (struct tk_keeper_status){
                .state = state_now(keeper),
                .confirmed_ago_ms = now - keeper->lease.confirmed_ms,
                .next_in_ms = keeper->lease.next_ms - now,
                .round_ago_ms = now - keeper->round_ms,
                .left_ms = left_ms(keeper, now),
                .failures = keeper->lease.failures,
                .probes = keeper->probes,
                .rotation_checked_ago_ms = keeper->polled_ms < 0 ? -1 : now - keeper->polled_ms,
        };
        memcpy(ret_status->trouble, keeper->trouble, sizeof(ret_status->trouble));
        memcpy(ret_status->version_trouble, keeper->version_trouble,
               sizeof(ret_status->version_trouble));
}
