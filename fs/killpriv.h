/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Set-id bits and file capabilities, which a write or truncation must clear.
 *
 * Unless the filesystem says that it does so (FUSE_HANDLE_KILLPRIV_V2), the kernel
 * asks for security.capability before each single write: a round trip that costs
 * more than the write. libfuse can say it and pass on which requests want the bits
 * cleared (killpriv.c); before 3.18 it can do neither, so that both are done on the
 * messages themselves (killpriv_message.c).
 */

#include "fs/reply.h"
#include <stdbool.h>
#include <sys/types.h>

/* Between fuse_session_mount and the loop. A negative errno; without it, all works as well. */
int tk_killpriv_enable(struct fuse_session *session);

/* What init has to want for it, of the FUSE_CAP_... */
unsigned tk_killpriv_capability(void);

/*
 * Whether the caller of @req belongs to @gid, by its own or a supplementary group. Asks
 * /proc: for rare cases only.
 */
bool tk_killpriv_in_group(fuse_req_t req, gid_t gid);

/* Whether the write that this thread has in hand wants set-id bits cleared. */
bool tk_killpriv_wanted_by_write(const struct fuse_file_info *fi);

/* The same of a setattr. */
bool tk_killpriv_wanted_by_setattr(int to_set);
