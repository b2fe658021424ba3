/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a service manager is told: sd_notify(3)'s protocol, datagrams of VARIABLE=value
 * lines to $NOTIFY_SOCKET. Without that variable everything here does nothing.
 */

#include "base/cleanup.h"
#include "fs/fs.h"

struct tk_notify; /* opaque */

/*
 * Connect to the manager and take its variables out of the environment, so that no child
 * speaks in our name. Before there are threads. *@ret_notify is NULL where nobody listens.
 */
TK_MUST_USE int tk_notify_new(struct tk_notify **ret_notify);

/* Send lines such as "READY=1\nSTATUS=mounted"; a manager that does not listen is no error. */
TK_PRINTF(2, 3) void tk_notify_send(const struct tk_notify *notify, const char *fmt, ...);

/*
 * Start the watchdog, if the manager wants one ($WATCHDOG_USEC): a thread that says
 * WATCHDOG=1, and with it how the mount is, only after the mount at @mountpoint has
 * answered a request and the keeper of @fs has come round. Both are borrowed until the
 * watchdog is stopped.
 */
void tk_notify_watch(struct tk_notify *notify, struct tk_fs *fs, const char *mountpoint);

/* End the thread. The mount must be gone, so that no request of the thread's waits for it. */
void tk_notify_unwatch(struct tk_notify *notify);

struct tk_notify *tk_notify_free(struct tk_notify *notify);
TK_DEFINE_CLEANUP(struct tk_notify *, tk_notify_free)
