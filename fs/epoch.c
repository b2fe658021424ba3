/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Epochs, by two counters.
 *
 * An operation counts itself in the counter of the phase that it read. It may read one
 * phase and count itself after that has ended: it has done nothing before, so the wait
 * that missed it needn't wait; the next one does, because each wait goes through both.
 */

#include "fs/epoch.h"

#include <errno.h>
#include <stddef.h>
#include <time.h>

struct tk_epoch_hold tk_epoch_enter(struct tk_epoch *epoch)
{
        unsigned phase = atomic_load(&epoch->phase) % 2;

        atomic_fetch_add(&epoch->busy[phase], 1);
        return (struct tk_epoch_hold){.epoch = epoch, .phase = phase};
}

void tk_epoch_leave(const struct tk_epoch_hold *hold)
{
        atomic_fetch_sub(&hold->epoch->busy[hold->phase], 1);
}

int tk_epoch_wait(struct tk_epoch *epoch, const atomic_bool *stop)
{
        static const struct timespec pause = {.tv_nsec = 1000000};

        for (int i = 0; i < 2; i++) {
                unsigned phase = atomic_fetch_add(&epoch->phase, 1) % 2;

                while (atomic_load(&epoch->busy[phase]) > 0) {
                        if (stop && atomic_load(stop))
                                return -ECANCELED;
                        nanosleep(&pause, NULL);
                }
        }
        return 0;
}
