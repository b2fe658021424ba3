/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What `status` knows of a volume and its mount, as JSON and as text. */

#include "base/fault.h"
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

/*
 * docs/cli.md, "status"; the caller drops the reference. @ret_why says why a mount that is there
 * does not say how it is; NULL: it does, or there is none.
 */
TK_MUST_USE int tk_status_gather(const char *cipherdir, json_t **ret_root, const char **ret_why,
                                 struct tk_fault *fault);

/* The text for people. */
void tk_status_print(FILE *out, const json_t *root, const char *why);

/* A look at a volume, for `status --watch`. */
struct tk_status_look {
        const json_t *root;
        const char *why;    /* as above */
        const json_t *last; /* the look before, for rates; NULL: this is the first one */
        int64_t apart_ms;   /* between the two */
        int64_t gone_s;     /* since a mount answered that does not any more; -1: none did */
        int64_t now;        /* Unix seconds */
};

/* The same, as what changes while one looks at it. Lines may be long. */
void tk_status_print_look(FILE *out, const struct tk_status_look *look);
