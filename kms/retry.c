/* SPDX-License-Identifier: Apache-2.0 */

/* When to ask a service again. */

#include "kms/retry.h"

#include "base/cleanup.h"
#include <string.h>

enum { ASKED_MAX_MS = 24 * 3600 * 1000 };

bool tk_retry_may_help(int status)
{
        return status == 408 || status == 429 ||
               (status >= 500 && status <= 599 && status != 501 && status != 505);
}

int64_t tk_retry_wait(const struct tk_retry_policy *policy, unsigned attempt, int64_t now_ms,
                      int64_t deadline_ms, int64_t asked_ms, uint32_t random)
{
        int64_t span = policy->base_ms;
        int64_t wait;

        if (attempt >= policy->attempts_max)
                return TK_RETRY_GIVE_UP;
        for (unsigned i = 1; i < attempt && span < policy->cap_ms; i++)
                span *= 2;
        if (span > policy->cap_ms)
                span = policy->cap_ms;
        wait = (int64_t)(random % (uint64_t)(span + 1));
        if (asked_ms != TK_RETRY_UNASKED) {
                /* A little behind, so that not all who were told the same come together. */
                wait = asked_ms + wait / 8;
        }
        return now_ms + wait < deadline_ms ? wait : TK_RETRY_GIVE_UP;
}

/* A decimal number of at most nine digits, or -1. */
static int64_t parse_number(const char *text)
{
        size_t len = strlen(text);

        if (len == 0 || len > 9 || strspn(text, "0123456789") != len)
                return -1;
        return strtol(text, NULL, 10);
}

static int64_t bounded(int64_t ms)
{
        if (ms < 0)
                return 0;
        return ms < ASKED_MAX_MS ? ms : ASKED_MAX_MS;
}

int64_t tk_retry_asked(const char *seconds, const char *milliseconds, int64_t date,
                       int64_t unix_now)
{
        int64_t number = parse_number(milliseconds);

        if (number >= 0)
                return bounded(number);
        number = parse_number(seconds);
        if (number >= 0)
                return bounded(number * 1000);
        return seconds[0] && date >= 0 ? bounded((date - unix_now) * 1000) : TK_RETRY_UNASKED;
}

void tk_retry_gate_close(struct tk_retry_gate *gate, int64_t opens_ms)
{
        TK_LOCK_SCOPE(&gate->lock);
        if (gate->opens_ms < opens_ms)
                gate->opens_ms = opens_ms;
}

int64_t tk_retry_gate_wait(struct tk_retry_gate *gate, int64_t now_ms)
{
        TK_LOCK_SCOPE(&gate->lock);
        return gate->opens_ms > now_ms ? gate->opens_ms - now_ms : 0;
}
