/* SPDX-License-Identifier: Apache-2.0 */

/* Counters of KMS calls. A call costs microseconds at best: atomic counters are good enough. */

#include "kms/kms_stats.h"

#include <errno.h>
#include <stdatomic.h>

const unsigned tk_kms_bucket_ms[TK_KMS_BUCKETS] = {1,   10,   50,   100,   250,
                                                   500, 1000, 5000, 15000, 60000};

static struct {
        _Atomic uint64_t calls;
        _Atomic uint64_t total_us;
        _Atomic uint64_t buckets[TK_KMS_BUCKETS];
} counters[TK_KMS_OPS][TK_KMS_OUTCOMES];

static enum tk_kms_outcome outcome_of(int r)
{
        if (r >= 0)
                return TK_KMS_OK;
        switch (-r) {
        case ENOKEY:
                return TK_KMS_UNREACHABLE;
        case EACCES:
                return TK_KMS_DENIED;
        case EKEYREVOKED:
        case ENOENT:
                return TK_KMS_REFUSED;
        case EKEYEXPIRED:
                return TK_KMS_EXPIRED;
        default:
                return TK_KMS_FAILED;
        }
}

void tk_kms_stats_count(enum tk_kms_operation operation, int r, int64_t took_us)
{
        enum tk_kms_outcome outcome = outcome_of(r);
        uint64_t took = took_us > 0 ? (uint64_t)took_us : 0;

        counters[operation][outcome].total_us += took;
        for (unsigned i = 0; i < TK_KMS_BUCKETS; i++)
                if (took <= (uint64_t)tk_kms_bucket_ms[i] * 1000) {
                        counters[operation][outcome].buckets[i]++;
                        break;
                }
        counters[operation][outcome].calls++;
}

struct tk_kms_stats tk_kms_stats_of(enum tk_kms_operation operation, enum tk_kms_outcome outcome)
{
        struct tk_kms_stats stats = {.calls = counters[operation][outcome].calls,
                                     .total_us = counters[operation][outcome].total_us};
        uint64_t sum = 0;

        for (unsigned i = 0; i < TK_KMS_BUCKETS; i++) {
                stats.buckets[i] = counters[operation][outcome].buckets[i];
                sum += stats.buckets[i];
        }
        /* A call that was counted in between: no bucket holds more than all of them. */
        if (stats.calls < sum)
                stats.calls = sum;
        return stats;
}

const char *tk_kms_operation_name(enum tk_kms_operation operation)
{
        static const char *const names[] = {[TK_KMS_OP_CURRENT] = "current",
                                            [TK_KMS_OP_WRAP] = "wrap",
                                            [TK_KMS_OP_UNWRAP] = "unwrap",
                                            [TK_KMS_OP_PROBE] = "probe"};

        return names[operation];
}

const char *tk_kms_outcome_name(enum tk_kms_outcome outcome)
{
        static const char *const names[] = {
                [TK_KMS_OK] = "ok",           [TK_KMS_UNREACHABLE] = "unreachable",
                [TK_KMS_DENIED] = "denied",   [TK_KMS_REFUSED] = "refused",
                [TK_KMS_EXPIRED] = "expired", [TK_KMS_FAILED] = "failed",
        };

        return names[outcome];
}
