/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The guardian: a child process that cuts a killed daemon off from the kernel.
 *
 * A thread that makes the kernel drop its caches waits for writeback, which the
 * daemon itself serves, and no signal reaches it there. Killed at that moment, the
 * daemon would stay half dead for ever, with the mount hanging and the volume locked.
 * The guardian aborts the FUSE connection then; the mount is as dead as after any
 * other kill (ENOTCONN), and the lock is free.
 *
 * It holds no key, no lock and no /dev/fuse. Called from the main thread only:
 * the guardian is told of that thread's death.
 */

#include "base/fault.h"

struct tk_guardian {
        pid_t pid; /* 0: there is none */
        int fd;    /* the pipe to it */
};

/*
 * Fork it, before there are secrets and threads. In the background (@foreground
 * false) it logs to syslog and holds nothing of the caller's terminal.
 */
TK_MUST_USE int tk_guardian_start(bool foreground, struct tk_guardian *ret_guardian,
                                  struct tk_fault *fault);

/* Tell it the connection to abort, as /sys/fs/fuse/connections names it. Any thread. */
void tk_guardian_watch(const struct tk_guardian *guardian, unsigned connection);

/* A clean end: it exits, and is waited for. */
void tk_guardian_stop(struct tk_guardian *guardian);
