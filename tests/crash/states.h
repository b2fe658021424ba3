/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The disks that a crash could leave, made from a recording.
 *
 * The backing filesystem orders its metadata (names, attributes, layout): a crash
 * leaves a prefix of it, at least what a flush made durable. Data that no flush covers
 * may be there or not, page by page, and torn at 512 bytes. A flush of a file makes
 * durable its data and all metadata up to its own last; fdatasync counts only what the
 * size and the layout need. Space is given to others only when it is durable that it was
 * given back: so what is written after a cut to nothing lies elsewhere, and is there only if
 * the cut is.
 *
 * The harsh model adds that a file may have grown while the data is missing (zeros), and
 * that it may not have grown although later metadata is there. The ext4 model allocates
 * with the data, whole pages, as data=ordered with delayed allocation does.
 */

#include "disk.h"

enum tk_choice_how {
        TK_CHOICE_ALL,    /* everything up to here is on the disk */
        TK_CHOICE_NONE,   /* only what is durable */
        TK_CHOICE_META,   /* all metadata, no data that is not durable */
        TK_CHOICE_DATA,   /* the other way round */
        TK_CHOICE_TEAR,   /* everything, but the last write is torn */
        TK_CHOICE_SUBSET, /* of the pages that are not durable, those whose bit in `seed` is set */
        TK_CHOICE_RANDOM,
        TK_CHOICE_HOWS,
};

struct tk_choice {
        enum tk_choice_how how;
        bool ext4;
        uint64_t seed;
};

struct tk_pending {
        size_t index;
        bool durable;
        bool lost; /* a flush of it failed: no later one makes it durable */
};

struct tk_states {
        const struct tk_recording *recording;
        struct tk_disk base; /* what is durable and needs nothing that is not */
        size_t at;           /* the length of the prefix */
        struct tk_pending *pending;
        size_t pending_count;
        size_t pending_max;
        size_t meta_floor; /* metadata before this index is durable */
};

/* States of @recording, which begins on @start (copied). The prefix is empty. */
void tk_states_init(struct tk_states *states, const struct tk_recording *recording,
                    const struct tk_disk *start);
void tk_states_done(struct tk_states *states);

/* One more event happened. False at the end. */
bool tk_states_advance(struct tk_states *states);

/* How many pages of data are not durable; counting stops at @max. */
unsigned tk_states_loose_pages(const struct tk_states *states, unsigned max);

/* The disk that is left if the power goes now. */
void tk_states_make(const struct tk_states *states, const struct tk_choice *choice,
                    struct tk_disk *ret_disk);

/* Pseudo-random numbers: a function of its arguments only. */
uint64_t tk_mix(uint64_t seed, uint64_t a, uint64_t b);
