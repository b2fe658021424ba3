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
