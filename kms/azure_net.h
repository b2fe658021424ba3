/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Asking a service of Azure until it answers, within a deadline. The clock can be a test's. */

#include "base/fault.h"
#include "kms/http.h"
#include "kms/retry.h"

struct tk_azure_net {
        struct tk_http *http;
        int64_t (*now_ms)(void *context); /* a clock that goes on while the machine sleeps */
        void (*sleep_ms)(void *context, int64_t ms);
        int64_t (*unix_now)(void *context);
        void *context; /* of the three */
};

/* The real clock, and @http, which is borrowed. */
void tk_azure_net_init(struct tk_azure_net *net, struct tk_http *http);

int64_t tk_azure_net_now(const struct tk_azure_net *net);
int64_t tk_azure_net_unix_now(const struct tk_azure_net *net);

struct tk_azure_ask {
        struct tk_http_request *request; /* its timeout is cut to the deadline */
        const struct tk_retry_policy *policy;
        int64_t deadline_ms;
        struct tk_retry_gate *gate; /* NULL: none */
        /* ms to wait at least after @status, or TK_RETRY_GIVE_UP; NULL: tk_retry_may_help's word */
        int64_t (*wait_after)(int status);
};

/*
 * Returns 0 with the last answer, whatever its status; -EHOSTUNREACH with the last failure
 * if there was no answer; -ENOMEM, -EPERM. A request that must go out once only is
 * repeated if it surely was not taken: no connection, or 429. When the deadline cuts off a
 * repetition of another one, what came before it counts, and is late: see tk_azure_net_late.
 */
TK_MUST_USE int tk_azure_net_ask(const struct tk_azure_net *net, const struct tk_azure_ask *ask,
                                 struct tk_http_answer *ret_answer);

/* How far this machine's clock is from the answer's Date, in seconds; 0 if that is unknown. */
int64_t tk_azure_net_skew(const struct tk_azure_net *net, const struct tk_http_answer *answer);

/* Words to put behind what is said of @answer; empty unless it is late. */
const char *tk_azure_net_late(const struct tk_http_answer *answer);

/* Say that @what, at @url, gave no answer, and what to look at. Returns -ENOKEY. */
int tk_azure_net_say_unreachable(const char *what, const char *url,
                                 const struct tk_http_answer *answer, struct tk_fault *fault);
