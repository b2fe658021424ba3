/* SPDX-License-Identifier: Apache-2.0 */

/* The lease, over all sequences of answers up to a length, with a clock of our own. */

#include "fs/lease.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <string.h>

enum { WINDOW_MS = 60000, GRACE_MS = 300000, STEPS = 6, ANSWERS = 5 };

static const struct tk_lease_config config = {.window_ms = WINDOW_MS, .grace_ms = GRACE_MS};
static const struct tk_lease_config strict = {
        .window_ms = WINDOW_MS, .grace_ms = GRACE_MS, .expiry_revokes = true};

/* What must hold after any answer, whatever came before. */
static void check_step(const struct tk_lease *before, const struct tk_lease *after,
                       enum tk_lease_answer answer, int64_t now)
{
        bool was_open = tk_lease_errno(before->state) == 0;
        int error = tk_lease_errno(after->state);

        switch (answer) {
        case TK_LEASE_USABLE:
                assert_int_equal(after->state, TK_LEASE_ACTIVE);
                break;
        case TK_LEASE_REFUSED:
                assert_int_equal(error, -EKEYREVOKED);
                break;
        case TK_LEASE_PAST_DATES:
                assert_int_equal(error, after->config.expiry_revokes ? -EKEYEXPIRED : 0);
                break;
        case TK_LEASE_UNREACHABLE:
                /* No answer opens nothing, and closes nothing before the grace has ended. */
                if (!was_open)
                        assert_int_not_equal(error, 0);
                else
                        assert_int_equal(error,
                                         now - before->confirmed_ms < GRACE_MS ? 0 : -ENOKEY);
                break;
        case TK_LEASE_UNKNOWN_US:
                if (!was_open)
                        assert_int_not_equal(error, 0);
                else
                        assert_int_equal(error,
                                         now - before->confirmed_ms < WINDOW_MS ? 0 : -EKEYREVOKED);
                break;
        }
        /* Served without another answer: for a window, or while out of reach, for the grace. */
        if (error == 0)
                assert_int_equal(tk_lease_until(after),
                                 after->confirmed_ms +
                                         (answer == TK_LEASE_UNREACHABLE ? GRACE_MS : WINDOW_MS));
        /* The next probe is never far, and never at once. */
        assert_true(after->next_ms > now);
        assert_true(after->next_ms - now <= WINDOW_MS * 3 / 10);
        if (after->state == TK_LEASE_ACTIVE)
                assert_int_equal(after->confirmed_ms, now);
        else
                assert_int_equal(after->confirmed_ms, before->confirmed_ms);
}

static void walk(const struct tk_lease *lease, int64_t now, unsigned depth, uint64_t *count)
{
        static const int64_t pauses[] = {1000, WINDOW_MS, GRACE_MS};

        if (depth == 0)
                return;
        for (int answer = 0; answer < ANSWERS; answer++) {
                for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
                        struct tk_lease next = *lease;
                        int64_t then = now + pauses[i];

                        tk_lease_hear(&next, (enum tk_lease_answer)answer, then, then,
                                      (uint32_t)(then * 2654435761U));
                        check_step(lease, &next, (enum tk_lease_answer)answer, then);
                        ++*count;
                        walk(&next, then, depth - 1, count);
                }
        }
}

static void test_lease_hear__all_sequences(void **state)
{
        const struct tk_lease_config *configs[] = {&config, &strict};
        uint64_t count = 0;

        (void)state;
        for (size_t i = 0; i < 2; i++) {
                struct tk_lease lease;

                tk_lease_start(&lease, configs[i], 1000, 7);
                walk(&lease, 1000, STEPS - 1, &count);
        }
        assert_true(count > 1000000);
}

static void test_lease_wait__grace_ends_without_a_probe(void **state)
{
        struct tk_lease lease;

        (void)state;
        tk_lease_start(&lease, &config, 0, 0);
        assert_int_equal(tk_lease_wait(&lease, (int64_t)GRACE_MS * 2), TK_LEASE_ACTIVE);
        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_UNREACHABLE, 10, 10, 0), TK_LEASE_DEGRADED);
        assert_int_equal(tk_lease_wait(&lease, GRACE_MS - 1), TK_LEASE_DEGRADED);
        assert_int_equal(tk_lease_wait(&lease, GRACE_MS), TK_LEASE_OUTAGE);
        assert_int_equal(tk_lease_wait(&lease, 0), TK_LEASE_OUTAGE);
        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_USABLE, GRACE_MS + 1, GRACE_MS + 1, 0),
                         TK_LEASE_ACTIVE);
}

static void test_lease_wait__a_refused_identity_has_the_window(void **state)
{
        struct tk_lease lease;

        (void)state;
        tk_lease_start(&lease, &config, 0, 0);
        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_UNKNOWN_US, 10, 10, 0), TK_LEASE_DEGRADED);
        assert_int_equal(tk_lease_until(&lease), WINDOW_MS);
        assert_int_equal(tk_lease_wait(&lease, WINDOW_MS - 1), TK_LEASE_DEGRADED);
        assert_int_equal(tk_lease_wait(&lease, WINDOW_MS), TK_LEASE_REVOKED);
        tk_lease_start(&lease, &config, 0, 0);
        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_UNREACHABLE, 10, 10, 0), TK_LEASE_DEGRADED);
        assert_int_equal(tk_lease_until(&lease), GRACE_MS);
}

/* A fleet that lost its vault comes back spread out, and does not ask more often than before. */
static void test_lease__retries_are_spread_and_bounded(void **state)
{
        int64_t earliest = INT64_MAX;
        int64_t latest = 0;

        (void)state;
        for (uint32_t random = 0; random < 1000; random++) {
                struct tk_lease lease;
                int64_t now = 0;
                unsigned probes = 0;

                tk_lease_start(&lease, &config, 0, random);
                while (now < 3600000) {
                        now = lease.next_ms;
                        tk_lease_hear(&lease, TK_LEASE_UNREACHABLE, now, now,
                                      random * 7919 + probes);
                        probes++;
                }
                assert_true(probes < 3600000 / (WINDOW_MS / 5) + 20);
                earliest = now < earliest ? now : earliest;
                latest = now > latest ? now : latest;
        }
        assert_true(latest - earliest > WINDOW_MS / 10);
}

/* The clock runs while the machine sleeps; here it sleeps at every point of a probe. */
static void test_lease__a_sleep_ends_it(void **state)
{
        static const int64_t sleeps[] = {
                0, 500, WINDOW_MS / 2, WINDOW_MS, (int64_t)WINDOW_MS * 10, (int64_t)GRACE_MS * 10};

        (void)state;
        for (size_t before = 0; before < 6; before++) {
                for (size_t during = 0; during < 6; during++) {
                        struct tk_lease lease;
                        int64_t asked = WINDOW_MS / 4 + sleeps[before];
                        int64_t now = asked + 10 + sleeps[during];

                        tk_lease_start(&lease, &config, 0, 0);
                        /* Whatever slept before the probe, the old lease ends with its window. */
                        assert_int_equal(tk_lease_until(&lease), WINDOW_MS);
                        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_USABLE, asked, now, 0),
                                         TK_LEASE_ACTIVE);
                        /* An answer from before a sleep counts from when it was asked for. */
                        if (sleeps[during] < WINDOW_MS)
                                assert_true(tk_lease_until(&lease) > now);
                        else
                                assert_true(tk_lease_until(&lease) <= now);
                        assert_true(tk_lease_until(&lease) <= asked + WINDOW_MS);
                        if (tk_lease_until(&lease) <= now)
                                assert_int_equal(lease.next_ms, now + 1);
                        /* The next one, asked awake, makes it whole. */
                        tk_lease_hear(&lease, TK_LEASE_USABLE, now, now + 10, 0);
                        assert_int_equal(tk_lease_until(&lease), now + WINDOW_MS);
                }
        }
}

/* With a window shorter than the KMS takes, something is served all the same. */
static void test_lease__a_slow_kms_is_no_sleep(void **state)
{
        static const struct tk_lease_config tight = {.window_ms = 1000, .grace_ms = GRACE_MS};
        struct tk_lease lease;

        (void)state;
        tk_lease_start(&lease, &tight, 0, 0);
        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_USABLE, 250, 2250, 0), TK_LEASE_ACTIVE);
        assert_int_equal(tk_lease_until(&lease), 2500);
        assert_int_equal(tk_lease_hear(&lease, TK_LEASE_USABLE, 2500, 100000, 0), TK_LEASE_ACTIVE);
        assert_int_equal(tk_lease_until(&lease), 3500);
}

static void test_lease_answer_of__providers(void **state)
{
        (void)state;
        assert_int_equal(tk_lease_answer_of(0), TK_LEASE_USABLE);
        assert_int_equal(tk_lease_answer_of(-EKEYREVOKED), TK_LEASE_REFUSED);
        assert_int_equal(tk_lease_answer_of(-ENOENT), TK_LEASE_REFUSED);
        assert_int_equal(tk_lease_answer_of(-EACCES), TK_LEASE_UNKNOWN_US);
        assert_int_equal(tk_lease_answer_of(-EKEYEXPIRED), TK_LEASE_PAST_DATES);
        assert_int_equal(tk_lease_answer_of(-ENOKEY), TK_LEASE_UNREACHABLE);
        assert_int_equal(tk_lease_answer_of(-EIO), TK_LEASE_UNREACHABLE);
        assert_string_equal(tk_lease_name(TK_LEASE_OUTAGE), "outage");
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_lease_hear__all_sequences),
                TK_TEST(test_lease_wait__grace_ends_without_a_probe),
                TK_TEST(test_lease_wait__a_refused_identity_has_the_window),
                TK_TEST(test_lease__retries_are_spread_and_bounded),
                TK_TEST(test_lease__a_sleep_ends_it),
                TK_TEST(test_lease__a_slow_kms_is_no_sleep),
                TK_TEST(test_lease_answer_of__providers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
