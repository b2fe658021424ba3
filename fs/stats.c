/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Counters.
 *
 * A thread counts in the shard that it got when it first counted: with no more threads than
 * shards, the line stays in its core's cache.
 */

#include "fs/stats.h"

#include <errno.h>

static struct tk_stats_shard *shard_of_thread(struct tk_stats *stats)
{
        static atomic_uint threads;
        static _Thread_local unsigned number; /* from 1; 0: none yet */

        if (number == 0)
                number = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) %
                                 TK_STATS_SHARDS +
                         1;
        return &stats->shards[number - 1];
}

void tk_stats_count(struct tk_stats *stats, enum tk_stats_operation operation, uint64_t bytes)
{
        struct tk_stats_shard *shard = shard_of_thread(stats);

        atomic_fetch_add_explicit(&shard->requests[operation], 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&shard->bytes[operation], bytes, memory_order_relaxed);
}

static enum tk_stats_error kind_of(int r)
{
        switch (-r) {
        case EBADMSG:
        case EUCLEAN:
                return TK_STATS_ERROR_INTEGRITY;
        case EIO:
                return TK_STATS_ERROR_IO;
        case ENOSPC:
        case EDQUOT:
                return TK_STATS_ERROR_SPACE;
        case EROFS:
                return TK_STATS_ERROR_READ_ONLY;
        case ENOMEM:
        case EMFILE:
        case ENFILE:
                return TK_STATS_ERROR_RESOURCES;
        case ENOKEY:
                return TK_STATS_ERROR_NO_KEY;
        case EKEYREVOKED:
        case EKEYEXPIRED:
                return TK_STATS_ERROR_REVOKED;
        default:
                return TK_STATS_ERRORS;
        }
}

void tk_stats_count_error(struct tk_stats *stats, int r)
{
        enum tk_stats_error kind = kind_of(r);

        if (kind < TK_STATS_ERRORS)
                atomic_fetch_add_explicit(&stats->errors[kind], 1, memory_order_relaxed);
}

struct tk_stats_sum tk_stats_sum(const struct tk_stats *stats, enum tk_stats_operation operation)
{
        struct tk_stats_sum sum = {0};

        for (unsigned i = 0; i < TK_STATS_SHARDS; i++) {
                const struct tk_stats_shard *shard = &stats->shards[i];

                sum.requests +=
                        atomic_load_explicit(&shard->requests[operation], memory_order_relaxed);
                sum.bytes += atomic_load_explicit(&shard->bytes[operation], memory_order_relaxed);
        }
        return sum;
}

const char *tk_stats_error_name(enum tk_stats_error error)
{
        static const char *const names[] = {
                [TK_STATS_ERROR_INTEGRITY] = "integrity", [TK_STATS_ERROR_IO] = "io",
                [TK_STATS_ERROR_SPACE] = "space",         [TK_STATS_ERROR_READ_ONLY] = "read_only",
                [TK_STATS_ERROR_RESOURCES] = "resources", [TK_STATS_ERROR_NO_KEY] = "no_key",
                [TK_STATS_ERROR_REVOKED] = "revoked",
        };

        return names[error];
}
