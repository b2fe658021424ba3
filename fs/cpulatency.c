/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A count of requests, a rate that is looked at every now and then, and a thread that lets
 * go of the CPUs when the rate falls. Nothing runs while no requests come.
 */

#include "fs/cpulatency.h"

#include "base/clock.h"
#include "base/fdio.h"
#include "base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static const char interface[] = "/dev/cpu_dma_latency";
static const char idle_driver[] = "/sys/devices/system/cpu/cpuidle/current_driver";
static const char halt_polling[] = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";

/*
 * From 500 requests a second wake-ups are a share of the time that is worth it, and the machine
 * is not idle anyway. Below 300 the CPUs may halt again, at most 100 ms later.
 */
enum { BURST = 16, BURST_MS = 32, LOOK_MS = 50, KEPT_BY = 15 };

/* More CPUs would be kept awake for a mount that uses few of them. */
enum { CPUS_MAX = 8 };

struct tk_cpulatency {
        int fd;
        pthread_t thread;
        bool started; /* before any request */
        _Atomic unsigned requests;
        _Atomic int64_t burst_ms; /* when a multiple of BURST was counted last */
        atomic_bool awake;        /* changed under lock */
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool stop; /* under lock */
};

bool tk_cpulatency_is_gain(void)
{
        return sysconf(_SC_NPROCESSORS_CONF) <= CPUS_MAX &&
               tk_fdio_file_says(idle_driver, "haltpoll") && tk_fdio_file_says(halt_polling, "0");
}

/* Under lock. The kernel takes a latency in microseconds, and -1 for any. */
static void set_awake(struct tk_cpulatency *cpus, bool awake)
{
        int32_t latency_us = awake ? 0 : -1;

        (void)!write(cpus->fd, &latency_us, sizeof(latency_us));
        cpus->awake = awake;
}

/* BURST requests have come since the last look. */
static void look_at_burst(struct tk_cpulatency *cpus)
{
        int64_t now_ms = tk_clock_ms();

        if (now_ms - atomic_exchange(&cpus->burst_ms, now_ms) > BURST_MS)
                return;
        TK_LOCK_SCOPE(&cpus->lock);
        if (!cpus->awake) {
                set_awake(cpus, true);
                pthread_cond_signal(&cpus->changed);
        }
}

void tk_cpulatency_note(struct tk_cpulatency *cpus)
{
        if (cpus && cpus->started &&
            atomic_fetch_add_explicit(&cpus->requests, 1, memory_order_relaxed) % BURST == 0 &&
            !atomic_load_explicit(&cpus->awake, memory_order_relaxed))
                look_at_burst(cpus);
}

/* Under lock, which is free in between. */
static void wait_for_look(struct tk_cpulatency *cpus)
{
        struct timespec until = tk_thread_deadline(LOOK_MS);

        while (!cpus->stop &&
               pthread_cond_timedwait(&cpus->changed, &cpus->lock, &until) != ETIMEDOUT)
                ;
}

static void *run(void *context)
{
        struct tk_cpulatency *cpus = context;

        TK_LOCK_SCOPE(&cpus->lock);
        while (!cpus->stop) {
                unsigned before = cpus->requests;

                if (!cpus->awake) {
                        pthread_cond_wait(&cpus->changed, &cpus->lock);
                        continue;
                }
                wait_for_look(cpus);
                if (cpus->requests - before < KEPT_BY)
                        set_awake(cpus, false);
        }
        return NULL;
}

int tk_cpulatency_new(const char *path, struct tk_cpulatency **ret_cpus)
{
        struct tk_cpulatency *cpus = calloc(1, sizeof(*cpus));
        int r;

        if (!cpus)
                return -ENOMEM;
        cpus->fd = open(path ? path : interface, O_RDWR | O_CLOEXEC);
        if (cpus->fd < 0) {
                r = -errno;
                free(cpus);
                return r;
        }
        cpus->burst_ms = INT64_MIN / 2;
        pthread_mutex_init(&cpus->lock, NULL);
        tk_thread_cond_init(&cpus->changed);
        *ret_cpus = cpus;
        return 0;
}

int tk_cpulatency_start(struct tk_cpulatency *cpus)
{
        int r = tk_thread_start(run, cpus, &cpus->thread);

        cpus->started = r == 0;
        return r;
}

static void stop(struct tk_cpulatency *cpus)
{
        pthread_mutex_lock(&cpus->lock);
        cpus->stop = true;
        pthread_cond_signal(&cpus->changed);
        pthread_mutex_unlock(&cpus->lock);
        pthread_join(cpus->thread, NULL);
}

struct tk_cpulatency *tk_cpulatency_free(struct tk_cpulatency *cpus)
{
        if (!cpus)
                return NULL;
        if (cpus->started)
                stop(cpus);
        close(cpus->fd); /* which ends what was asked of the kernel */
        pthread_mutex_destroy(&cpus->lock);
        pthread_cond_destroy(&cpus->changed);
        free(cpus);
        return NULL;
}
