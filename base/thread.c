/* SPDX-License-Identifier: Apache-2.0 */

/* Threads that are born with all signals blocked. */

#include "base/thread.h"

#include <signal.h>

int tk_thread_start(void *(*run)(void *context), void *context, pthread_t *ret_thread)
{
        sigset_t all;
        sigset_t before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(ret_thread, NULL, run, context);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

void tk_thread_cond_init(pthread_cond_t *ret_cond)
{
        pthread_condattr_t attr;

        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(ret_cond, &attr);
        pthread_condattr_destroy(&attr);
}

struct timespec tk_thread_deadline(int64_t ms)
{
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += ms / 1000;
        until.tv_nsec += ms % 1000 * 1000000;
        if (until.tv_nsec >= 1000000000) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000;
        }
        return until;
}
