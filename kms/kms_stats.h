/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What all providers of this process were asked, and how long that took: never reset.
 * Any thread may count and look.
 */

#include <stdint.h>

enum tk_kms_operation {
        TK_KMS_OP_CURRENT,
        TK_KMS_OP_WRAP,
        TK_KMS_OP_UNWRAP,
        TK_KMS_OP_PROBE,
        TK_KMS_OPS,
};

enum tk_kms_outcome {
        TK_KMS_OK,
        TK_KMS_UNREACHABLE, /* no answer, or none that says anything about the key */
        TK_KMS_DENIED,      /* our identity is not accepted */
        TK_KMS_REFUSED,     /* the key is disabled, deleted, or may not be used by us */
        TK_KMS_EXPIRED,     /* the key is outside its dates */
        TK_KMS_FAILED,      /* anything else, such as a damaged wrap */
        TK_KMS_OUTCOMES,
};

enum { TK_KMS_BUCKETS = 10 };

/* Upper bounds of the buckets, in milliseconds; what takes longer is in `calls` alone. */
extern const unsigned tk_kms_bucket_ms[TK_KMS_BUCKETS];

struct tk_kms_stats {
        uint64_t calls;
        uint64_t total_us;                /* of all calls */
        uint64_t buckets[TK_KMS_BUCKETS]; /* each call in one: they don't add up by themselves */
};

/* A call ended with @r, as the provider returned it, after @took_us. */
void tk_kms_stats_count(enum tk_kms_operation operation, int r, int64_t took_us);

struct tk_kms_stats tk_kms_stats_of(enum tk_kms_operation operation, enum tk_kms_outcome outcome);

/* "unwrap", ...; "ok", ... */
const char *tk_kms_operation_name(enum tk_kms_operation operation);
const char *tk_kms_outcome_name(enum tk_kms_outcome outcome);
