/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Set-id bits and file capabilities, which a write or truncation must clear.
 *
 * Unless the filesystem says that it does so (FUSE_HANDLE_KILLPRIV_V2), the kernel
 * asks for security.capability before each single write: a round trip that costs
 * more than the write. libfuse 3.14 can neither say it nor pass on which requests
 * want the bits cleared, so that both are done on the messages themselves.
 */

#include "fs/reply.h"
#include <stdbool.h>
#include <sys/types.h>

/* Between fuse_session_mount and the loop. A negative errno; without it, all works as well. */
int tk_killpriv_enable(struct fuse_session *session);

/*
 * Whether the caller of @req belongs to @gid, by its own or a supplementary group. Asks
 * /proc: for rare cases only.
 */
bool tk_killpriv_in_group(fuse_req_t req, gid_t gid);

/* Whether the write or setattr that this thread has in hand wants set-id bits cleared. */
bool tk_killpriv_wanted(void);
