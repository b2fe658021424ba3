/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From a command's arguments to an unlocked volume. */

#include "cli/provider.h"
#include "fs/volume.h"

/* The configuration at @path, or the defaults for NULL; process hygiene is set up by it. */
TK_MUST_USE int tk_open_conf(const char *path, struct tk_conf **ret_conf, struct tk_fault *fault);

/*
 * Lock the open @volume, saying that we are @doing, and unlock its keys. The
 * caller frees @ret_kms, after the volume, which may go on asking it, and
 * @ret_keystore, the path of the keystore that was used.
 */
TK_MUST_USE int tk_open_unlock(struct tk_volume *volume, const struct tk_conf *conf,
                               const char *doing, struct tk_kms **ret_kms, char **ret_keystore,
                               struct tk_fault *fault);

/* How the keys of a volume are to be unlocked, as configured. */
struct tk_volume_unlock tk_open_unlock_options(const struct tk_conf *conf);
