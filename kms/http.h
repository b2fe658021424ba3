/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * HTTP requests: the one door to libcurl.
 *
 * What holds for every request: https with TLS 1.2 or newer and a verified certificate and
 * name; no redirect is followed; no netrc, no cookies; the answer is bounded; connections are
 * kept and used again. Plain http is possible for services of the machine itself only (loopback
 * and link-local addresses), and those never go through a proxy. Bodies are secrets, and what
 * libcurl copied is wiped when it lets go of it. Thread-safe.
 */

#include "base/secret.h"
#include "kms/text.h"
#include <stdint.h>
#include <time.h>

enum tk_http_method { TK_HTTP_GET, TK_HTTP_POST, TK_HTTP_PUT, TK_HTTP_PATCH, TK_HTTP_DELETE };

enum {
        TK_HTTP_URL_MAX = 4096,
        TK_HTTP_ANSWER_MAX = 512 * 1024, /* bytes of a body; headers have their own bound */
        TK_HTTP_HEADERS_MAX = 8,
};

struct tk_http_request {
        enum tk_http_method method;
        const char *url;
        /* "Name: value" texts, each of which may hold a secret; NULL from the first unused on. */
        const struct tk_secret *headers[TK_HTTP_HEADERS_MAX];
        const struct tk_secret *body; /* a text; NULL: none */
        const char *content_type;     /* of the body */
        unsigned timeout_ms;          /* for everything, if shorter than the client's; 0: that */
        bool local;                   /* a service of this machine: http is allowed */
        bool once;                    /* must not be sent a second time by the library */
};

/* Why there was no answer. */
enum tk_http_failure {
        TK_HTTP_ANSWERED = 0,
        TK_HTTP_NO_HOST,     /* the name does not resolve */
        TK_HTTP_NO_CONNECT,  /* nothing listens, or no route */
        TK_HTTP_TLS,         /* the certificate or its name is not the right one */
        TK_HTTP_TIMEOUT,     /* too slow */
        TK_HTTP_BROKEN,      /* cut off, or an answer that is no HTTP */
        TK_HTTP_TOO_LARGE,   /* more than we accept */
        TK_HTTP_NOT_ALLOWED, /* a URL or protocol that this client does not speak */
        TK_HTTP_HELD_BACK,   /* not sent: the service told the caller to wait longer */
};

/* To be released by tk_http_answer_done. Header values are empty if absent or over-long. */
struct tk_http_answer {
        enum tk_http_failure failure;
        char why[256];        /* of a failure */
        bool late;            /* the caller's: it asked again, but the time ran out */
        int status;           /* of an answer: 200 and the like */
        char challenge[6144]; /* WWW-Authenticate */
        char retry_after[64];
        char retry_after_ms[32];
        int64_t retry_after_date; /* Retry-After as a date, in seconds since 1970; -1: none */
        char request_id[64];      /* x-ms-request-id */
        int64_t date;             /* Date, in seconds since 1970; -1: none */
        struct tk_secret *body;   /* a text, perhaps empty; NULL after a failure */
};

void tk_http_answer_done(struct tk_http_answer *answer);

struct tk_http; /* opaque: http.c */

struct tk_http_options {
        const char *ca_file; /* trusted instead of the system's; NULL: the system's */
        unsigned connect_ms; /* 0: 5 s */
        unsigned total_ms;   /* 0: 15 s */
};

/* -ENOENT if @ca_file can't be read; -ENOMEM. */
TK_MUST_USE int tk_http_new(const struct tk_http_options *options, struct tk_http **ret_http);

/* Somebody else's answers, for tests: @perform is called in place of the network. */
typedef int (*tk_http_fn)(void *context, const struct tk_http_request *request,
                          struct tk_http_answer *answer);
TK_MUST_USE int tk_http_new_with(tk_http_fn perform, void *context, struct tk_http **ret_http);

struct tk_http *tk_http_free(struct tk_http *http);
TK_DEFINE_CLEANUP(struct tk_http *, tk_http_free)

/*
 * Send @request and wait for the answer. Returns 0 if there is one, whatever its status;
 * -EHOSTUNREACH and the reason in @ret_answer if there is none; -ENOMEM or -EPERM.
 */
TK_MUST_USE int tk_http_perform(struct tk_http *http, const struct tk_http_request *request,
                                struct tk_http_answer *ret_answer);

/* Whether @url is http or https to a loopback or link-local address, which leave no network. */
bool tk_http_is_local(const char *url);
