/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Model test: the same random operations on two directories, compared.
 *
 * Side A is the filesystem under test, side B a plain directory that is taken to
 * be right. The plan makes operations from the seed and from what B answered, so
 * that a seed replays. Two processes execute them in lockstep, each with its own
 * descriptors and mappings; bursts run in both at once.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MODEL_A, MODEL_B, MODEL_SIDES };

enum {
        MODEL_PROCESSES = 2,
        MODEL_HANDLES = 8, /* per process */
        MODEL_PATH_MAX = 4096,
        MODEL_BUFFER = 1 << 20, /* the longest single transfer */
        MODEL_BLOCK = 4096,
        MODEL_GROUP = 507904, /* plaintext bytes of a group: docs/format.md, "Content" */
        MODEL_GROUP_BLOCKS = MODEL_GROUP / MODEL_BLOCK,
        MODEL_ATTRS = 5, /* names of attributes */
        MODEL_LINKS = 8, /* symlinks */
};

/* Every operation; the texts are model_kind_name's. */
enum model_kind {
        MODEL_OPEN,
        MODEL_CLOSE,
        MODEL_CLOSE_ALL,
        MODEL_PWRITE,
        MODEL_WRITE,
        MODEL_PREAD,
        MODEL_READ,
        MODEL_SEEK,
        MODEL_SEEK_DATA,
        MODEL_TRUNCATE,
        MODEL_FTRUNCATE,
        MODEL_FALLOCATE,
        MODEL_COPY_RANGE,
        MODEL_MAP,
        MODEL_MAP_WRITE,
        MODEL_MAP_READ,
        MODEL_MSYNC,
        MODEL_FSYNC,
        MODEL_FDATASYNC,
        MODEL_DROP, /* fdatasync, then drop the kernel's cached pages of the file */
        MODEL_RENAME,
        MODEL_LINK,
        MODEL_UNLINK,
        MODEL_MOVE_DIR,
        MODEL_STAT,
        MODEL_FSTAT,
        MODEL_LIST,
        MODEL_SETXATTR,
        MODEL_GETXATTR,
        MODEL_LISTXATTR,
        MODEL_REMOVEXATTR,
        MODEL_SYMLINK,
        MODEL_READLINK,
        MODEL_REMOVE_LINK,
        MODEL_CHECK,        /* the whole file, byte by byte */
        MODEL_CHECK_ALL,    /* every name */
        MODEL_BURST_WRITE,  /* both processes write interleaved, disjoint ranges */
        MODEL_BURST_APPEND, /* both processes append records */
        MODEL_BURST_ADOPT,  /* check what the appends left on A and take it over to B */
        MODEL_REMOUNT,
        MODEL_KINDS,
};

/* How a burst writes. */
enum { MODEL_BURST_BUFFERED, MODEL_BURST_DIRECT, MODEL_BURST_MAPPED, MODEL_BURST_MODES };

/* One operation, fully specified: goes to another process as it is. */
struct model_op {
        uint64_t number;
        enum model_kind kind;
        unsigned process;
        unsigned handle;
        unsigned other_handle;
        unsigned name;
        unsigned other_name;
        bool moved; /* where the directory that moves is now */
        int flags; /* open flags, fallocate mode, rename flags, msync flags, burst mode, xattr flags
                    */
        int64_t off;
        int64_t other_off;
        int64_t len;
        uint64_t seed; /* of the data */
};

struct model_outcome {
        int64_t ret;  /* side B's, a negative errno for a failure */
        int64_t size; /* of the file on side B afterwards; -1: not known */
        bool differs;
        char text[768]; /* how, for a person */
};

struct model_config {
        uint64_t seed;
        uint64_t ops;
        unsigned names;
        bool wild_names; /* of all lengths and bytes, from the seed */
        int64_t max_size;
        uint64_t remount_every;
        const char *remount; /* shell command; NULL: never */
        const char *dir[MODEL_SIDES];
        bool trace;
        bool skip[MODEL_KINDS]; /* these never come up: to narrow a failure down */
        bool skip_direct;       /* no O_DIRECT */
};

/* rng.c: splitmix64, and data made from a seed. */
uint64_t model_random(uint64_t *state);
uint64_t model_random_below(uint64_t *state, uint64_t bound);
void model_fill(uint64_t seed, void *buf, size_t len);

/* names.c */
const char *model_kind_name(enum model_kind kind);
/* The kind of that name, MODEL_KINDS if there is none. */
enum model_kind model_kind_named(const char *name);
void model_path(const struct model_config *config, int side, unsigned name, bool moved,
                char path[MODEL_PATH_MAX]);
/* The directory that moves, where it is (@moved) or was. */
void model_moving_dir(const struct model_config *config, int side, bool moved,
                      char path[MODEL_PATH_MAX]);
/* One line for the log. */
void model_describe(const struct model_op *op, const struct model_outcome *outcome, char *text,
                    size_t text_len);

/* plan.c: operations from a seed; one per run. */
struct model_plan;
struct model_plan *model_plan_new(const struct model_config *config);
void model_plan_free(struct model_plan *plan);
void model_plan_next(struct model_plan *plan, struct model_op *ret_op);
/* After the operation that checks everything a last time. */
bool model_plan_ended(const struct model_plan *plan);
/* Tell the plan how @op ended, which later operations depend on. */
void model_plan_learn(struct model_plan *plan, const struct model_op *op,
                      const struct model_outcome *outcome);

/* exec.c: one process's descriptors and mappings, and what it does with them. */
struct model_worker;
struct model_worker *model_worker_new(const struct model_config *config, unsigned process);
void model_worker_free(struct model_worker *worker);
void model_worker_run(struct model_worker *worker, const struct model_op *op,
                      struct model_outcome *outcome);

/* compare.c: differences go into the outcome. */
void model_differ(struct model_outcome *outcome, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));
void model_compare_ret(struct model_outcome *outcome, int64_t a, int64_t b);
void model_compare_bytes(struct model_outcome *outcome, const uint8_t *a, const uint8_t *b,
                         size_t len, int64_t off);
void model_compare_file(const struct model_config *config, const struct model_op *op, unsigned name,
                        struct model_outcome *outcome);
void model_compare_stat(const char *path_a, const char *path_b, struct model_outcome *outcome);
void model_compare_tree(const struct model_config *config, const struct model_op *op,
                        struct model_outcome *outcome);
void model_compare_lists(const struct model_config *config, const struct model_op *op,
                         struct model_outcome *outcome);

/* attrs.c: the attribute is op->other_name of the file, or with op->off of the directory that moves
 */
void model_attr(const struct model_config *config, const struct model_op *op,
                struct model_outcome *outcome);
void model_list_attrs(const struct model_config *config, const struct model_op *op,
                      struct model_outcome *outcome);
void model_compare_attrs(const char *path_a, const char *path_b, struct model_outcome *outcome);
void model_link(const struct model_config *config, const struct model_op *op,
                struct model_outcome *outcome);
void model_compare_links(const struct model_config *config, const struct model_op *op,
                         struct model_outcome *outcome);

/* burst.c */
void model_burst_write(const struct model_config *config, unsigned process,
                       const struct model_op *op, struct model_outcome *outcome);
void model_burst_append(const struct model_config *config, unsigned process,
                        const struct model_op *op, struct model_outcome *outcome);
void model_burst_adopt(const struct model_config *config, const struct model_op *op,
                       struct model_outcome *outcome);
