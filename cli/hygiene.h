/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Process hygiene: no core dumps, no tracing, locked memory, limits, log level.
 * All of it is for the whole process; call it before there are threads.
 */

#include "base/fault.h"
#include "conf/conf.h"

/* No core dump, no ptrace; log level and memory rule of @conf. Before any secret is read. */
TK_MUST_USE int tk_hygiene_start(const struct tk_conf *conf, struct tk_fault *fault);

/* Of these the level alone; at any time. */
void tk_hygiene_set_level(const struct tk_conf *conf);

/*
 * From now on log lines go where the configuration of the last tk_hygiene_start says: a process
 * in the @background has no stderr. In a child whose descriptors are closed, tk_log_to() stderr
 * before that and this afterwards.
 */
void tk_hygiene_log(bool background);

/*
 * Lock all memory, present and future. Where that is not allowed: a warning, or
 * an error if @conf requires it. Locks do not survive fork(2).
 */
TK_MUST_USE int tk_hygiene_lock_memory(const struct tk_conf *conf, struct tk_fault *fault);

/* Lock all memory if that is allowed; say whether it was. */
bool tk_hygiene_can_lock_all(void);

/* What of the memory can't reach a swap device: "all", "keys" or "none". Any thread. */
const char *tk_hygiene_locked(void);

/*
 * Close the descriptors that the process was started with, but for stdio and the @count
 * of them in @keep: a daemon would hold a caller's locks and pipes. Before opening any.
 */
void tk_hygiene_close_inherited(const int *keep, size_t count);

/* As many descriptors as allowed: for those who go deep into a tree. */
void tk_hygiene_raise_files(void);

/* For a daemon: as many descriptors as allowed; file modes as the callers ask for them. */
void tk_hygiene_daemon(void);
