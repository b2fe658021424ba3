/* SPDX-License-Identifier: Apache-2.0 */

/* Whole-buffer I/O, and small files read or replaced at once. */

#include "base/fdio.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/*
 * The kernel on a bad day: every other call is interrupted, and no transfer is
 * longer than @bad_day bytes. These stand before the C library's functions.
 */
static size_t bad_day = SIZE_MAX;
static unsigned calls;

static ssize_t transfer(long number, int fd, const struct iovec *iov, int count, off_t off)
{
        struct iovec part = *iov;

        if (bad_day == SIZE_MAX)
                return syscall(number, fd, iov, (long)count, off, 0L);
        if (calls++ % 2 == 0) {
                errno = EINTR;
                return -1;
        }
        if (part.iov_len > bad_day)
                part.iov_len = bad_day;
        return syscall(number, fd, &part, 1L, off, 0L);
}

ssize_t preadv(int fd, const struct iovec *iov, int count, off_t off)
{
        return transfer(SYS_preadv, fd, iov, count, off);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t off)
{
        return transfer(SYS_pwritev, fd, iov, count, off);
}

static int new_file(const char *name)
{
        int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        return fd;
}

static void put_file(const char *name, const char *text)
{
        TK_AUTOCLOSE int fd = new_file(name);

        assert_int_equal(tk_fdio_pwrite(fd, text, strlen(text), 0), 0);
}

static void assert_file(const char *name, const char *wanted)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len;

        assert_int_equal(tk_fdio_read_file(AT_FDCWD, name, 1000, &text, &len), 0);
        assert_string_equal(text, wanted);
        assert_int_equal(len, strlen(wanted));
}

static void test_pread__ends_with_the_file(void **state)
{
        TK_AUTOCLOSE int fd = new_file("f");
        char buf[16] = "";

        assert_int_equal(tk_fdio_pwrite(fd, "0123456789", 10, 3), 0);
        assert_int_equal(tk_fdio_pread(fd, buf, 4, 5), 4);
        assert_memory_equal(buf, "2345", 4);
        assert_int_equal(tk_fdio_pread(fd, buf, 16, 11), 2);
        assert_memory_equal(buf, "89", 2);
        assert_int_equal(tk_fdio_pread(fd, buf, 16, 13), 0);
        assert_int_equal(tk_fdio_pread(fd, buf, 0, 0), 0);
        assert_int_equal(tk_fdio_pread(-1, buf, 1, 0), -EBADF);
}

static void test_preadv__fills_spans_in_turn(void **state)
{
        TK_AUTOCLOSE int fd = new_file("f");
        char a[3], b[4], c[5] = "....";
        char text[] = "abcdefgh";
        struct iovec in[] = {{text, 3}, {NULL, 0}, {text + 3, 4}, {text + 7, 1}};
        struct iovec out[] = {{NULL, 0}, {a, 3}, {b, 4}, {c, 5}, {NULL, 0}};

        assert_int_equal(tk_fdio_pwritev(fd, in, 4, 2), 0);
        assert_int_equal(tk_fdio_preadv(fd, out, 5, 2), 8);
        assert_memory_equal(a, "abc", 3);
        assert_memory_equal(b, "defg", 4);
        assert_memory_equal(c, "h...", 4);
}

/* The kernel takes a part of the write, then refuses: both must show. */
static void test_pwrite__short_transfer_goes_on(void **state)
{
        TK_AUTOCLOSE int fd = new_file("f");
        char text[] = "0123456789abcdef";
        struct iovec iov[] = {{text, 4}, {text + 4, 12}};
        struct rlimit old, limit;
        char buf[16] = "";
        int r;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        limit = old;
        limit.rlim_cur = 10;
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        r = tk_fdio_pwritev(fd, iov, 2, 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        signal(SIGXFSZ, SIG_DFL);

        assert_int_equal(r, -EFBIG);
        assert_int_equal(tk_fdio_pread(fd, buf, 16, 0), 10);
        assert_memory_equal(buf, "0123456789", 10);
}

static void test_fdio__interrupted_and_short(void **state)
{
        TK_AUTOCLOSE int fd = new_file("f");
        char text[] = "0123456789abcdef";
        char back[17] = "";

        for (bad_day = 1; bad_day <= 5; bad_day++) {
                struct iovec in[] = {{text, 5}, {text + 5, 1}, {text + 6, 10}};
                struct iovec out[] = {{back, 2}, {back + 2, 7}, {back + 9, 8}};

                calls = 0;
                assert_int_equal(tk_fdio_pwritev(fd, in, 3, 0), 0);
                assert_true(calls > 2 * 16 / 5);
                assert_int_equal(tk_fdio_preadv(fd, out, 3, 0), 16);
                assert_string_equal(back, text);
                memset(back, 0, sizeof(back));
        }
        bad_day = 0; /* no byte at all: an error, not an endless loop */
        assert_int_equal(tk_fdio_pwrite(fd, text, 16, 0), -EIO);
        bad_day = SIZE_MAX;
}

static void test_read_file__limits(void **state)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len = 77;

        put_file("f", "0123456789");
        assert_file("f", "0123456789");
        put_file("empty", "");
        assert_file("empty", "");

        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "f", 9, &text, &len), -EFBIG);
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "missing", 9, &text, &len), -ENOENT);
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, ".", 9, &text, &len), -EISDIR);
        assert_null(text);
        assert_int_equal(len, 77);
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "f", 10, &text, &len), 0);
        assert_int_equal(len, 10);
}

static void test_file_says__its_first_line(void **state)
{
        FILE *file = fopen("f", "we");

        assert_non_null(file);
        fputs("haltpoll\nmore\n", file);
        fclose(file);
        assert_true(tk_fdio_file_says("f", "haltpoll"));
        assert_false(tk_fdio_file_says("f", "halt"));
        assert_false(tk_fdio_file_says("f", "haltpoll\nmore"));
        assert_false(tk_fdio_file_says("f", ""));
        assert_false(tk_fdio_file_says("not-there", "haltpoll"));
        assert_false(tk_fdio_file_says("/", ""));
}

static void test_replace__new_and_old(void **state)
{
        struct stat st;
        mode_t mask = umask(077);
        TK_AUTOCLOSE int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_int_equal(tk_fdio_replace(dirfd, "f", "one", 3, 0640), 0);
        assert_file("f", "one");
        assert_int_equal(stat("f", &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);

        assert_int_equal(tk_fdio_replace(dirfd, "f", "longer text", 11, 0600), 0);
        assert_file("f", "longer text");
        assert_int_equal(stat("f", &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);

        assert_int_equal(tk_fdio_replace(dirfd, "f", "", 0, 0600), 0);
        assert_file("f", "");
        assert_int_equal(access("f.new", F_OK), -1);
        umask(mask);
}

/* A crashed run left its sibling, longer than the new text. */
static void test_replace__over_a_left_sibling(void **state)
{
        TK_AUTOCLOSE int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        put_file("f.new", "left behind by a crash");
        assert_int_equal(tk_fdio_replace(dirfd, "f", "one", 3, 0600), 0);
        assert_file("f", "one");
        assert_int_equal(access("f.new", F_OK), -1);
}

static void test_replace__failure_leaves_the_old(void **state)
{
        TK_AUTOCLOSE int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char name[300];
        struct stat st;

        assert_int_equal(mkdir("d", 0700), 0);
        assert_int_equal(tk_fdio_replace(dirfd, "d", "one", 3, 0600), -EISDIR);
        assert_int_equal(access("d.new", F_OK), -1);
        assert_int_equal(stat("d", &st), 0);
        assert_true(S_ISDIR(st.st_mode));

        /* Nor is a planted symlink written through. */
        put_file("target", "precious");
        put_file("f", "old");
        assert_int_equal(symlink("target", "f.new"), 0);
        assert_true(tk_fdio_replace(dirfd, "f", "one", 3, 0600) < 0);
        assert_file("target", "precious");
        assert_file("f", "old");

        memset(name, 'n', sizeof(name));
        name[252] = '\0';
        assert_int_equal(tk_fdio_replace(dirfd, name, "one", 3, 0600), -ENAMETOOLONG);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_pread__ends_with_the_file),
                TK_TEST_IN_DIR(test_preadv__fills_spans_in_turn),
                TK_TEST_IN_DIR(test_pwrite__short_transfer_goes_on),
                TK_TEST_IN_DIR(test_fdio__interrupted_and_short),
                TK_TEST_IN_DIR(test_read_file__limits),
                TK_TEST_IN_DIR(test_file_says__its_first_line),
                TK_TEST_IN_DIR(test_replace__new_and_old),
                TK_TEST_IN_DIR(test_replace__over_a_left_sibling),
                TK_TEST_IN_DIR(test_replace__failure_leaves_the_old),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
