/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The system calls on the simulated disk.
 *
 * The program is linked with --wrap for every call that the library uses on a backing
 * directory: paths below TK_CALLS_ROOT and descriptors that lead there are served from
 * the disk in memory, all others by the system. Nothing that changes the backing
 * directory can bypass this. Changes are recorded, counted and failed here.
 */

#include "disk.h"

#define TK_CALLS_ROOT "/sim"

struct tk_calls {
        struct tk_disk disk;
        struct tk_recording *recording; /* NULL: nothing is recorded */
        bool by_place;                  /* no file handles, as without privilege */

        /* Faults: the calls that change something are counted from 1. */
        unsigned long count;
        unsigned long fail_at; /* 0: none; this one, or with `fail_on` all from it on, fail */
        bool fail_on;
        int fail_with;           /* errno; EINTR: calls that may be interrupted only */
        bool fail_short;         /* a write is cut short instead of failing */
        unsigned long failed;    /* how many did */
        const char *failed_call; /* the last one */
        size_t capacity;         /* pages for files; 0: as many as wanted */

        /* A file that fails always, with EIO: 0: none. */
        uint32_t broken;
        bool broken_syncs; /* not what changes its content, but flushes */

        /* Called while a flush is under way, without any lock of ours. */
        void (*during_sync)(void);
};

extern struct tk_calls tk_calls;

/* Serve @disk (taken over); no descriptor may be left. */
void tk_calls_start(struct tk_disk *disk);

/* Take the disk back. Returns how many descriptors and streams had been left open; they are closed.
 */
unsigned tk_calls_stop(struct tk_disk *ret_disk);

/* Random bytes of the program are reproducible from here on. */
void tk_calls_seed(uint64_t seed);

/* Allocation: the program's own, counted from 1, fails at @fail_at. 0: none. */
struct tk_alloc_fault {
        unsigned long count;
        unsigned long fail_at;
        bool failed;
};
extern struct tk_alloc_fault tk_alloc_fault;
extern _Thread_local int tk_alloc_counted; /* inside a call of the library that is under test */
