/* SPDX-License-Identifier: Apache-2.0 */

/* Spans collected: what is merged, what is read behind the end of a file, what is written where. */

#include "support.h"

#include "base/fdio.h"
#include "fs/iobatch.h"
#include <errno.h>
#include <fcntl.h>

static int open_file(const uint8_t *bytes, size_t len)
{
        int fd = open("f", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(tk_fdio_pwrite(fd, bytes, len, 0), 0);
        return fd;
}

static void test_add__merges_neighbours(void **state)
{
        struct tk_iobatch batch = {.count = 0};
        uint8_t buf[100];

        tk_iobatch_add(&batch, 10, buf, 0);
        assert_int_equal(batch.count, 0);
        tk_iobatch_add(&batch, 10, buf, 5);
        tk_iobatch_add(&batch, 15, buf + 5, 5); /* follows in both */
        assert_int_equal(batch.count, 1);
        assert_int_equal(batch.iov[0].iov_len, 10);
        tk_iobatch_add(&batch, 21, buf + 10, 5); /* follows in memory only */
        tk_iobatch_add(&batch, 26, buf + 20, 5); /* follows in the file only */
        assert_int_equal(batch.count, 3);
}

static void test_add__as_many_as_fit(void **state)
{
        struct tk_iobatch batch = {.count = 0};
        uint8_t buf[2 * TK_IOBATCH_SPANS];

        for (int i = 0; i < TK_IOBATCH_SPANS; i++)
                tk_iobatch_add(&batch, (uint64_t)i * 10, buf + (size_t)2 * i, 1);
        assert_int_equal(batch.count, TK_IOBATCH_SPANS);
}

static void test_read__scattered(void **state)
{
        struct tk_iobatch batch = {.count = 0};
        TK_AUTOCLOSE int fd = -1;
        uint8_t bytes[256];
        uint8_t a[10];
        uint8_t b[20];
        uint8_t c[30];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)(i + 1);
        fd = open_file(bytes, sizeof(bytes));
        tk_iobatch_add(&batch, 200, c, sizeof(c)); /* the early stray */
        tk_iobatch_add(&batch, 5, a, sizeof(a));
        tk_iobatch_add(&batch, 15, b, sizeof(b));
        assert_int_equal(tk_iobatch_read(&batch, fd, 0), 0);
        assert_memory_equal(a, bytes + 5, sizeof(a));
        assert_memory_equal(b, bytes + 15, sizeof(b));
        assert_memory_equal(c, bytes + 200, sizeof(c));
}

/* What the kernel's cache has none, some or all of. */
static void test_read__not_cached(void **state)
{
        enum { PAGE = 4096, PAGES = 64 };
        static uint8_t bytes[PAGES * PAGE];
        static uint8_t back[3][PAGE];
        TK_AUTOCLOSE int fd = -1;

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)(i / PAGE + i);
        fd = open_file(bytes, sizeof(bytes));
        assert_int_equal(fsync(fd), 0);
        for (size_t kept = 0; kept < 4; kept++) {
                static const uint64_t at[3] = {UINT64_C(7) * PAGE, UINT64_C(31) * PAGE + 5,
                                               UINT64_C(60) * PAGE};
                struct tk_iobatch batch = {.count = 0};

                assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
                for (size_t i = 0; i < kept; i++)
                        assert_int_equal(tk_fdio_pread(fd, back[i], PAGE, (off_t)at[i]), PAGE);
                memset(back, 0, sizeof(back));
                for (size_t i = 0; i < 3; i++)
                        tk_iobatch_add(&batch, at[i], back[i], PAGE);
                assert_int_equal(tk_iobatch_read(&batch, fd, 0), 0);
                for (size_t i = 0; i < 3; i++)
                        assert_memory_equal(back[i], bytes + at[i], PAGE);
        }
}

/* Wherever the file ends within the spans, what is missing becomes zeros and nothing else does. */
static void test_read__short(void **state)
{
        uint8_t bytes[80];

        memset(bytes, 0x5A, sizeof(bytes));
        for (size_t size = 0; size <= sizeof(bytes); size++) {
                struct tk_iobatch batch = {.count = 0};
                TK_AUTOCLOSE int fd = open_file(bytes, size);
                uint8_t buf[60];
                static const size_t at[] = {10, 30, 31, 60};
                static const size_t len[] = {20, 1, 19, 20};
                size_t off = 0;

                memset(buf, 0xEE, sizeof(buf));
                for (int i = 0; i < 4; i++) {
                        /* In memory back to front, so that no two spans are one. */
                        off += len[i];
                        tk_iobatch_add(&batch, at[i], buf + sizeof(buf) - off, len[i]);
                }
                assert_int_equal(tk_iobatch_read(&batch, fd, 0), 0);
                off = 0;
                for (int i = 0; i < 4; i++) {
                        off += len[i];
                        for (size_t k = 0; k < len[i]; k++)
                                assert_int_equal(buf[sizeof(buf) - off + k],
                                                 at[i] + k < size ? 0x5A : 0);
                }
        }
}

static void test_write__scattered(void **state)
{
        struct tk_iobatch batch = {.count = 0};
        TK_AUTOCLOSE int fd = -1;
        uint8_t zeros[64] = {0};
        uint8_t expected[64] = {0};
        uint8_t found[64];
        uint8_t a[10];
        uint8_t b[4];
        uint8_t c[6];

        memset(a, 1, sizeof(a));
        memset(b, 2, sizeof(b));
        memset(c, 3, sizeof(c));
        fd = open_file(zeros, sizeof(zeros));
        tk_iobatch_add(&batch, 3, a, sizeof(a));
        tk_iobatch_add(&batch, 13, b, sizeof(b));
        tk_iobatch_add(&batch, 40, c, sizeof(c));
        assert_int_equal(tk_iobatch_write(&batch, fd, 0), 0);
        memset(expected + 3, 1, sizeof(a));
        memset(expected + 13, 2, sizeof(b));
        memset(expected + 40, 3, sizeof(c));
        assert_int_equal(tk_fdio_pread(fd, found, sizeof(found), 0), sizeof(found));
        assert_memory_equal(found, expected, sizeof(found));
}

/* All offsets count from the base. */
static void test_base__is_added(void **state)
{
        struct tk_iobatch batch = {.count = 0};
        TK_AUTOCLOSE int fd = -1;
        uint8_t bytes[64] = {0};
        uint8_t a[8] = "seven b";
        uint8_t b[12];

        fd = open_file(bytes, sizeof(bytes));
        tk_iobatch_add(&batch, 4, a, sizeof(a));
        assert_int_equal(tk_iobatch_write(&batch, fd, 30), 0);
        assert_int_equal(tk_fdio_pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
        assert_true(tk_bytes_are_zero(bytes, 34));
        assert_memory_equal(bytes + 34, a, sizeof(a));
        assert_true(tk_bytes_are_zero(bytes + 42, 22));
        batch.count = 0;
        tk_iobatch_add(&batch, 2, b, sizeof(b));
        assert_int_equal(tk_iobatch_read(&batch, fd, 30), 0);
        assert_memory_equal(b + 2, a, sizeof(a));
}

static void test_errors__come_back(void **state)
{
        struct tk_iobatch batch = {.count = 0};
        TK_AUTOCLOSE int fd = open("f", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
        uint8_t byte = 0;

        tk_iobatch_add(&batch, 0, &byte, 1);
        assert_int_equal(tk_iobatch_write(&batch, fd, 0), -EBADF);
        batch.count = 0;
        tk_iobatch_add(&batch, 0, &byte, 1);
        assert_int_equal(tk_iobatch_read(&batch, -1, 0), -EBADF);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_add__merges_neighbours),   TK_TEST(test_add__as_many_as_fit),
                TK_TEST_IN_DIR(test_read__scattered),   TK_TEST_IN_DIR(test_read__not_cached),
                TK_TEST_IN_DIR(test_read__short),       TK_TEST_IN_DIR(test_write__scattered),
                TK_TEST_IN_DIR(test_errors__come_back), TK_TEST_IN_DIR(test_base__is_added),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
