/* SPDX-License-Identifier: Apache-2.0 */

/* CPUs kept awake: what is asked of the kernel, seen in a file in place of its interface. */

#include "support.h"

#include "base/thread.h"
#include "fs/cpulatency.h"
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

enum { AWAKE = 0, ANY = -1, ASKED_MAX = 64 };

static const char path[] = "interface"; /* in the test's directory */

static struct tk_cpulatency *opened(void)
{
        struct tk_cpulatency *cpus;

        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        assert_int_equal(tk_cpulatency_new(path, &cpus), 0);
        return cpus;
}

static struct tk_cpulatency *started(void)
{
        struct tk_cpulatency *cpus = opened();

        assert_int_equal(tk_cpulatency_start(cpus), 0);
        return cpus;
}

/* All that was asked so far. */
static size_t asked(int32_t asked[ASKED_MAX])
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = read(fd, asked, ASKED_MAX * sizeof(asked[0]));

        close(fd);
        assert_true(len >= 0 && len % (ssize_t)sizeof(asked[0]) == 0);
        return (size_t)len / sizeof(asked[0]);
}

static void sleep_ms(long ms)
{
        struct timespec pause = {.tv_nsec = ms * 1000000};

        nanosleep(&pause, NULL);
}

/* Requests without a pause, until the kernel was asked @count times. */
static void request_until(struct tk_cpulatency *cpus, size_t count)
{
        int32_t list[ASKED_MAX];

        while (asked(list) < count)
                for (int i = 0; i < 100; i++)
                        tk_cpulatency_note(cpus);
}

static void wait_until(size_t count)
{
        int32_t list[ASKED_MAX];

        while (asked(list) < count)
                sleep_ms(1);
}

static void test_cpulatency__awake_while_requests_come(void **state)
{
        struct tk_cpulatency *cpus = started();
        int32_t list[ASKED_MAX];

        for (size_t i = 0; i < 3; i++) {
                request_until(cpus, 2 * i + 1);
                wait_until(2 * i + 2);
        }
        tk_cpulatency_free(cpus);
        assert_int_equal(asked(list), 6);
        for (size_t i = 0; i < 6; i++)
                assert_int_equal(list[i], i % 2 == 0 ? AWAKE : ANY);
}

/* On a machine that is slow they come even more slowly. */
static void test_cpulatency__few_requests_wake_nobody(void **state)
{
        struct tk_cpulatency *cpus = started();
        int32_t list[ASKED_MAX];

        for (int i = 0; i < 50; i++) {
                tk_cpulatency_note(cpus);
                sleep_ms(4);
        }
        tk_cpulatency_free(cpus);
        assert_int_equal(asked(list), 0);
}

/* Closing the descriptor is what tells the kernel. */
static void test_cpulatency_free__while_awake(void **state)
{
        struct tk_cpulatency *cpus = started();
        int32_t list[ASKED_MAX];

        request_until(cpus, 1);
        tk_cpulatency_free(cpus);
        assert_in_range(asked(list), 1, 2);
}

static void *request(void *cpus)
{
        for (int i = 0; i < 100000; i++)
                tk_cpulatency_note(cpus);
        return NULL;
}

static void test_cpulatency_note__from_many_threads(void **state)
{
        struct tk_cpulatency *cpus = started();
        int32_t list[ASKED_MAX];
        pthread_t threads[4];

        for (size_t i = 0; i < 4; i++)
                assert_int_equal(tk_thread_start(request, cpus, &threads[i]), 0);
        for (size_t i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        tk_cpulatency_free(cpus);
        /* One at a time, and never the same twice. */
        for (size_t i = 0, count = asked(list); i < count; i++)
                assert_int_equal(list[i], i % 2 == 0 ? AWAKE : ANY);
}

static void test_cpulatency__not_started_or_none(void **state)
{
        struct tk_cpulatency *cpus = opened();
        int32_t list[ASKED_MAX];

        request(cpus);
        tk_cpulatency_free(cpus);
        assert_int_equal(asked(list), 0);
        tk_cpulatency_note(NULL);
        assert_null(tk_cpulatency_free(NULL));
        assert_int_equal(tk_cpulatency_new("not-there", &cpus), -ENOENT);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_cpulatency__awake_while_requests_come),
                TK_TEST_IN_DIR(test_cpulatency__few_requests_wake_nobody),
                TK_TEST_IN_DIR(test_cpulatency_free__while_awake),
                TK_TEST_IN_DIR(test_cpulatency_note__from_many_threads),
                TK_TEST_IN_DIR(test_cpulatency__not_started_or_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
