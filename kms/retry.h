/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * When to ask a service again: pure functions of attempt, clock and answer.
 *
 * Full jitter: the wait before attempt n + 1 is anywhere between 0 and
 * min(cap, base * 2^n). A wait that the service asked for is kept to, unless it
 * would end after the deadline. The gate is shared by the threads that ask one
 * service: when one is told to wait, all do.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct tk_retry_policy {
        unsigned attempts_max; /* requests, the first included */
        unsigned base_ms;
        unsigned cap_ms;
};

enum { TK_RETRY_GIVE_UP = -1, TK_RETRY_UNASKED = -1 };

/* Whether an HTTP @status may go away by itself: 408, 429, 5xx but for 501 and 505. */
bool tk_retry_may_help(int status);

/*
 * How long to wait after attempt number @attempt (from 1) failed, or TK_RETRY_GIVE_UP.
 * @asked_ms is what the service wants, or TK_RETRY_UNASKED; @random is any number. When a
 * wait ends after @deadline_ms, there is no further attempt.
 */
int64_t tk_retry_wait(const struct tk_retry_policy *policy, unsigned attempt, int64_t now_ms,
                      int64_t deadline_ms, int64_t asked_ms, uint32_t random);

/*
 * What the headers Retry-After (seconds, or a date as @date, seconds since 1970, or -1) and
 * retry-after-ms or x-ms-retry-after-ms ask for, in ms, or TK_RETRY_UNASKED. Empty texts
 * are absent headers. Nonsense counts as absent.
 */
int64_t tk_retry_asked(const char *seconds, const char *milliseconds, int64_t date,
                       int64_t unix_now);

/* Threads-safe; zero-initialised but for the lock. */
struct tk_retry_gate {
        pthread_mutex_t lock;
        int64_t opens_ms; /* under lock */
};

/* Nobody passes before @opens_ms. It never opens earlier than somebody else said. */
void tk_retry_gate_close(struct tk_retry_gate *gate, int64_t opens_ms);

/* ms until it opens; 0 if it is open. */
int64_t tk_retry_gate_wait(struct tk_retry_gate *gate, int64_t now_ms);
