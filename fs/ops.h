/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The FUSE operations: thin shims from requests to op.h and content.h. */

#include "fs/cpulatency.h"
#include "fs/fs.h"
#include "fs/reply.h"

/* What the shims need, as the session's user data. */
struct tk_ops_context {
        struct tk_fs *fs;
        struct tk_seeker *seeker;
        const char *mountpoint;
        struct fuse_session *session;
        double timeout_s;             /* entries, negative entries and attributes */
        struct tk_cpulatency *cpus;   /* told of requests; NULL: none */
        bool root_only;               /* the kernel lets only root in, and does not judge it */
        void (*ready)(void *context); /* once, when the kernel has begun the session */
        void *ready_context;
};

extern const struct fuse_lowlevel_ops tk_ops;
