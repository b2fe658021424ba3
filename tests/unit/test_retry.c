/* SPDX-License-Identifier: Apache-2.0 */

/* Back-off: waits stay in their span, are asked for by the service, and end before the deadline. */

#include "kms/retry.h"
#include "tests/unit/support.h"

static const struct tk_retry_policy policy = {.attempts_max = 5, .base_ms = 500, .cap_ms = 4000};

static void test_tk_retry_may_help__statuses(void **state)
{
        static const int yes[] = {408, 429, 500, 502, 503, 504, 599};
        static const int no[] = {200, 301, 400, 401, 403, 404, 409, 501, 505, 600};

        for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
                assert_true(tk_retry_may_help(yes[i]));
        for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
                assert_false(tk_retry_may_help(no[i]));
}

static void test_tk_retry_wait__full_jitter(void **state)
{
        static const int64_t span[] = {500, 1000, 2000, 4000};

        for (unsigned attempt = 1; attempt <= 4; attempt++) {
                int64_t most = 0;

                for (uint32_t i = 0; i < 20000; i++) {
                        int64_t wait = tk_retry_wait(&policy, attempt, 1000, 1000000, -1, i);

                        assert_in_range(wait, 0, span[attempt - 1]);
                        most = wait > most ? wait : most;
                }
                assert_int_equal(most, span[attempt - 1]);
        }
}

static void test_tk_retry_wait__cap_holds_for_late_attempts(void **state)
{
        static const struct tk_retry_policy long_one = {
                .attempts_max = 1000, .base_ms = 500, .cap_ms = 4000};

        assert_in_range(tk_retry_wait(&long_one, 999, 0, 1000000, -1, UINT32_MAX), 0, 4000);
}

static void test_tk_retry_wait__attempts_end(void **state)
{
        assert_true(tk_retry_wait(&policy, 4, 0, 1000000, -1, 0) >= 0);
        assert_int_equal(tk_retry_wait(&policy, 5, 0, 1000000, -1, 0), TK_RETRY_GIVE_UP);
}

static void test_tk_retry_wait__deadline(void **state)
{
        /* 1000 % 501 is 499. */
        assert_int_equal(tk_retry_wait(&policy, 1, 10000, 10500, -1, 1000), 499);
        assert_int_equal(tk_retry_wait(&policy, 1, 10000, 10499, -1, 1000), TK_RETRY_GIVE_UP);
}

static void test_tk_retry_wait__asked(void **state)
{
        int64_t wait = tk_retry_wait(&policy, 1, 0, 60000, 7000, 499);

        assert_in_range(wait, 7000, 7000 + 500 / 8);
        assert_int_equal(tk_retry_wait(&policy, 1, 0, 60000, 60000, 0), TK_RETRY_GIVE_UP);
        assert_int_equal(tk_retry_wait(&policy, 1, 0, 60000, 0, 0), 0);
}

static void test_tk_retry_asked__headers(void **state)
{
        assert_int_equal(tk_retry_asked("", "", -1, 100), TK_RETRY_UNASKED);
        assert_int_equal(tk_retry_asked("3", "", -1, 100), 3000);
        assert_int_equal(tk_retry_asked("3", "250", -1, 100), 250);
        assert_int_equal(tk_retry_asked("Wed, 21 Oct 2015 07:28:00 GMT", "", 130, 100), 30000);
        assert_int_equal(tk_retry_asked("Wed, 21 Oct 2015 07:28:00 GMT", "", 70, 100), 0);
}

static void test_tk_retry_asked__nonsense(void **state)
{
        assert_int_equal(tk_retry_asked("-3", "", -1, 100), TK_RETRY_UNASKED);
        assert_int_equal(tk_retry_asked("soon", "x", -1, 100), TK_RETRY_UNASKED);
        assert_int_equal(tk_retry_asked("99999999999999999999", "", -1, 100), TK_RETRY_UNASKED);
        /* At most a day, so that nothing overflows behind it. */
        assert_int_equal(tk_retry_asked("999999999", "", -1, 100), 24 * 3600 * 1000);
        assert_int_equal(tk_retry_asked("x", "", INT64_C(1) << 40, 100), 24 * 3600 * 1000);
}

static void test_tk_retry_gate__never_earlier(void **state)
{
        struct tk_retry_gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER};

        assert_int_equal(tk_retry_gate_wait(&gate, 5000), 0);
        tk_retry_gate_close(&gate, 8000);
        tk_retry_gate_close(&gate, 6000);
        assert_int_equal(tk_retry_gate_wait(&gate, 5000), 3000);
        assert_int_equal(tk_retry_gate_wait(&gate, 8000), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_tk_retry_may_help__statuses),
                TK_TEST(test_tk_retry_wait__full_jitter),
                TK_TEST(test_tk_retry_wait__cap_holds_for_late_attempts),
                TK_TEST(test_tk_retry_wait__attempts_end),
                TK_TEST(test_tk_retry_wait__deadline),
                TK_TEST(test_tk_retry_wait__asked),
                TK_TEST(test_tk_retry_asked__headers),
                TK_TEST(test_tk_retry_asked__nonsense),
                TK_TEST(test_tk_retry_gate__never_earlier),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
