/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/metrics_http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static enum tk_http_verdict judge(const char *request)
{
        bool head;

        return tk_http_judge(request, strlen(request), &head);
}

static void test_judge__verdicts(void **state)
{
        assert_int_equal(judge("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), TK_HTTP_OK);
        assert_int_equal(judge("GET /metrics HTTP/1.0\n\n"), TK_HTTP_OK);
        assert_int_equal(judge("GET /metrics?x=/y HTTP/1.1\r\n\r\n"), TK_HTTP_OK);
        assert_int_equal(judge("GET /metricsx HTTP/1.1\r\n\r\n"), TK_HTTP_NOT_FOUND);
        assert_int_equal(judge("GET /metric HTTP/1.1\r\n\r\n"), TK_HTTP_NOT_FOUND);
        assert_int_equal(judge("get /metrics HTTP/1.1\r\n\r\n"), TK_HTTP_METHOD);
        assert_int_equal(judge("GET /metrics HTTP/1.11\r\n\r\n"), TK_HTTP_VERSION);
        assert_int_equal(judge("GET /metrics\r\n"), TK_HTTP_BAD);
        assert_int_equal(judge(" /metrics HTTP/1.1\r\n"), TK_HTTP_BAD);
        assert_int_equal(judge("GET  /metrics HTTP/1.1\r\n"), TK_HTTP_BAD);
        assert_int_equal(judge("GET /metrics HTTP/1.1 x\r\n"), TK_HTTP_BAD);
        assert_int_equal(judge("\r\n"), TK_HTTP_BAD);
}

/* However a request is cut, it is judged when it is whole, and not before. */
static void test_judge__more(void **state)
{
        static const char request[] = "HEAD /metrics HTTP/1.1\r\nA: b\r\n\r\n";
        bool head;

        for (size_t len = 0; len < sizeof(request) - 1; len++)
                assert_int_equal(tk_http_judge(request, len, &head), TK_HTTP_MORE);
        assert_int_equal(tk_http_judge(request, sizeof(request) - 1, &head), TK_HTTP_OK);
        assert_true(head);
}

static void test_judge__too_long(void **state)
{
        char request[TK_HTTP_REQUEST_MAX];
        bool head;

        memset(request, 'x', sizeof(request));
        assert_int_equal(tk_http_judge(request, sizeof(request), &head), TK_HTTP_TOO_LONG);
        memcpy(request, "GET /metrics HTTP/1.1\r\n", 23);
        assert_int_equal(tk_http_judge(request, sizeof(request), &head), TK_HTTP_TOO_LONG);
        assert_int_equal(tk_http_judge(request, sizeof(request) - 1, &head), TK_HTTP_MORE);
}

static void test_head__fits(void **state)
{
        static const enum tk_http_verdict all[] = {TK_HTTP_OK,        TK_HTTP_BAD,
                                                   TK_HTTP_NOT_FOUND, TK_HTTP_METHOD,
                                                   TK_HTTP_TOO_LONG,  TK_HTTP_VERSION};
        char head[TK_HTTP_HEAD_MAX];

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
                size_t len = tk_http_head(all[i], SIZE_MAX, head);

                assert_true(len < TK_HTTP_HEAD_MAX);
                assert_string_equal(head + len - 4, "\r\n\r\n");
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_judge__verdicts),
                cmocka_unit_test(test_judge__more),
                cmocka_unit_test(test_judge__too_long),
                cmocka_unit_test(test_head__fits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
