/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control channel: a Unix socket in the CIPHERDIR, on which a mount says how
 * it is.
 *
 * A request is one line, "status"; the answer is one JSON text, then the end of
 * the stream. Only root and the mount's owner are answered.
 */

#include "base/fault.h"

struct tk_control; /* opaque: the server's side */

/* The answer as a heap text; NULL if there is no memory. Called in the server's thread. */
typedef char *(*tk_control_status_fn)(void *context);

/*
 * Listen in the CIPHERDIR @dirfd (borrowed until stop), in a thread of its own
 * with all signals blocked. Call it with the volume lock held: a socket that is
 * there is a dead mount's, and is replaced.
 */
TK_MUST_USE int tk_control_start(int dirfd, tk_control_status_fn status, void *context,
                                 struct tk_control **ret_control, struct tk_fault *fault);

/* End the thread, without waiting for clients, and remove the socket. NULL is fine. */
struct tk_control *tk_control_stop(struct tk_control *control);
TK_DEFINE_CLEANUP(struct tk_control *, tk_control_stop)

/*
 * The client's side: ask the mount of the CIPHERDIR @dirfd for its status. The
 * caller frees the text. -ENOENT or -ECONNREFUSED if nobody listens, -EACCES if
 * we may not ask, -ETIMEDOUT, -EMSGSIZE.
 */
TK_MUST_USE int tk_control_ask_status(int dirfd, char **ret_text);
