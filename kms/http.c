/* SPDX-License-Identifier: Apache-2.0 */

/*
 * HTTP requests over libcurl.
 *
 * An easy handle serves one request at a time and keeps its connections, so idle
 * handles wait in a stack for the next request: the last one used is the likeliest
 * to have a live connection.
 */

#include "kms/http.h"

#include "base/wiping.h"
#include "crypto/openssl_memory.h"
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
        IDLE_MAX = 32,
        CONNECT_MS = 5000,
        TOTAL_MS = 15000,
        BODY_FIRST = 4096,
        HEADERS_LEN_MAX = 64 * 1024,
};

struct tk_http {
        tk_http_fn perform;
        void *context;
        char *ca_file;
        unsigned connect_ms;
        unsigned total_ms;
        pthread_mutex_t lock;
        CURL *idle[IDLE_MAX]; /* under lock */
        size_t idle_count;    /* under lock */
};

/* One request on its way. */
struct transfer {
        struct tk_http_answer *answer;
        struct tk_secret *body;
        size_t body_len;
        size_t headers_len;
        bool headers_ended;
        bool too_large;
        int error; /* of an allocation */
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static bool curl_works;

/* The first thing in the process to use libcurl, or its memory would not be wiped. */
static void curl_start(void)
{
        /* libcurl would write the keys of its TLS connections into that file. */
        (void)unsetenv("SSLKEYLOGFILE");
        curl_works = curl_global_init_mem(CURL_GLOBAL_DEFAULT, tk_hidden_malloc, tk_wiping_free,
                                          tk_hidden_realloc, tk_hidden_strdup,
                                          tk_hidden_calloc) == CURLE_OK;
}

static void slist_freep(struct curl_slist **list)
{
        curl_slist_free_all(*list);
}

/* Receiving */

static size_t take_body(char *bytes, size_t size, size_t count, void *context)
{
        struct transfer *transfer = context;
        size_t len = size * count;
        size_t have = transfer->body ? tk_secret_len(transfer->body) : 0;

        if (len > TK_HTTP_ANSWER_MAX - transfer->body_len) {
                transfer->too_large = true;
                return 0;
        }
        if (transfer->body_len + len + 1 > have) {
                size_t want = have > 0 ? have : BODY_FIRST;
                struct tk_secret *larger;

                while (want < transfer->body_len + len + 1)
                        want *= 2;
                transfer->error = tk_secret_new(want, &larger);
                if (transfer->error < 0)
                        return 0;
                if (transfer->body_len > 0)
                        memcpy(tk_secret_bytes_mutable(larger), tk_secret_bytes(transfer->body),
                               transfer->body_len);
                tk_secret_free(transfer->body);
                transfer->body = larger;
        }
        memcpy(tk_secret_bytes_mutable(transfer->body) + transfer->body_len, bytes, len);
        transfer->body_len += len;
        return len;
}

/* The value of the header @name if @line is one, trimmed; empty if it is too long. */
static bool match_header(const char *line, size_t len, const char *name, char *value, size_t max)
{
        size_t name_len = strlen(name);

        if (len <= name_len || line[name_len] != ':' || strncasecmp(line, name, name_len) != 0)
                return false;
        line += name_len + 1;
        len -= name_len + 1;
        while (len > 0 && (*line == ' ' || *line == '\t')) {
                line++;
                len--;
        }
        while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
                len--;
        if (len >= max || memchr(line, '\0', len))
                len = 0;
        memcpy(value, line, len);
        value[len] = '\0';
        return true;
}

static void forget_headers(struct tk_http_answer *answer)
{
        answer->challenge[0] = '\0';
        answer->retry_after[0] = '\0';
        answer->retry_after_ms[0] = '\0';
        answer->request_id[0] = '\0';
        answer->retry_after_date = -1;
        answer->date = -1;
}

/* Several challenges may come, each in a header of its own: the first Bearer counts, or Basic. */
static void keep_challenge(struct tk_http_answer *answer, const char *line, size_t len)
{
        char value[sizeof(answer->challenge)];

        if (!match_header(line, len, "WWW-Authenticate", value, sizeof(value)))
                return;
        if (!answer->challenge[0] || (strncasecmp(value, "Bearer", 6) == 0 &&
                                      strncasecmp(answer->challenge, "Bearer", 6) != 0))
                memcpy(answer->challenge, value, sizeof(value));
}

static size_t take_header(char *line, size_t size, size_t count, void *context)
{
        struct transfer *transfer = context;
        struct tk_http_answer *answer = transfer->answer;
        size_t len = size * count;
        char date[64];

        if (len > HEADERS_LEN_MAX - transfer->headers_len) {
                transfer->too_large = true;
                return 0;
        }
        transfer->headers_len += len;
        if (len >= 5 && strncmp(line, "HTTP/", 5) == 0) {
                forget_headers(answer); /* an interim answer came before */
                transfer->headers_ended = false;
        }
        if (line[0] == '\r' || line[0] == '\n')
                transfer->headers_ended = true;
        keep_challenge(answer, line, len);
        if (match_header(line, len, "Retry-After", answer->retry_after,
                         sizeof(answer->retry_after)))
                answer->retry_after_date = curl_getdate(answer->retry_after, NULL);
        (void)match_header(line, len, "retry-after-ms", answer->retry_after_ms,
                           sizeof(answer->retry_after_ms));
        (void)match_header(line, len, "x-ms-retry-after-ms", answer->retry_after_ms,
                           sizeof(answer->retry_after_ms));
        (void)match_header(line, len, "x-ms-request-id", answer->request_id,
                           sizeof(answer->request_id));
        if (match_header(line, len, "Date", date, sizeof(date)))
                answer->date = curl_getdate(date, NULL);
        return len;
}

/* Sending */

/* The library's TLS may be another one than OpenSSL: then nobody calls this. */
static CURLcode keep_nothing(CURL *curl, void *ssl_context, void *context)
{
        (void)curl;
        (void)context;
        tk_openssl_keep_no_records(ssl_context);
        return CURLE_OK;
}

static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
        (void)context;
        (void)purpose;
        return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void set_method(CURL *curl, const struct tk_http_request *request)
{
        static const char *const names[] = {
                [TK_HTTP_GET] = "GET",     [TK_HTTP_POST] = "POST",     [TK_HTTP_PUT] = "PUT",
                [TK_HTTP_PATCH] = "PATCH", [TK_HTTP_DELETE] = "DELETE",
        };

        curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
        if (request->body || request->method == TK_HTTP_POST) {
                curl_easy_setopt(curl, CURLOPT_POST, 1L);
                curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE,
                                 request->body ? (long)tk_text_len(request->body) : 0L);
                curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                                 request->body ? tk_text_of(request->body) : "");
        }
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, names[request->method]);
}

static void set_safety(const struct tk_http *http, CURL *curl, bool local)
{
#if LIBCURL_VERSION_NUM >= 0x075500
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, local ? "http,https" : "https");
#else
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS,
                         (long)(local ? CURLPROTO_HTTP | CURLPROTO_HTTPS : CURLPROTO_HTTPS));
#endif
        curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
        curl_easy_setopt(curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
        curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
        if (http->ca_file) {
                curl_easy_setopt(curl, CURLOPT_CAINFO, http->ca_file);
                curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
        }
        if (local) {
                curl_easy_setopt(curl, CURLOPT_PROXY, "");
                curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
        }
}

static void set_options(const struct tk_http *http, CURL *curl,
                        const struct tk_http_request *request, struct transfer *transfer)
{
        unsigned total_ms = request->timeout_ms && request->timeout_ms < http->total_ms
                                    ? request->timeout_ms
                                    : http->total_ms;
        unsigned connect_ms = http->connect_ms < total_ms ? http->connect_ms : total_ms;

        curl_easy_setopt(curl, CURLOPT_URL, request->url);
        curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
        curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)total_ms);
        curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
        curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        curl_easy_setopt(curl, CURLOPT_USERAGENT, "turnkeyfs/" TK_VERSION);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, transfer->answer->why);
        curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
        curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, keep_nothing);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
        curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
        curl_easy_setopt(curl, CURLOPT_HEADERDATA, transfer);
        /* On a connection that was used before, the library may send a request twice. */
        curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, request->once ? 1L : 0L);
        set_safety(http, curl, request->local);
        set_method(curl, request);
}

static bool append_header(struct curl_slist **list, const char *line)
{
        struct curl_slist *longer = curl_slist_append(*list, line);

        if (longer)
                *list = longer;
        return longer != NULL;
}

static int set_headers(CURL *curl, const struct tk_http_request *request,
                       struct curl_slist **ret_list)
{
        char type[128];
        bool ok = append_header(ret_list, "Accept: application/json") &&
                  append_header(ret_list, "Expect:");

        if (request->body) {
                snprintf(type, sizeof(type), "Content-Type: %s", request->content_type);
                ok = ok && append_header(ret_list, type);
        } else {
                ok = ok && append_header(ret_list, "Content-Type:");
        }
        for (size_t i = 0; i < TK_HTTP_HEADERS_MAX && request->headers[i]; i++)
                ok = ok && append_header(ret_list, tk_text_of(request->headers[i]));
        if (!ok)
                return -ENOMEM;
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *ret_list);
        return 0;
}

static CURL *handle_take(struct tk_http *http)
{
        {
                TK_LOCK_SCOPE(&http->lock);
                if (http->idle_count > 0)
                        return http->idle[--http->idle_count];
        }
        return curl_easy_init();
}

static void handle_return(struct tk_http *http, CURL *curl)
{
        curl_easy_reset(curl); /* keeps its connections, forgets the headers */
        {
                TK_LOCK_SCOPE(&http->lock);
                if (http->idle_count < IDLE_MAX) {
                        http->idle[http->idle_count++] = curl;
                        return;
                }
        }
        curl_easy_cleanup(curl);
}

static enum tk_http_failure failure_of(CURLcode code, const struct transfer *transfer)
{
        if (transfer->too_large)
                return TK_HTTP_TOO_LARGE;
        switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
                return TK_HTTP_NO_HOST;
        case CURLE_COULDNT_CONNECT:
                return TK_HTTP_NO_CONNECT;
        case CURLE_OPERATION_TIMEDOUT:
                return TK_HTTP_TIMEOUT;
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_SSL_CERTPROBLEM:
        case CURLE_SSL_CIPHER:
        case CURLE_SSL_ISSUER_ERROR:
        case CURLE_SSL_INVALIDCERTSTATUS:
                return TK_HTTP_TLS;
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_URL_MALFORMAT:
                return TK_HTTP_NOT_ALLOWED;
        default:
                return TK_HTTP_BROKEN;
        }
}

/* An answer becomes a text, a failure loses what had arrived. */
static int finish(CURL *curl, CURLcode code, struct transfer *transfer)
{
        struct tk_http_answer *answer = transfer->answer;
        long status = 0;
        int r;

        if (transfer->error < 0)
                return transfer->error;
        if (code == CURLE_OUT_OF_MEMORY)
                return -ENOMEM;
        if (code == CURLE_OK && !transfer->headers_ended)
                code = CURLE_RECV_ERROR; /* cut off in the headers, which libcurl accepts */
        if (code != CURLE_OK) {
                answer->failure = failure_of(code, transfer);
                if (transfer->too_large)
                        snprintf(answer->why, sizeof(answer->why),
                                 "the answer is larger than any that this service gives");
                else if (!answer->why[0])
                        snprintf(answer->why, sizeof(answer->why), "%s", curl_easy_strerror(code));
                return -EHOSTUNREACH;
        }
        if (!transfer->body) {
                r = tk_secret_new(1, &transfer->body);
                if (r < 0)
                        return r;
        }
        tk_secret_bytes_mutable(transfer->body)[transfer->body_len] = '\0';
        tk_secret_truncate(transfer->body, transfer->body_len + 1);
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        answer->status = (int)status;
        answer->body = TK_TAKE(transfer->body);
        return 0;
}

static int perform(void *context, const struct tk_http_request *request,
                   struct tk_http_answer *answer)
{
        struct tk_http *http = context;
        TK_CLEANUP(slist_freep) struct curl_slist *headers = NULL;
        struct transfer transfer = {.answer = answer};
        CURL *curl = handle_take(http);
        int r;

        if (!curl)
                return -ENOMEM;
        set_options(http, curl, request, &transfer);
        r = set_headers(curl, request, &headers);
        if (r == 0)
                r = finish(curl, curl_easy_perform(curl), &transfer);
        tk_secret_free(transfer.body);
        handle_return(http, curl);
        return r;
}

void tk_http_answer_done(struct tk_http_answer *answer)
{
        answer->body = tk_secret_free(answer->body);
}

int tk_http_perform(struct tk_http *http, const struct tk_http_request *request,
                    struct tk_http_answer *ret_answer)
{
        bool https = strncmp(request->url, "https://", 8) == 0;

        ret_answer->failure = TK_HTTP_ANSWERED;
        ret_answer->why[0] = '\0';
        ret_answer->status = 0;
        ret_answer->body = NULL;
        forget_headers(ret_answer);
        if (!https && !(request->local && tk_http_is_local(request->url))) {
                ret_answer->failure = TK_HTTP_NOT_ALLOWED;
                snprintf(ret_answer->why, sizeof(ret_answer->why), "only https is spoken");
                return -EHOSTUNREACH;
        }
        return http->perform(http->context, request, ret_answer);
}

/* Which addresses are this machine's own */

bool tk_http_is_local(const char *url)
{
        static const char *const prefixes[] = {"http://", "https://"};
        char host[64];
        unsigned a;
        unsigned b;
        unsigned c;
        unsigned d;
        size_t len;
        int used = 0;

        for (size_t i = 0; i < 2; i++) {
                if (strncmp(url, prefixes[i], strlen(prefixes[i])) != 0)
                        continue;
                url += strlen(prefixes[i]);
                if (strncmp(url, "[::1]", 5) == 0)
                        return url[5] == '\0' || strchr(":/?", url[5]);
                len = strcspn(url, ":/?#");
                if (len >= sizeof(host) || memchr(url, '@', strcspn(url, "/?#")))
                        return false;
                memcpy(host, url, len);
                host[len] = '\0';
                if (strcmp(host, "localhost") == 0)
                        return true;
                /* NOLINTNEXTLINE(cert-err34-c): four numbers, and nothing behind them */
                if (sscanf(host, "%3u.%3u.%3u.%3u%n", &a, &b, &c, &d, &used) != 4 ||
                    host[used] != '\0' || a > 255 || b > 255 || c > 255 || d > 255)
                        return false;
                return a == 127 || (a == 169 && b == 254);
        }
        return false;
}

/* Making and freeing */

int tk_http_new_with(tk_http_fn perform_fn, void *context, struct tk_http **ret_http)
{
        struct tk_http *http = calloc(1, sizeof(*http));

        if (!http)
                return -ENOMEM;
        pthread_mutex_init(&http->lock, NULL);
        http->perform = perform_fn;
        http->context = context;
        *ret_http = http;
        return 0;
}

int tk_http_new(const struct tk_http_options *options, struct tk_http **ret_http)
{
        TK_CLEANUP(tk_http_freep) struct tk_http *http = NULL;
        int r;

        if (options->ca_file && access(options->ca_file, R_OK) < 0)
                return -ENOENT;
        pthread_once(&curl_once, curl_start);
        if (!curl_works)
                return -ENOMEM;
        r = tk_http_new_with(perform, NULL, &http);
        if (r < 0)
                return r;
        http->context = http;
        http->connect_ms = options->connect_ms ? options->connect_ms : CONNECT_MS;
        http->total_ms = options->total_ms ? options->total_ms : TOTAL_MS;
        if (options->ca_file) {
                http->ca_file = strdup(options->ca_file);
                if (!http->ca_file)
                        return -ENOMEM;
        }
        *ret_http = TK_TAKE(http);
        return 0;
}

struct tk_http *tk_http_free(struct tk_http *http)
{
        if (!http)
                return NULL;
        for (size_t i = 0; i < http->idle_count; i++)
                curl_easy_cleanup(http->idle[i]);
        pthread_mutex_destroy(&http->lock);
        free(http->ca_file);
        free(http);
        return NULL;
}
