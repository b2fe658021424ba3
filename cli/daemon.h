/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Going into the background.
 *
 * The child keeps the terminal until it is ready, so that prompts and errors
 * reach it; the parent waits for that and exits as the child would have.
 */

#include "base/fault.h"

/*
 * Fork, before there are threads or secrets. Returns 0 in the child, with the
 * descriptor that tk_daemon_ready wants. The parent does not return: it exits
 * with 0 when the child is ready, or with the child's exit code.
 */
TK_MUST_USE int tk_daemon_fork(int *ret_ready_fd, struct tk_fault *fault);

/* Leave the terminal for syslog, and let the parent exit. Closes *@ready_fd, once. */
void tk_daemon_ready(int *ready_fd);
