/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Rotation of a mounted volume: one job at a time, in a thread of its own.
 *
 * Thread-safe, but for begin, stop and free, which belong to the mount's thread.
 */

#include "cli/provider.h"
#include "fs/rotate.h"
#include <jansson.h>

struct tk_rotation; /* opaque: rotation.c */

struct tk_rotation_options {
        unsigned window_s;    /* within which a new version is to be followed; 0: none to keep to */
        unsigned files_per_s; /* that are rewrapped at most; 0: as fast as it goes */
};

/* @provider is borrowed: the one that @volume was unlocked with. */
TK_MUST_USE int tk_rotation_new(struct tk_volume *volume, const struct tk_provider *provider,
                                const struct tk_rotation_options *options,
                                struct tk_rotation **ret_rotation);

/* From now on these hold; the rate from the next job on. */
void tk_rotation_set_options(struct tk_rotation *rotation,
                             const struct tk_rotation_options *options);

/* From now on jobs may run on @fs, which is borrowed until stop. */
void tk_rotation_begin(struct tk_rotation *rotation, struct tk_fs *fs);

/* End the job, if there is one, and take no other. What was done stays. */
void tk_rotation_stop(struct tk_rotation *rotation);

/* After the volume was freed: it may have asked the providers that were moved to. */
struct tk_rotation *tk_rotation_free(struct tk_rotation *rotation);
TK_DEFINE_CLEANUP(struct tk_rotation *, tk_rotation_free)

/*
 * Start a job: with @to to the root key of the configuration at that path, with NULL to
 * a new version of the present one. -EBUSY with a fault if one is running.
 */
TK_MUST_USE int tk_rotation_start(struct tk_rotation *rotation, const char *to,
                                  struct tk_fault *fault);

/*
 * Make a new version of the root key if the provider does that itself, and the newest is
 * old enough: [local] rotate_every. Failures are logged.
 */
void tk_rotation_make_due(struct tk_rotation *rotation);

/* The root key has a new version: take it up, unless a job is running. Failures are logged. */
void tk_rotation_follow(struct tk_rotation *rotation);

/* Go on with what an earlier mount left unfinished, if anything. Failures are logged. */
void tk_rotation_resume(struct tk_rotation *rotation);

/* Who protects the current KEK version. Valid until free. */
const struct tk_provider *tk_rotation_provider(struct tk_rotation *rotation);

/* How it goes: docs/cli.md, "daemon.rotation". NULL without memory. */
json_t *tk_rotation_json(struct tk_rotation *rotation);

/*
 * The work itself, for volumes that are not mounted, too: with @new_version a provider
 * that makes its own versions makes one first; then tk_rotate_run.
 */
TK_MUST_USE int tk_rotation_run(struct tk_fs *fs, const struct tk_provider *provider,
                                bool new_version, struct tk_rotate_options *options,
                                struct tk_rotate_progress *ret_progress, struct tk_fault *fault);
