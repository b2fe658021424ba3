/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The fields of struct tk_rotation, for rotation.c and rotation_status.c. */

#include "cli/rotation.h"

enum tk_rotation_state {
        TK_ROTATION_IDLE,
        TK_ROTATION_RUNNING,
        TK_ROTATION_DONE,
        TK_ROTATION_UNNEEDED,
        TK_ROTATION_INCOMPLETE,
        TK_ROTATION_STOPPED,
        TK_ROTATION_FAILED,
};

/* A provider that was moved to. */
struct kept {
        struct kept *next;
        struct tk_provider provider;
};

#define TK_ROTATION_NEVER INT64_MAX

/* Times in milliseconds are by tk_clock_ms: that somebody sets the clock changes no window. */
struct tk_rotation {
        struct tk_volume *volume; /* borrowed */
        struct tk_fs *fs;         /* borrowed, from begin to stop */
        pthread_mutex_t lock;     /* guards what follows, but for stop */
        struct tk_rotation_options options;
        pthread_t thread;
        atomic_bool stop;
        bool serving;     /* jobs may run */
        bool has_thread;  /* it has not been joined */
        bool new_version; /* of the job */
        bool missed;      /* it has been said that the window was missed */
        int last_kept;    /* whether the last one that was finished was in time; -1: none yet */
        enum tk_rotation_state state;
        unsigned pass; /* that pass_began_ms belongs to */
        int64_t pass_began_ms;
        int64_t noticed_ms; /* since when the mount knows of a new root key version; or NEVER */
        int64_t begun_ms;   /* since when the newest KEK version is in use; or NEVER */
        int64_t started;    /* Unix seconds; 0: no job yet */
        int64_t ended;      /* 0: not yet */
        uint64_t total;     /* files in the last whole pass; 0: there was none */
        uint64_t estimate;  /* of that, from the backing filesystem; 0: it does not say */
        const struct tk_provider *current;
        const struct tk_provider *target; /* of the job */
        struct kept *kept;
        struct tk_rotate_progress progress;
        struct tk_fault fault;
};

/* Whether older versions have been in use for too long. The lock is held. */
bool tk_rotation_is_late(const struct tk_rotation *rotation);
