/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The volume lock: an flock on a file that is never replaced; the holder writes
 * into it who it is. It ends with the process, however that ends.
 */

#include "fs/volume.h"

#define TK_VOLUME_LOCK_FILE "turnkeyfs.lock"

/*
 * Take the lock in the volume directory @dirfd, whose @path is for messages; @doing
 * names the use. Returns the descriptor that holds it, for tk_volume_lock_release.
 * -EBUSY with a fault that names the holder.
 */
TK_MUST_USE int tk_volume_lock_take(int dirfd, const char *path, const char *doing, int *ret_lockfd,
                                    struct tk_fault *fault);
void tk_volume_lock_release(int lockfd);

/* 1 and who holds it, 0 if nobody does, or a negative errno. */
TK_MUST_USE int tk_volume_lock_holder(int dirfd, struct tk_volume_holder *ret_holder);
