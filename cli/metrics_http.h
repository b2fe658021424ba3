/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * As much of HTTP/1.1 as a scrape of metrics takes: a request is judged, a head is made.
 * Bytes in, bytes out: no I/O.
 */

#include "base/cleanup.h"
#include <stddef.h>

enum {
        TK_HTTP_REQUEST_MAX = 4096, /* bytes of a request's head */
        TK_HTTP_HEAD_MAX = 256,     /* bytes of an answer's head */
};

enum tk_http_verdict {
        TK_HTTP_MORE = 0, /* the head is not complete */
        TK_HTTP_OK = 200,
        TK_HTTP_BAD = 400,       /* this is no HTTP */
        TK_HTTP_NOT_FOUND = 404, /* not /metrics */
        TK_HTTP_METHOD = 405,    /* neither GET nor HEAD */
        TK_HTTP_TOO_LONG = 431,
        TK_HTTP_VERSION = 505, /* not HTTP/1.0 or 1.1 */
};

/* Judge the first @len bytes of a request. @ret_head: the answer has no body (HEAD). */
enum tk_http_verdict tk_http_judge(const char *bytes, size_t len, bool *ret_head);

/* The head of the answer to a request that was judged; @body_len bytes follow. Its length. */
size_t tk_http_head(enum tk_http_verdict verdict, size_t body_len, char head[TK_HTTP_HEAD_MAX]);

/* What is said to a person who is refused: one line. */
const char *tk_http_refusal(enum tk_http_verdict verdict);
