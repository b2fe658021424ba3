/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Range lock: a queue of ranges, in which one is held as soon as none before it
 * conflicts. Few threads make it a short one.
 */

#include "fs/rangelock.h"

void tk_rangelock_init(struct tk_rangelock *rangelock)
{
        pthread_mutex_init(&rangelock->lock, NULL);
        rangelock->queue = NULL;
}

void tk_rangelock_done(struct tk_rangelock *rangelock)
{
        pthread_mutex_destroy(&rangelock->lock);
}

/* Whether @wanted must wait for one before it in the queue; at its end if it is not in it yet. */
static bool must_wait(const struct tk_rangelock *rangelock, const struct tk_range *wanted)
{
        for (const struct tk_range *range = rangelock->queue; range && range != wanted;
             range = range->next)
                if ((range->exclusive || wanted->exclusive) && range->first <= wanted->last &&
                    wanted->first <= range->last)
                        return true;
        return false;
}

static void describe(struct tk_rangelock *rangelock, struct tk_range *range, uint64_t first,
                     uint64_t last, bool exclusive)
{
        range->first = first;
        range->last = last;
        range->exclusive = exclusive;
        range->owner = rangelock;
        range->next = NULL;
        range->waits = false;
}

static void line_up(struct tk_rangelock *rangelock, struct tk_range *range)
{
        struct tk_range **end;

        for (end = &rangelock->queue; *end; end = &(*end)->next)
                ;
        *end = range;
}

void tk_range_hold(struct tk_rangelock *rangelock, struct tk_range *range, uint64_t first,
                   uint64_t last, bool exclusive)
{
        describe(rangelock, range, first, last, exclusive);
        TK_LOCK_SCOPE(&rangelock->lock);
        line_up(rangelock, range);
        if (!must_wait(rangelock, range))
                return;
        pthread_cond_init(&range->granted, NULL);
        range->waits = true;
        while (range->waits)
                pthread_cond_wait(&range->granted, &rangelock->lock);
        pthread_cond_destroy(&range->granted);
}

bool tk_range_try(struct tk_rangelock *rangelock, struct tk_range *range, uint64_t first,
                  uint64_t last, bool exclusive)
{
        describe(rangelock, range, first, last, exclusive);
        TK_LOCK_SCOPE(&rangelock->lock);
        if (must_wait(rangelock, range)) {
                range->owner = NULL;
                return false;
        }
        line_up(rangelock, range);
        return true;
}

/* Wake those behind @released, which has left the queue, that need not wait any more. */
static void grant_behind(struct tk_rangelock *rangelock, const struct tk_range *released)
{
        for (struct tk_range *range = released->next; range; range = range->next) {
                if (!range->waits || must_wait(rangelock, range))
                        continue;
                range->waits = false;
                pthread_cond_signal(&range->granted);
        }
}

void tk_range_release(struct tk_range *range)
{
        struct tk_rangelock *rangelock = range->owner;

        if (!rangelock)
                return;
        TK_LOCK_SCOPE(&rangelock->lock);
        for (struct tk_range **link = &rangelock->queue; *link; link = &(*link)->next) {
                if (*link != range)
                        continue;
                *link = range->next;
                break;
        }
        grant_behind(rangelock, range);
        range->owner = NULL;
}
