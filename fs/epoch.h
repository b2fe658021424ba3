/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Epochs: how a pass over the tree waits for operations that began before it.
 *
 * Whoever wraps a new record and stores it, or moves a name, does so within an epoch. A
 * pass that has waited for all earlier ones finds nothing half done: what begins later
 * knows of the new KEK version, and of the pass. Nobody waits for a pass.
 */

#include <stdatomic.h>

struct tk_epoch {
        atomic_uint phase;
        atomic_uint busy[2]; /* operations that began in an even or odd phase */
};

/* From here to the end of the scope this thread is within an epoch. */
struct tk_epoch_hold {
        struct tk_epoch *epoch;
        unsigned phase;
};

struct tk_epoch_hold tk_epoch_enter(struct tk_epoch *epoch);
void tk_epoch_leave(const struct tk_epoch_hold *hold);

#define TK_EPOCH_SCOPE(epoch)                                                                      \
        __attribute__((cleanup(tk_epoch_leave), unused)) const struct tk_epoch_hold epoch_hold_ =  \
                tk_epoch_enter(epoch)

/*
 * Wait until every operation that had entered before has left. One caller at a time, which
 * is within none. -ECANCELED when @stop (NULL: none) is set before.
 */
__attribute__((warn_unused_result)) int tk_epoch_wait(struct tk_epoch *epoch,
                                                      const atomic_bool *stop);
