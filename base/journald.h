/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The journal's native protocol: one datagram with fields for each line. For base/log.c.
 */

#include "base/cleanup.h"

struct tk_log_origin;

/* Connect to the journal, after tk_journald_close if it was open: $TURNKEYFS_JOURNAL_SOCKET, for
 * tests, else the usual path. */
TK_MUST_USE int tk_journald_open(void);

/* What is open, if anything. */
void tk_journald_close(void);

/* Each line carries it as TURNKEYFS_VOLUME from now on. Before there are other threads. */
void tk_journald_set_volume(const char *volume);

/* Send @line, which has no newline. Thread-safe; does not wait for the journal. -errno. */
TK_MUST_USE int tk_journald_send(int priority, const struct tk_log_origin *origin,
                                 const char *line);
