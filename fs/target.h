/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Symlink targets as they lie below (names = encrypted): sealed under a key of the
 * volume, in base64url (docs/format.md, "Symlinks"). Bytes in, bytes out. Thread-safe.
 */

#include "crypto/sealed.h"
#include <limits.h>

enum {
        TK_TARGET_STORED_MAX = PATH_MAX - 1, /* characters that a symlink holds on Linux */
        TK_TARGET_MAX = TK_TARGET_STORED_MAX * 3 / 4 - TK_SEALED_OVERHEAD,
};
_Static_assert(TK_TARGET_MAX == 3043, "docs/format.md");

/* Length of the target that is stored in @stored_len characters; 0 if none can be. */
size_t tk_target_len(size_t stored_len);

/*
 * What to store for @target, NUL-terminated. -ENAMETOOLONG above TK_TARGET_MAX bytes:
 * the backing filesystem may take less yet.
 */
TK_MUST_USE int tk_target_seal(const struct tk_secret *key, const char *target,
                               char ret_stored[TK_TARGET_STORED_MAX + 1]);

/*
 * The target, NUL-terminated, that is stored as @stored. -EBADMSG if it is damaged,
 * -ENAMETOOLONG if @max bytes do not hold it.
 */
TK_MUST_USE int tk_target_open(const struct tk_secret *key, const char *stored, char *ret_target,
                               size_t max);
