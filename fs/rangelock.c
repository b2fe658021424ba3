/* SPDX-License-Identifier: Apache-2.0 */

/* Range lock: a list of held ranges; few threads make it a short one. */

#include "fs/rangelock.h"

void tk_rangelock_init(struct tk_rangelock *rangelock)
{
        pthread_mutex_init(&rangelock->lock, NULL);
        pthread_cond_init(&rangelock->released, NULL);
        rangelock->held = NULL;
}

void tk_rangelock_done(struct tk_rangelock *rangelock)
{
        pthread_cond_destroy(&rangelock->released);
        pthread_mutex_destroy(&rangelock->lock);
}

static bool conflicts(const struct tk_rangelock *rangelock, const struct tk_range *wanted)
{
        for (const struct tk_range *held = rangelock->held; held; held = held->next)
                if ((held->exclusive || wanted->exclusive) && held->first <= wanted->last &&
                    wanted->first <= held->last)
                        return true;
        return false;
}

void tk_range_hold(struct tk_rangelock *rangelock, struct tk_range *range, uint64_t first,
                   uint64_t last, bool exclusive)
{
        range->first = first;
        range->last = last;
        range->exclusive = exclusive;

        TK_LOCK_SCOPE(&rangelock->lock);
        while (conflicts(rangelock, range))
                pthread_cond_wait(&rangelock->released, &rangelock->lock);
        range->owner = rangelock;
        range->next = rangelock->held;
        rangelock->held = range;
}

void tk_range_release(struct tk_range *range)
{
        struct tk_rangelock *rangelock = range->owner;

        if (!rangelock)
                return;
        TK_LOCK_SCOPE(&rangelock->lock);
        for (struct tk_range **link = &rangelock->held; *link; link = &(*link)->next) {
                if (*link != range)
                        continue;
                *link = range->next;
                break;
        }
        range->owner = NULL;
        pthread_cond_broadcast(&rangelock->released);
}
