/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From a command's arguments to an unlocked volume. */

#include "cli/provider.h"
#include "fs/volume.h"

/* The providers that a volume was unlocked with. */
struct tk_open_keys {
        struct tk_provider current;
        struct tk_provider previous; /* [kms] previous; kms is NULL without it */
};

/* After the volume was freed: it may go on asking them. */
void tk_open_keys_done(struct tk_open_keys *keys);

/* The configuration at @path, or the defaults for NULL; process hygiene is set up by it. */
TK_MUST_USE int tk_open_conf(const char *path, struct tk_conf **ret_conf, struct tk_fault *fault);

/* The CIPHERDIR: @path itself, or what is mounted there. The caller frees it. */
TK_MUST_USE int tk_open_find_cipherdir(const char *path, char **ret_cipherdir,
                                       struct tk_fault *fault);

/* Lock the open @volume, saying that we are @doing, and unlock its keys. */
TK_MUST_USE int tk_open_unlock(struct tk_volume *volume, const struct tk_conf *conf,
                               const char *doing, struct tk_open_keys *ret_keys,
                               struct tk_fault *fault);

/*
 * Open the provider in [kms] previous, whether or not a KEK version in use is under its key;
 * does nothing without that option, or if it is open.
 */
TK_MUST_USE int tk_open_previous(const struct tk_volume *volume, const struct tk_conf *conf,
                                 struct tk_open_keys *keys, struct tk_fault *fault);

/* Unlock it by the open provider @keys, and by the one in [kms] previous, which is opened. */
TK_MUST_USE int tk_open_unlock_with(struct tk_volume *volume, const struct tk_conf *conf,
                                    struct tk_open_keys *keys, struct tk_fault *fault);

/* Which volume it is, for its providers. Borrows from @volume. */
struct tk_provider_volume tk_open_target(const struct tk_volume *volume);
