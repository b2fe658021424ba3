/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Content without FUSE: random operations against an array of bytes, and what is left
 * of a file when the backing filesystem fails in the middle of a change.
 */

#include "support_fs.h"

#include "support_backing.h"

#include "base/fdio.h"
#include "fs/content.h"
#include "fs/format.h"
#include "fs/iobatch.h"
#include <linux/falloc.h>

/*
 * fs/content.c with a seam: what else happens just before this thread's next write holds its
 * range, and just before it goes to the backing file.
 */
static _Thread_local void (*before_hold)(void);
static _Thread_local void (*before_batch)(void);

static void happen(void (**what)(void))
{
        void (*now)(void) = *what;

        *what = NULL;
        if (now)
                now();
}

static void noted_hold(struct tk_rangelock *ranges, struct tk_range *range, uint64_t first,
                       uint64_t last, bool exclusive)
{
        if (exclusive)
                happen(&before_hold);
        tk_range_hold(ranges, range, first, last, exclusive);
}

static int noted_batch(struct tk_iobatch *batch, int fd, uint64_t base)
{
        happen(&before_batch);
        return tk_iobatch_write(batch, fd, base);
}

#define tk_range_hold noted_hold
#define tk_iobatch_write noted_batch
#include "fs/content.c" /* NOLINT(bugprone-suspicious-include) */
#undef tk_range_hold
#undef tk_iobatch_write

enum { MODEL_MAX = 3 * (uint64_t)TK_GROUP_LEN + 12345 };

static struct tk_test_fs test;

/* A file and what it should hold. */
static struct {
        struct tk_inode *inode;
        struct tk_openfile *file;
        uint8_t *bytes; /* MODEL_MAX; zeros from the size on */
        uint64_t size;
} model;

static uint8_t *buffer; /* a request's bytes */
static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state % limit;
}

static int enter(void **state)
{
        int r = tk_test_dir_enter(state);

        faulty_reset();
        memset(&test, 0, sizeof(test));
        memset(&model, 0, sizeof(model));
        model.bytes = calloc(1, MODEL_MAX);
        buffer = malloc(TK_REQUEST_MAX);
        return model.bytes && buffer ? r : -1;
}

static int leave(void **state)
{
        faulty_reset();
        free(model.bytes);
        free(buffer);
        return tk_test_dir_leave(state);
}

static void start(enum tk_dek_wrap dek_wrap)
{
        test.dek_wrap = dek_wrap;
        tk_test_fs_start(&test);
        model.file = tk_test_create(&test, "f", &model.inode);
        memset(model.bytes, 0, MODEL_MAX);
        model.size = 0;
}

static void finish(void)
{
        faulty_reset();
        tk_test_close(&test, model.file, model.inode);
        tk_test_fs_stop(&test);
}

/* Close and open again: what the backing file says by itself. */
static void reopen(void)
{
        tk_openfile_put(test.fs, model.file);
        assert_int_equal(tk_openfile_get(test.fs, model.inode, true, &model.file), 0);
}

static void check_range(uint64_t off, size_t len)
{
        const uint8_t *data = NULL;
        ssize_t n = tk_content_read(test.fs, model.file, off, len, &data);
        uint64_t expected = off >= model.size ? 0 : model.size - off;

        if (expected > len)
                expected = len;
        assert_int_equal(n, expected);
        if (n > 0)
                assert_memory_equal(data, model.bytes + off, (size_t)n);
}

static void check_all(void)
{
        assert_int_equal(model.file->size, model.size);
        for (uint64_t off = 0; off <= model.size; off += TK_REQUEST_MAX)
                check_range(off, TK_REQUEST_MAX);
}

static void model_zero(uint64_t off, uint64_t end)
{
        if (off < end)
                memset(model.bytes + off, 0, end - off);
}

static int do_write(uint64_t off, size_t len)
{
        int r;

        for (size_t i = 0; i < len; i++)
                buffer[i] = (uint8_t)(off + i * 7 + random_state);
        if (len > 0)
                memcpy(model.bytes + off, buffer, len);
        r = tk_content_write(test.fs, model.file, off, buffer, len);
        if (r == 0 && len > 0 && off + len > model.size)
                model.size = off + len;
        return r;
}

static int do_truncate(uint64_t size)
{
        int r = tk_content_truncate(test.fs, model.file, size);

        if (r == 0) {
                model_zero(size, model.size);
                model.size = size;
        }
        return r;
}

static int do_fallocate(int mode, uint64_t off, uint64_t len)
{
        int r = tk_content_fallocate(test.fs, model.file, mode, off, len);
        uint64_t end = off + len < model.size ? off + len : model.size;

        if (r < 0)
                return r;
        if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
                model_zero(off, end);
        if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > model.size)
                model.size = off + len;
        return 0;
}

/* What a seek says is a hole reads as zeros; holes and data take turns up to the end. */
static void check_seek(uint64_t off)
{
        uint64_t data = 0;
        uint64_t hole = 0;
        int r = tk_content_seek(test.fs, model.file, off, SEEK_DATA, &data);

        if (off >= model.size) {
                assert_int_equal(r, -ENXIO);
                assert_int_equal(tk_content_seek(test.fs, model.file, off, SEEK_HOLE, &hole),
                                 -ENXIO);
                return;
        }
        assert_int_equal(tk_content_seek(test.fs, model.file, off, SEEK_HOLE, &hole), 0);
        assert_true(hole >= off && hole <= model.size);
        if (r == -ENXIO)
                data = model.size;
        else
                assert_int_equal(r, 0);
        assert_true(data >= off && data <= model.size);
        assert_true(tk_bytes_are_zero(model.bytes + off, data - off));
        assert_true((data == off) != (hole == off) || data == model.size);
}

/* An offset, often near a border, such that @len fits behind it. */
static uint64_t some_offset(uint64_t len)
{
        static const uint64_t borders[] = {0, TK_BLOCK_LEN, TK_GROUP_LEN,
                                           2 * (uint64_t)TK_GROUP_LEN, TK_GROUP_LEN - TK_BLOCK_LEN};
        uint64_t limit = MODEL_MAX - len;
        uint64_t off = random_below(limit + 1);

        if (random_below(3) == 0)
                off = borders[random_below(5)] + random_below(5) * TK_BLOCK_LEN;
        else if (random_below(3) == 0)
                off = model.size;
        if (random_below(3) == 0)
                off += random_below(7) - (off >= 3 ? 3 : 0);
        return off <= limit ? off : limit;
}

static uint64_t some_length(void)
{
        switch (random_below(5)) {
        case 0:
                return random_below(20);
        case 1:
                return random_below(3 * (uint64_t)TK_BLOCK_LEN);
        case 2:
                return random_below(16) * TK_BLOCK_LEN;
        case 3:
                return random_below(TK_REQUEST_MAX + 1);
        default:
                return TK_GROUP_LEN + random_below(3) - 1;
        }
}

static void random_step(void)
{
        uint64_t len = some_length();
        uint64_t off = some_offset(len);

        switch (random_below(12)) {
        default:
                assert_int_equal(do_write(off, len), 0);
                break;
        case 5:
                assert_int_equal(do_truncate(off), 0);
                break;
        case 6:
        case 7:
                if (len > 0)
                        assert_int_equal(
                                do_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len),
                                0);
                break;
        case 8:
                if (len > 0)
                        assert_int_equal(
                                do_fallocate(FALLOC_FL_ZERO_RANGE |
                                                     (random_below(2) ? FALLOC_FL_KEEP_SIZE : 0),
                                             off, len),
                                0);
                break;
        case 9:
                if (len > 0)
                        assert_int_equal(
                                do_fallocate(random_below(2) ? FALLOC_FL_KEEP_SIZE : 0, off, len),
                                0);
                break;
        case 10:
                reopen();
                break;
        case 11:
                for (int i = 0; i < 4; i++)
                        check_seek(some_offset(0));
        }
        check_range(off, len);
        check_range(some_offset(0), some_length());
        assert_int_equal(model.file->size, model.size);
}

static void run_random(enum tk_dek_wrap dek_wrap, uint64_t seed, int steps)
{
        random_state = seed;
        start(dek_wrap);
        for (int i = 0; i < steps; i++) {
                random_step();
                if (i % 50 == 49)
                        check_all();
        }
        check_all();
        reopen();
        check_all();
        assert_int_equal(tk_fs_stats(test.fs)->block_failures, 0);
        finish();
        tk_test_remove("c");
}

static void test_content__random(void **state)
{
        for (uint64_t seed = 1; seed <= 4; seed++) {
                run_random(TK_DEK_WRAP_KEK, seed * 7919, 400);
                run_random(TK_DEK_WRAP_KMS, seed * 104729, 200);
        }
}

static void test_content__limits(void **state)
{
        uint64_t found = 0;

        start(TK_DEK_WRAP_KEK);
        assert_int_equal(tk_content_write(test.fs, model.file, 0, buffer, TK_REQUEST_MAX + 1),
                         -EINVAL);
        assert_int_equal(tk_content_write(test.fs, model.file, TK_SIZE_MAX, buffer, 1), -EFBIG);
        assert_int_equal(tk_content_write(test.fs, model.file, UINT64_MAX, buffer, 1), -EFBIG);
        assert_int_equal(tk_content_write(test.fs, model.file, UINT64_MAX, buffer, 0), 0);
        assert_int_equal(tk_content_truncate(test.fs, model.file, TK_SIZE_MAX + 1), -EFBIG);
        assert_int_equal(tk_content_fallocate(test.fs, model.file, 0, TK_SIZE_MAX, 1), -EFBIG);
        assert_int_equal(tk_content_fallocate(test.fs, model.file, 0, 1, UINT64_MAX), -EFBIG);
        assert_int_equal(tk_content_fallocate(test.fs, model.file, 0, 0, 0), -EINVAL);
        assert_int_equal(tk_content_fallocate(test.fs, model.file, FALLOC_FL_PUNCH_HOLE, 0, 1),
                         -EOPNOTSUPP);
        assert_int_equal(tk_content_fallocate(test.fs, model.file, FALLOC_FL_COLLAPSE_RANGE, 0, 1),
                         -EOPNOTSUPP);
        assert_int_equal(tk_content_seek(test.fs, model.file, 0, SEEK_SET, &found), -EINVAL);
        assert_int_equal(tk_content_seek(test.fs, model.file, UINT64_MAX, SEEK_DATA, &found),
                         -ENXIO);
        check_all();
        check_range(UINT64_MAX - 5, TK_REQUEST_MAX);
        finish();
}

/* A large sparse file: far offsets are right, and take no space. */
static void test_content__far_offsets(void **state)
{
        const uint64_t far = (uint64_t)1 << 40;
        const uint8_t *data = NULL;
        uint64_t found = 0;
        struct stat st;

        start(TK_DEK_WRAP_KEK);
        memset(buffer, 0x42, 3000);
        assert_int_equal(tk_content_write(test.fs, model.file, far + 2000, buffer, 3000), 0);
        assert_int_equal(model.file->size, far + 5000);
        assert_int_equal(tk_content_read(test.fs, model.file, far + 1999, 10, &data), 10);
        assert_memory_equal(data, "\0\x42\x42\x42\x42\x42\x42\x42\x42\x42", 10);
        assert_int_equal(tk_content_seek(test.fs, model.file, 0, SEEK_DATA, &found), 0);
        assert_int_equal(found, far);
        assert_int_equal(tk_content_seek(test.fs, model.file, 0, SEEK_HOLE, &found), 0);
        assert_int_equal(found, 0);
        assert_int_equal(fstat(model.file->fd, &st), 0);
        assert_true(st.st_blocks * 512 < 100 * INT64_C(1024));
        finish();
}

static void test_copy__any_offsets(void **state)
{
        static const uint64_t offs[] = {0, 1, 4096, 507903, 507904, 600001};

        start(TK_DEK_WRAP_KEK);
        random_state = 99;
        assert_int_equal(do_write(0, 700001), 0);
        for (size_t i = 0; i < 6; i++) {
                struct tk_inode *inode;
                struct tk_openfile *to = tk_test_create(&test, "to", &inode);
                uint64_t len = model.size - offs[i];
                const uint8_t *data = NULL;

                assert_int_equal(
                        tk_content_copy(test.fs, model.file, offs[i], to, offs[5 - i], len + 100),
                        len);
                assert_int_equal(to->size, offs[5 - i] + len);
                assert_int_equal(tk_content_read(test.fs, to, offs[5 - i], TK_REQUEST_MAX, &data),
                                 len);
                assert_memory_equal(data, model.bytes + offs[i], len);
                tk_test_close(&test, to, inode);
                assert_int_equal(tk_op_unlink(test.fs, test.root, "to", false), 0);
        }
        check_all();
        finish();
}

/* Failures of the backing filesystem ---------------------------------------------- */

/* After a failed change: every block is what it was in @before or is what it should have become. */
static void check_old_or_new(const uint8_t *before, uint64_t before_size)
{
        uint64_t size = model.file->size;
        uint64_t new_size = model.size;

        for (int pass = 0; pass < 2; pass++) {
                for (uint64_t off = 0; off < size; off += TK_BLOCK_LEN) {
                        const uint8_t *data = NULL;
                        ssize_t n = tk_content_read(test.fs, model.file, off, TK_BLOCK_LEN, &data);

                        assert_true(n > 0);
                        if (memcmp(data, before + off, (size_t)n) != 0)
                                assert_memory_equal(data, model.bytes + off, (size_t)n);
                }
                reopen();
                assert_int_equal(model.file->size, size);
        }
        assert_true(size == before_size || size == new_size);
}

/* What grows after the failure is zeros, and new writes work. */
static void check_goes_on(void)
{
        uint64_t size = model.file->size;

        faulty_reset();
        for (uint64_t off = 0; off < size; off += TK_REQUEST_MAX) {
                const uint8_t *data = NULL;
                ssize_t n = tk_content_read(test.fs, model.file, off, TK_REQUEST_MAX, &data);

                assert_true(n > 0);
                memcpy(model.bytes + off, data, (size_t)n);
        }
        memset(model.bytes + size, 0, MODEL_MAX - size);
        model.size = size;
        assert_int_equal(do_truncate(size + 3 * (uint64_t)TK_BLOCK_LEN), 0);
        check_all();
        assert_int_equal(do_write(size > 100 ? size - 100 : 0, 5000), 0);
        assert_int_equal(do_truncate(MODEL_MAX), 0);
        check_all();
        assert_int_equal(tk_fs_stats(test.fs)->block_failures, 0);
}

static uint8_t *copy_of_model(void)
{
        uint8_t *copy = malloc(MODEL_MAX);

        assert_non_null(copy);
        memcpy(copy, model.bytes, MODEL_MAX);
        return copy;
}

/* A write that runs out of space takes nothing with it of what was there. */
static void check_full_write(uint64_t old_size, uint64_t hole, uint64_t hole_len, uint64_t off,
                             size_t len)
{
        TK_CLEANUP(tk_freep) uint8_t *before = NULL;
        uint64_t before_size;
        int r;

        start(TK_DEK_WRAP_KEK);
        random_state = off + len;
        for (uint64_t at = 0; at < old_size; at += TK_REQUEST_MAX)
                assert_int_equal(do_write(at, old_size - at < TK_REQUEST_MAX ? old_size - at
                                                                             : TK_REQUEST_MAX),
                                 0);
        if (hole_len > 0)
                assert_int_equal(
                        do_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, hole, hole_len),
                        0);
        before = copy_of_model();
        before_size = model.size;
        random_state++;
        faulty.full = true;
        r = do_write(off, len);
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(model.file->size, before_size);
        check_old_or_new(before, before_size);
        check_goes_on();
        finish();
        tk_test_remove("c");
}

static void test_write__no_space(void **state)
{
        /* appends, from the last block's middle and from its border */
        check_full_write(10000, 0, 0, 10000, 5000);
        check_full_write(10000, 0, 0, 9000, 100000);
        check_full_write(10000, 0, 0, 0, TK_REQUEST_MAX);
        check_full_write(8192, 0, 0, 8192, 4096);
        check_full_write(TK_GROUP_LEN, 0, 0, TK_GROUP_LEN - 100, 200);
        check_full_write(TK_GROUP_LEN + 5000, 0, 0, 1000, TK_REQUEST_MAX);
        check_full_write(0, 0, 0, 0, 100);
        check_full_write(0, 0, 0, 3 * (uint64_t)TK_GROUP_LEN, 100);
        /* into holes among data */
        check_full_write(100000, 20480, 8192, 10000, 50000);
        check_full_write(100000, 20480, 8192, 22000, 100);
        check_full_write(2 * (uint64_t)TK_GROUP_LEN, TK_GROUP_LEN, 40960, 0, TK_REQUEST_MAX);
        check_full_write(3 * (uint64_t)TK_GROUP_LEN, TK_GROUP_LEN, TK_GROUP_LEN, 0, TK_REQUEST_MAX);
        check_full_write(TK_GROUP_LEN, 0, 4096, 0, TK_GROUP_LEN);
        check_full_write(9000, 8192, 808, 0, 20000);
}

/* Whichever call of a write fails once, each block is old or new. */
static void test_write__any_call_fails(void **state)
{
        static const struct {
                uint64_t off;
                size_t len;
        } writes[] = {{0, 5000},           {9000, 3000},
                      {9999, 1},           {TK_GROUP_LEN - 9000, 400000},
                      {0, TK_REQUEST_MAX}, {2 * (uint64_t)TK_GROUP_LEN, 9000}};

        for (size_t w = 0; w < sizeof(writes) / sizeof(writes[0]); w++) {
                bool succeeded = false;

                for (unsigned at = 1; !succeeded; at++) {
                        TK_CLEANUP(tk_freep) uint8_t *before = NULL;
                        uint64_t before_size;
                        int r;

                        start(TK_DEK_WRAP_KEK);
                        random_state = 5;
                        assert_int_equal(do_write(0, TK_GROUP_LEN + 10000), 0);
                        before = copy_of_model();
                        before_size = model.size;
                        random_state++;
                        faulty = (__typeof__(faulty)){.fail_at = at, .fail_with = -EIO};
                        r = do_write(writes[w].off, writes[w].len);
                        succeeded = faulty.calls < at;
                        assert_int_equal(r, succeeded ? 0 : -EIO);
                        check_old_or_new(before, before_size);
                        check_goes_on();
                        finish();
                        tk_test_remove("c");
                        assert_true(at < 50);
                }
        }
}

/* Giving space back needs none. */
static void test_full__shrink_and_punch(void **state)
{
        start(TK_DEK_WRAP_KEK);
        random_state = 3;
        assert_int_equal(do_write(0, 100000), 0);
        assert_int_equal(do_truncate(MODEL_MAX), 0);
        faulty.full = true;
        assert_int_equal(do_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                      TK_GROUP_LEN + 5000, 60000),
                         0);
        assert_int_equal(do_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 60000), 0);
        check_all();
        assert_int_equal(do_truncate(2 * (uint64_t)TK_GROUP_LEN + 5000), 0);
        check_all();
        assert_int_equal(do_truncate(TK_GROUP_LEN + 1), 0);
        assert_int_equal(do_truncate(99999), 0);
        assert_int_equal(do_truncate(70000), 0);
        check_all();
        assert_int_equal(do_truncate(0), 0);
        check_all();
        finish();
}

/* What fallocate promised can be written though the disk is full. */
static void check_promise(uint64_t size, int mode, uint64_t off, uint64_t len)
{
        start(TK_DEK_WRAP_KEK);
        random_state = 11;
        assert_int_equal(do_write(0, 10000), 0);
        assert_int_equal(do_truncate(size), 0);
        assert_int_equal(do_fallocate(mode, off, len), 0);
        assert_int_equal(fsync(model.file->fd), 0);
        /* Space that is promised is not data to a seek: count instead. */
        {
                struct stat before;
                struct stat after;

                assert_int_equal(fstat(model.file->fd, &before), 0);
                for (uint64_t at = off; at < off + len; at += TK_REQUEST_MAX)
                        assert_int_equal(do_write(at, off + len - at < TK_REQUEST_MAX
                                                              ? off + len - at
                                                              : TK_REQUEST_MAX),
                                         0);
                assert_int_equal(fsync(model.file->fd), 0);
                assert_int_equal(fstat(model.file->fd, &after), 0);
                assert_true(after.st_blocks <= before.st_blocks);
        }
        check_all();
        finish();
        tk_test_remove("c");
}

static void test_fallocate__keeps_its_promise(void **state)
{
        check_promise(10000, 0, 0, 600000);
        check_promise(10000, FALLOC_FL_KEEP_SIZE, 5000, 600000);
        check_promise(MODEL_MAX, 0, TK_GROUP_LEN + 3 * (uint64_t)TK_BLOCK_LEN, 100000);
        check_promise(MODEL_MAX, FALLOC_FL_ZERO_RANGE, TK_GROUP_LEN + 3 * (uint64_t)TK_BLOCK_LEN,
                      700000);
}

static void test_fallocate__no_space(void **state)
{
        TK_CLEANUP(tk_freep) uint8_t *before = NULL;

        start(TK_DEK_WRAP_KEK);
        random_state = 21;
        assert_int_equal(do_write(0, 10000), 0);
        before = copy_of_model();
        faulty.full = true;
        assert_int_equal(do_fallocate(0, 9000, 600000), -ENOSPC);
        assert_int_equal(model.file->size, 10000);
        check_old_or_new(before, 10000);
        check_goes_on();
        finish();
}

/* Several threads on one file: each has blocks of its own, one truncates far behind them. */
enum { WORKERS = 4, WORKER_BLOCKS = 60, WORKER_ROUNDS = 60 };

static void *worker_main(void *context)
{
        unsigned number = (unsigned)(uintptr_t)context;
        uint64_t off = (uint64_t)number * WORKER_BLOCKS * TK_BLOCK_LEN;
        size_t len = (size_t)WORKER_BLOCKS * TK_BLOCK_LEN;
        uint8_t *bytes = malloc(len);

        for (unsigned round = 0; bytes && round < WORKER_ROUNDS; round++) {
                const uint8_t *data = NULL;
                uint8_t value = (uint8_t)(number * 64 + round);

                size_t edge = round % 2; /* in whole blocks, or not */

                memset(bytes, value, len);
                if (tk_content_write(test.fs, model.file, off + edge, bytes, len - 2 * edge) < 0 ||
                    tk_content_read(test.fs, model.file, off, len, &data) != (ssize_t)len)
                        abort();
                for (size_t i = edge; i < len - edge; i++)
                        if (data[i] != value)
                                abort();
        }
        free(bytes);
        return NULL;
}

static void *resizer_main(void *context)
{
        uint64_t base = (uint64_t)WORKERS * WORKER_BLOCKS * TK_BLOCK_LEN;

        for (unsigned round = 0; round < WORKER_ROUNDS; round++)
                if (tk_content_truncate(test.fs, model.file, base + round % 3 * UINT64_C(4000)) < 0)
                        abort();
        return context;
}

static void test_content__threads(void **state)
{
        pthread_t threads[WORKERS + 1];

        start(TK_DEK_WRAP_KEK);
        assert_int_equal(do_truncate((uint64_t)WORKERS * WORKER_BLOCKS * TK_BLOCK_LEN), 0);
        for (uintptr_t i = 0; i <= WORKERS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL,
                                                i < WORKERS ? worker_main : resizer_main,
                                                (void *)i),
                                 0);
        for (int i = 0; i <= WORKERS; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(tk_fs_stats(test.fs)->block_failures, 0);
        finish();
}

/*
 * Two writes begin while the file is long, each to hold its own block; then it is cut to nothing.
 * One of them begins the group anew with its whole tag page, where the other has a cell: so
 * neither may go on with its own block alone.
 */
enum { CUT_BLOCK = 5 };

static atomic_bool other_has_begun;
static atomic_bool other_may_hold;
static atomic_bool other_has_ended;
static pthread_t other;

static void short_pause(void)
{
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static bool somebody_waits(void)
{
        TK_LOCK_SCOPE(&model.file->ranges.lock);
        for (const struct tk_range *range = model.file->ranges.queue; range; range = range->next)
                if (range->waits)
                        return true;
        return false;
}

static void write_block(uint64_t block, uint8_t byte)
{
        uint8_t bytes[TK_BLOCK_LEN];

        memset(bytes, byte, sizeof(bytes));
        if (tk_content_write(test.fs, model.file, block * TK_BLOCK_LEN, bytes, sizeof(bytes)) < 0)
                abort();
}

static void wait_for_cut(void)
{
        other_has_begun = true;
        while (!other_may_hold)
                short_pause();
}

static void *other_main(void *context)
{
        before_hold = wait_for_cut;
        write_block(CUT_BLOCK, 'b');
        other_has_ended = true;
        return context;
}

static void begin_other_and_cut(void)
{
        assert_int_equal(pthread_create(&other, NULL, other_main, NULL), 0);
        while (!other_has_begun)
                short_pause();
        assert_int_equal(tk_content_truncate(test.fs, model.file, 0), 0);
}

static void let_other_write(void)
{
        other_may_hold = true;
        while (!other_has_ended && !somebody_waits())
                short_pause();
}

static void test_write__cut_meanwhile(void **state)
{
        const size_t len = (size_t)(CUT_BLOCK + 1) * TK_BLOCK_LEN;
        const uint8_t *data = NULL;

        other_has_begun = other_may_hold = other_has_ended = false;
        start(TK_DEK_WRAP_KEK);
        assert_int_equal(do_write(0, (size_t)(CUT_BLOCK + 3) * TK_BLOCK_LEN), 0);
        before_hold = begin_other_and_cut;
        before_batch = let_other_write;
        write_block(0, 'a');
        pthread_join(other, NULL);
        assert_int_equal(tk_content_read(test.fs, model.file, 0, TK_REQUEST_MAX, &data), len);
        for (size_t i = 0; data && i < len; i++) {
                size_t block = i / TK_BLOCK_LEN;

                assert_int_equal(data[i], block == 0 ? 'a' : block == CUT_BLOCK ? 'b' : 0);
        }
        finish();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, leave)
        const struct CMUnitTest tests[] = {
                TEST(test_content__random),        TEST(test_content__limits),
                TEST(test_content__far_offsets),   TEST(test_content__threads),
                TEST(test_write__cut_meanwhile),   TEST(test_copy__any_offsets),
                TEST(test_write__no_space),        TEST(test_write__any_call_fails),
                TEST(test_full__shrink_and_punch), TEST(test_fallocate__keeps_its_promise),
                TEST(test_fallocate__no_space),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
