/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper: one thread per mount that keeps the lease. It probes the KMS, closes
 * and reopens the mount by what it hears, and notices new versions of the root key.
 */

#include "fs/lease.h"
#include "fs/revoke.h"

struct tk_keeper_options {
        struct tk_lease_config lease;
        int64_t rotation_window_ms; /* a new root key version is noticed within a quarter; 0: never
                                     */
        /* It is time to look for a new version: whoever makes them itself may do so now. */
        void (*before_look)(void *context); /* or NULL */
        /* There is a new version, or old ones are still in use: see to it that a rotation runs.
         * Does not block. */
        void (*rotate)(void *context);
        void *context;
};

struct tk_keeper_status {
        enum tk_lease_state state;       /* what the mount does */
        int64_t confirmed_ago_ms;        /* since the KMS last gave the key out */
        int64_t next_in_ms;              /* until the next probe */
        int64_t round_ago_ms;            /* since the thread last came round: it does each second
                                          * unless it asks the KMS or empties the kernel's caches */
        int64_t left_ms;                 /* until an open lease ends if nothing more is heard */
        unsigned failures;               /* probes without an answer in a row */
        uint64_t probes;                 /* since the mount began */
        int64_t rotation_checked_ago_ms; /* since the current version was last asked for; -1: never
                                          */
        /* What the KMS last said of the key, and of its current version, if it was not good. */
        char trouble[TK_FAULT_TEXT_MAX];
        char version_trouble[TK_FAULT_TEXT_MAX];
};

struct tk_keeper; /* opaque: keeper.c */

/* Start the thread; keys have just been unwrapped. @kernel is copied. */
TK_MUST_USE int tk_keeper_new(struct tk_fs *fs, const struct tk_keeper_options *options,
                              const struct tk_revoke_kernel *kernel, struct tk_keeper **ret_keeper);

/*
 * From now on the kernel is asked nothing: nobody will serve what it would write back.
 * Waits for an inode that is under way, so call it while requests are still served.
 */
void tk_keeper_halt(struct tk_keeper *keeper);

/* End the thread; waits for a probe that is under way. */
struct tk_keeper *tk_keeper_free(struct tk_keeper *keeper);

/*
 * The lease is over, because the machine slept or the process was stopped: wait until the
 * KMS was asked again, and @fs is closed or its lease holds. From any request.
 */
void tk_keeper_await(struct tk_fs *fs);

/* From now on these hold: docs/configuration.md, outage_grace and rotation_window. */
void tk_keeper_set_windows(struct tk_keeper *keeper, int64_t grace_ms, int64_t rotation_window_ms);

/* From any thread. */
void tk_keeper_status(struct tk_keeper *keeper, struct tk_keeper_status *ret_status);
