/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What must hold of a disk that a crash left: the volume mounts, nothing fails with EIO,
 * verify finds nothing, the tree is one that applications were shown and at least as new
 * as what was acknowledged, each block likewise, everything can be removed.
 */

#include "states.h"
#include "work.h"

enum { TK_CHECK_WHY = 600 };

struct tk_check {
        const struct tk_work *work; /* NULL: nothing is known of the content */
        size_t at;                  /* the crash came when the recording had this many events */
        bool go_on;                 /* also write to the files, and mount once more */

        /* For recordings of databases: called with the files, read in plain. */
        int (*judge)(const struct tk_disk *plain, size_t at, void *context, char why[TK_CHECK_WHY]);
        void *context;
};

/* @disk is taken over. 0, or -1 with what is wrong. */
int tk_check_disk(const struct tk_check *check, struct tk_disk *disk, char why[TK_CHECK_WHY]);

/*
 * The same with the events of the mount itself, for a second crash: those up to the point at
 * which it would serve. The recording is the caller's.
 */
int tk_check_mount(const struct tk_disk *disk, struct tk_recording *ret_recording,
                   char why[TK_CHECK_WHY]);

/* The same of a mount that is up, without removing anything. */
int tk_check_live(const struct tk_check *check, struct tk_stand *stand, char why[TK_CHECK_WHY]);
