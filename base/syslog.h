/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Lines for /dev/log, in the form of RFC 3164. syslog(3) waits as long as the one who reads there
 * has no room, and the filesystem with it. For base/log.c.
 */

#include "base/cleanup.h"

/* Connect to /dev/log, or as soon as there is somebody. A descriptor that was open before is
 * forgotten: a child has closed it. */
void tk_syslog_open(void);

/* Send @line, which has no newline, of @priority as in syslog(3). Thread-safe; waits for nobody: a
 * line that finds no room is lost, and the next one that finds some is preceded by their number. */
void tk_syslog_send(int priority, const char *line);
