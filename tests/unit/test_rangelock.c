/* SPDX-License-Identifier: Apache-2.0 */

/* Range lock: who may hold what at once, found out by threads. */

#include "support.h"

#include "fs/rangelock.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

static struct tk_rangelock rangelock;

static int setup(void **state)
{
        tk_rangelock_init(&rangelock);
        return 0;
}

static int teardown(void **state)
{
        assert_null(rangelock.queue);
        tk_rangelock_done(&rangelock);
        return 0;
}

/* A thread that wants one range: has it got it? */
struct claim {
        uint64_t first;
        uint64_t last;
        bool exclusive;
        atomic_bool got;
        atomic_bool let_go;
        pthread_t thread;
};

static void short_pause(void)
{
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void *claim_main(void *context)
{
        struct claim *claim = context;
        TK_RANGE_SCOPE(range);

        tk_range_hold(&rangelock, &range, claim->first, claim->last, claim->exclusive);
        claim->got = true;
        while (!claim->let_go)
                short_pause();
        return NULL;
}

static void claim_start(struct claim *claim, uint64_t first, uint64_t last, bool exclusive)
{
        memset(claim, 0, sizeof(*claim));
        claim->first = first;
        claim->last = last;
        claim->exclusive = exclusive;
        assert_int_equal(pthread_create(&claim->thread, NULL, claim_main, claim), 0);
}

static void claim_end(struct claim *claim)
{
        claim->let_go = true;
        pthread_join(claim->thread, NULL);
        assert_true(claim->got);
}

static bool got_within_ms(struct claim *claim, int ms)
{
        for (int i = 0; i < ms && !claim->got; i++)
                short_pause();
        return claim->got;
}

/* Whether a claim is granted while [10, 20] is held. */
static void check_beside(bool held_exclusive, uint64_t first, uint64_t last, bool exclusive,
                         bool granted)
{
        struct tk_range held = {0};
        struct claim claim;

        tk_range_hold(&rangelock, &held, 10, 20, held_exclusive);
        claim_start(&claim, first, last, exclusive);
        assert_int_equal(got_within_ms(&claim, granted ? 10000 : 30), granted);
        tk_range_release(&held);
        assert_true(got_within_ms(&claim, 10000));
        claim_end(&claim);
}

static void test_hold__conflicts(void **state)
{
        static const struct {
                uint64_t first;
                uint64_t last;
                bool overlaps;
        } ranges[] = {{0, 9, false},  {21, TK_RANGE_END, false}, {0, 10, true}, {20, 20, true},
                      {12, 13, true}, {0, TK_RANGE_END, true},   {10, 20, true}};

        for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
                check_beside(false, ranges[i].first, ranges[i].last, false, true);
                check_beside(false, ranges[i].first, ranges[i].last, true, !ranges[i].overlaps);
                check_beside(true, ranges[i].first, ranges[i].last, false, !ranges[i].overlaps);
                check_beside(true, ranges[i].first, ranges[i].last, true, !ranges[i].overlaps);
        }
}

static void test_release__not_held(void **state)
{
        struct tk_range range = {0};

        tk_range_release(&range);
        tk_range_hold(&rangelock, &range, 0, 0, true);
        tk_range_release(&range);
        tk_range_release(&range);
}

/* Readers whose holds overlap without a gap do not keep a writer out for ever. */
static atomic_bool readers_stop;

static void *read_on_and_on(void *context)
{
        while (!readers_stop) {
                TK_RANGE_SCOPE(range);

                tk_range_hold(&rangelock, &range, 5, 5, false);
                short_pause();
        }
        return NULL;
}

static void test_hold__writer_among_readers(void **state)
{
        enum { READERS = 8 };
        pthread_t readers[READERS];
        struct claim writer;
        bool got;

        readers_stop = false;
        for (int i = 0; i < READERS; i++)
                assert_int_equal(pthread_create(&readers[i], NULL, read_on_and_on, NULL), 0);
        short_pause();
        claim_start(&writer, 0, TK_RANGE_END, true);
        got = got_within_ms(&writer, 3000);
        writer.let_go = true;
        readers_stop = true;
        for (int i = 0; i < READERS; i++)
                pthread_join(readers[i], NULL);
        claim_end(&writer);
        assert_true(got);
}

/* Plain memory under the lock: two writers of a cell at once would lose a count, or TSan sees it.
 */
enum { CELLS = 8, THREADS = 8, ROUNDS = 3000 };
static uint64_t cells[CELLS];

static void *count_main(void *context)
{
        unsigned seed = (unsigned)(uintptr_t)context;

        for (int i = 0; i < ROUNDS; i++) {
                TK_RANGE_SCOPE(range);
                uint64_t first;
                uint64_t last;

                seed = seed * 1103515245 + 12345;
                first = (seed >> 16) % CELLS;
                last = first + (seed >> 24) % (CELLS - first);
                tk_range_hold(&rangelock, &range, first, last, true);
                for (uint64_t cell = first; cell <= last; cell++)
                        cells[cell]++;
                tk_range_release(&range);

                tk_range_hold(&rangelock, &range, 0, 0, false);
                assert_true(cells[0] <= (uint64_t)THREADS * ROUNDS);
                tk_range_release(&range);
        }
        return NULL;
}

static uint64_t expected_sum(void)
{
        uint64_t sum = 0;

        for (unsigned t = 1; t <= THREADS; t++) {
                unsigned seed = t;

                for (int i = 0; i < ROUNDS; i++) {
                        unsigned first;

                        seed = seed * 1103515245 + 12345;
                        first = (seed >> 16) % CELLS;
                        sum += (seed >> 24) % (CELLS - first) + 1;
                }
        }
        return sum;
}

static void test_hold__counts_survive(void **state)
{
        pthread_t threads[THREADS];
        uint64_t sum = 0;

        memset(cells, 0, sizeof(cells));
        for (uintptr_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, count_main, (void *)(i + 1)), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        for (int i = 0; i < CELLS; i++)
                sum += cells[i];
        assert_int_equal(sum, expected_sum());
}

/*
 * Threads that hold random ranges, shared and exclusive, many of which wait for several holders.
 * A release that wakes too few leaves one waiting when all others have ended.
 */
enum { CROWD = 16, CROWD_CELLS = 12, CROWD_ROUNDS = 2000 };
static atomic_int shared_holders[CROWD_CELLS];
static atomic_int exclusive_holders[CROWD_CELLS];
static atomic_bool intruded;
static atomic_int crowd_ended;

/* Count the holder of @first to @last in or out, and look who else is there. */
static void count_holder(uint64_t first, uint64_t last, bool exclusive, int by)
{
        for (uint64_t cell = first; cell <= last; cell++) {
                atomic_fetch_add(exclusive ? &exclusive_holders[cell] : &shared_holders[cell], by);
                if (by > 0 && (exclusive_holders[cell] != exclusive ||
                               (exclusive && shared_holders[cell] != 0)))
                        intruded = true;
        }
}

static void *crowd_main(void *context)
{
        unsigned seed = (unsigned)(uintptr_t)context;

        for (int i = 0; i < CROWD_ROUNDS; i++) {
                TK_RANGE_SCOPE(range);
                uint64_t first;
                uint64_t last;
                bool exclusive;

                seed = seed * 1103515245 + 12345;
                first = (seed >> 16) % CROWD_CELLS;
                last = first + (seed >> 20) % (CROWD_CELLS - first);
                exclusive = (seed >> 28) % 3 == 0;
                tk_range_hold(&rangelock, &range, first, last, exclusive);
                count_holder(first, last, exclusive, 1);
                if (seed >> 29 == 0)
                        sched_yield();
                count_holder(first, last, exclusive, -1);
        }
        crowd_ended++;
        return NULL;
}

static void test_release__wakes_all_whose_turn_it_is(void **state)
{
        pthread_t threads[CROWD];
        int ended = 0;

        intruded = false;
        crowd_ended = 0;
        for (uintptr_t i = 0; i < CROWD; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, (void *)(i + 1)), 0);
        for (int i = 0; i < 60000 && ended < CROWD; i++) {
                short_pause();
                ended = crowd_ended;
        }
        if (ended < CROWD) { /* they can't be joined: nor would the test's end be */
                print_error("%d of %d threads wait for ever\n", CROWD - ended, CROWD);
                abort();
        }
        for (int i = 0; i < CROWD; i++)
                pthread_join(threads[i], NULL);
        assert_false(intruded);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_hold__conflicts),
                TEST(test_release__not_held),
                TEST(test_hold__writer_among_readers),
                TEST(test_hold__counts_survive),
                TEST(test_release__wakes_all_whose_turn_it_is),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
