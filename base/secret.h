/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Secrets in memory: locked against swapping, kept out of core dumps, wiped
 * when freed.
 *
 * Everything that reveals a key is a struct tk_secret: keys, passphrases, PINs,
 * tokens. Secrets of up to TK_SECRET_SLOT bytes come from shared locked pages,
 * larger ones from pages of their own. Allocation is thread-safe; one secret's
 * bytes are for one writer at a time.
 */

#include "base/cleanup.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        TK_KEY_LEN = 32,     /* bytes of every symmetric key here: 256 bits */
        TK_SECRET_SLOT = 64, /* bytes of a slot in the shared pages */
};

struct tk_secret; /* opaque: secret.c */

/*
 * A new secret of @len bytes, zero-filled. -ENOMEM; -EPERM if its pages can't
 * be locked while tk_secret_require_lock(true) is in force.
 */
TK_MUST_USE int tk_secret_new(size_t len, struct tk_secret **ret_secret);

/* A new secret with a copy of @len bytes at @bytes; the caller wipes its own. */
TK_MUST_USE int tk_secret_dup_bytes(const void *bytes, size_t len, struct tk_secret **ret_secret);

struct tk_secret *tk_secret_free(struct tk_secret *secret);
TK_DEFINE_CLEANUP(struct tk_secret *, tk_secret_free)

/* Borrowed for one call, never kept. */
const uint8_t *tk_secret_bytes(const struct tk_secret *secret);
uint8_t *tk_secret_bytes_mutable(struct tk_secret *secret);
size_t tk_secret_len(const struct tk_secret *secret);

/* Shorten to @len bytes, wiping the rest. */
void tk_secret_truncate(struct tk_secret *secret, size_t len);

/* Compare in constant time; false if the lengths differ. */
bool tk_secret_equal(const struct tk_secret *a, const struct tk_secret *b);
bool tk_bytes_equal_ct(const void *a, const void *b, size_t len);

/* Overwrite in a way that the compiler keeps. */
void tk_wipe(void *bytes, size_t len);

/* Whether memory that can't be locked is an error (true) or accepted (false, the default). */
void tk_secret_require_lock(bool required);

/* Whether every page handed out so far could be locked. */
bool tk_secret_all_locked(void);

/* Secrets alive now: 0 at the end of a clean run. */
size_t tk_secret_alive(void);
