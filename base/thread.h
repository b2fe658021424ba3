/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Threads of the daemon's own. */

#include "base/cleanup.h"

/*
 * Start @run with @context in a thread that sees no signal: those are the main thread's
 * business. -EAGAIN and the like on failure; otherwise join @ret_thread.
 */
TK_MUST_USE int tk_thread_start(void *(*run)(void *context), void *context, pthread_t *ret_thread);
