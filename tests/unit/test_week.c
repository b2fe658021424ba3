/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Mounts and a vault in trouble, over a simulated week with default windows: the lease and
 * the azure provider as they are, a network and a clock of our own. The vault does what a
 * schedule says; mounts don't influence each other, so they are simulated one by one.
 * $TURNKEYFS_TEST_LONG: a larger fleet, and more weeks.
 */

#include "base/log.h"
#include "fs/lease.h"
#include "kms/azure_provider.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <limits.h>

#define KEY "https://v.vault.azure.net/keys/kek"
#define V1 "11111111111111111111111111111111"
#define TOKEN "{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":\"t\"}"
#define UNWRAPPED "{\"kid\":\"" KEY "/" V1 "\",\"value\":\"AQEB\"}"
#define ERROR_OF(code, inner)                                                                      \
        "{\"error\":{\"code\":\"" code "\",\"message\":\"m\",\"innererror\":{\"code\":\"" inner    \
        "\"}}}"

enum {
        WINDOW_MS = 60000,
        DEADLINE_MS = 15000, /* of a call: a quarter of the window */
        ASKED_S = 60,        /* the longest Retry-After in the schedule */
        PAUSE_MAX_MS = WINDOW_MS * 3 / 10,
        LATENCY_MS = 20,
        /* From the end of a trouble until the mount serves: what the vault asked for, a
         * call under way, a pause, a call. */
        BACK_MS = ASKED_S * 1000 + DEADLINE_MS + PAUSE_MAX_MS + DEADLINE_MS,
        /* Six attempts at most to a call, a token or two, and a pause of 12 s at least. */
        CALLS_PER_HOUR_MAX = 2400,
        PHASES_MAX = 4000,
        SECONDS_MAX = 2 * 3600,
};

static const int64_t grace_ms = 24LL * 3600 * 1000;
static const int64_t hour_ms = 3600LL * 1000;

/* What the vault and the authority do. */
enum kind {
        GOOD,
        THROTTLED,
        THROTTLED_ASKING, /* Retry-After: ASKED_S */
        BROKEN_500,
        DOWN_503,
        NO_CONNECT,
        NO_HOST,
        TIMEOUT,
        CUT_OFF,
        BAD_TLS,
        NONSENSE,
        SLOW,
        HALF_DEAD, /* every other request gets no answer, the rest are slow */
        FLAPPING,  /* each request by chance: good, 503 or cut off */
        NO_TOKENS, /* the authority does not answer */
        DISABLED,
        DELETED,
        DENIED,
        BLINKING, /* disabled and enabled, minute by minute */
        UNKNOWN_US,
        KINDS
};

static const char *const names[] = {
        [GOOD] = "none",
        [THROTTLED] = "429",
        [THROTTLED_ASKING] = "429 with Retry-After",
        [BROKEN_500] = "500",
        [DOWN_503] = "503",
        [NO_CONNECT] = "no connection",
        [NO_HOST] = "no name",
        [TIMEOUT] = "no answer",
        [CUT_OFF] = "cut off",
        [BAD_TLS] = "bad certificate",
        [NONSENSE] = "nonsense",
        [SLOW] = "slow",
        [HALF_DEAD] = "half-dead",
        [FLAPPING] = "flapping",
        [NO_TOKENS] = "no tokens",
        [DISABLED] = "disabled",
        [DELETED] = "deleted",
        [DENIED] = "denied",
        [BLINKING] = "blinking",
        [UNKNOWN_US] = "unknown identity",
};

struct phase {
        int64_t from_ms;
        enum kind kind;
};

struct schedule {
        struct phase phases[PHASES_MAX];
        size_t count;
};

struct mount {
        const struct schedule *schedule;
        struct tk_http *http;
        struct tk_azure_net net;
        struct tk_kms *kms;
        struct tk_lease lease;
        int64_t now_ms;
        uint64_t random;
        uint64_t requests;
        unsigned *per_second; /* requests of the whole fleet; NULL: not wanted */
        unsigned *first;      /* first requests of each mount after @first_after_ms */
        int64_t first_after_ms;
        bool counted;
};

static uint32_t draw(uint64_t *random)
{
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        return (uint32_t)(*random >> 16);
}

static const struct phase *phase_at(const struct schedule *schedule, int64_t now_ms)
{
        size_t low = 0;
        size_t high = schedule->count;

        while (high - low > 1) {
                size_t middle = (low + high) / 2;

                if (schedule->phases[middle].from_ms <= now_ms)
                        low = middle;
                else
                        high = middle;
        }
        return &schedule->phases[low];
}

static void add(struct schedule *schedule, int64_t from_ms, enum kind kind)
{
        assert_true(schedule->count < PHASES_MAX);
        schedule->phases[schedule->count++] = (struct phase){from_ms, kind};
}

/* The network ------------------------------------------------------------ */

static int64_t fake_now(void *context)
{
        return ((struct mount *)context)->now_ms;
}

static int64_t fake_unix_now(void *context)
{
        return 1700000000 + ((struct mount *)context)->now_ms / 1000;
}

static void fake_sleep(void *context, int64_t ms)
{
        ((struct mount *)context)->now_ms += ms;
}

static void count(struct mount *mount)
{
        int64_t second = mount->now_ms / 1000;

        mount->requests++;
        if (!mount->per_second || second >= SECONDS_MAX)
                return;
        mount->per_second[second]++;
        if (mount->now_ms >= mount->first_after_ms && !mount->counted) {
                mount->counted = true;
                mount->first[second]++;
        }
}

static int answer_with(struct mount *mount, struct tk_http_answer *answer, int status,
                       const char *body)
{
        mount->now_ms += LATENCY_MS;
        answer->status = status;
        return tk_secret_dup_bytes(body, strlen(body) + 1, &answer->body);
}

static int no_answer(struct mount *mount, const struct tk_http_request *request,
                     struct tk_http_answer *answer, enum tk_http_failure failure)
{
        mount->now_ms += failure == TK_HTTP_TIMEOUT ? request->timeout_ms : LATENCY_MS;
        answer->failure = failure;
        snprintf(answer->why, sizeof(answer->why), "simulated");
        return -EHOSTUNREACH;
}

static int throttle(struct mount *mount, struct tk_http_answer *answer, bool asking)
{
        if (asking)
                snprintf(answer->retry_after, sizeof(answer->retry_after), "%d", ASKED_S);
        return answer_with(mount, answer, 429, ERROR_OF("Throttled", ""));
}

static int refuse(struct mount *mount, struct tk_http_answer *answer, const char *inner)
{
        char body[256];

        snprintf(body, sizeof(body),
                 "{\"error\":{\"code\":\"Forbidden\",\"message\":\"m\",\"innererror\":"
                 "{\"code\":\"%s\"}}}",
                 inner);
        return answer_with(mount, answer, 403, body);
}

static int flap(struct mount *mount, const struct tk_http_request *request,
                struct tk_http_answer *answer)
{
        switch (draw(&mount->random) % 3) {
        case 0:
                return answer_with(mount, answer, 200, UNWRAPPED);
        case 1:
                return answer_with(mount, answer, 503, "");
        default:
                return no_answer(mount, request, answer, TK_HTTP_BROKEN);
        }
}

static int linger(struct mount *mount, const struct tk_http_request *request,
                  struct tk_http_answer *answer, int64_t ms)
{
        if (request->timeout_ms > 0 && ms > request->timeout_ms)
                return no_answer(mount, request, answer, TK_HTTP_TIMEOUT);
        mount->now_ms += ms;
        return answer_with(mount, answer, 200, UNWRAPPED);
}

static int answer_vault(struct mount *mount, const struct tk_http_request *request,
                        struct tk_http_answer *answer)
{
        switch (phase_at(mount->schedule, mount->now_ms)->kind) {
        case THROTTLED:
                return throttle(mount, answer, false);
        case THROTTLED_ASKING:
                return throttle(mount, answer, true);
        case BROKEN_500:
                return answer_with(mount, answer, 500, "");
        case DOWN_503:
                return answer_with(mount, answer, 503, "");
        case NO_CONNECT:
                return no_answer(mount, request, answer, TK_HTTP_NO_CONNECT);
        case NO_HOST:
                return no_answer(mount, request, answer, TK_HTTP_NO_HOST);
        case TIMEOUT:
                return no_answer(mount, request, answer, TK_HTTP_TIMEOUT);
        case CUT_OFF:
                return no_answer(mount, request, answer, TK_HTTP_BROKEN);
        case BAD_TLS:
                return no_answer(mount, request, answer, TK_HTTP_TLS);
        case NONSENSE:
                return answer_with(mount, answer, 200, "<html>");
        case SLOW:
                return linger(mount, request, answer, 4000);
        case HALF_DEAD:
                return mount->requests % 2 == 0
                               ? linger(mount, request, answer, 2500)
                               : no_answer(mount, request, answer, TK_HTTP_TIMEOUT);
        case FLAPPING:
                return flap(mount, request, answer);
        case DISABLED:
                return refuse(mount, answer, "KeyDisabled");
        case DENIED:
                return refuse(mount, answer, "ForbiddenByRbac");
        case BLINKING:
                return mount->now_ms / 60000 % 2 == 0 ? refuse(mount, answer, "KeyDisabled")
                                                      : answer_with(mount, answer, 200, UNWRAPPED);
        case DELETED:
                return answer_with(mount, answer, 404, ERROR_OF("KeyNotFound", ""));
        case UNKNOWN_US:
                return answer_with(mount, answer, 401, ERROR_OF("Unauthorized", ""));
        default:
                return answer_with(mount, answer, 200, UNWRAPPED);
        }
}

static int answer_authority(struct mount *mount, const struct tk_http_request *request,
                            struct tk_http_answer *answer)
{
        switch (phase_at(mount->schedule, mount->now_ms)->kind) {
        case NO_TOKENS:
        case NO_HOST:
                return no_answer(mount, request, answer, TK_HTTP_TIMEOUT);
        case UNKNOWN_US:
                return answer_with(mount, answer, 401,
                                   "{\"error\":\"invalid_client\",\"error_codes\":[7000222]}");
        default:
                return answer_with(mount, answer, 200, TOKEN);
        }
}

static int perform(void *context, const struct tk_http_request *request,
                   struct tk_http_answer *answer)
{
        struct mount *mount = context;

        answer->date = -1;
        answer->retry_after_date = -1;
        count(mount);
        if (strncmp(request->url, KEY, strlen(KEY)) == 0)
                return answer_vault(mount, request, answer);
        return answer_authority(mount, request, answer);
}

/* A mount ---------------------------------------------------------------- */

static void begin(struct mount *mount, const struct schedule *schedule, uint64_t seed)
{
        static const struct tk_lease_config config = {.window_ms = WINDOW_MS, .grace_ms = 86400000};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = tk_test_secret("s3cret", 6);
        struct tk_kms_azure_options options = {.key = KEY,
                                               .auth = TK_AZURE_AUTH_CLIENT_SECRET,
                                               .client_id = "app-1",
                                               .tenant_id = "tenant-1",
                                               .secret = secret,
                                               .deadline_ms = DEADLINE_MS};
        struct tk_fault fault = {0};

        *mount = (struct mount){.schedule = schedule, .random = seed * 2654435761U + 1};
        assert_int_equal(tk_http_new_with(perform, mount, &mount->http), 0);
        mount->net = (struct tk_azure_net){.http = mount->http,
                                           .now_ms = fake_now,
                                           .sleep_ms = fake_sleep,
                                           .unix_now = fake_unix_now,
                                           .context = mount};
        if (tk_azure_open_with(&options, &mount->net, &mount->kms, &fault) < 0)
                fail_msg("%s", fault.text);
        tk_lease_start(&mount->lease, &config, 0, draw(&mount->random));
}

static void end(struct mount *mount)
{
        tk_kms_free(mount->kms);
        tk_http_free(mount->http);
}

/* As the keeper does: what is due next, a probe or the end of the grace. */
static void step(struct mount *mount)
{
        static const struct tk_kms_wrap wrap = {
                .key_id = KEY, .version = V1, .algorithm = "A256KW", .blob_len = 40};
        struct tk_lease *lease = &mount->lease;
        int64_t lease_end = tk_lease_until(lease);
        struct tk_fault fault = {0};
        int64_t asked_ms;
        int r;

        if (lease->state == TK_LEASE_DEGRADED && lease_end < lease->next_ms) {
                mount->now_ms = mount->now_ms > lease_end ? mount->now_ms : lease_end;
                tk_lease_wait(lease, mount->now_ms);
                return;
        }
        if (mount->now_ms < lease->next_ms)
                mount->now_ms = lease->next_ms;
        asked_ms = mount->now_ms;
        r = tk_kms_probe(mount->kms, &wrap, &fault);
        tk_lease_hear(lease, tk_lease_answer_of(r), asked_ms, mount->now_ms, draw(&mount->random));
}

/* The week --------------------------------------------------------------- */

static bool is_refusal(enum kind kind)
{
        return kind == DISABLED || kind == DELETED || kind == DENIED || kind == UNKNOWN_US;
}

/* What must hold after each step. */
static void check(const struct mount *mount)
{
        const struct phase *phase = phase_at(mount->schedule, mount->now_ms);
        int64_t since_ms = mount->now_ms - phase->from_ms;
        int error = tk_lease_errno(mount->lease.state);

        if (phase->kind == GOOD && since_ms >= BACK_MS)
                assert_int_equal(mount->lease.state, TK_LEASE_ACTIVE);
        /* A refusal may begin while a Retry-After of the trouble before it is kept to. */
        if (is_refusal(phase->kind) && since_ms >= WINDOW_MS + ASKED_S * 1000 + DEADLINE_MS)
                assert_int_equal(error, -EKEYREVOKED);
        if (error == 0)
                assert_true(mount->now_ms - mount->lease.confirmed_ms < grace_ms + DEADLINE_MS);
        assert_true(mount->lease.next_ms > mount->lease.confirmed_ms);
        assert_true(mount->lease.next_ms - mount->now_ms <= PAUSE_MAX_MS);
}

/* Troubles of all kinds, from seconds to hours, and good times between most of them. */
static void make_week(struct schedule *schedule, int64_t length_ms, uint64_t *random)
{
        static const int64_t lengths_s[] = {1, 5, 20, 70, 300, 900, 3600, 14400};
        int64_t now = 0;

        schedule->count = 0;
        add(schedule, now, GOOD);
        now += hour_ms;
        add(schedule, now, NO_CONNECT); /* for longer than the grace */
        now += grace_ms + hour_ms;
        while (now < length_ms) {
                size_t i = draw(random) % (sizeof(lengths_s) / sizeof(lengths_s[0]));

                add(schedule, now, (enum kind)(1 + draw(random) % (KINDS - 1)));
                now += lengths_s[i] * 1000;
                if (draw(random) % 3 == 0)
                        continue; /* another trouble at once */
                add(schedule, now, GOOD);
                now += 1000 * (int64_t)(1 + draw(random) % 1800);
        }
        add(schedule, now, GOOD);
}

/* When the last trouble has ended. */
static int64_t last_ms(const struct schedule *schedule)
{
        return schedule->phases[schedule->count - 1].from_ms;
}

struct tally {
        uint64_t steps;
        uint64_t requests;
        uint64_t busiest_hour;
        unsigned states_seen; /* bits */
        int64_t length_ms;
};

static void live(struct mount *mount, int64_t until_ms, struct tally *tally)
{
        uint64_t before = 0;
        int64_t hour_end = hour_ms;

        while (mount->now_ms < until_ms) {
                step(mount);
                check(mount);
                tally->steps++;
                tally->states_seen |= 1U << mount->lease.state;
                if (mount->now_ms < hour_end)
                        continue;
                if (mount->requests - before > tally->busiest_hour)
                        tally->busiest_hour = mount->requests - before;
                before = mount->requests;
                hour_end += hour_ms;
        }
        tally->requests += mount->requests;
        tally->length_ms += until_ms;
}

static bool is_long(void)
{
        return getenv("TURNKEYFS_TEST_LONG") != NULL;
}

static void test_week__no_state_is_for_ever_and_calls_are_bounded(void **state)
{
        static struct schedule schedule;
        const int64_t week_ms = hour_ms * 24 * 7;
        const unsigned all = 1U << TK_LEASE_ACTIVE | 1U << TK_LEASE_DEGRADED |
                             1U << TK_LEASE_OUTAGE | 1U << TK_LEASE_REVOKED;
        struct tally tally = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= (is_long() ? 100 : 2); seed++) {
                uint64_t random = seed * 88172645463325252U;
                struct mount mount;

                make_week(&schedule, week_ms, &random);
                begin(&mount, &schedule, seed);
                live(&mount, last_ms(&schedule) + BACK_MS + PAUSE_MAX_MS, &tally);
                assert_int_equal(mount.lease.state, TK_LEASE_ACTIVE);
                end(&mount);
        }
        print_message("%llu probes, %llu requests in %lld hours, %llu in the busiest\n",
                      (unsigned long long)tally.steps, (unsigned long long)tally.requests,
                      (long long)(tally.length_ms / hour_ms),
                      (unsigned long long)tally.busiest_hour);
        assert_int_equal(tally.states_seen & all, all);
        assert_true(tally.busiest_hour <= CALLS_PER_HOUR_MAX);
}

static void test_week__a_day_of_each_trouble_is_bounded_and_left(void **state)
{
        static struct schedule schedule;

        (void)state;
        for (int kind = GOOD; kind < KINDS; kind++) {
                struct tally tally = {0};
                struct mount mount;

                schedule.count = 0;
                add(&schedule, 0, GOOD);
                add(&schedule, hour_ms, (enum kind)kind);
                add(&schedule, 26 * hour_ms, GOOD);
                begin(&mount, &schedule, (uint64_t)kind + 1);
                live(&mount, 26 * hour_ms + BACK_MS + PAUSE_MAX_MS, &tally);
                print_message("%s: %llu requests in the busiest hour\n", names[kind],
                              (unsigned long long)tally.busiest_hour);
                assert_int_equal(mount.lease.state, TK_LEASE_ACTIVE);
                assert_true(tally.busiest_hour <= CALLS_PER_HOUR_MAX);
                end(&mount);
        }
}

/* The herd --------------------------------------------------------------- */

enum { OUTAGE_S = 1800, QUIET_S = 1800, AFTER_S = 120 };

static unsigned most(const unsigned *seconds, int64_t from, int64_t to)
{
        unsigned found = 0;

        for (int64_t i = from; i < to; i++)
                found = seconds[i] > found ? seconds[i] : found;
        return found;
}

/* All mounts begin in the same moment, which is the worst. */
static void run_fleet(unsigned size, enum kind kind)
{
        static unsigned per_second[SECONDS_MAX];
        static unsigned first[SECONDS_MAX];
        static struct schedule schedule;
        const int64_t end_s = QUIET_S + OUTAGE_S;
        unsigned usual = size / (WINDOW_MS / 4000); /* a request per mount and 15 s */
        unsigned after;

        memset(per_second, 0, sizeof(per_second));
        memset(first, 0, sizeof(first));
        schedule.count = 0;
        add(&schedule, 0, GOOD);
        add(&schedule, QUIET_S * 1000LL, kind);
        add(&schedule, end_s * 1000, GOOD);
        for (unsigned i = 0; i < size; i++) {
                struct tally tally = {0};
                struct mount mount;

                begin(&mount, &schedule, i + 1);
                mount.per_second = per_second;
                mount.first = first;
                mount.first_after_ms = end_s * 1000;
                live(&mount, (end_s + AFTER_S) * 1000, &tally);
                assert_int_equal(mount.lease.state, TK_LEASE_ACTIVE);
                end(&mount);
        }
        after = most(per_second, end_s, end_s + AFTER_S);
        print_message(
                "%u mounts, trouble \"%s\": usually %u a second, at most %u before it, %u in it, "
                "%u after it; first requests: %u in the worst second\n",
                size, names[kind], usual, most(per_second, QUIET_S - 600, QUIET_S),
                most(per_second, QUIET_S + 60, end_s), after, most(first, end_s, end_s + AFTER_S));
        /* What chance puts into one second, and not more. */
        assert_true(most(per_second, QUIET_S - 600, QUIET_S) <= 3 * usual + 10);
        assert_true(after <= 4 * usual + 10);
        assert_true(most(per_second, QUIET_S + 60, end_s) <= 8 * usual + 20);
}

static void test_week__a_fleet_does_not_come_back_all_at_once(void **state)
{
        static const enum kind kinds[] = {NO_CONNECT, TIMEOUT,   THROTTLED, THROTTLED_ASKING,
                                          DOWN_503,   HALF_DEAD, DISABLED};

        (void)state;
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
                run_fleet(is_long() ? 2000 : 60, kinds[i]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_week__no_state_is_for_ever_and_calls_are_bounded),
                TK_TEST(test_week__a_day_of_each_trouble_is_bounded_and_left),
                TK_TEST(test_week__a_fleet_does_not_come_back_all_at_once),
        };

        tk_log_set_level(TK_LOG_NONE);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
