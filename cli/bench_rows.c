/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The rows of `bench`. Every value is a rate: so much in the time that it took, the final
 * fsync of what is written included.
 */

#include "cli/bench.h"

#include "base/fdio.h"
#include "crypto/random.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MIB = 1 << 20, BLOCK = 4096, POOL = 2 * MIB };

const struct tk_bench_text tk_bench_texts[TK_BENCH_ROWS] = {
        [TK_BENCH_SEQ_WRITE] = {"sequential_write", "sequential write", "MiB/s"},
        [TK_BENCH_SEQ_READ] = {"sequential_read", "sequential read, cold", "MiB/s"},
        [TK_BENCH_SEQ_REREAD] = {"sequential_reread", "sequential read, again", "MiB/s"},
        [TK_BENCH_RANDOM_READ] = {"random_read", "4 KiB reads at random, cold", "1/s"},
        [TK_BENCH_RANDOM_WRITE] = {"random_write", "4 KiB writes at random", "1/s"},
        [TK_BENCH_SYNCED_WRITE] = {"synced_write", "4 KiB writes, fdatasync each", "1/s"},
        [TK_BENCH_CREATE] = {"create", "create 4 KiB files", "files/s"},
        [TK_BENCH_STAT] = {"stat", "list and stat them", "files/s"},
        [TK_BENCH_READ_SMALL] = {"read_small", "read them, cold", "files/s"},
        [TK_BENCH_REMOVE] = {"remove", "remove them", "files/s"},
};

struct work {
        const struct tk_bench_side *side;
        const struct tk_bench_size *size;
        struct tk_bench_values *values;
        struct tk_fault *fault;
        uint8_t *bytes; /* random, so that no filesystem compresses them: POOL */
        uint64_t random;
        int root;
        int large;         /* the file */
        uint64_t written;  /* its bytes */
        unsigned files;    /* small ones made */
        uint64_t began_ns; /* the row at work */
};

/* Time ---------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void begin(struct work *work)
{
        work->began_ns = now_ns();
}

/* Whether the row at work goes on: its time is not up, and nobody wants the end. */
static bool goes_on(const struct work *work)
{
        return !tk_bench_stopped() &&
               now_ns() - work->began_ns < (uint64_t)work->size->row_ms * 1000000;
}

static void end(struct work *work, enum tk_bench_row row, double count)
{
        work->values->of[row] = count * 1e9 / (double)(now_ns() - work->began_ns + 1);
}

static int failed(const struct work *work, const char *what, int r)
{
        if (tk_bench_stopped())
                return -EINTR;
        return tk_fault_set(work->fault, TK_FAULT_INTERNAL, r, "bench: %s below %s failed: %s",
                            what, work->side->root, strerror(-r));
}

static int make_cold(struct work *work)
{
        int r = tk_bench_stopped() ? -EINTR : 0;

        if (work->large >= 0)
                close(work->large);
        if (work->root >= 0)
                close(work->root);
        work->large = work->root = -1;
        if (r == 0)
                r = work->side->cold(work->side->context, work->fault);
        if (r < 0)
                return r;
        work->root = open(work->side->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return work->root < 0 ? failed(work, "opening the directory", -errno) : 0;
}

static int open_large(struct work *work, int flags)
{
        work->large = openat(work->root, "large", flags | O_CLOEXEC, 0600);
        return work->large < 0 ? failed(work, "opening a file", -errno) : 0;
}

/* The large file -------------------------------------------------------------------------- */

static double in_mib(uint64_t bytes)
{
        return (double)bytes / (double)MIB;
}

static int sequential_write(struct work *work)
{
        int r = open_large(work, O_RDWR | O_CREAT | O_EXCL);

        if (r < 0)
                return r;
        begin(work);
        while (work->written < work->size->file_len && (work->written == 0 || goes_on(work))) {
                const uint8_t *from = work->bytes + work->written / MIB * 37 * BLOCK % MIB;

                r = tk_fdio_pwrite(work->large, from, MIB, (off_t)work->written);
                if (r < 0)
                        return failed(work, "writing", r);
                work->written += MIB;
        }
        if (fsync(work->large) < 0)
                return failed(work, "fsync", -errno);
        end(work, TK_BENCH_SEQ_WRITE, in_mib(work->written));
        return 0;
}

static int sequential_read(struct work *work, enum tk_bench_row row, uint8_t *buf)
{
        uint64_t done = 0;

        begin(work);
        while (done < work->written && goes_on(work)) {
                ssize_t n = tk_fdio_pread(work->large, buf, MIB, (off_t)done);

                if (n <= 0)
                        return failed(work, "reading", n < 0 ? (int)n : -EIO);
                done += (uint64_t)n;
        }
        end(work, row, in_mib(done));
        return 0;
}

static int read_twice(struct work *work)
{
        TK_CLEANUP(tk_freep) uint8_t *buf = malloc(MIB);
        int r = buf ? make_cold(work) : -ENOMEM;

        if (r == 0)
                r = open_large(work, O_RDONLY);
        if (r == 0)
                r = sequential_read(work, TK_BENCH_SEQ_READ, buf);
        if (r == 0)
                r = sequential_read(work, TK_BENCH_SEQ_REREAD, buf);
        return r;
}

static off_t random_place(struct work *work)
{
        uint64_t blocks = work->written / BLOCK;

        assert(blocks > 0);
        work->random ^= work->random << 13;
        work->random ^= work->random >> 7;
        work->random ^= work->random << 17;
        return (off_t)(work->random % blocks * BLOCK);
}

static int random_read(struct work *work)
{
        uint8_t buf[BLOCK];
        unsigned done = 0;

        begin(work);
        for (; done < work->size->random && goes_on(work); done++) {
                ssize_t n = tk_fdio_pread(work->large, buf, BLOCK, random_place(work));

                if (n < 0)
                        return failed(work, "reading", (int)n);
        }
        end(work, TK_BENCH_RANDOM_READ, done);
        return 0;
}

/* @synced: each by itself; otherwise all of them at the end. */
static int random_write(struct work *work, enum tk_bench_row row, unsigned count, bool synced)
{
        unsigned done = 0;

        begin(work);
        for (; done < count && goes_on(work); done++) {
                off_t place = random_place(work);
                int r = tk_fdio_pwrite(work->large, work->bytes + place % MIB, BLOCK, place);

                if (r == 0 && synced && fdatasync(work->large) < 0)
                        r = -errno;
                if (r < 0)
                        return failed(work, "writing", r);
        }
        if (!synced && fsync(work->large) < 0)
                return failed(work, "fsync", -errno);
        end(work, row, done);
        return 0;
}

static int large_file(struct work *work)
{
        int r = make_cold(work);

        if (r == 0)
                r = sequential_write(work);
        if (r == 0)
                r = read_twice(work);
        if (r == 0)
                r = make_cold(work);
        if (r == 0)
                r = open_large(work, O_RDWR);
        if (r == 0)
                r = random_read(work);
        if (r == 0)
                r = random_write(work, TK_BENCH_RANDOM_WRITE, work->size->random, false);
        if (r == 0)
                r = random_write(work, TK_BENCH_SYNCED_WRITE, work->size->synced, true);
        if (r == 0 && unlinkat(work->root, "large", 0) < 0)
                r = failed(work, "removing a file", -errno);
        return r;
}

/* Small files ------------------------------------------------------------------------------- */

static const char *name_of(unsigned number, char name[32])
{
        snprintf(name, 32, "file-%u", number);
        return name;
}

static int create_one(const struct work *work, unsigned number)
{
        char name[32];
        TK_AUTOCLOSE int fd = openat(work->root, name_of(number, name),
                                     O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        if (fd < 0)
                return -errno;
        return tk_fdio_pwrite(fd, work->bytes + (size_t)number % 256 * BLOCK, BLOCK, 0);
}

static int create(struct work *work)
{
        begin(work);
        for (; work->files < work->size->files && (work->files == 0 || goes_on(work));
             work->files++) {
                int r = create_one(work, work->files);

                if (r < 0)
                        return failed(work, "creating a file", r);
        }
        end(work, TK_BENCH_CREATE, work->files);
        return 0;
}

static int list_and_stat(struct work *work)
{
        int fd = openat(work->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;
        unsigned found = 0;
        struct stat st;
        int r = 0;

        if (!dir) {
                r = -errno;
                if (fd >= 0)
                        close(fd);
                return failed(work, "listing", r);
        }
        begin(work);
        while (r == 0 && (entry = readdir(dir))) {
                if (entry->d_name[0] == '.')
                        continue;
                if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        r = -errno;
                found++;
        }
        end(work, TK_BENCH_STAT, found);
        closedir(dir);
        if (r == 0 && found != work->files)
                r = -EIO;
        return r < 0 ? failed(work, "listing", r) : 0;
}

static int read_small(struct work *work)
{
        uint8_t buf[BLOCK];
        unsigned done = 0;
        char name[32];

        begin(work);
        for (; done < work->files && goes_on(work); done++) {
                TK_AUTOCLOSE int fd = openat(work->root, name_of(done, name), O_RDONLY | O_CLOEXEC);
                ssize_t n = fd < 0 ? -errno : tk_fdio_pread(fd, buf, BLOCK, 0);

                if (n != BLOCK)
                        return failed(work, "reading a file", n < 0 ? (int)n : -EIO);
        }
        end(work, TK_BENCH_READ_SMALL, done);
        return 0;
}

static int remove_small(struct work *work)
{
        char name[32];

        begin(work);
        for (unsigned i = 0; i < work->files; i++) {
                if (tk_bench_stopped())
                        return -EINTR;
                if (unlinkat(work->root, name_of(i, name), 0) < 0)
                        return failed(work, "removing a file", -errno);
        }
        end(work, TK_BENCH_REMOVE, work->files);
        return 0;
}

static int small_files(struct work *work)
{
        int r = create(work);

        if (r == 0)
                r = make_cold(work);
        if (r == 0)
                r = list_and_stat(work);
        if (r == 0)
                r = make_cold(work);
        if (r == 0)
                r = read_small(work);
        if (r == 0)
                r = remove_small(work);
        return r;
}

int tk_bench_run(const struct tk_bench_side *side, const struct tk_bench_size *size,
                 struct tk_bench_values *ret_values, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) uint8_t *bytes = malloc(POOL);
        struct work work = {.side = side,
                            .size = size,
                            .values = ret_values,
                            .fault = fault,
                            .bytes = bytes,
                            .random = 88172645463325252,
                            .root = -1,
                            .large = -1};
        int r = bytes ? tk_random_bytes(bytes, POOL) : -ENOMEM;

        if (r == 0)
                r = large_file(&work);
        if (r == 0)
                r = small_files(&work);
        if (work.large >= 0)
                close(work.large);
        if (work.root >= 0)
                close(work.root);
        if (r == 0 && tk_bench_stopped())
                r = -EINTR;
        return r;
}
