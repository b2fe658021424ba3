/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * All sequences of one and of two operations over a small tree, each followed by a flush of
 * some file or directory or by none, in the way of ACE (Mohan et al., OSDI 2018).
 */

#include "work.h"

/* How many sequences there are. */
unsigned tk_ace_count(void);

/* What sequence @index does, for people. */
void tk_ace_describe(unsigned index, char *text, size_t max);

/* Record it; @work is to be given to tk_work_done. */
void tk_ace_record(unsigned index, uint64_t seed, struct tk_work *work);

/*
 * For faults: operation @op (of tk_ace_operations) on the tree, with the files' handles; what it
 * returned. One that needs nothing to be done returns 0.
 */
struct tk_ace_handles {
        int foo;
        int bar;
};
unsigned tk_ace_operations(void);
const char *tk_ace_operation_text(unsigned op);
bool tk_ace_is_flush(unsigned op);
/* An odd seed encrypts names. */
void tk_ace_begin(uint64_t seed, struct tk_work *work, struct tk_ace_handles *ret_handles);
int tk_ace_do(struct tk_work *work, unsigned op, struct tk_ace_handles *handles, unsigned tag);
