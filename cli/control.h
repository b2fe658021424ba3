/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control channel: a Unix socket in the CIPHERDIR, on which a mount says how
 * it is and is told what to do.
 *
 * A request is one line; the answer is one JSON text, then the end of the stream.
 * Only root and the mount's owner are answered.
 */

#include "base/fault.h"

struct tk_control; /* opaque: the server's side */

enum { TK_CONTROL_REQUEST_MAX = 5600 }; /* a path fits, in base64url, too */

/*
 * The answer to @request, which comes without its newline, as a heap text; NULL: none.
 * Called in the server's thread.
 */
typedef char *(*tk_control_answer_fn)(void *context, const char *request);

/*
 * Listen in the CIPHERDIR @dirfd (borrowed until stop), in a thread of its own
 * with all signals blocked. Call it with the volume lock held: a socket that is
 * there is a dead mount's, and is replaced.
 */
TK_MUST_USE int tk_control_start(int dirfd, tk_control_answer_fn answer, void *context,
                                 struct tk_control **ret_control, struct tk_fault *fault);

/* End the thread, without waiting for clients, and remove the socket. NULL is fine. */
struct tk_control *tk_control_stop(struct tk_control *control);
TK_DEFINE_CLEANUP(struct tk_control *, tk_control_stop)

/*
 * The client's side: send @request, without a newline, to the mount of the CIPHERDIR
 * @dirfd. The caller frees the answer. -ENOENT or -ECONNREFUSED if nobody listens,
 * -EACCES if we may not ask, -ETIMEDOUT, -EMSGSIZE.
 */
TK_MUST_USE int tk_control_ask(int dirfd, const char *request, char **ret_text);
