/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * `verify` of a live mount, the daemon's side: a thread that walks the tree beside the
 * requests and writes what it finds to the client. One at a time.
 */

#include "fs/fs.h"

struct tk_verify_live; /* opaque: verify_live.c */

/* @fs is borrowed until free. */
TK_MUST_USE int tk_verify_live_new(struct tk_fs *fs, struct tk_verify_live **ret_live);

/* Ends the walk, if there is one. NULL is fine. */
struct tk_verify_live *tk_verify_live_free(struct tk_verify_live *live);
TK_DEFINE_CLEANUP(struct tk_verify_live *, tk_verify_live_free)

/*
 * A tk_control_take_fn; @context is a struct tk_verify_live. Takes "verify" and
 * "verify-repair". The walk ends with the client.
 */
bool tk_verify_live_take(void *context, const char *request, int fd);
