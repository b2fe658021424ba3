/* SPDX-License-Identifier: Apache-2.0 */

/* Asking a service of Azure until it answers, within a deadline. */

#include "kms/azure_net.h"

#include "crypto/random.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SHORTEST_TIMEOUT_MS = 100 };

static int64_t real_now_ms(void *context)
{
        struct timespec now;

        (void)context;
        clock_gettime(CLOCK_BOOTTIME, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void real_sleep_ms(void *context, int64_t ms)
{
        struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

        (void)context;
        while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
                ;
}

static int64_t real_unix_now(void *context)
{
        (void)context;
        return time(NULL);
}

void tk_azure_net_init(struct tk_azure_net *net, struct tk_http *http)
{
        *net = (struct tk_azure_net){
                .http = http,
                .now_ms = real_now_ms,
                .sleep_ms = real_sleep_ms,
                .unix_now = real_unix_now,
        };
}

int64_t tk_azure_net_now(const struct tk_azure_net *net)
{
        return net->now_ms(net->context);
}

int64_t tk_azure_net_unix_now(const struct tk_azure_net *net)
{
        return net->unix_now(net->context);
}

static int64_t default_wait_after(int status)
{
        return tk_retry_may_help(status) ? 0 : TK_RETRY_GIVE_UP;
}

/* Failures that the next attempt would meet again. */
static bool is_final(enum tk_http_failure failure)
{
        return failure == TK_HTTP_TLS || failure == TK_HTTP_TOO_LARGE ||
               failure == TK_HTTP_NOT_ALLOWED;
}

static bool was_not_taken(const struct tk_http_answer *answer)
{
        return answer->failure == TK_HTTP_NO_HOST || answer->failure == TK_HTTP_NO_CONNECT ||
               (answer->failure == TK_HTTP_ANSWERED && answer->status == 429);
}

/* How long to wait before another attempt; TK_RETRY_GIVE_UP for none. */
static int64_t wait_for_next(const struct tk_azure_net *net, const struct tk_azure_ask *ask,
                             const struct tk_http_answer *answer, unsigned attempt)
{
        int64_t (*wait_after)(int) = ask->wait_after ? ask->wait_after : default_wait_after;
        int64_t asked = TK_RETRY_UNASKED;
        int64_t least = 0;
        int64_t wait;
        uint32_t random = 0;

        if (is_final(answer->failure) || (ask->request->once && !was_not_taken(answer)))
                return TK_RETRY_GIVE_UP;
        if (answer->failure == TK_HTTP_ANSWERED) {
                least = wait_after(answer->status);
                if (least == TK_RETRY_GIVE_UP)
                        return TK_RETRY_GIVE_UP;
                asked = tk_retry_asked(answer->retry_after, answer->retry_after_ms,
                                       answer->retry_after_date, tk_azure_net_unix_now(net));
        }
        if (least > 0 && asked < least)
                asked = least;
        (void)!tk_random_bytes(&random, sizeof(random));
        wait = tk_retry_wait(ask->policy, attempt, tk_azure_net_now(net), ask->deadline_ms, asked,
                             random);
        if (ask->gate && answer->failure == TK_HTTP_ANSWERED && answer->status == 429)
                tk_retry_gate_close(ask->gate,
                                    tk_azure_net_now(net) + (wait > asked ? wait : asked));
        return wait;
}

/* false if the gate opens too late. */
static bool pass_gate(const struct tk_azure_net *net, const struct tk_azure_ask *ask)
{
        int64_t wait = ask->gate ? tk_retry_gate_wait(ask->gate, tk_azure_net_now(net)) : 0;

        if (wait == 0)
                return true;
        if (tk_azure_net_now(net) + wait >= ask->deadline_ms)
                return false;
        net->sleep_ms(net->context, wait);
        return true;
}

static int say_held_back(struct tk_http_answer *answer)
{
        answer->failure = TK_HTTP_HELD_BACK;
        snprintf(answer->why, sizeof(answer->why),
                 "it was throttled (HTTP 429), and asks to wait longer than this call may take");
        return -EHOSTUNREACH;
}

/* With what the deadline leaves. */
static int perform(const struct tk_azure_net *net, const struct tk_azure_ask *ask,
                   struct tk_http_answer *ret_answer)
{
        unsigned timeout_ms = ask->request->timeout_ms;
        int64_t left = ask->deadline_ms - tk_azure_net_now(net);
        int r;

        if (left < SHORTEST_TIMEOUT_MS)
                left = SHORTEST_TIMEOUT_MS;
        ask->request->timeout_ms =
                timeout_ms > 0 && timeout_ms < left ? timeout_ms : (unsigned)left;
        r = tk_http_perform(net->http, ask->request, ret_answer);
        ask->request->timeout_ms = timeout_ms;
        return r;
}

/*
 * That there was no time left says nothing of the service: what it said before does. But what must
 * go out once only was not taken before, and may be now.
 */
static bool ran_out_of_time(const struct tk_azure_net *net, const struct tk_azure_ask *ask,
                            const struct tk_http_answer *answer)
{
        return !ask->request->once && answer->failure == TK_HTTP_TIMEOUT &&
               tk_azure_net_now(net) >= ask->deadline_ms;
}

int tk_azure_net_ask(const struct tk_azure_net *net, const struct tk_azure_ask *ask,
                     struct tk_http_answer *ret_answer)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer before = {0};

        ret_answer->body = NULL;
        ret_answer->late = false;
        for (unsigned attempt = 1;; attempt++) {
                int64_t wait;
                int r;

                if (!pass_gate(net, ask))
                        return say_held_back(ret_answer);
                r = perform(net, ask, ret_answer);
                if (r < 0 && r != -EHOSTUNREACH)
                        return r;
                if (attempt > 1 && ran_out_of_time(net, ask, ret_answer)) {
                        *ret_answer = before;
                        ret_answer->late = true;
                        before.body = NULL;
                        return ret_answer->failure == TK_HTTP_ANSWERED ? 0 : -EHOSTUNREACH;
                }
                wait = wait_for_next(net, ask, ret_answer, attempt);
                if (wait == TK_RETRY_GIVE_UP)
                        return r;
                tk_http_answer_done(&before);
                before = *ret_answer;
                ret_answer->body = NULL;
                net->sleep_ms(net->context, wait);
        }
}

const char *tk_azure_net_late(const struct tk_http_answer *answer)
{
        return answer->late ? "; it was asked again, but the time ran out" : "";
}

int64_t tk_azure_net_skew(const struct tk_azure_net *net, const struct tk_http_answer *answer)
{
        return answer->date < 0 ? 0 : tk_azure_net_unix_now(net) - answer->date;
}

static const char *advice_for(enum tk_http_failure failure)
{
        switch (failure) {
        case TK_HTTP_NO_HOST:
                return "check the name, and that this machine resolves it (a private endpoint "
                       "needs "
                       "its private DNS zone)";
        case TK_HTTP_NO_CONNECT:
                return "check route, proxy and firewall between this machine and the service";
        case TK_HTTP_TLS:
                return "its certificate is not accepted: check the clock, who stands between, and "
                       "[azure] ca_file if the service has a private authority";
        case TK_HTTP_HELD_BACK:
                return "the vault is asked too often; spread over several vaults, or use dek_wrap "
                       "= kek";
        case TK_HTTP_TIMEOUT:
                return "it was too slow: check the network and the service's health";
        default:
                return "check the network and the service's health";
        }
}

int tk_azure_net_say_unreachable(const char *what, const char *url,
                                 const struct tk_http_answer *answer, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                            "no answer from %s at %.*s: %s%s; %s", what, (int)strcspn(url, "?"),
                            url, answer->why, tk_azure_net_late(answer),
                            advice_for(answer->failure));
}
