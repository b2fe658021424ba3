/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Bursts: both processes work on one file at the same time.
 *
 * Writes go to disjoint ranges, cut without regard to blocks, so that the result
 * is the same whoever comes first. Appended records come in any order, but whole:
 * they are checked on side A and taken over to side B as they lie.
 */

#include "base/cleanup.h"
#include "base/fdio.h"
#include "tests/model/model.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { STRIPE_MAX = 12000, RECORDS = 6, RECORD_MAX = 9000 };

struct record {
        uint32_t process;
        uint32_t index;
        uint32_t len; /* with this header */
};

/* One side of a write burst, as one process sees it. */
struct target {
        int fd;
        uint8_t *map; /* mode MODEL_BURST_MAPPED only */
        int64_t map_len;
};

static int open_side(const struct model_config *config, const struct model_op *op, int side,
                     int flags)
{
        char path[MODEL_PATH_MAX];

        model_path(config, side, op->name, op->moved, path);
        if (side == MODEL_B)
                flags &= ~O_DIRECT;
        return open(path, flags | O_CLOEXEC, 0644);
}

static int64_t size_of_fd(int fd)
{
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : st.st_size;
}

static int target_open(const struct model_config *config, const struct model_op *op, int side,
                       struct target *target)
{
        int flags = O_RDWR | O_CREAT | (op->flags == MODEL_BURST_DIRECT ? O_DIRECT : 0);

        target->map = NULL;
        target->fd = open_side(config, op, side, flags);
        if (target->fd < 0)
                return -errno;
        target->map_len = size_of_fd(target->fd);
        if (op->flags != MODEL_BURST_MAPPED || !target->map_len)
                return 0;
        target->map = mmap(NULL, (size_t)target->map_len, PROT_READ | PROT_WRITE, MAP_SHARED,
                           target->fd, 0);
        return target->map == MAP_FAILED ? -errno : 0;
}

static int target_close(struct target *target)
{
        if (target->map)
                munmap(target->map, (size_t)target->map_len);
        return close(target->fd) < 0 ? -errno : 0;
}

/* Write one stripe and, of the same bytes, read it back. */
static int target_write(const struct target *target, const uint8_t *bytes, uint8_t *back,
                        int64_t len, int64_t off)
{
        ssize_t n;

        if (target->map) {
                memcpy(target->map + off, bytes, (size_t)len);
                memcpy(back, target->map + off, (size_t)len);
                return 0;
        }
        n = pwrite(target->fd, bytes, (size_t)len, off);
        if (n != len)
                return n < 0 ? -errno : -EIO;
        n = tk_fdio_pread(target->fd, back, (size_t)len, off);
        return n == len ? 0 : n < 0 ? (int)n : -ENODATA;
}

static void write_stripe(struct target targets[MODEL_SIDES], uint64_t seed, int64_t len,
                         int64_t off, struct model_outcome *outcome)
{
        static uint8_t bytes[STRIPE_MAX] __attribute__((aligned(4096)));
        static uint8_t back[STRIPE_MAX] __attribute__((aligned(4096)));

        model_fill(seed, bytes, (size_t)len);
        for (int side = 0; side < MODEL_SIDES; side++) {
                int r = target_write(&targets[side], bytes, back, len, off);

                if (r)
                        model_differ(outcome, "burst: side %d, %lld bytes at %lld: %s", side,
                                     (long long)len, (long long)off, strerror(-r));
                else
                        model_compare_bytes(outcome, back, bytes, (size_t)len, off);
        }
}

static void write_stripes(struct target targets[MODEL_SIDES], unsigned process,
                          const struct model_op *op, struct model_outcome *outcome)
{
        uint64_t state = op->seed;
        int64_t end = op->off + op->len;

        if (op->flags == MODEL_BURST_MAPPED && end > targets[MODEL_B].map_len)
                end = targets[MODEL_B].map_len;
        for (int64_t off = op->off; off < end && !outcome->differs;) {
                int64_t len = 1 + (int64_t)model_random_below(&state, STRIPE_MAX);
                uint64_t mine = model_random(&state);

                if (len > end - off)
                        len = end - off;
                if (mine % MODEL_PROCESSES == process)
                        write_stripe(targets, mine, len, off, outcome);
                off += len;
        }
}

void model_burst_write(const struct model_config *config, unsigned process,
                       const struct model_op *op, struct model_outcome *outcome)
{
        struct target targets[MODEL_SIDES] = {{.fd = -1}, {.fd = -1}};
        int ret[MODEL_SIDES];

        for (int side = 0; side < MODEL_SIDES; side++)
                ret[side] = target_open(config, op, side, &targets[side]);
        model_compare_ret(outcome, ret[MODEL_A], ret[MODEL_B]);
        if (!ret[MODEL_A] && !ret[MODEL_B])
                write_stripes(targets, process, op, outcome);
        for (int side = 0; side < MODEL_SIDES; side++) {
                int r = targets[side].fd < 0 ? 0 : target_close(&targets[side]);

                if (r)
                        model_differ(outcome, "burst: close on side %d: %s", side, strerror(-r));
        }
}

static void make_record(uint64_t seed, unsigned process, unsigned index, uint8_t buf[RECORD_MAX],
                        struct record *ret_head)
{
        uint64_t state = seed + (uint64_t)process * RECORDS + index;

        ret_head->process = process;
        ret_head->index = index;
        ret_head->len = (uint32_t)(sizeof(*ret_head) +
                                   model_random_below(&state, RECORD_MAX - sizeof(*ret_head)));
        model_fill(state, buf, ret_head->len);
        memcpy(buf, ret_head, sizeof(*ret_head));
}

/* Side B stays as it is: model_burst_adopt brings it up. */
void model_burst_append(const struct model_config *config, unsigned process,
                        const struct model_op *op, struct model_outcome *outcome)
{
        TK_AUTOCLOSE int fd = open_side(config, op, MODEL_A, O_WRONLY | O_CREAT | O_APPEND);
        uint8_t buf[RECORD_MAX];

        if (fd < 0)
                model_differ(outcome, "burst: open for append: %m");
        for (unsigned i = 0; i < RECORDS && !outcome->differs; i++) {
                struct record head;
                ssize_t n;

                make_record(op->seed, process, i, buf, &head);
                n = write(fd, buf, head.len);
                if (n != (ssize_t)head.len)
                        model_differ(outcome, "burst: append of %u bytes: %zd (%m)", head.len, n);
        }
}

/* One record at the front of @buf; returns its length, 0 if it is none of ours. */
static size_t check_record(const struct model_op *op, unsigned next[MODEL_PROCESSES],
                           const uint8_t *buf, size_t len)
{
        uint8_t expected[RECORD_MAX];
        struct record head;
        struct record made;

        if (len < sizeof(head))
                return 0;
        memcpy(&head, buf, sizeof(head));
        if (head.process >= MODEL_PROCESSES || head.index != next[head.process] ||
            head.index >= RECORDS)
                return 0;
        make_record(op->seed, head.process, head.index, expected, &made);
        if (made.len > len || memcmp(buf, expected, made.len) != 0)
                return 0;
        next[head.process]++;
        return made.len;
}

static void check_records(const struct model_op *op, const uint8_t *buf, size_t len, int64_t start,
                          struct model_outcome *outcome)
{
        unsigned next[MODEL_PROCESSES] = {0};

        for (size_t off = 0; off < len;) {
                size_t n = check_record(op, next, buf + off, len - off);

                if (!n) {
                        model_differ(outcome, "burst: no whole record at offset %lld plus %zu",
                                     (long long)start, off);
                        return;
                }
                off += n;
        }
        for (unsigned i = 0; i < MODEL_PROCESSES; i++)
                if (next[i] != RECORDS)
                        model_differ(outcome, "burst: %u of %d records of process %u", next[i],
                                     RECORDS, i);
}

void model_burst_adopt(const struct model_config *config, const struct model_op *op,
                       struct model_outcome *outcome)
{
        static uint8_t buf[MODEL_PROCESSES * RECORDS * RECORD_MAX];
        TK_AUTOCLOSE int fd_a = open_side(config, op, MODEL_A, O_RDONLY);
        TK_AUTOCLOSE int fd_b = open_side(config, op, MODEL_B, O_RDWR | O_CREAT);
        int64_t start = size_of_fd(fd_b);
        int64_t added = size_of_fd(fd_a) - start;
        ssize_t n;
        int r;

        if (added < 0 || (size_t)added > sizeof(buf)) {
                model_differ(outcome, "burst: the appends added %lld bytes", (long long)added);
                return;
        }
        n = tk_fdio_pread(fd_a, buf, (size_t)added, start);
        if (n != added) {
                model_differ(outcome, "burst: read of %lld bytes: %zd", (long long)added, n);
                return;
        }
        check_records(op, buf, (size_t)n, start, outcome);
        r = tk_fdio_pwrite(fd_b, buf, (size_t)n, start);
        if (r)
                model_differ(outcome, "burst: take over: %s", strerror(-r));
        outcome->size = start + added;
}
