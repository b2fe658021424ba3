/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The lease: whether keys in memory may be used, by what the KMS last said.
 *
 * A state machine without I/O and without a clock of its own: answers, times and
 * random numbers are handed in. Times are milliseconds of one clock that also
 * runs while the machine sleeps.
 *
 *   active    the KMS confirmed the key lately
 *   degraded  it can't be reached; served until the outage grace ends
 *   outage    the grace has ended: ENOKEY
 *   revoked   it refuses the key: EKEYREVOKED
 *   expired   the key is outside its dates, and the owner said that this counts: EKEYEXPIRED
 */

#include <stdbool.h>
#include <stdint.h>

enum tk_lease_state {
        TK_LEASE_ACTIVE,
        TK_LEASE_DEGRADED,
        TK_LEASE_OUTAGE,
        TK_LEASE_REVOKED,
        TK_LEASE_EXPIRED,
};

/* What a probe came to. */
enum tk_lease_answer {
        TK_LEASE_USABLE,
        TK_LEASE_UNREACHABLE, /* no answer, or none that says anything about the key */
        TK_LEASE_UNKNOWN_US,  /* our identity is not accepted: nothing said about the key */
        TK_LEASE_REFUSED,
        TK_LEASE_PAST_DATES, /* usable, but outside its dates */
};

struct tk_lease_config {
        int64_t window_ms;   /* revocation window */
        int64_t grace_ms;    /* outage grace */
        bool expiry_revokes; /* key_expiry = revoke */
};

struct tk_lease {
        struct tk_lease_config config;
        enum tk_lease_state state;
        enum tk_lease_answer answer; /* the last one */
        int64_t confirmed_ms;        /* when the KMS was asked that last gave the key out */
        unsigned failures;           /* probes without an answer since then */
        int64_t next_ms;             /* when to probe again */
};

/* A lease that begins at @now_ms with keys just unwrapped. */
void tk_lease_start(struct tk_lease *lease, const struct tk_lease_config *config, int64_t now_ms,
                    uint32_t random);

/*
 * A probe that began at @asked_ms and ended at @now_ms came to @answer. What the KMS
 * confirms holds from the beginning: the machine may have slept since it answered.
 * Returns the state; next_ms is set.
 */
enum tk_lease_state tk_lease_hear(struct tk_lease *lease, enum tk_lease_answer answer,
                                  int64_t asked_ms, int64_t now_ms, uint32_t random);

/* Time has passed without an answer: grace and window may have ended. Returns the state. */
enum tk_lease_state tk_lease_wait(struct tk_lease *lease, int64_t now_ms);

/*
 * Until when an open lease lasts, if nothing more is heard: an outage has the grace, a refused
 * identity the window. Probes are done long before that, unless the machine slept or the
 * process was stopped.
 */
int64_t tk_lease_until(const struct tk_lease *lease);

/* The answer that a provider's return value stands for. */
enum tk_lease_answer tk_lease_answer_of(int r);

/* What applications get in @state: 0 or a negative errno. */
int tk_lease_errno(enum tk_lease_state state);

/* "active", "degraded", ... */
const char *tk_lease_name(enum tk_lease_state state);
