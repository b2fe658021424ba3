/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One thread at a time, so that a recording can be had again: while this is on, a thread
 * runs until it waits for another one, and only then the next goes on. Time stands still
 * until it is let pass: waits with a time limit end then, or by a signal.
 */

#include <stdbool.h>

/* The calling thread goes first. Threads that are started from now on are part of it. */
void tk_sched_start(void);
void tk_sched_stop(void);

/* Let the others go on until all of them wait. */
void tk_sched_settle(void);

/* So many seconds pass; waits with a time limit are over. */
void tk_sched_pass(int more);

/* That have passed since the start. */
long tk_sched_seconds(void);

/* Before a call on the disk: wait for this thread's turn. */
void tk_sched_turn(void);

bool tk_sched_is_on(void);
