/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The control channel: a Unix socket in the CIPHERDIR, on which a mount says how
 * it is and is told what to do.
 *
 * A request is one line; the answer is one JSON text, or several with a line each, then
 * the end of the stream.
 * Only root and the mount's owner are answered.
 */

#include "base/fault.h"

struct tk_control; /* opaque: the server's side */

enum { TK_CONTROL_REQUEST_MAX = 5600 }; /* a path fits, in base64url, too */

/*
 * The answer to @request, which comes without its newline, as a heap text; NULL: none.
 * Called in the server's thread; where the request is slow, in a second one meanwhile.
 */
typedef char *(*tk_control_answer_fn)(void *context, const char *request);

/*
 * Whether @request is one whose answer takes long: it is then given elsewhere, through @fd,
 * which is not blocking and is taken over. Called in the server's thread, before the above.
 */
typedef bool (*tk_control_take_fn)(void *context, const char *request, int fd);

struct tk_control_handlers {
        tk_control_answer_fn answer;
        void *answer_context;
        /* Whether the answer to @request may wait for a KMS or a walk; NULL: never. */
        bool (*is_slow)(const char *request);
        tk_control_take_fn take; /* NULL: nothing takes long */
        void *take_context;
};

/*
 * Listen in the CIPHERDIR @dirfd (borrowed until stop), in threads of its own
 * with all signals blocked: slow requests are answered one after the other, and delay no other.
 * Call it with the volume lock held: a socket that is there is a dead mount's, and is replaced.
 */
TK_MUST_USE int tk_control_start(int dirfd, const struct tk_control_handlers *handlers,
                                 struct tk_control **ret_control, struct tk_fault *fault);

/*
 * End the threads and remove the socket. Waits for no client, but for a slow answer that is being
 * made; those that wait behind it get none. NULL is fine.
 */
struct tk_control *tk_control_stop(struct tk_control *control);
TK_DEFINE_CLEANUP(struct tk_control *, tk_control_stop)

/*
 * The client's side: send @request, without a newline, to the mount of the CIPHERDIR
 * @dirfd. The caller frees the answer. -ENOENT or -ECONNREFUSED if nobody listens,
 * -EACCES, -ECONNRESET or -EPIPE if we may not ask, -ENOMSG if the request is read and not
 * answered, such as one that it does not know, -ETIMEDOUT, -EMSGSIZE.
 */
TK_MUST_USE int tk_control_ask(int dirfd, const char *request, char **ret_text);

/* The same where the mount has to ask its KMS before it answers: waits for a minute and a half. */
TK_MUST_USE int tk_control_ask_slow(int dirfd, const char *request, char **ret_text);

/*
 * The same for an answer of many lines: each is handed to @take without its newline, which
 * ends it by a negative return. -ETIMEDOUT only if nothing comes for long.
 */
TK_MUST_USE int tk_control_follow(int dirfd, const char *request,
                                  int (*take)(void *context, const char *line), void *context);
