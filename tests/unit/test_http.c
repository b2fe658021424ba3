/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The HTTP client against a server of a few lines on loopback that says what it is told to.
 * TLS is tested against the emulator, in tests/integration.
 */

#include "kms/http.h"
#include "tests/unit/support.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { REQUEST_MAX = 16384, TIMEOUT_MS = 700 };

/* What the server does with each request in turn. */
struct script {
        const char *text; /* NULL: @flood */
        size_t flood;     /* this many bytes of body, or of headers */
        bool flood_headers;
        bool stall; /* say nothing more, and keep the connection open */
        bool close; /* after the text */
};

static struct {
        int fd;
        unsigned port;
        pthread_t thread;
        atomic_uint connections;
        pthread_mutex_t lock;
        const struct script *script; /* under lock: for the next request */
        unsigned requests;           /* under lock */
        char last[REQUEST_MAX];      /* under lock: the last request */
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void play(const struct script *script)
{
        TK_LOCK_SCOPE(&server.lock);
        server.script = script;
        server.requests = 0;
}

static unsigned requests(void)
{
        TK_LOCK_SCOPE(&server.lock);
        return server.requests;
}

/* Whether the last request has @piece. */
static bool last_has(const char *piece)
{
        TK_LOCK_SCOPE(&server.lock);
        return strstr(server.last, piece) != NULL;
}

/* One request with its body. False when the client has gone. */
static bool read_request(int fd)
{
        char text[REQUEST_MAX];
        size_t len = 0;
        size_t body = 0;

        for (;;) {
                char *end;
                ssize_t n = read(fd, text + len, sizeof(text) - 1 - len);

                if (n <= 0)
                        return false;
                len += (size_t)n;
                text[len] = '\0';
                end = strstr(text, "\r\n\r\n");
                if (!end)
                        continue;
                if (strstr(text, "Content-Length: "))
                        body = strtoul(strstr(text, "Content-Length: ") + 16, NULL, 10);
                if (len >= (size_t)(end + 4 - text) + body)
                        break;
        }
        TK_LOCK_SCOPE(&server.lock);
        memcpy(server.last, text, len + 1);
        return true;
}

static void send_text(int fd, const char *text)
{
        (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void send_flood(int fd, const struct script *script)
{
        char head[128];
        static const char filler[] = "X-Filler: 0123456789012345678901234567890123456789\r\n";

        if (script->flood_headers) {
                send_text(fd, "HTTP/1.1 200 OK\r\n");
                for (size_t i = 0; i < script->flood / sizeof(filler); i++)
                        send_text(fd, filler);
                send_text(fd, "Content-Length: 0\r\n\r\n");
                return;
        }
        snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                 script->flood);
        send_text(fd, head);
        for (size_t i = 0; i < script->flood / 32; i++)
                send_text(fd, "abcdefghijklmnopqrstuvwxyz012345");
}

static const struct script *next_step(void)
{
        TK_LOCK_SCOPE(&server.lock);
        return &server.script[server.requests++];
}

static void serve(int fd)
{
        while (read_request(fd)) {
                const struct script *script = next_step();

                if (script->text)
                        send_text(fd, script->text);
                else
                        send_flood(fd, script);
                if (script->stall) {
                        char byte;

                        (void)!read(fd, &byte, 1); /* until the client gives up */
                        return;
                }
                if (script->close)
                        return;
        }
}

static void *run_server(void *context)
{
        int fd;

        (void)context;
        while ((fd = accept(server.fd, NULL, NULL)) >= 0) {
                server.connections++;
                serve(fd);
                close(fd);
        }
        return NULL;
}

static int start_server(void **state)
{
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(address);

        server.connections = 0;
        play(NULL);
        server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(server.fd, (struct sockaddr *)&address, len) < 0 || listen(server.fd, 16) < 0 ||
            getsockname(server.fd, (struct sockaddr *)&address, &len) < 0)
                return -1;
        server.port = ntohs(address.sin_port);
        return pthread_create(&server.thread, NULL, run_server, NULL);
}

static int stop_server(void **state)
{
        shutdown(server.fd, SHUT_RDWR);
        pthread_join(server.thread, NULL);
        close(server.fd);
        return tk_test_no_secrets(state);
}

static struct tk_http *made(void)
{
        struct tk_http *http = NULL;

        assert_int_equal(tk_http_new(&(struct tk_http_options){.total_ms = TIMEOUT_MS}, &http), 0);
        return http;
}

static const char *url(void)
{
        static char text[64];

        snprintf(text, sizeof(text), "http://127.0.0.1:%u/path?q=1", server.port);
        return text;
}

static int get(struct tk_http *http, struct tk_http_answer *answer)
{
        struct tk_http_request request = {.url = url(), .local = true};

        return tk_http_perform(http, &request, answer);
}

/* One request to a server with that one answer; the failure, or 0. */
static enum tk_http_failure failure_of(const struct script *script)
{
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        struct tk_http_answer answer;
        int r;

        play(script);
        r = get(http, &answer);
        tk_http_answer_done(&answer);
        assert_int_equal(r, answer.failure == TK_HTTP_ANSWERED ? 0 : -EHOSTUNREACH);
        assert_true(answer.failure == TK_HTTP_ANSWERED || answer.why[0] != '\0');
        return answer.failure;
}

static void test_tk_http_perform__answer(void **state)
{
        static const struct script script[] = {
                {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nDATE: Thu, 01 Jan 1970 "
                 "00:01:40 "
                 "GMT\r\nwww-authenticate:   Bearer a=\"b\"  \r\nx-ms-request-id: id-1\r\n"
                 "Retry-After: Thu, 01 Jan 1970 00:02:00 GMT\r\nx-ms-retry-after-ms: 15\r\n\r\n"
                 "hello"}};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};

        play(script);
        assert_int_equal(get(http, &answer), 0);
        assert_int_equal(answer.status, 401);
        assert_string_equal(tk_text_of(answer.body), "hello");
        assert_int_equal(tk_text_len(answer.body), 5);
        assert_string_equal(answer.challenge, "Bearer a=\"b\"");
        assert_string_equal(answer.request_id, "id-1");
        assert_string_equal(answer.retry_after_ms, "15");
        assert_int_equal(answer.retry_after_date, 120);
        assert_int_equal(answer.date, 100);
        assert_true(last_has("GET /path?q=1 HTTP/1.1\r\n"));
}

static void test_tk_http_perform__bearer_challenge_counts(void **state)
{
        static const struct script script[] = {
                {"HTTP/1.1 401 U\r\nContent-Length: 0\r\nWWW-Authenticate: Basic realm=x\r\n"
                 "WWW-Authenticate: Bearer a=\"b\"\r\nWWW-Authenticate: PoP nonce=\"c\"\r\n\r\n"}};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};

        play(script);
        assert_int_equal(get(http, &answer), 0);
        assert_string_equal(answer.challenge, "Bearer a=\"b\"");
}

static void test_tk_http_perform__sends_body_and_headers(void **state)
{
        static const struct script script[] = {
                {"HTTP/1.1 100 Continue\r\nx-ms-request-id: interim\r\n\r\n"
                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n"
                 "\r\n"},
                {"HTTP/1.1 204 No Content\r\n\r\n"}};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *header = tk_test_secret("X-Key: v", 9);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = tk_test_secret("{\"a\":1}", 8);
        struct tk_http_request request = {.method = TK_HTTP_PATCH,
                                          .url = url(),
                                          .headers = {header},
                                          .body = body,
                                          .content_type = "application/json",
                                          .local = true};

        play(script);
        assert_int_equal(tk_http_perform(http, &request, &answer), 0);
        assert_string_equal(tk_text_of(answer.body), "abcde");
        assert_string_equal(answer.request_id, "");
        assert_true(last_has("PATCH /path?q=1 HTTP/1.1\r\n"));
        assert_true(last_has("\r\nX-Key: v\r\n"));
        assert_true(last_has("\r\nContent-Type: application/json\r\n"));
        assert_true(last_has("\r\nContent-Length: 7\r\n"));
        assert_false(last_has("Expect:"));
        assert_true(last_has("\r\n\r\n{\"a\":1}"));
        tk_http_answer_done(&answer);

        /* The next request on the handle has nothing left of this one. */
        assert_int_equal(get(http, &answer), 0);
        assert_int_equal(answer.status, 204);
        assert_string_equal(tk_text_of(answer.body), "");
        assert_false(last_has("X-Key"));
        assert_false(last_has("Content-Type"));
        assert_false(last_has("Content-Length"));
        assert_int_equal(server.connections, 1);
}

static void test_tk_http_perform__redirect_is_not_followed(void **state)
{
        static const struct script script[] = {
                {"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"}};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};

        play(script);
        assert_int_equal(get(http, &answer), 0);
        assert_int_equal(answer.status, 302);
        assert_int_equal(requests(), 1);
}

static void test_tk_http_perform__once_never_uses_an_old_connection(void **state)
{
        static const struct script script[] = {
                {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", .close = true},
                {"", .close = true},
                {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        struct tk_http_request request = {
                .method = TK_HTTP_POST, .url = url(), .local = true, .once = true};
        struct tk_http_answer answer;

        play(script);
        assert_int_equal(get(http, &answer), 0);
        tk_http_answer_done(&answer);
        assert_int_equal(tk_http_perform(http, &request, &answer), -EHOSTUNREACH);
        assert_int_equal(answer.failure, TK_HTTP_BROKEN);
        assert_int_equal(requests(), 2);
}

static void test_tk_http_perform__bounds(void **state)
{
        static const struct script fits[] = {{.flood = TK_HTTP_ANSWER_MAX, .close = true}};
        static const struct script body[] = {{.flood = TK_HTTP_ANSWER_MAX + 32, .close = true}};
        static const struct script headers[] = {
                {.flood = 262144, .flood_headers = true, .close = true}};

        assert_int_equal(failure_of(fits), TK_HTTP_ANSWERED);
        assert_int_equal(failure_of(body), TK_HTTP_TOO_LARGE);
        assert_int_equal(failure_of(headers), TK_HTTP_TOO_LARGE);
}

static void test_tk_http_perform__broken(void **state)
{
        static const char *const texts[] = {
                "",
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                "HTTP/1.1 200 OK\r\nContent-Le",
                "SSH-2.0-OpenSSH_9.2\r\n",
                "<html>\r\n",
        };
        static struct script scripts[sizeof(texts) / sizeof(texts[0])];

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                scripts[i] = (struct script){.text = texts[i], .close = true};
                assert_int_not_equal(failure_of(&scripts[i]), TK_HTTP_ANSWERED);
        }
}

static void test_tk_http_perform__slow_server(void **state)
{
        static const struct script silent[] = {{"", .stall = true}};
        static const struct script half[] = {
                {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", .stall = true}};
        struct timespec from;
        struct timespec to;

        clock_gettime(CLOCK_MONOTONIC, &from);
        assert_int_equal(failure_of(silent), TK_HTTP_TIMEOUT);
        assert_int_equal(failure_of(half), TK_HTTP_TIMEOUT);
        clock_gettime(CLOCK_MONOTONIC, &to);
        assert_in_range(to.tv_sec - from.tv_sec, 1, 4);
}

static void test_tk_http_perform__nobody_listens(void **state)
{
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        struct tk_http_request request = {.url = "http://127.0.0.1:1/", .local = true};
        struct tk_http_answer answer;

        assert_int_equal(tk_http_perform(http, &request, &answer), -EHOSTUNREACH);
        assert_int_equal(answer.failure, TK_HTTP_NO_CONNECT);
}

static void test_tk_http_perform__only_https_beyond_this_machine(void **state)
{
        static const char *const urls[] = {"http://example.invalid/", "ftp://127.0.0.1/",
                                           "file:///etc/passwd", "", "127.0.0.1"};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        struct tk_http_request request = {.url = url()};
        struct tk_http_answer answer;

        assert_int_equal(tk_http_perform(http, &request, &answer), -EHOSTUNREACH);
        assert_int_equal(answer.failure, TK_HTTP_NOT_ALLOWED);
        request.local = true;
        for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
                request.url = urls[i];
                assert_int_equal(tk_http_perform(http, &request, &answer), -EHOSTUNREACH);
                assert_int_equal(answer.failure, TK_HTTP_NOT_ALLOWED);
        }
        assert_int_equal(requests(), 0);
}

static void test_tk_http_perform__local_services_without_proxy(void **state)
{
        static const struct script script[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}};
        TK_CLEANUP(tk_http_freep) struct tk_http *http = made();
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};

        setenv("http_proxy", "http://127.0.0.1:1", 1);
        setenv("all_proxy", "http://127.0.0.1:1", 1);
        play(script);
        assert_int_equal(get(http, &answer), 0);
        unsetenv("http_proxy");
        unsetenv("all_proxy");
}

static void test_tk_http_is_local__addresses(void **state)
{
        static const char *const yes[] = {"http://169.254.169.254/metadata",
                                          "http://127.0.0.1:40342/x",
                                          "http://localhost",
                                          "http://localhost:1/",
                                          "https://127.1.2.3?x",
                                          "http://[::1]:80/"};
        static const char *const no[] = {"http://169.254.169.254.example/",
                                         "http://localhost.example/",
                                         "http://127.0.0.1@example/",
                                         "http://127.0.0.1:x@example/",
                                         "http://10.0.0.1/",
                                         "http://127.0.0/",
                                         "http://127.0.0.256/",
                                         "http://0177.0.0.1/",
                                         "http://[::1]x/",
                                         "ftp://127.0.0.1/",
                                         "http://",
                                         "http://127.0.0.1x/",
                                         "http://169.255.0.1/"};

        for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
                assert_true(tk_http_is_local(yes[i]));
        for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
                assert_false(tk_http_is_local(no[i]));
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, start_server, stop_server)

int main(void)
{
        const struct CMUnitTest tests[] = {
                WITH_SERVER(test_tk_http_perform__answer),
                WITH_SERVER(test_tk_http_perform__bearer_challenge_counts),
                WITH_SERVER(test_tk_http_perform__sends_body_and_headers),
                WITH_SERVER(test_tk_http_perform__redirect_is_not_followed),
                WITH_SERVER(test_tk_http_perform__once_never_uses_an_old_connection),
                WITH_SERVER(test_tk_http_perform__bounds),
                WITH_SERVER(test_tk_http_perform__broken),
                WITH_SERVER(test_tk_http_perform__slow_server),
                WITH_SERVER(test_tk_http_perform__nobody_listens),
                WITH_SERVER(test_tk_http_perform__only_https_beyond_this_machine),
                WITH_SERVER(test_tk_http_perform__local_services_without_proxy),
                TK_TEST(test_tk_http_is_local__addresses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
