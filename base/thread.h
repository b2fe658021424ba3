/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Threads of the daemon's own. */

#include "base/cleanup.h"
#include <stdint.h>
#include <time.h>

/*
 * Start @run with @context in a thread that sees no signal: those are the main thread's
 * business. -EAGAIN and the like on failure; otherwise join @ret_thread.
 */
TK_MUST_USE int tk_thread_start(void *(*run)(void *context), void *context, pthread_t *ret_thread);

/* A condition whose timed waits end by CLOCK_MONOTONIC, which nobody sets. */
void tk_thread_cond_init(pthread_cond_t *ret_cond);

/* The time, for such a wait, in @ms milliseconds, which are not negative. */
struct timespec tk_thread_deadline(int64_t ms);
