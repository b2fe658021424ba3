/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Range lock: readers and writers of ranges of blocks within one file, so that
 * several threads work on one file at once.
 *
 * The holder's struct lies on its stack for as long as it holds the range.
 */

#include "base/cleanup.h"
#include <stdint.h>

#define TK_RANGE_END UINT64_MAX

struct tk_rangelock {
        pthread_mutex_t lock;
        struct tk_range *queue; /* under lock: held and waited for, in the order of arrival */
};

struct tk_range {
        struct tk_rangelock *owner;
        struct tk_range *next;
        uint64_t first; /* blocks, both ends included */
        uint64_t last;
        bool exclusive;
        bool waits;             /* under the lock of the owner */
        pthread_cond_t granted; /* while it waits */
};

void tk_rangelock_init(struct tk_rangelock *rangelock);
void tk_rangelock_done(struct tk_rangelock *rangelock);

/*
 * Wait until nobody who came before conflicts, then hold the range: first come, first
 * served, so that readers without end do not keep a writer out. A thread that holds
 * one range of a lock must not wait for another.
 */
void tk_range_hold(struct tk_rangelock *rangelock, struct tk_range *range, uint64_t first,
                   uint64_t last, bool exclusive);

/* Hold the range if nobody conflicts who holds or waits for one; never waits. */
TK_MUST_USE bool tk_range_try(struct tk_rangelock *rangelock, struct tk_range *range,
                              uint64_t first, uint64_t last, bool exclusive);

/* Let go; nothing happens if it is not held. */
void tk_range_release(struct tk_range *range);

/* A range that is released with its scope; hold it with tk_range_hold. */
#define TK_RANGE_SCOPE(name) TK_CLEANUP(tk_range_release) struct tk_range name = {0}
