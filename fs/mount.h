/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Mounting: FUSE session set-up, signals, the loop, and the order of teardown.
 */

#include "fs/cpulatency.h"
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
        struct tk_cpulatency *cpus;             /* borrowed; NULL: CPUs halt as they like */
        const struct tk_keeper_options *keeper; /* NULL: the lease is not kept */
        /* Mount, and unmount as soon as nobody uses it: in a process that may, as below. */
        int (*attach)(void *context, int *ret_fd);
        void (*detach)(void *context);
        void (*ready)(void *context); /* called once when the kernel has accepted the mount */
        void *context;                /* of these three */
};

/*
 * Mount at the mountpoint of @options; keeper and functions don't matter. Returns the descriptor
 * of /dev/fuse, which is served by tk_mount_run(), in any process; -EIO if that failed, after
 * libfuse has said why on stderr.
 */
TK_MUST_USE int tk_mount_attach(const struct tk_mount_options *options, int *ret_fd);

/* Take the mount out of the tree; it ends when nobody uses it any more. */
TK_MUST_USE int tk_mount_detach(const char *mountpoint);

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
