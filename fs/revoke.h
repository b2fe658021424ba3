/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Revocation: a mount whose keys may not be used any more, until they may again.
 *
 * Closing goes in this order: everything but writeback is refused; the kernel's
 * caches are invalidated, which brings dirty pages here, under the old keys;
 * then writeback is refused as well, the caches are swept again, and the keys are
 * wiped. Called from one thread, which is no request's: invalidation waits for
 * requests.
 */

#include "fs/fs.h"
#include "fs/inode.h"

/* How the kernel is made to drop what it cached of an inode; may wait for writeback. */
struct tk_revoke_kernel {
        void (*invalidate)(void *context, struct tk_inode *inode);
        void *context;
};

/* Refuse all requests with @error (negative) from now on, and wipe the keys. */
void tk_revoke_close(struct tk_fs *fs, int error, const struct tk_revoke_kernel *kernel);

/* While closed: once more, for what a request that was under way may have left behind. */
void tk_revoke_again(struct tk_fs *fs, const struct tk_revoke_kernel *kernel);

/* Unwrap the keys again and serve. On failure all stays closed. */
TK_MUST_USE int tk_revoke_reopen(struct tk_fs *fs, struct tk_fault *fault);

/*
 * Whether a request may pass: 0, or the error it gets. @writeback: a write of the kernel's
 * cache. Waits for the KMS to be asked if the lease is over.
 */
TK_MUST_USE int tk_revoke_gate(struct tk_fs *fs, bool writeback);
