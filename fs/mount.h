/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Mounting: FUSE session set-up, signals, the loop, and the order of teardown.
 */

#include "fs/fs.h"
#include "fs/keeper.h"

struct tk_mount_options {
        const char *source; /* shown as the mounted device: the CIPHERDIR, absolute */
        const char *mountpoint;
        const char *fuse_options; /* comma-separated, passed to the kernel's mount; NULL: none */
        bool allow_other;
        bool read_only;
        bool io_uring;                          /* if libfuse and the kernel have it */
        unsigned threads;                       /* 0: by CPU count */
        const struct tk_keeper_options *keeper; /* NULL: the lease is not kept */
        void (*ready)(void *context); /* called once when the kernel has accepted the mount */
        void *ready_context;
};

/*
 * Before any thread is started, that of tk_fs_new() included: what it takes to serve many
 * users, which each thread inherits.
 */
TK_MUST_USE int tk_mount_prepare(struct tk_fault *fault);

/*
 * Mount @fs and serve it until it is unmounted or SIGTERM, SIGINT or SIGHUP
 * arrives. Returns when all open files are flushed and the mount is gone.
 */
TK_MUST_USE int tk_mount_run(struct tk_fs *fs, const struct tk_mount_options *options,
                             struct tk_fault *fault);

/* How many threads serve a mount at most that was asked for @configured of them. */
unsigned tk_mount_threads(unsigned configured);

/* Version of the libfuse that is in use, such as "3.14.0". */
const char *tk_mount_library(void);
