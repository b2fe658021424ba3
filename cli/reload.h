/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * `turnkeyfs reload`: a mount reads its configuration again. What may change while it serves does;
 * what may not is said by name, and holds from the next mount on.
 */

#include "cli/mountopts.h"
#include "cli/rotation.h"
#include "conf/conf.h"
#include "fs/fs.h"

/* Borrowed by whoever reloads, one at a time. */
struct tk_reload {
        const char *path;                /* of the configuration, absolute; NULL: there is none */
        const struct tk_mountopts *opts; /* of the command line: they go before it */
        struct tk_conf *conf;            /* what is in force */
        struct tk_fs *fs;
        struct tk_rotation *rotation;
};

/*
 * The names of options that have @ret_changed, and of those that have to wait for the next mount,
 * as arrays of texts. A configuration with an error is left aside, with a fault: all stays as it
 * is. -EAGAIN while the mount does not serve.
 */
TK_MUST_USE int tk_reload(const struct tk_reload *reload, json_t **ret_changed,
                          json_t **ret_waiting, struct tk_fault *fault);
