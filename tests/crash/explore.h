/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From a workload to verdicts: which crash states of its recording are made and checked.
 */

#include "check.h"

struct tk_explore {
        const char *name; /* of the workload, for messages */
        uint64_t seed;
        unsigned per_prefix; /* states for each length of the recording */
        unsigned one_in;     /* lengths: these are gone through; 0 or 1: all */
        unsigned second; /* one state in this many is crashed again while it is mounted; 0: none */
        size_t from;     /* the shortest length of the recording */
        unsigned share;  /* of `shares` processes, this one */
        unsigned shares;
        unsigned stop_after; /* violations; 0: go on */
        bool quiet;          /* don't print violations */

        /* Counted. */
        uint64_t states;
        uint64_t distinct; /* of these, no two are the same disk at the same point */
        uint64_t again;    /* of these, crashed twice */
        uint64_t violations;
        char first[TK_CHECK_WHY]; /* the first violation */
};

/* What @check says of the states of @recording, which begins on @start. */
void tk_explore_run(struct tk_explore *explore, const struct tk_check *check,
                    const struct tk_recording *recording, const struct tk_disk *start);

/* One state again, by the name that its violation was printed with: shown and checked. 0, or -1. */
int tk_explore_show(const char *state, uint64_t seed, const struct tk_check *check,
                    const struct tk_recording *recording, const struct tk_disk *start);
