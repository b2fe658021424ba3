/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One process's part: it holds descriptors and mappings of both sides and does
 * each operation on A, then on B, and compares what came back.
 *
 * Side B gets no O_DIRECT or O_SYNC: it stands for the result, not the way there.
 */

#include "base/cleanup.h"
#include "tests/model/model.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct handle {
        bool open;
        int fd[MODEL_SIDES];
        int flags;
        uint8_t *map[MODEL_SIDES]; /* NULL: not mapped */
        size_t map_len;
        int64_t map_off;
};

struct model_worker {
        const struct model_config *config;
        unsigned process;
        struct handle handles[MODEL_HANDLES];
        uint8_t *buf[MODEL_SIDES];
};

/* A mapping that can't be read is a difference like any other. */
static sigjmp_buf bus_jump;

static void on_bus(int sig)
{
        siglongjmp(bus_jump, sig);
}

struct model_worker *model_worker_new(const struct model_config *config, unsigned process)
{
        struct model_worker *worker = calloc(1, sizeof(*worker));

        if (!worker)
                abort();
        worker->config = config;
        worker->process = process;
        for (int side = 0; side < MODEL_SIDES; side++) {
                worker->buf[side] = aligned_alloc(MODEL_BLOCK, MODEL_BUFFER);
                if (!worker->buf[side])
                        abort();
        }
        signal(SIGBUS, on_bus);
        return worker;
}

void model_worker_free(struct model_worker *worker)
{
        for (int side = 0; side < MODEL_SIDES; side++)
                free(worker->buf[side]);
        free(worker);
}

static int64_t result(int64_t r)
{
        return r < 0 ? -errno : r;
}

static int64_t size_of(const struct handle *handle)
{
        struct stat st;

        return fstat(handle->fd[MODEL_B], &st) < 0 ? 0 : st.st_size;
}

static void do_open(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t ret[MODEL_SIDES];

        for (int side = 0; side < MODEL_SIDES; side++) {
                int flags = side == MODEL_A ? op->flags : op->flags & ~(O_DIRECT | O_SYNC);
                char path[MODEL_PATH_MAX];

                model_path(worker->config, side, op->name, op->moved, path);
                handle->fd[side] = open(path, flags | O_CLOEXEC, 0644);
                ret[side] = handle->fd[side] < 0 ? -errno : 0;
        }
        handle->flags = op->flags;
        handle->open = !ret[MODEL_A] && !ret[MODEL_B];
        outcome->ret = ret[MODEL_B];
        model_compare_ret(outcome, ret[MODEL_A], ret[MODEL_B]);
        if (handle->open)
                outcome->size = size_of(handle);
}

static void unmap(struct handle *handle)
{
        for (int side = 0; side < MODEL_SIDES; side++) {
                if (handle->map[side])
                        munmap(handle->map[side], handle->map_len);
                handle->map[side] = NULL;
        }
}

/* Mapped bytes that lie inside the file: beyond, they are nobody's business. */
static int64_t mapped_len(const struct handle *handle)
{
        int64_t len = size_of(handle) - handle->map_off;

        if (!handle->map[MODEL_A] || len <= 0)
                return 0;
        return len < (int64_t)handle->map_len ? len : (int64_t)handle->map_len;
}

/* The part of the mapping that an operation touches; an empty one has no offset. */
static int64_t mapped_part(const struct handle *handle, const struct model_op *op, int64_t *ret_off)
{
        int64_t usable = mapped_len(handle);

        if (!usable)
                return 0;
        *ret_off = op->off % usable;
        return op->len < usable - *ret_off ? op->len : usable - *ret_off;
}

static void do_map(struct model_worker *worker, const struct model_op *op,
                   struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int prot = (handle->flags & O_ACCMODE) == O_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE;
        int64_t ret[MODEL_SIDES] = {0};

        unmap(handle);
        handle->map_off = op->off - op->off % MODEL_BLOCK;
        handle->map_len = (size_t)(op->len + MODEL_BLOCK - op->len % MODEL_BLOCK);
        for (int side = 0; side < MODEL_SIDES; side++) {
                void *map = mmap(NULL, handle->map_len, prot, MAP_SHARED, handle->fd[side],
                                 handle->map_off);

                if (map == MAP_FAILED)
                        ret[side] = -errno;
                else
                        handle->map[side] = map;
        }
        outcome->ret = ret[MODEL_B];
        model_compare_ret(outcome, ret[MODEL_A], ret[MODEL_B]);
        if (ret[MODEL_A] || ret[MODEL_B])
                unmap(handle);
}

/* Returns the file offset of the first byte written. */
static int64_t write_map(struct model_worker *worker, const struct model_op *op)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t off = 0;
        int64_t len = mapped_part(handle, op, &off);

        if (!len || (handle->flags & O_ACCMODE) == O_RDONLY)
                return -ENXIO;
        model_fill(op->seed, worker->buf[MODEL_A], (size_t)len);
        memcpy(handle->map[MODEL_A] + off, worker->buf[MODEL_A], (size_t)len);
        memcpy(handle->map[MODEL_B] + off, worker->buf[MODEL_A], (size_t)len);
        return handle->map_off + off;
}

static void do_map_write(struct model_worker *worker, const struct model_op *op,
                         struct model_outcome *outcome)
{
        outcome->ret = write_map(worker, op);
}

static void do_map_read(struct model_worker *worker, const struct model_op *op,
                        struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t off = 0;
        int64_t len = mapped_part(handle, op, &off);

        outcome->ret = len;
        if (len)
                model_compare_bytes(outcome, handle->map[MODEL_A] + off, handle->map[MODEL_B] + off,
                                    (size_t)len, handle->map_off + off);
}

static void do_msync(struct model_worker *worker, const struct model_op *op,
                     struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];

        if (handle->map[MODEL_A])
                model_compare_ret(outcome,
                                  result(msync(handle->map[MODEL_A], handle->map_len, op->flags)),
                                  0);
}

static void close_fds(struct handle *handle, struct model_outcome *outcome)
{
        model_compare_ret(outcome, result(close(handle->fd[MODEL_A])),
                          result(close(handle->fd[MODEL_B])));
        handle->open = false;
}

/* A mapping outlives its descriptor: one last write goes through it. */
static void do_close(struct model_worker *worker, const struct model_op *op,
                     struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t off = 0;
        int64_t len = mapped_part(handle, op, &off);

        close_fds(handle, outcome);
        if (len && (handle->flags & O_ACCMODE) != O_RDONLY)
                for (int side = 0; side < MODEL_SIDES; side++)
                        handle->map[side][off] = (uint8_t)op->seed;
        unmap(handle);
}

static void do_close_all(struct model_worker *worker, const struct model_op *op,
                         struct model_outcome *outcome)
{
        (void)op;
        for (unsigned i = 0; i < MODEL_HANDLES; i++) {
                if (!worker->handles[i].open)
                        continue;
                unmap(&worker->handles[i]);
                close_fds(&worker->handles[i], outcome);
        }
}

/* Write at an offset, or with op->off == -1 at the descriptor's position. */
static int64_t write_side(int fd, const struct model_op *op, const uint8_t *buf)
{
        size_t len = (size_t)op->len;

        return result(op->off < 0 ? write(fd, buf, len) : pwrite(fd, buf, len, op->off));
}

static void do_write(struct model_worker *worker, const struct model_op *op,
                     struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t ret_a;

        model_fill(op->seed, worker->buf[MODEL_A], (size_t)op->len);
        ret_a = write_side(handle->fd[MODEL_A], op, worker->buf[MODEL_A]);
        outcome->ret = write_side(handle->fd[MODEL_B], op, worker->buf[MODEL_A]);
        model_compare_ret(outcome, ret_a, outcome->ret);
}

static int64_t read_side(int fd, const struct model_op *op, uint8_t *buf)
{
        size_t len = (size_t)op->len;

        return result(op->off < 0 ? read(fd, buf, len) : pread(fd, buf, len, op->off));
}

/* Where a read began, for the message. */
static int64_t read_start(int fd, const struct model_op *op, int64_t count)
{
        return op->off < 0 ? lseek(fd, 0, SEEK_CUR) - count : op->off;
}

static void do_read(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t ret_a = read_side(handle->fd[MODEL_A], op, worker->buf[MODEL_A]);

        outcome->ret = read_side(handle->fd[MODEL_B], op, worker->buf[MODEL_B]);
        model_compare_ret(outcome, ret_a, outcome->ret);
        if (!outcome->differs && ret_a > 0)
                model_compare_bytes(outcome, worker->buf[MODEL_A], worker->buf[MODEL_B],
                                    (size_t)ret_a,
                                    read_start(handle->fd[MODEL_B], op, outcome->ret));
}

static void do_seek(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t ret_a = result(lseek(handle->fd[MODEL_A], op->off, op->flags));

        outcome->ret = result(lseek(handle->fd[MODEL_B], op->off, op->flags));
        model_compare_ret(outcome, ret_a, outcome->ret);
}

/* Side B, which may have been opened write-only or for append, opened again as needed. */
static int reopen_b(const struct handle *handle)
{
        char path[64];

        snprintf(path, sizeof(path), "/proc/self/fd/%d", handle->fd[MODEL_B]);
        return open(path, O_RDWR | O_CLOEXEC);
}

/* Whether all bytes of [from, to) are zero on side B. */
static bool zero_on_b(struct model_worker *worker, const struct handle *handle, int64_t from,
                      int64_t to)
{
        TK_AUTOCLOSE int fd = reopen_b(handle);

        while (from < to) {
                size_t len = to - from < MODEL_BUFFER ? (size_t)(to - from) : MODEL_BUFFER;
                ssize_t n = pread(fd, worker->buf[MODEL_B], len, from);

                if (n <= 0)
                        return false;
                for (ssize_t i = 0; i < n; i++)
                        if (worker->buf[MODEL_B][i])
                                return false;
                from += n;
        }
        return true;
}

static void check_data(struct model_worker *worker, const struct handle *handle, int64_t off,
                       int64_t size, struct model_outcome *outcome)
{
        int64_t data = result(lseek(handle->fd[MODEL_A], off, SEEK_DATA));
        int64_t end = data == -ENXIO ? size : data;

        if (off >= size)
                model_compare_ret(outcome, data, -ENXIO);
        else if (data != -ENXIO && (data < off || data >= size))
                model_differ(outcome, "SEEK_DATA from %lld of %lld: %lld", (long long)off,
                             (long long)size, (long long)data);
        else if (!zero_on_b(worker, handle, off, end))
                model_differ(outcome, "SEEK_DATA from %lld of %lld skips data before %lld",
                             (long long)off, (long long)size, (long long)end);
}

static void check_hole(struct model_worker *worker, const struct handle *handle, int64_t off,
                       int64_t size, struct model_outcome *outcome)
{
        int64_t hole = result(lseek(handle->fd[MODEL_A], off, SEEK_HOLE));

        if (off >= size)
                model_compare_ret(outcome, hole, -ENXIO);
        else if (hole < off || hole > size)
                model_differ(outcome, "SEEK_HOLE from %lld of %lld: %lld", (long long)off,
                             (long long)size, (long long)hole);
        else if (hole < size && !zero_on_b(worker, handle, hole, hole + 1))
                model_differ(outcome, "SEEK_HOLE from %lld of %lld finds %lld, which has data",
                             (long long)off, (long long)size, (long long)hole);
}

static void do_seek_data(struct model_worker *worker, const struct model_op *op,
                         struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t at[MODEL_SIDES];
        int64_t size = size_of(handle);

        for (int side = 0; side < MODEL_SIDES; side++)
                at[side] = lseek(handle->fd[side], 0, SEEK_CUR);
        check_data(worker, handle, op->off, size, outcome);
        check_hole(worker, handle, op->off, size, outcome);
        for (int side = 0; side < MODEL_SIDES; side++)
                lseek(handle->fd[side], at[side], SEEK_SET);
}

static void do_truncate(struct model_worker *worker, const struct model_op *op,
                        struct model_outcome *outcome)
{
        char path[MODEL_SIDES][MODEL_PATH_MAX];
        int64_t ret_a;

        for (int side = 0; side < MODEL_SIDES; side++)
                model_path(worker->config, side, op->name, op->moved, path[side]);
        ret_a = result(truncate(path[MODEL_A], op->len));
        outcome->ret = result(truncate(path[MODEL_B], op->len));
        if (!outcome->ret)
                outcome->size = op->len;
        model_compare_ret(outcome, ret_a, outcome->ret);
}

static void do_ftruncate(struct model_worker *worker, const struct model_op *op,
                         struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t ret_a = result(ftruncate(handle->fd[MODEL_A], op->len));

        outcome->ret = result(ftruncate(handle->fd[MODEL_B], op->len));
        model_compare_ret(outcome, ret_a, outcome->ret);
}

/* tmpfs can't zero a range: zeros are written instead. */
static int64_t zero_range_b(struct model_worker *worker, const struct handle *handle,
                            const struct model_op *op)
{
        TK_AUTOCLOSE int fd = reopen_b(handle);
        int64_t end = op->off + op->len;

        if (op->flags & FALLOC_FL_KEEP_SIZE && end > size_of(handle))
                end = size_of(handle);
        memset(worker->buf[MODEL_B], 0, MODEL_BUFFER);
        for (int64_t off = op->off; off < end;) {
                size_t len = end - off < MODEL_BUFFER ? (size_t)(end - off) : MODEL_BUFFER;
                ssize_t n = pwrite(fd, worker->buf[MODEL_B], len, off);

                if (n < 0)
                        return -errno;
                off += n;
        }
        return 0;
}

static void do_fallocate(struct model_worker *worker, const struct model_op *op,
                         struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        int64_t ret_a = result(fallocate(handle->fd[MODEL_A], op->flags, op->off, op->len));

        outcome->ret = result(fallocate(handle->fd[MODEL_B], op->flags, op->off, op->len));
        if (outcome->ret == -EOPNOTSUPP && op->flags & FALLOC_FL_ZERO_RANGE)
                outcome->ret = zero_range_b(worker, handle, op);
        model_compare_ret(outcome, ret_a, outcome->ret);
}

/* As much as there is: one call may copy less than it was asked. */
static int64_t copy_all(int from, int to, const struct model_op *op)
{
        off_t off_in = op->off;
        off_t off_out = op->other_off;
        int64_t done = 0;

        while (done < op->len) {
                ssize_t n =
                        copy_file_range(from, &off_in, to, &off_out, (size_t)(op->len - done), 0);

                if (n < 0)
                        return -errno;
                if (!n)
                        break;
                done += n;
        }
        return done;
}

static void do_copy_range(struct model_worker *worker, const struct model_op *op,
                          struct model_outcome *outcome)
{
        struct handle *from = &worker->handles[op->other_handle];
        struct handle *to = &worker->handles[op->handle];
        int64_t ret_a = copy_all(from->fd[MODEL_A], to->fd[MODEL_A], op);

        outcome->ret = copy_all(from->fd[MODEL_B], to->fd[MODEL_B], op);
        model_compare_ret(outcome, ret_a, outcome->ret);
}

static void do_sync(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        int fd = worker->handles[op->handle].fd[MODEL_A];

        model_compare_ret(outcome, result(op->kind == MODEL_FSYNC ? fsync(fd) : fdatasync(fd)), 0);
        if (op->kind == MODEL_DROP)
                model_compare_ret(outcome, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static int64_t do_name_side(const struct model_config *config, int side, const struct model_op *op)
{
        char path[MODEL_PATH_MAX];
        char other[MODEL_PATH_MAX];

        model_path(config, side, op->name, op->moved, path);
        model_path(config, side, op->other_name, op->moved, other);
        if (op->kind == MODEL_RENAME)
                return result(renameat2(AT_FDCWD, path, AT_FDCWD, other, (unsigned)op->flags));
        if (op->kind == MODEL_LINK)
                return result(link(path, other));
        if (op->kind == MODEL_UNLINK)
                return result(unlink(path));
        model_moving_dir(config, side, op->moved, path);
        model_moving_dir(config, side, !op->moved, other);
        return result(rename(path, other));
}

static void do_name(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        int64_t ret_a = do_name_side(worker->config, MODEL_A, op);

        outcome->ret = do_name_side(worker->config, MODEL_B, op);
        model_compare_ret(outcome, ret_a, outcome->ret);
}

static void do_stat(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        char path[MODEL_SIDES][MODEL_PATH_MAX];

        for (int side = 0; side < MODEL_SIDES; side++)
                model_path(worker->config, side, op->name, op->moved, path[side]);
        model_compare_stat(path[MODEL_A], path[MODEL_B], outcome);
}

static void do_fstat(struct model_worker *worker, const struct model_op *op,
                     struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];
        struct stat st[MODEL_SIDES];

        for (int side = 0; side < MODEL_SIDES; side++)
                if (fstat(handle->fd[side], &st[side]) < 0)
                        model_differ(outcome, "fstat on side %d: %m", side);
        if (st[MODEL_A].st_size != st[MODEL_B].st_size)
                model_differ(outcome, "size: A %lld, B %lld", (long long)st[MODEL_A].st_size,
                             (long long)st[MODEL_B].st_size);
        if (st[MODEL_A].st_nlink != st[MODEL_B].st_nlink)
                model_differ(outcome, "links: A %lu, B %lu", (unsigned long)st[MODEL_A].st_nlink,
                             (unsigned long)st[MODEL_B].st_nlink);
}

static void do_check(struct model_worker *worker, const struct model_op *op,
                     struct model_outcome *outcome)
{
        if (op->kind == MODEL_CHECK)
                model_compare_file(worker->config, op, op->name, outcome);
        else if (op->kind == MODEL_CHECK_ALL)
                model_compare_tree(worker->config, op, outcome);
        else
                model_compare_lists(worker->config, op, outcome);
}

static void do_attr(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        if (op->kind == MODEL_LISTXATTR)
                model_list_attrs(worker->config, op, outcome);
        else
                model_attr(worker->config, op, outcome);
}

static void do_link(struct model_worker *worker, const struct model_op *op,
                    struct model_outcome *outcome)
{
        model_link(worker->config, op, outcome);
}

static void do_burst(struct model_worker *worker, const struct model_op *op,
                     struct model_outcome *outcome)
{
        if (op->kind == MODEL_BURST_WRITE)
                model_burst_write(worker->config, worker->process, op, outcome);
        else if (op->kind == MODEL_BURST_APPEND)
                model_burst_append(worker->config, worker->process, op, outcome);
        else
                model_burst_adopt(worker->config, op, outcome);
}

typedef void (*do_fn)(struct model_worker *, const struct model_op *, struct model_outcome *);

static const struct {
        do_fn fn;
        bool uses_handle;
} table[MODEL_KINDS] = {
        [MODEL_OPEN] = {do_open, false},
        [MODEL_CLOSE] = {do_close, true},
        [MODEL_CLOSE_ALL] = {do_close_all, false},
        [MODEL_PWRITE] = {do_write, true},
        [MODEL_WRITE] = {do_write, true},
        [MODEL_PREAD] = {do_read, true},
        [MODEL_READ] = {do_read, true},
        [MODEL_SEEK] = {do_seek, true},
        [MODEL_SEEK_DATA] = {do_seek_data, true},
        [MODEL_TRUNCATE] = {do_truncate, false},
        [MODEL_FTRUNCATE] = {do_ftruncate, true},
        [MODEL_FALLOCATE] = {do_fallocate, true},
        [MODEL_COPY_RANGE] = {do_copy_range, true},
        [MODEL_MAP] = {do_map, true},
        [MODEL_MAP_WRITE] = {do_map_write, true},
        [MODEL_MAP_READ] = {do_map_read, true},
        [MODEL_MSYNC] = {do_msync, true},
        [MODEL_FSYNC] = {do_sync, true},
        [MODEL_FDATASYNC] = {do_sync, true},
        [MODEL_DROP] = {do_sync, true},
        [MODEL_RENAME] = {do_name, false},
        [MODEL_LINK] = {do_name, false},
        [MODEL_UNLINK] = {do_name, false},
        [MODEL_MOVE_DIR] = {do_name, false},
        [MODEL_STAT] = {do_stat, false},
        [MODEL_FSTAT] = {do_fstat, true},
        [MODEL_LIST] = {do_check, false},
        [MODEL_SETXATTR] = {do_attr, false},
        [MODEL_GETXATTR] = {do_attr, false},
        [MODEL_LISTXATTR] = {do_attr, false},
        [MODEL_REMOVEXATTR] = {do_attr, false},
        [MODEL_SYMLINK] = {do_link, false},
        [MODEL_READLINK] = {do_link, false},
        [MODEL_REMOVE_LINK] = {do_link, false},
        [MODEL_CHECK] = {do_check, false},
        [MODEL_CHECK_ALL] = {do_check, false},
        [MODEL_BURST_WRITE] = {do_burst, false},
        [MODEL_BURST_APPEND] = {do_burst, false},
        [MODEL_BURST_ADOPT] = {do_burst, false},
};

void model_worker_run(struct model_worker *worker, const struct model_op *op,
                      struct model_outcome *outcome)
{
        struct handle *handle = &worker->handles[op->handle];

        memset(outcome, 0, sizeof(*outcome));
        outcome->size = -1;
        if (sigsetjmp(bus_jump, 1))
                model_differ(outcome, "SIGBUS on a mapping of side A");
        else
                table[op->kind].fn(worker, op, outcome);
        if (table[op->kind].uses_handle && handle->open)
                outcome->size = size_of(handle);
}
