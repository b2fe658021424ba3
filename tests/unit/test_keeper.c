/* SPDX-License-Identifier: Apache-2.0 */

/* The keeper: the mount follows what the KMS says, and rotations are asked for. */

#include "support_fs.h"

#include "base/clock.h"
#include "fs/content.h"
#include "fs/keeper.h"
#include <stdatomic.h>
#include <time.h>

enum { WINDOW_MS = 200, PATIENCE_MS = 20000 };

static struct tk_test_fs test;
static struct tk_keeper *keeper;
static atomic_uint rotations_asked;
static atomic_uint invalidated;

static void rotate(void *context)
{
        (void)context;
        rotations_asked++;
}

static void invalidate(void *context, struct tk_inode *inode)
{
        (void)context;
        (void)inode;
        invalidated++;
}

static int enter(void **state)
{
        memset(&test, 0, sizeof(test));
        rotations_asked = 0;
        invalidated = 0;
        return tk_test_dir_enter(state);
}

static void start(int64_t grace_ms, int64_t rotation_window_ms)
{
        struct tk_keeper_options options = {
                .lease = {.window_ms = WINDOW_MS, .grace_ms = grace_ms},
                .rotation_window_ms = rotation_window_ms,
                .rotate = rotate,
        };
        struct tk_revoke_kernel kernel = {.invalidate = invalidate};

        tk_test_fs_start(&test);
        assert_int_equal(tk_keeper_new(test.fs, &options, &kernel, &keeper), 0);
}

static void finish(void)
{
        keeper = tk_keeper_free(keeper);
        tk_test_fs_stop(&test);
}

static struct tk_keeper_status look(void)
{
        struct tk_keeper_status status;

        tk_keeper_status(keeper, &status);
        return status;
}

static void sleep_ms(long ms)
{
        struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

        nanosleep(&pause, NULL);
}

static void wait_for_state(enum tk_lease_state wanted)
{
        for (int waited = 0; look().state != wanted; waited += 5) {
                assert_true(waited < PATIENCE_MS);
                sleep_ms(5);
        }
}

static void wait_for_gate(int wanted)
{
        for (int waited = 0; tk_revoke_gate(test.fs, false) != wanted; waited += 5) {
                assert_true(waited < PATIENCE_MS);
                sleep_ms(5);
        }
}

static void test_keeper__refused_and_given_out_again(void **state)
{
        start(60000, 0);
        assert_int_equal(look().state, TK_LEASE_ACTIVE);
        for (int i = 0; i < 3; i++) {
                unsigned before = invalidated;

                test.fake.refuse = -EKEYREVOKED;
                wait_for_gate(-EKEYREVOKED);
                wait_for_state(TK_LEASE_REVOKED);
                assert_true(invalidated > before);
                test.fake.refuse = 0;
                wait_for_gate(0);
                wait_for_state(TK_LEASE_ACTIVE);
        }
        finish();
}

static void test_keeper__out_of_reach_until_the_grace_ends(void **state)
{
        start(1000, 0);
        test.fake.refuse = -ENOKEY;
        wait_for_state(TK_LEASE_DEGRADED);
        assert_int_equal(tk_revoke_gate(test.fs, false), 0);
        wait_for_gate(-ENOKEY);
        assert_int_equal(look().state, TK_LEASE_OUTAGE);
        test.fake.refuse = 0;
        wait_for_gate(0);
        finish();
}

/* Windows that change while one waits for their end. */
static void test_set_windows__hold_at_once(void **state)
{
        struct tk_fault fault = {0};

        start(3600000, 3600000);
        test.fake.refuse = -ENOKEY;
        wait_for_state(TK_LEASE_DEGRADED);
        assert_true(look().left_ms > 60000);
        tk_keeper_set_windows(keeper, 0, 3600000);
        wait_for_gate(-ENOKEY);
        test.fake.refuse = 0;
        wait_for_gate(0);
        /* Nobody would look for an hour otherwise. */
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), 0);
        tk_keeper_set_windows(keeper, 0, 100);
        for (int waited = 0; rotations_asked == 0; waited += 5) {
                assert_true(waited < PATIENCE_MS);
                sleep_ms(5);
        }
        assert_int_equal(tk_volume_retire_below(test.volume, 2, &fault), 0);
        finish();
}

/* Served until the window ends, and shown as closed until all is unwrapped again. */
static void test_keeper__a_refused_identity(void **state)
{
        struct tk_keeper_status status;

        start(60000, 0);
        test.fake.refuse = -EACCES;
        wait_for_state(TK_LEASE_DEGRADED);
        wait_for_gate(-EKEYREVOKED);
        wait_for_state(TK_LEASE_REVOKED);
        test.fake.refuse = 0;
        do {
                status = look();
                if (status.state == TK_LEASE_ACTIVE)
                        assert_int_equal(tk_revoke_gate(test.fs, false), 0);
        } while (status.state != TK_LEASE_ACTIVE);
        finish();
}

static void test_keeper__an_unfinished_rotation_is_asked_for(void **state)
{
        struct tk_fault fault = {0};

        start(60000, 100);
        sleep_ms(200);
        assert_int_equal(rotations_asked, 0);
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), 0);
        for (int waited = 0; rotations_asked < 2; waited += 5) {
                assert_true(waited < PATIENCE_MS);
                sleep_ms(5);
        }
        assert_int_equal(tk_volume_retire_below(test.volume, 2, &fault), 0);
        finish();
}

/*
 * As after a sleep: the lease is over, and the answer still to come. No request passes
 * before it, and then it gets what the KMS says now.
 */
static void test_await__nothing_passes_before_the_kms_was_asked(void **state)
{
        static const int answers[] = {0, -EKEYREVOKED, 0, -ENOKEY, 0};

        start(60000, 0);
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
                int64_t began;

                test.fake.refuse = 0;
                wait_for_gate(0);
                test.fake.probe_ms = 600;
                sleep_ms(300); /* a probe is under way, or will be soon */
                test.fake.refuse = answers[i];
                test.fs->lease_until_ms = tk_clock_ms();
                began = tk_clock_ms();
                /* Out of reach is no refusal: the grace has not ended. */
                assert_int_equal(tk_revoke_gate(test.fs, false),
                                 answers[i] == -ENOKEY ? 0 : answers[i]);
                assert_true(tk_clock_ms() - began >= 100);
                test.fake.probe_ms = 0;
        }
        finish();
}

static void test_halt__the_kernel_is_left_alone(void **state)
{
        start(60000, 0);
        tk_keeper_halt(keeper);
        test.fake.refuse = -EKEYREVOKED;
        wait_for_gate(-EKEYREVOKED);
        sleep_ms(50);
        assert_int_equal(invalidated, 0);
        finish();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_keeper__refused_and_given_out_again, enter,
                                                tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_keeper__out_of_reach_until_the_grace_ends,
                                                enter, tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_set_windows__hold_at_once, enter,
                                                tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_keeper__a_refused_identity, enter,
                                                tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_keeper__an_unfinished_rotation_is_asked_for,
                                                enter, tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_await__nothing_passes_before_the_kms_was_asked,
                                                enter, tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_halt__the_kernel_is_left_alone, enter,
                                                tk_test_dir_leave),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
