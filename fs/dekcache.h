/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * DEK cache, for dek_wrap = kms: DEKs that the KMS unwrapped, by their records.
 *
 * A DEK is given out while its lease lasts, so that opening a file again costs no
 * call. Bounded: the oldest make room. Thread-safe.
 */

#include "crypto/record.h"

struct tk_dekcache; /* opaque: dekcache.c */

/* At most @max DEKs, each for @lease_ms milliseconds. */
TK_MUST_USE int tk_dekcache_new(size_t max, int64_t lease_ms, struct tk_dekcache **ret_cache);
struct tk_dekcache *tk_dekcache_free(struct tk_dekcache *cache);
TK_DEFINE_CLEANUP(struct tk_dekcache *, tk_dekcache_free)

/* A copy of the DEK of @record, which the caller frees; -ENOENT if it is not there any more. */
TK_MUST_USE int tk_dekcache_get(struct tk_dekcache *cache, const struct tk_record *record,
                                struct tk_secret **ret_dek);

/* How many DEKs are in it now. */
size_t tk_dekcache_count(struct tk_dekcache *cache);

/* Remember a copy of @dek; without memory for it, nothing is remembered. */
void tk_dekcache_put(struct tk_dekcache *cache, const struct tk_record *record,
                     const struct tk_secret *dek);

/* Forget everything. */
void tk_dekcache_clear(struct tk_dekcache *cache);
