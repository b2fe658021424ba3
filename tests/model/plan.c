/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The plan: which operation comes next.
 *
 * Everything follows from the seed and from what side B answered, so that the
 * same seed makes the same operations as long as nothing differs. Offsets and
 * sizes gather around the file's end and the borders of blocks and groups.
 */

#include "tests/model/model.h"
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>

enum { QUEUE_MAX = 8, MAPPED_MAX = 300000, BURST_MAX = 200000 };

/* What every filesystem takes: attributes of a file in one block, a target of 1023 characters. */
enum { VALUE_MAX = 400, TARGET_MAX = 700 };

struct slot {
        bool open;
        bool mapped;
        int flags;
        int64_t size;
        int64_t cap; /* operations through this descriptor stay below */
};

struct model_plan {
        const struct model_config *config;
        uint64_t rng;
        uint64_t number;
        uint64_t remount_at;
        bool moved;
        bool ended;
        struct slot slots[MODEL_PROCESSES][MODEL_HANDLES];
        int64_t *sizes; /* by name, as last seen */
        struct model_op queue[QUEUE_MAX];
        size_t queued;
};

struct weight {
        enum model_kind kind;
        unsigned weight;
};

/* Out of their sum. */
static const struct weight weights[] = {
        {MODEL_OPEN, 90},       {MODEL_CLOSE, 70},       {MODEL_PWRITE, 200},
        {MODEL_WRITE, 100},     {MODEL_PREAD, 130},      {MODEL_READ, 70},
        {MODEL_SEEK, 30},       {MODEL_SEEK_DATA, 25},   {MODEL_TRUNCATE, 20},
        {MODEL_FTRUNCATE, 45},  {MODEL_FALLOCATE, 60},   {MODEL_COPY_RANGE, 25},
        {MODEL_MAP, 40},        {MODEL_MAP_WRITE, 80},   {MODEL_MAP_READ, 60},
        {MODEL_MSYNC, 20},      {MODEL_FSYNC, 15},       {MODEL_FDATASYNC, 15},
        {MODEL_DROP, 30},       {MODEL_RENAME, 30},      {MODEL_LINK, 40},
        {MODEL_UNLINK, 35},     {MODEL_MOVE_DIR, 4},     {MODEL_STAT, 40},
        {MODEL_FSTAT, 30},      {MODEL_LIST, 4},         {MODEL_CHECK, 15},
        {MODEL_BURST_WRITE, 8}, {MODEL_BURST_APPEND, 4}, {MODEL_SETXATTR, 30},
        {MODEL_GETXATTR, 30},   {MODEL_LISTXATTR, 15},   {MODEL_REMOVEXATTR, 15},
        {MODEL_SYMLINK, 12},    {MODEL_READLINK, 20},    {MODEL_REMOVE_LINK, 6},
};

struct model_plan *model_plan_new(const struct model_config *config)
{
        struct model_plan *plan = calloc(1, sizeof(*plan));

        if (!plan)
                abort();
        plan->config = config;
        plan->rng = config->seed;
        plan->remount_at = config->remount_every ? config->remount_every : UINT64_MAX;
        plan->sizes = calloc(config->names, sizeof(*plan->sizes));
        if (!plan->sizes)
                abort();
        return plan;
}

void model_plan_free(struct model_plan *plan)
{
        free(plan->sizes);
        free(plan);
}

static uint64_t below(struct model_plan *plan, uint64_t bound)
{
        return model_random_below(&plan->rng, bound);
}

static bool one_in(struct model_plan *plan, unsigned n)
{
        return below(plan, n) == 0;
}

static unsigned weight_of(const struct model_plan *plan, size_t i)
{
        return plan->config->skip[weights[i].kind] ? 0 : weights[i].weight;
}

static enum model_kind pick_kind(struct model_plan *plan)
{
        uint64_t sum = 0;
        uint64_t at;

        for (size_t i = 0; i < sizeof(weights) / sizeof(weights[0]); i++)
                sum += weight_of(plan, i);
        at = below(plan, sum);
        for (size_t i = 0;; i++) {
                if (at < weight_of(plan, i))
                        return weights[i].kind;
                at -= weight_of(plan, i);
        }
}

/* Files differ in how large they get: most tests of a border want small ones. */
static int64_t cap_of(const struct model_plan *plan, unsigned name)
{
        static const int64_t caps[] = {INT64_MAX, 5000, 700000, 20000, INT64_MAX, 1100000};
        int64_t cap = caps[name % 6];

        return cap < plan->config->max_size ? cap : plan->config->max_size;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
        return value < low ? low : value > high ? high : value;
}

/* A little before, at or after a multiple of @step. */
static int64_t near_border(struct model_plan *plan, int64_t step, int64_t cap)
{
        int64_t border = step * (int64_t)below(plan, (uint64_t)(cap / step + 1));

        if (one_in(plan, 3))
                return border;
        return border + (int64_t)below(plan, 40) - 20;
}

static int64_t pick_off(struct model_plan *plan, int64_t size, int64_t cap)
{
        int64_t off;

        switch (below(plan, 10)) {
        case 0:
                off = 0;
                break;
        case 1:
                off = size;
                break;
        case 2:
                off = size - (int64_t)below(plan, (uint64_t)3 * MODEL_BLOCK);
                break;
        case 3:
                off = near_border(plan, MODEL_GROUP, cap);
                break;
        case 4:
        case 5:
                off = near_border(plan, MODEL_BLOCK, cap);
                break;
        case 6:
                off = (int64_t)below(plan, (uint64_t)cap);
                break;
        default:
                off = (int64_t)below(plan, (uint64_t)(size < 1 ? 1 : size));
        }
        return clamp(off, 0, cap);
}

static int64_t pick_len(struct model_plan *plan, int64_t off, int64_t cap)
{
        int64_t len;

        switch (below(plan, 20)) {
        case 0:
                len = (int64_t)below(plan, MODEL_BUFFER);
                break;
        case 1:
        case 2:
                len = MODEL_BLOCK * (1 + (int64_t)below(plan, 32));
                break;
        case 3:
        case 4:
                len = near_border(plan, MODEL_BLOCK, cap) - off;
                break;
        case 5:
                len = near_border(plan, MODEL_GROUP, cap) - off;
                break;
        case 6:
        case 7:
        case 8:
        case 9:
                len = 1 + (int64_t)below(plan, 65536);
                break;
        case 10:
        case 11:
        case 12:
        case 13:
                len = 1 + (int64_t)below(plan, (uint64_t)2 * MODEL_BLOCK);
                break;
        default:
                len = 1 + (int64_t)below(plan, 100);
        }
        return clamp(clamp(len, 1, cap - off), 1, MODEL_BUFFER);
}

static int pick_open_flags(struct model_plan *plan)
{
        static const int access[] = {O_RDWR, O_RDWR, O_RDWR, O_RDWR, O_WRONLY, O_RDONLY};
        int flags = access[below(plan, sizeof(access) / sizeof(access[0]))];

        if (!one_in(plan, 4))
                flags |= O_CREAT;
        if (one_in(plan, 16))
                flags |= O_EXCL;
        if (one_in(plan, 20) && flags != O_RDONLY)
                flags |= O_TRUNC;
        if (one_in(plan, 5))
                flags |= O_APPEND;
        if (one_in(plan, 4) && !plan->config->skip_direct)
                flags |= O_DIRECT;
        if (one_in(plan, 12))
                flags |= one_in(plan, 2) ? O_SYNC : O_DSYNC;
        return flags;
}

static int pick_fallocate_mode(struct model_plan *plan)
{
        static const int modes[] = {
                0,
                FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_ZERO_RANGE,
                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
        };

        return modes[below(plan, sizeof(modes) / sizeof(modes[0]))];
}

/* A descriptor of @process that is open, counted from a random one; -1: none. */
static int pick_open_slot(struct model_plan *plan, unsigned process, bool mapped)
{
        unsigned start = (unsigned)below(plan, MODEL_HANDLES);

        for (unsigned i = 0; i < MODEL_HANDLES; i++) {
                unsigned at = (start + i) % MODEL_HANDLES;
                const struct slot *slot = &plan->slots[process][at];

                if (slot->open && (!mapped || slot->mapped))
                        return (int)at;
        }
        return -1;
}

static int pick_free_slot(const struct model_plan *plan, unsigned process)
{
        for (unsigned i = 0; i < MODEL_HANDLES; i++)
                if (!plan->slots[process][i].open)
                        return (int)i;
        return -1;
}

static unsigned pick_name(struct model_plan *plan)
{
        return (unsigned)below(plan, plan->config->names);
}

static void plan_open(struct model_plan *plan, struct model_op *op)
{
        int slot = pick_free_slot(plan, op->process);

        op->kind = slot < 0 ? MODEL_CLOSE : MODEL_OPEN;
        op->handle = slot < 0 ? (unsigned)below(plan, MODEL_HANDLES) : (unsigned)slot;
        op->name = pick_name(plan);
        op->flags = slot < 0 ? 0 : pick_open_flags(plan);
}

static void plan_range(struct model_plan *plan, struct model_op *op, int64_t size, int64_t cap)
{
        op->off = pick_off(plan, size, cap - 1);
        op->len = pick_len(plan, op->off, cap);
}

/* Without a buffer between, a range may span many groups. */
static void plan_long_range(struct model_plan *plan, int64_t off, int64_t cap, int64_t *len)
{
        if (one_in(plan, 3))
                *len = clamp(near_border(plan, MODEL_GROUP, cap) - off, 1, cap - off);
}

static void plan_copy_range(struct model_plan *plan, struct model_op *op, const struct slot *to)
{
        int other = pick_open_slot(plan, op->process, false);
        const struct slot *from = &plan->slots[op->process][other];

        op->other_handle = (unsigned)other;
        op->off = pick_off(plan, from->size, from->cap - 1);
        op->other_off = pick_off(plan, to->size, to->cap - 1);
        op->len = pick_len(plan, op->other_off, to->cap);
        if (one_in(plan, 3)) {
                op->off = (int64_t)below(plan, (uint64_t)(from->size / 4 + 1));
                op->other_off = (int64_t)below(plan, (uint64_t)(to->cap / 4));
                op->len = clamp(from->size - op->off, 1, to->cap - op->other_off);
        }
}

static void plan_position(struct model_plan *plan, struct model_op *op, const struct slot *slot)
{
        op->off = pick_off(plan, slot->size, slot->cap);
        op->flags = SEEK_SET;
}

/* What an operation through a descriptor needs beside it. */
static void plan_slot_details(struct model_plan *plan, struct model_op *op, const struct slot *slot)
{
        plan_range(plan, op, slot->size, slot->cap);
        switch (op->kind) {
        case MODEL_WRITE:
        case MODEL_READ:
                op->off = -1;
                break;
        case MODEL_SEEK:
                plan_position(plan, op, slot);
                break;
        case MODEL_FTRUNCATE:
                op->len = pick_off(plan, slot->size, slot->cap);
                break;
        case MODEL_FALLOCATE:
                op->flags = pick_fallocate_mode(plan);
                plan_long_range(plan, op->off, slot->cap, &op->len);
                break;
        case MODEL_COPY_RANGE:
                plan_copy_range(plan, op, slot);
                break;
        case MODEL_MAP:
                op->len = clamp(op->len, 1, MAPPED_MAX);
                break;
        case MODEL_MSYNC:
                op->flags = one_in(plan, 2) ? MS_SYNC : MS_ASYNC;
                break;
        default:
                break;
        }
}

static void plan_slot(struct model_plan *plan, struct model_op *op)
{
        bool mapped = op->kind == MODEL_MAP_WRITE || op->kind == MODEL_MAP_READ ||
                      op->kind == MODEL_MSYNC;
        int slot = pick_open_slot(plan, op->process, mapped);

        if (slot < 0 && mapped) {
                op->kind = MODEL_MAP;
                slot = pick_open_slot(plan, op->process, false);
        }
        if (slot < 0) {
                plan_open(plan, op);
                return;
        }
        op->handle = (unsigned)slot;
        plan_slot_details(plan, op, &plan->slots[op->process][slot]);
}

static void plan_rename(struct model_plan *plan, struct model_op *op)
{
        static const unsigned flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};

        op->flags = (int)flags[below(plan, 4)];
}

static void plan_burst(struct model_plan *plan, struct model_op *op)
{
        plan_range(plan, op, plan->sizes[op->name], cap_of(plan, op->name));
        op->len = clamp(op->len * 4, 1, BURST_MAX);
        op->flags = op->kind == MODEL_BURST_WRITE ? (int)below(plan, MODEL_BURST_MODES) : 0;
        if (op->flags == MODEL_BURST_DIRECT && plan->config->skip_direct)
                op->flags = MODEL_BURST_BUFFERED;
}

/* A value or a target: short ones mostly, and empty values. */
static int64_t pick_short(struct model_plan *plan, int64_t least, int64_t most)
{
        int64_t bound = one_in(plan, 3) ? most : 60;

        return least + (int64_t)below(plan, (uint64_t)(bound - least + 1));
}

static bool is_attr(enum model_kind kind)
{
        return kind == MODEL_SETXATTR || kind == MODEL_GETXATTR || kind == MODEL_LISTXATTR ||
               kind == MODEL_REMOVEXATTR;
}

static void plan_attr(struct model_plan *plan, struct model_op *op)
{
        static const int flags[] = {0, 0, XATTR_CREATE, XATTR_REPLACE};

        op->off = one_in(plan, 5);
        op->len = pick_short(plan, 0, VALUE_MAX);
        op->flags = op->kind == MODEL_SETXATTR ? flags[below(plan, 4)] : 0;
}

static void plan_named(struct model_plan *plan, struct model_op *op)
{
        op->name = pick_name(plan);
        op->other_name = pick_name(plan);
        if (op->kind == MODEL_TRUNCATE)
                op->len = pick_off(plan, plan->sizes[op->name], cap_of(plan, op->name));
        else if (op->kind == MODEL_RENAME)
                plan_rename(plan, op);
        else if (op->kind == MODEL_BURST_WRITE || op->kind == MODEL_BURST_APPEND)
                plan_burst(plan, op);
        else if (op->kind == MODEL_SYMLINK)
                op->len = pick_short(plan, 1, TARGET_MAX);
        else if (is_attr(op->kind))
                plan_attr(plan, op);
}

static bool is_named(enum model_kind kind)
{
        switch (kind) {
        case MODEL_TRUNCATE:
        case MODEL_RENAME:
        case MODEL_LINK:
        case MODEL_UNLINK:
        case MODEL_MOVE_DIR:
        case MODEL_STAT:
        case MODEL_LIST:
        case MODEL_CHECK:
        case MODEL_BURST_WRITE:
        case MODEL_BURST_APPEND:
        case MODEL_SYMLINK:
        case MODEL_READLINK:
        case MODEL_REMOVE_LINK:
                return true;
        default:
                return is_attr(kind);
        }
}

static void enqueue(struct model_plan *plan, const struct model_op *op)
{
        if (plan->queued == QUEUE_MAX)
                abort();
        plan->queue[plan->queued++] = *op;
}

static void enqueue_kind(struct model_plan *plan, enum model_kind kind, unsigned process)
{
        struct model_op op = {.kind = kind, .process = process};

        enqueue(plan, &op);
}

static void enqueue_remount(struct model_plan *plan)
{
        for (unsigned process = 0; process < MODEL_PROCESSES; process++)
                enqueue_kind(plan, MODEL_CLOSE_ALL, process);
        enqueue_kind(plan, MODEL_CHECK_ALL, 0);
        if (!plan->config->remount)
                return;
        enqueue_kind(plan, MODEL_REMOUNT, 0);
        enqueue_kind(plan, MODEL_CHECK_ALL, 1);
}

static void plan_random(struct model_plan *plan, struct model_op *op)
{
        memset(op, 0, sizeof(*op));
        op->kind = pick_kind(plan);
        op->process = (unsigned)below(plan, MODEL_PROCESSES);
        op->seed = model_random(&plan->rng);
        if (is_named(op->kind))
                plan_named(plan, op);
        else if (op->kind == MODEL_OPEN)
                plan_open(plan, op);
        else
                plan_slot(plan, op);
}

static bool take_queued(struct model_plan *plan, struct model_op *op)
{
        if (!plan->queued)
                return false;
        *op = plan->queue[0];
        plan->queued--;
        memmove(plan->queue, plan->queue + 1, plan->queued * sizeof(plan->queue[0]));
        return true;
}

void model_plan_next(struct model_plan *plan, struct model_op *ret_op)
{
        if (!plan->queued && !plan->ended && plan->number >= plan->config->ops) {
                plan->ended = true;
                enqueue_remount(plan);
        } else if (!plan->queued && plan->number >= plan->remount_at) {
                plan->remount_at += plan->config->remount_every;
                enqueue_remount(plan);
        }
        if (!take_queued(plan, ret_op))
                plan_random(plan, ret_op);
        ret_op->moved = plan->moved;
        ret_op->number = plan->number++;
}

bool model_plan_ended(const struct model_plan *plan)
{
        return plan->ended && !plan->queued;
}

static void learn_slot(struct model_plan *plan, const struct model_op *op,
                       const struct model_outcome *outcome)
{
        struct slot *slot = &plan->slots[op->process][op->handle];

        if (op->kind == MODEL_OPEN && outcome->ret >= 0) {
                slot->open = true;
                slot->flags = op->flags;
                slot->cap = cap_of(plan, op->name);
        }
        if (op->kind == MODEL_CLOSE)
                memset(slot, 0, sizeof(*slot));
        if (op->kind == MODEL_MAP)
                slot->mapped = outcome->ret >= 0;
        if (slot->open && outcome->size >= 0)
                slot->size = outcome->size;
}

/* Appending has no bound of its own: a file that outgrew its bound is cut. */
static void learn_growth(struct model_plan *plan, const struct model_op *op,
                         const struct model_outcome *outcome)
{
        struct slot *slot = &plan->slots[op->process][op->handle];
        struct model_op cut = *op;

        cut.flags = 0;
        if ((op->kind == MODEL_WRITE || op->kind == MODEL_PWRITE) && outcome->ret > 0 &&
            slot->cap && outcome->size / 2 > slot->cap) {
                cut.kind = MODEL_FTRUNCATE;
                cut.len = slot->cap / 2;
                enqueue(plan, &cut);
        } else if (op->kind == MODEL_BURST_ADOPT && outcome->size / 2 > cap_of(plan, op->name)) {
                cut.kind = MODEL_TRUNCATE;
                cut.len = cap_of(plan, op->name) / 2;
                enqueue(plan, &cut);
        }
}

void model_plan_learn(struct model_plan *plan, const struct model_op *op,
                      const struct model_outcome *outcome)
{
        struct model_op next = *op;

        if (op->kind == MODEL_MOVE_DIR && !outcome->ret)
                plan->moved = !plan->moved;
        if (op->kind == MODEL_CLOSE_ALL)
                memset(plan->slots[op->process], 0, sizeof(plan->slots[op->process]));
        if (is_named(op->kind) || op->kind == MODEL_OPEN || op->kind == MODEL_BURST_ADOPT)
                plan->sizes[op->name] = outcome->size < 0 ? plan->sizes[op->name] : outcome->size;
        if (!is_named(op->kind))
                learn_slot(plan, op, outcome);
        if (op->kind == MODEL_BURST_WRITE || op->kind == MODEL_BURST_APPEND) {
                next.kind = op->kind == MODEL_BURST_WRITE ? MODEL_CHECK : MODEL_BURST_ADOPT;
                enqueue(plan, &next);
        }
        learn_growth(plan, op, outcome);
}
