/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The lease.
 *
 * Probes come about four times per window. What is left of the window after a
 * missed change belongs to the caches of the kernel, whose timeouts are shorter
 * than half of it. Without an answer the pauses start short and double, each cut
 * by chance, so that a fleet does not come back all at once.
 */

#include "fs/lease.h"

#include <errno.h>

enum {
        FIRST_RETRY_MS = 500,
        DOUBLINGS_MAX = 16,
        LONGEST_CALL_MS = 20000, /* of a probe, all its attempts */
};

/* Between @low and @high thousandths of @ms. */
static int64_t jitter(int64_t ms, uint32_t random, int64_t low, int64_t high)
{
        int64_t thousandths = low + (int64_t)(random % (uint32_t)(high - low + 1));
        int64_t result = ms / 1000 * thousandths + ms % 1000 * thousandths / 1000;

        return result > 0 ? result : 1;
}

static int64_t regular_pause(const struct tk_lease *lease, uint32_t random)
{
        return jitter(lease->config.window_ms, random, 200, 300);
}

static int64_t retry_pause(const struct tk_lease *lease, uint32_t random)
{
        int64_t longest = regular_pause(lease, random);
        unsigned doublings = lease->failures < DOUBLINGS_MAX ? lease->failures : DOUBLINGS_MAX;
        int64_t pause = (int64_t)FIRST_RETRY_MS << (doublings > 0 ? doublings - 1 : 0);

        return pause < longest ? jitter(pause, random, 500, 1000) : longest;
}

void tk_lease_start(struct tk_lease *lease, const struct tk_lease_config *config, int64_t now_ms,
                    uint32_t random)
{
        *lease = (struct tk_lease){
                .config = *config, .state = TK_LEASE_ACTIVE, .confirmed_ms = now_ms};
        lease->next_ms = now_ms + regular_pause(lease, random);
}

/* No answer: what held before goes on holding until its time is up. */
static enum tk_lease_state without_answer(const struct tk_lease *lease, int64_t now_ms)
{
        if (lease->state != TK_LEASE_ACTIVE && lease->state != TK_LEASE_DEGRADED)
                return lease->state;
        return now_ms - lease->confirmed_ms < lease->config.grace_ms ? TK_LEASE_DEGRADED
                                                                     : TK_LEASE_OUTAGE;
}

/* We are not let in: as good as refused, once the window has passed. */
static enum tk_lease_state without_identity(const struct tk_lease *lease, int64_t now_ms)
{
        if (lease->state == TK_LEASE_REVOKED || lease->state == TK_LEASE_EXPIRED)
                return lease->state;
        if (now_ms - lease->confirmed_ms >= lease->config.window_ms)
                return TK_LEASE_REVOKED;
        return lease->state == TK_LEASE_OUTAGE ? TK_LEASE_OUTAGE : TK_LEASE_DEGRADED;
}

static enum tk_lease_state state_after(const struct tk_lease *lease, enum tk_lease_answer answer,
                                       int64_t now_ms)
{
        switch (answer) {
        case TK_LEASE_USABLE:
                return TK_LEASE_ACTIVE;
        case TK_LEASE_PAST_DATES:
                return lease->config.expiry_revokes ? TK_LEASE_EXPIRED : TK_LEASE_ACTIVE;
        case TK_LEASE_REFUSED:
                return TK_LEASE_REVOKED;
        case TK_LEASE_UNKNOWN_US:
                return without_identity(lease, now_ms);
        default:
                return without_answer(lease, now_ms);
        }
}

/*
 * Since when the key is confirmed. A KMS that takes longer than the window is no reason to
 * serve nothing at all; an answer that took longer than any call is from before a sleep.
 */
static int64_t confirmed_since(const struct tk_lease *lease, int64_t asked_ms, int64_t now_ms)
{
        int64_t latest = now_ms - lease->config.window_ms / 4 * 3;

        return now_ms - asked_ms < LONGEST_CALL_MS && asked_ms < latest ? latest : asked_ms;
}

enum tk_lease_state tk_lease_hear(struct tk_lease *lease, enum tk_lease_answer answer,
                                  int64_t asked_ms, int64_t now_ms, uint32_t random)
{
        bool answered = answer != TK_LEASE_UNREACHABLE && answer != TK_LEASE_UNKNOWN_US;

        lease->state = state_after(lease, answer, now_ms);
        lease->answer = answer;
        if (lease->state == TK_LEASE_ACTIVE)
                lease->confirmed_ms = confirmed_since(lease, asked_ms, now_ms);
        lease->failures = answered ? 0 : lease->failures + 1;
        lease->next_ms =
                now_ms + (answered ? regular_pause(lease, random) : retry_pause(lease, random));
        if (lease->state == TK_LEASE_ACTIVE && tk_lease_until(lease) <= now_ms)
                lease->next_ms = now_ms + 1;
        return lease->state;
}

int64_t tk_lease_until(const struct tk_lease *lease)
{
        bool by_window = lease->state == TK_LEASE_ACTIVE || lease->answer == TK_LEASE_UNKNOWN_US;

        return lease->confirmed_ms + (by_window ? lease->config.window_ms : lease->config.grace_ms);
}

enum tk_lease_state tk_lease_wait(struct tk_lease *lease, int64_t now_ms)
{
        if (lease->state == TK_LEASE_DEGRADED)
                lease->state = lease->answer == TK_LEASE_UNKNOWN_US
                                       ? without_identity(lease, now_ms)
                                       : without_answer(lease, now_ms);
        return lease->state;
}

enum tk_lease_answer tk_lease_answer_of(int r)
{
        switch (r) {
        case 0:
                return TK_LEASE_USABLE;
        case -EKEYREVOKED:
        case -ENOENT: /* key or version gone */
                return TK_LEASE_REFUSED;
        case -EKEYEXPIRED:
                return TK_LEASE_PAST_DATES;
        case -EACCES:
                return TK_LEASE_UNKNOWN_US;
        default:
                return TK_LEASE_UNREACHABLE;
        }
}

int tk_lease_errno(enum tk_lease_state state)
{
        static const int errors[] = {
                [TK_LEASE_ACTIVE] = 0,
                [TK_LEASE_DEGRADED] = 0,
                [TK_LEASE_OUTAGE] = -ENOKEY,
                [TK_LEASE_REVOKED] = -EKEYREVOKED,
                [TK_LEASE_EXPIRED] = -EKEYEXPIRED,
        };

        return errors[state];
}

const char *tk_lease_name(enum tk_lease_state state)
{
        static const char *const names[] = {
                [TK_LEASE_ACTIVE] = "active",   [TK_LEASE_DEGRADED] = "degraded",
                [TK_LEASE_OUTAGE] = "outage",   [TK_LEASE_REVOKED] = "revoked",
                [TK_LEASE_EXPIRED] = "expired",
        };

        return names[state];
}
