/* SPDX-License-Identifier: Apache-2.0 */

/* Only the request line counts; the header fields are skipped, and a body is never read. */

#include "cli/metrics_http.h"

#include <stdio.h>
#include <string.h>

/* The end of the head, behind its empty line; NULL: not there yet. Bare newlines will do. */
static const char *end_of_head(const char *bytes, size_t len)
{
        for (size_t i = 0; i + 1 < len; i++) {
                if (bytes[i] != '\n')
                        continue;
                if (bytes[i + 1] == '\n')
                        return bytes + i + 2;
                if (bytes[i + 1] == '\r' && i + 2 < len && bytes[i + 2] == '\n')
                        return bytes + i + 3;
        }
        return NULL;
}

/* Cut the next word off @line, whose end is @end. Its length; @line moves behind one space. */
static size_t next_word(const char **line, const char *end)
{
        const char *space = memchr(*line, ' ', (size_t)(end - *line));
        size_t len = (size_t)((space ? space : end) - *line);

        *line = space ? space + 1 : end;
        return len;
}

static bool is_word(const char *word, size_t len, const char *text)
{
        return len == strlen(text) && strncmp(word, text, len) == 0;
}

/* A target without its query. */
static bool is_metrics(const char *target, size_t len)
{
        const char *query = memchr(target, '?', len);

        return is_word(target, query ? (size_t)(query - target) : len, "/metrics");
}

static enum tk_http_verdict judge_line(const char *line, const char *end, bool *ret_head)
{
        const char *method = line;
        size_t method_len = next_word(&line, end);
        const char *target = line;
        size_t target_len = next_word(&line, end);
        const char *version = line;
        size_t version_len = (size_t)(end - line);

        if (method_len == 0 || target_len == 0 || version_len < 5 ||
            strncmp(version, "HTTP/", 5) != 0 || memchr(version, ' ', version_len))
                return TK_HTTP_BAD;
        if (!is_word(version, version_len, "HTTP/1.1") &&
            !is_word(version, version_len, "HTTP/1.0"))
                return TK_HTTP_VERSION;
        *ret_head = is_word(method, method_len, "HEAD");
        if (!*ret_head && !is_word(method, method_len, "GET"))
                return TK_HTTP_METHOD;
        return is_metrics(target, target_len) ? TK_HTTP_OK : TK_HTTP_NOT_FOUND;
}

enum tk_http_verdict tk_http_judge(const char *bytes, size_t len, bool *ret_head)
{
        const char *newline = memchr(bytes, '\n', len);
        const char *end = newline;
        enum tk_http_verdict verdict;

        *ret_head = false;
        if (!newline)
                return len >= TK_HTTP_REQUEST_MAX ? TK_HTTP_TOO_LONG : TK_HTTP_MORE;
        if (end > bytes && end[-1] == '\r')
                end--;
        verdict = judge_line(bytes, end, ret_head);
        /* What is no HTTP has no head that could end. */
        if (verdict == TK_HTTP_BAD)
                return verdict;
        if (!end_of_head(bytes, len))
                return len >= TK_HTTP_REQUEST_MAX ? TK_HTTP_TOO_LONG : TK_HTTP_MORE;
        return verdict;
}

static const char *reason_of(enum tk_http_verdict verdict)
{
        switch (verdict) {
        case TK_HTTP_OK:
                return "OK";
        case TK_HTTP_NOT_FOUND:
                return "Not Found";
        case TK_HTTP_METHOD:
                return "Method Not Allowed";
        case TK_HTTP_TOO_LONG:
                return "Request Header Fields Too Large";
        case TK_HTTP_VERSION:
                return "HTTP Version Not Supported";
        default:
                return "Bad Request";
        }
}

size_t tk_http_head(enum tk_http_verdict verdict, size_t body_len, char head[TK_HTTP_HEAD_MAX])
{
        return (size_t)snprintf(head, TK_HTTP_HEAD_MAX,
                                "HTTP/1.1 %d %s\r\n"
                                "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                                "Content-Length: %zu\r\n"
                                "%sConnection: close\r\n\r\n",
                                (int)verdict, reason_of(verdict), body_len,
                                verdict == TK_HTTP_METHOD ? "Allow: GET, HEAD\r\n" : "");
}

const char *tk_http_refusal(enum tk_http_verdict verdict)
{
        switch (verdict) {
        case TK_HTTP_NOT_FOUND:
                return "there is only /metrics here\n";
        case TK_HTTP_METHOD:
                return "metrics are only read: GET or HEAD\n";
        case TK_HTTP_TOO_LONG:
                return "the request's head is longer than 4096 bytes\n";
        case TK_HTTP_VERSION:
                return "HTTP/1.0 or HTTP/1.1\n";
        default:
                return "this is no HTTP request\n";
        }
}
