/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as what a client sends to the metrics' socket: however they are cut, they are judged
 * once, and only a request for /metrics is answered with them.
 */

#include "cli/metrics_http.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static bool starts_with(const char *bytes, size_t len, const char *text)
{
        return len >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

/* In a buffer of its own, so that a byte read too many is found. */
static enum tk_http_verdict judge(const uint8_t *bytes, size_t len, bool *ret_head)
{
        char *copy = malloc(len);
        enum tk_http_verdict verdict;

        require(copy || len == 0);
        if (len > 0)
                memcpy(copy, bytes, len);
        verdict = tk_http_judge(copy ? copy : "", len, ret_head);
        free(copy);
        return verdict;
}

static void check_ok(const char *request, size_t len, bool head)
{
        require(starts_with(request, len, head ? "HEAD /metrics" : "GET /metrics"));
        require(memmem(request, len, " HTTP/1.", 8) != NULL);
}

static void check_answer(enum tk_http_verdict verdict, size_t body_len)
{
        char head[TK_HTTP_HEAD_MAX];
        size_t len = tk_http_head(verdict, body_len, head);

        require(len > 0 && len < TK_HTTP_HEAD_MAX && strlen(head) == len);
        require(starts_with(head + len - 4, 4, "\r\n\r\n"));
        require(tk_http_refusal(verdict)[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        enum tk_http_verdict before = TK_HTTP_MORE;
        bool head = false;

        /* As the server reads: no more than the most, and never on after a verdict. */
        if (len > TK_HTTP_REQUEST_MAX)
                len = TK_HTTP_REQUEST_MAX;
        for (size_t cut = len > 64 ? len - 64 : 0; cut <= len; cut++) {
                enum tk_http_verdict verdict = judge(bytes, cut, &head);

                require(before == TK_HTTP_MORE || verdict == before);
                require(verdict != TK_HTTP_MORE || cut < TK_HTTP_REQUEST_MAX);
                before = verdict;
        }
        if (before == TK_HTTP_OK)
                check_ok((const char *)bytes, len, head);
        if (before != TK_HTTP_MORE)
                check_answer(before, len);
        return 0;
}
