/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Lines for /dev/log, in the form of RFC 3164. syslog(3) waits as long as the one who reads there
 * has no room, and the filesystem with it. For base/log.c.
 */

#include "base/cleanup.h"

/* Connect, after tk_syslog_close if it was open, to $TURNKEYFS_SYSLOG_SOCKET, for tests, else to
 * /dev/log; or as soon as somebody listens. */
void tk_syslog_open(void);

/* What is open, if anything. */
void tk_syslog_close(void);

/* Send @line, which has no newline, of @priority as in syslog(3). Thread-safe; waits for nobody:
 * -EAGAIN if there is no room; another -errno if nobody listens. */
TK_MUST_USE int tk_syslog_send(int priority, const char *line);
