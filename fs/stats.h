/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a mount counts for `turnkeyfs status` and for metrics: counters, never reset.
 *
 * What every request counts lies in shards, two cache lines each, so that threads do not
 * share a line; the sums are made by who asks. Any thread may count and ask.
 */

#include <stdatomic.h>
#include <stdint.h>

enum tk_stats_operation {
        TK_STATS_READ,
        TK_STATS_WRITE,
        TK_STATS_FSYNC,
        TK_STATS_OPERATIONS,
};

/* Kinds of errors that requests are answered with: what tells of trouble, not an ENOENT. */
enum tk_stats_error {
        TK_STATS_ERROR_INTEGRITY, /* something does not authenticate: EIO to applications */
        TK_STATS_ERROR_IO,        /* EIO from below */
        TK_STATS_ERROR_SPACE,     /* ENOSPC, EDQUOT */
        TK_STATS_ERROR_READ_ONLY, /* EROFS */
        TK_STATS_ERROR_RESOURCES, /* ENOMEM, EMFILE, ENFILE */
        TK_STATS_ERROR_NO_KEY,    /* ENOKEY: the KMS out of reach for too long */
        TK_STATS_ERROR_REVOKED,   /* EKEYREVOKED, EKEYEXPIRED */
        TK_STATS_ERRORS,
};

enum { TK_STATS_SHARDS = 16, TK_STATS_SHARD_LEN = 128 };

struct tk_stats_shard {
        _Atomic uint64_t requests[TK_STATS_OPERATIONS]; /* that were served */
        _Atomic uint64_t bytes[TK_STATS_OPERATIONS];    /* of plaintext */
        uint8_t apart[TK_STATS_SHARD_LEN - sizeof(uint64_t[2][TK_STATS_OPERATIONS])];
};
_Static_assert(sizeof(struct tk_stats_shard) == TK_STATS_SHARD_LEN, "a shard is two cache lines");

struct tk_stats {
        struct tk_stats_shard shards[TK_STATS_SHARDS];
        _Atomic uint64_t errors[TK_STATS_ERRORS];
        _Atomic uint64_t block_failures;     /* blocks that did not authenticate */
        _Atomic uint64_t record_failures;    /* files whose key records could not be used */
        _Atomic uint64_t name_failures;      /* entries left out of listings: names unreadable */
        _Atomic uint64_t records_restored;   /* records rewritten from their good twin */
        _Atomic uint64_t target_failures;    /* symlink targets that did not authenticate */
        _Atomic uint64_t attribute_failures; /* attributes that did not authenticate */
        _Atomic uint64_t open_files;         /* backing files open now */
        _Atomic uint64_t known_inodes;       /* inodes the kernel knows now */
};

/* A request was served, with @bytes of plaintext. */
void tk_stats_count(struct tk_stats *stats, enum tk_stats_operation operation, uint64_t bytes);

/* A request was answered with @r, a negative errno: counted if it is of a kind above. */
void tk_stats_count_error(struct tk_stats *stats, int r);

/* Over all shards. */
struct tk_stats_sum {
        uint64_t requests;
        uint64_t bytes;
};
struct tk_stats_sum tk_stats_sum(const struct tk_stats *stats, enum tk_stats_operation operation);

/* "integrity", ... */
const char *tk_stats_error_name(enum tk_stats_error error);
