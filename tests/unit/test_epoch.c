/* SPDX-License-Identifier: Apache-2.0 */

/* Epochs: a wait ends when what began before it has ended, and never before. */

#include "support.h"

#include "base/thread.h"
#include "fs/epoch.h"
#include <errno.h>
#include <time.h>

enum { THREADS = 4, WAITS = 300 };

static struct tk_epoch epoch;
static atomic_bool finished;
static atomic_uint started;
static atomic_uint newest;         /* what a wait makes known */
static atomic_uint held[THREADS];  /* what a thread works with; 0: nothing */
static atomic_uint number_threads; /* gives each thread its number */

static void sleep_us(long us)
{
        struct timespec pause = {.tv_nsec = us * 1000};

        nanosleep(&pause, NULL);
}

/* Work with what is newest at the beginning, as a thread that wraps a new key record does. */
static void *work(void *context)
{
        unsigned number = atomic_fetch_add(&number_threads, 1);

        (void)context;
        while (!finished) {
                TK_EPOCH_SCOPE(&epoch);

                held[number] = newest;
                sleep_us(50L * number);
                held[number] = 0;
                started++;
        }
        return NULL;
}

static void test_epoch_wait__nobody_is_left_with_what_was_before(void **state)
{
        pthread_t threads[THREADS];

        newest = 1;
        for (int i = 0; i < THREADS; i++)
                assert_int_equal(tk_thread_start(work, NULL, &threads[i]), 0);
        while (started < THREADS)
                sleep_us(100);
        for (unsigned i = 2; i < WAITS; i++) {
                newest = i;
                assert_int_equal(tk_epoch_wait(&epoch, NULL), 0);
                for (int k = 0; k < THREADS; k++) {
                        unsigned found = held[k];

                        assert_true(found == 0 || found == i);
                }
        }
        finished = true;
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
}

static void test_epoch_wait__stopped(void **state)
{
        struct tk_epoch other = {0};
        atomic_bool stop = true;

        assert_int_equal(tk_epoch_wait(&other, &stop), 0); /* there is nothing to wait for */
        {
                TK_EPOCH_SCOPE(&other);
                assert_int_equal(tk_epoch_wait(&other, &stop), -ECANCELED);
        }
        assert_int_equal(tk_epoch_wait(&other, &stop), 0);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_epoch_wait__nobody_is_left_with_what_was_before),
                TK_TEST(test_epoch_wait__stopped),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
