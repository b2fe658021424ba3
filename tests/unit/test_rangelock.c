/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Range lock: who may hold what at once, found out by threads.
 *
 * Nothing is measured in time: whether somebody waits, and was woken, is seen under the lock.
 */

#include "support.h"

#include "fs/rangelock.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* fs/rangelock.c with a seam: who sleeps, and whether they were woken. Under the lock. */
struct sleeper {
        struct sleeper *next;
        pthread_cond_t *cond;
        bool woken;
};
static struct sleeper *sleepers;

static int noted_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
{
        struct sleeper self = {.next = sleepers, .cond = cond};
        struct sleeper **link = &sleepers;
        int r;

        sleepers = &self;
        r = pthread_cond_wait(cond, lock);
        while (*link != &self)
                link = &(*link)->next;
        *link = self.next;
        return r;
}

static int noted_signal(pthread_cond_t *cond)
{
        for (struct sleeper *sleeper = sleepers; sleeper; sleeper = sleeper->next)
                if (sleeper->cond == cond)
                        sleeper->woken = true;
        return pthread_cond_signal(cond);
}

#define pthread_cond_wait noted_wait
#define pthread_cond_signal noted_signal
#include "fs/rangelock.c" /* NOLINT(bugprone-suspicious-include) */
#undef pthread_cond_wait
#undef pthread_cond_signal

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

static bool is_asleep(const struct tk_range *range)
{
        for (const struct sleeper *sleeper = sleepers; sleeper; sleeper = sleeper->next)
                if (sleeper->cond == &range->granted)
                        return !sleeper->woken;
        return false;
}

static bool is_its_turn(const struct tk_range *wanted)
{
        for (const struct tk_range *range = rangelock.queue; range != wanted; range = range->next)
                if ((range->exclusive || wanted->exclusive) &&
                    !(range->last < wanted->first || wanted->last < range->first))
                        return false;
        return true;
}

/*
 * Whoever's turn it is, in the order of arrival, holds its range or was woken for it; nobody else
 * does. Those who were forgotten can't be joined, nor would the test come to its end.
 */
static void check_queue(void)
{
        TK_LOCK_SCOPE(&rangelock.lock);
        for (const struct tk_range *range = rangelock.queue; range; range = range->next) {
                bool turn = is_its_turn(range);

                if (range->waits != turn && !(turn && is_asleep(range)))
                        continue;
                print_error("[%llu, %llu]: %s\n", (unsigned long long)range->first,
                            (unsigned long long)range->last,
                            turn ? "forgotten" : "granted before its turn");
                abort();
        }
}

static void let_go(struct tk_range *range)
{
        tk_range_release(range);
        check_queue();
}

/* A thread that wants one range. */
struct claim {
        struct tk_range range;
        uint64_t first;
        uint64_t last;
        bool exclusive;
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

        tk_range_hold(&rangelock, &claim->range, claim->first, claim->last, claim->exclusive);
        while (!claim->let_go)
                short_pause();
        let_go(&claim->range);
        return NULL;
}

static bool is_in_line(const struct claim *claim, bool *ret_waits)
{
        TK_LOCK_SCOPE(&rangelock.lock);
        for (const struct tk_range *range = rangelock.queue; range; range = range->next) {
                if (range != &claim->range)
                        continue;
                *ret_waits = range->waits;
                return true;
        }
        return false;
}

static bool waits(const struct claim *claim)
{
        bool is = false;

        while (!is_in_line(claim, &is))
                short_pause();
        return is;
}

/* Returns when the claim holds its range or waits for it. */
static void claim_start(struct claim *claim, uint64_t first, uint64_t last, bool exclusive)
{
        memset(claim, 0, sizeof(*claim));
        claim->first = first;
        claim->last = last;
        claim->exclusive = exclusive;
        assert_int_equal(pthread_create(&claim->thread, NULL, claim_main, claim), 0);
        (void)waits(claim);
        check_queue();
}

static void claim_end(struct claim *claim)
{
        claim->let_go = true;
        pthread_join(claim->thread, NULL);
}

/* Whether a claim is granted, or a try succeeds, while [10, 20] is held. */
static void check_beside(bool held_exclusive, uint64_t first, uint64_t last, bool exclusive,
                         bool granted)
{
        struct tk_range held = {0};
        struct tk_range tried = {0};
        struct claim claim;

        tk_range_hold(&rangelock, &held, 10, 20, held_exclusive);
        assert_int_equal(tk_range_try(&rangelock, &tried, first, last, exclusive), granted);
        check_queue();
        let_go(&tried);
        claim_start(&claim, first, last, exclusive);
        assert_int_equal(waits(&claim), !granted);
        let_go(&held);
        assert_false(waits(&claim));
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
        struct tk_range tried = {0};

        tk_range_release(&range);
        tk_range_hold(&rangelock, &range, 0, 0, true);
        assert_false(tk_range_try(&rangelock, &tried, 0, 0, true));
        tk_range_release(&tried);
        tk_range_release(&range);
        tk_range_release(&range);
}

/* Readers whose holds overlap without a gap do not keep a writer out: nobody overtakes it. */
static void test_hold__writer_among_readers(void **state)
{
        struct tk_range tried = {0};
        struct claim reader;
        struct claim writer;
        struct claim late;

        claim_start(&reader, 5, 5, false);
        claim_start(&writer, 0, TK_RANGE_END, true);
        claim_start(&late, 5, 5, false);
        assert_true(waits(&writer));
        assert_true(waits(&late));
        assert_false(tk_range_try(&rangelock, &tried, 5, 5, false));
        claim_end(&reader);
        assert_false(waits(&writer));
        assert_true(waits(&late));
        claim_end(&writer);
        assert_false(waits(&late));
        assert_true(tk_range_try(&rangelock, &tried, 5, 5, false));
        let_go(&tried);
        claim_end(&late);
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

/* Threads that hold random ranges, shared and exclusive, many of which wait for several holders. */
enum { CROWD = 16, CROWD_CELLS = 12, CROWD_ROUNDS = 2000 };
static atomic_int shared_holders[CROWD_CELLS];
static atomic_int exclusive_holders[CROWD_CELLS];
static atomic_bool intruded;

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
                let_go(&range);
        }
        return NULL;
}

static void test_release__wakes_all_whose_turn_it_is(void **state)
{
        pthread_t threads[CROWD];

        intruded = false;
        for (uintptr_t i = 0; i < CROWD; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, (void *)(i + 1)), 0);
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
