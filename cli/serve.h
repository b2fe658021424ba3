/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a running mount says of itself over the control channel. */

#include "cli/harden.h"
#include "cli/reload.h"
#include "cli/rotation.h"
#include "fs/fs.h"
#include <jansson.h>

/* Borrowed by the control threads for as long as they run. */
struct tk_serve {
        struct tk_volume *volume;
        struct tk_fs *fs;
        struct tk_rotation *rotation;
        const struct tk_harden *harden;
        const struct tk_reload *reload; /* by the thread of slow requests alone */
        const char *mountpoint;
        bool read_only;
        bool allow_other;
        unsigned threads;
        bool keeps_cpus_awake; /* while requests come */
        int64_t started_ms;    /* tk_clock_ms */
};

/* docs/cli.md, "daemon". NULL without memory. From any thread. */
json_t *tk_serve_status(const struct tk_serve *serve);

/* A tk_control_answer_fn; @context is a struct tk_serve. */
char *tk_serve_answer(void *context, const char *request);

/* Whether a KMS may be asked, or the tree be walked, for the answer to @request. */
bool tk_serve_is_slow(const char *request);

/*
 * The client's side: what the mount of @volume says of itself. NULL if nobody
 * answers; @ret_why then says why if there should be an answer, and is NULL if
 * nobody listens.
 */
json_t *tk_serve_ask(struct tk_volume *volume, const char **ret_why);

/*
 * Tell the mount of @volume to rotate: with @to (absolute) to the root key of that
 * configuration. 0: it has begun; TK_SERVE_NOBODY if nothing is mounted; or what the
 * mount answers, in the fault.
 */
enum { TK_SERVE_NOBODY = 1 };
TK_MUST_USE int tk_serve_ask_rotate(struct tk_volume *volume, const char *to,
                                    struct tk_fault *fault);

/*
 * Tell the mount of @volume to read its configuration again; the caller drops @ret_answer, whose
 * members "changed" and "waiting" are as tk_reload's. TK_SERVE_NOBODY if nothing is mounted; or
 * what the mount answers, in the fault.
 */
TK_MUST_USE int tk_serve_ask_reload(struct tk_volume *volume, json_t **ret_answer,
                                    struct tk_fault *fault);

/*
 * Tell the mount of @volume to add the protector @envelope (fs/protector.h), or to remove one.
 * TK_SERVE_NOBODY if nothing is mounted; or what the mount answers, in the fault.
 */
TK_MUST_USE int tk_serve_ask_add_protector(struct tk_volume *volume,
                                           const struct tk_volume_wrap *envelope,
                                           unsigned *ret_number, struct tk_fault *fault);
TK_MUST_USE int tk_serve_ask_remove_protector(struct tk_volume *volume, unsigned number,
                                              struct tk_fault *fault);

/*
 * Ask the mount of @volume where the file @path of the mount lies below CIPHERDIR/root, or,
 * unless @to_backing, what the backing path @path is in the mount. The caller frees the
 * answer. TK_SERVE_NOBODY if nothing is mounted, -EACCES if we may not ask,
 * -ENOMSG if it does not know the request, or as fs/translate.h.
 */
TK_MUST_USE int tk_serve_ask_path(struct tk_volume *volume, bool to_backing, const char *path,
                                  char **ret_path);

/* How many mounts of @volume ended uncleanly: without the running one, whose own words are @daemon
 * (NULL: none). */
size_t tk_serve_unclean_count(struct tk_volume *volume, const json_t *daemon);
