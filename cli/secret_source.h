/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Secrets, from where the configuration says: never from the command line or the
 * environment.
 */

#include "base/fault.h"
#include "base/secret.h"
#include "conf/conf.h"

enum { TK_SECRET_SOURCE_MAX = 1024 };

/* Which secret it is, for prompts and faults. Borrowed. */
struct tk_secret_ask {
        const char *what;   /* "passphrase" */
        const char *option; /* "[local] passphrase" */
        const char *label;  /* what it is for: a path, an identifier */
        bool confirm;       /* on the terminal it is asked for twice */
};

/*
 * Read the secret from @source. Returns 0 and the secret, without its newline, NULL if
 * the source is "none"; or a fault.
 */
TK_MUST_USE int tk_secret_source_read(const struct tk_conf_secret *source,
                                      const struct tk_secret_ask *ask,
                                      struct tk_secret **ret_secret, struct tk_fault *fault);

/* Read the whole file @path of at most @max bytes into locked memory. */
TK_MUST_USE int tk_secret_source_file(const char *path, size_t max, struct tk_secret **ret_secret);

/* Whether somebody has to type it, or it can be read only once. */
bool tk_secret_source_is_interactive(const struct tk_conf_secret *source);

/* The file of @source, if others than its owner may read it; NULL: they may not. Borrowed. */
const char *tk_secret_source_exposed(const struct tk_conf_secret *source);

/* The descriptor that it will be read from; -1: another source. */
int tk_secret_source_fd(const struct tk_conf_secret *source);
