/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The guardian: a child process that has what the daemon gives up, and holds no key.
 *
 * It mounts and unmounts: that takes a privilege, or a set-user-id program, and both are
 * out of reach for a daemon that is hardened (cli/harden.h).
 *
 * It cuts a killed daemon off from the kernel: a thread that makes the kernel drop its
 * caches waits for writeback, which the daemon itself serves, and no signal reaches it
 * there. Killed at that moment, the daemon would stay half dead for ever, with the mount
 * hanging and the volume locked. The guardian aborts the FUSE connection then; the mount
 * is as dead as after any other kill (ENOTCONN), and the lock is free.
 *
 * It keeps no lock and no /dev/fuse, and takes no orders but these two. Started and
 * stopped from the main thread only: the guardian is told of that thread's death.
 */

#include "base/fault.h"
#include "fs/mount.h"

struct tk_guardian {
        pid_t pid; /* 0: there is none */
        int fd;    /* the socket to it */
};

/*
 * Fork it, before there are secrets and threads. In the background (@foreground
 * false) it logs to syslog and holds nothing of the caller's terminal as soon as it has
 * mounted. @hardened: it has no more capabilities than the daemon. @options are borrowed
 * for the fork: as for tk_mount_attach().
 */
TK_MUST_USE int tk_guardian_start(const struct tk_mount_options *options, bool foreground,
                                  bool hardened, struct tk_guardian *ret_guardian,
                                  struct tk_fault *fault);

/* Have it mount: as tk_mount_attach(), and -EPIPE if it is gone. */
TK_MUST_USE int tk_guardian_attach(const struct tk_guardian *guardian, int *ret_fd);

/* Have it unmount, and don't wait. -EPIPE if it is gone. Any thread. */
TK_MUST_USE int tk_guardian_detach(const struct tk_guardian *guardian);

/* A clean end: it exits, and is waited for. */
void tk_guardian_stop(struct tk_guardian *guardian);
