/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Tokens, credentials, calls and the provider, against a scripted network and a clock that
 * only moves when somebody sleeps.
 */

#include "kms/azure_provider.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <stdatomic.h>

#define HOST "v.vault.azure.net"
#define KEY "https://" HOST "/keys/kek"
#define V1 "11111111111111111111111111111111"
#define V2 "22222222222222222222222222222222"
#define ENTRA "https://login.microsoftonline.com/tenant-1/oauth2/v2.0/token"
#define TOKEN_TEXT "{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":\"tok%d\"}"
#define GOOD_KEY                                                                                   \
        "{\"key\":{\"kid\":\"" KEY "/" V1 "\",\"kty\":\"oct-HSM\"},\"attributes\":{\"enabled\":"   \
        "true,\"recoveryLevel\":\"Recoverable\"}}"
#define UNWRAPPED "{\"kid\":\"" KEY "/" V1 "\",\"value\":\"AQEB\"}"
#define CHALLENGE                                                                                  \
        "Bearer authorization=\"https://login.windows.net/tenant-1\", "                            \
        "resource=\"https://vault.azure.net\""

enum { STEPS_MAX = 40 };

/* What the next request to a URL gets. */
struct step {
        const char *url; /* a prefix */
        int status;      /* 0: no answer, by @failure */
        const char *body;
        const char *challenge;
        const char *retry_after;
        enum tk_http_failure failure;
        int64_t takes_ms;
        const char *wants; /* a piece that a header or the body has to have */
};

static struct {
        pthread_mutex_t lock;
        struct step steps[STEPS_MAX];
        size_t count;
        size_t next;
        _Atomic int64_t now_ms;
        int64_t slept_ms;
        int tokens;         /* handed out */
        bool token_service; /* answers by itself */
        int64_t token_delay_ms;
} net = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t fake_now(void *context)
{
        (void)context;
        return net.now_ms;
}

static void fake_sleep(void *context, int64_t ms)
{
        (void)context;
        net.now_ms += ms;
        net.slept_ms += ms;
}

static void pass_s(int64_t seconds)
{
        net.now_ms += seconds * 1000;
}

static int64_t fake_unix_now(void *context)
{
        (void)context;
        return 1700000000 + net.now_ms / 1000;
}

static bool request_has(const struct tk_http_request *request, const char *piece)
{
        for (size_t i = 0; i < TK_HTTP_HEADERS_MAX && request->headers[i]; i++)
                if (strstr(tk_text_of(request->headers[i]), piece))
                        return true;
        return request->body && strstr(tk_text_of(request->body), piece);
}

static int give(struct tk_http_answer *answer, int status, const char *body)
{
        answer->status = status;
        return tk_secret_dup_bytes(body, strlen(body) + 1, &answer->body);
}

static int fake_perform(void *context, const struct tk_http_request *request,
                        struct tk_http_answer *answer)
{
        const struct step *step;
        char body[256];

        (void)context;
        if (net.token_service && strncmp(request->url, ENTRA, strlen(ENTRA)) == 0) {
                struct timespec delay = {.tv_nsec = net.token_delay_ms * 1000000};

                nanosleep(&delay, NULL);
                TK_LOCK_SCOPE(&net.lock);
                snprintf(body, sizeof(body), TOKEN_TEXT, ++net.tokens);
                return give(answer, 200, body);
        }
        TK_LOCK_SCOPE(&net.lock);
        if (net.next == net.count)
                fail_msg("unexpected request to %s", request->url);
        step = &net.steps[net.next++];
        if (strncmp(request->url, step->url, strlen(step->url)) != 0)
                fail_msg("request to %s instead of %s", request->url, step->url);
        if (step->wants && !request_has(request, step->wants))
                fail_msg("request to %s without %s", request->url, step->wants);
        if (strncmp(request->url, KEY, strlen(KEY)) == 0)
                assert_true(!request_has(request, "client_secret"));
        net.now_ms += step->takes_ms;
        if (step->status == 0) {
                answer->failure = step->failure;
                snprintf(answer->why, sizeof(answer->why), "scripted");
                return -EHOSTUNREACH;
        }
        if (step->challenge)
                snprintf(answer->challenge, sizeof(answer->challenge), "%s", step->challenge);
        if (step->retry_after)
                snprintf(answer->retry_after, sizeof(answer->retry_after), "%s", step->retry_after);
        return give(answer, step->status, step->body ? step->body : "");
}

static void expect(const struct step *step)
{
        assert_true(net.count < STEPS_MAX);
        net.steps[net.count++] = *step;
}

#define EXPECT(...) expect(&(struct step){__VA_ARGS__})

static struct tk_kms *opened(struct tk_kms_azure_options *options)
{
        static struct tk_http *http;
        static struct tk_azure_net fake;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = tk_test_secret("s3cret", 6);
        struct tk_fault fault = {0};
        struct tk_kms *kms = NULL;

        net.count = net.next = 0;
        net.now_ms = 1000;
        net.slept_ms = 0;
        net.tokens = 0;
        net.token_service = true;
        net.token_delay_ms = 0;
        if (!http)
                assert_int_equal(tk_http_new_with(fake_perform, NULL, &http), 0);
        fake = (struct tk_azure_net){.http = http,
                                     .now_ms = fake_now,
                                     .sleep_ms = fake_sleep,
                                     .unix_now = fake_unix_now};
        if (!options->key)
                options->key = KEY;
        if (options->auth == TK_AZURE_AUTH_DEFAULT) {
                options->auth = TK_AZURE_AUTH_CLIENT_SECRET;
                options->client_id = "app-1";
                options->secret = secret;
        }
        if (tk_azure_open_with(options, &fake, &kms, &fault) < 0)
                fail_msg("%s", fault.text);
        options->secret = NULL;
        return kms;
}

static struct tk_kms *simple(void)
{
        return opened(&(struct tk_kms_azure_options){.tenant_id = "tenant-1"});
}

static void all_asked(void)
{
        assert_int_equal(net.next, net.count);
}

static const struct tk_kms_wrap good_wrap = {
        .key_id = KEY, .version = V1, .algorithm = "A256KW", .blob_len = 40};

static int unwrap(struct tk_kms *kms, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        *fault = (struct tk_fault){0};
        r = tk_kms_unwrap(kms, wrap, &key, fault);
        if (r == 0) {
                assert_int_equal(tk_secret_len(key), 3);
                assert_int_equal(fault->kind, TK_FAULT_NONE);
        } else {
                assert_null(key);
                assert_int_not_equal(fault->kind, TK_FAULT_NONE);
        }
        return r;
}

/* Tokens */

static void test_token__one_for_many_calls(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        for (int i = 0; i < 5; i++) {
                EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED,
                       .wants = "Authorization: Bearer tok1");
                assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        }
        assert_int_equal(net.tokens, 1);
}

static void test_token__renewed_at_half_of_its_life(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        pass_s(1799);
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        pass_s(2);
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok2");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
}

static void test_token__old_one_serves_while_renewal_fails(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        net.token_service = false;
        pass_s(1801);
        EXPECT(ENTRA, .failure = TK_HTTP_NO_CONNECT); /* once, without a second attempt */
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        pass_s(31);
        EXPECT(ENTRA, .failure = TK_HTTP_TIMEOUT);
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        pass_s(1800);
        EXPECT(ENTRA, 401, "{\"error\":\"invalid_client\",\"error_codes\":[7000222]}");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -EACCES);
        assert_non_null(strstr(fault.text, "secret has expired"));
        all_asked();
}

static void *unwrap_many(void *context)
{
        struct tk_fault fault = {0};
        struct tk_secret *key = NULL;
        intptr_t r = tk_kms_unwrap(context, &good_wrap, &key, &fault);

        tk_secret_free(key);
        return (void *)r;
}

static void test_token__fetched_once_for_all_threads(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        pthread_t threads[20];

        net.token_delay_ms = 50;
        for (size_t i = 0; i < 20; i++)
                EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        for (size_t i = 0; i < 20; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, unwrap_many, kms), 0);
        for (size_t i = 0; i < 20; i++) {
                void *r;

                pthread_join(threads[i], &r);
                assert_null(r);
        }
        assert_int_equal(net.tokens, 1);
        all_asked();
}

static void test_token__401_renews_once(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1 "/unwrapkey", 401, "", CHALLENGE, .wants = "Bearer tok1");
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok2");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        EXPECT(KEY "/" V1 "/unwrapkey", 401, "", CHALLENGE, .wants = "Bearer tok2");
        EXPECT(KEY "/" V1 "/unwrapkey", 401, "", CHALLENGE, .wants = "Bearer tok3");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -EACCES);
        assert_int_equal(fault.kind, TK_FAULT_KEY_REVOKED);
        all_asked();
}

static void test_token__claims_go_into_the_next_request(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        net.token_service = false;
        EXPECT(KEY "/" V1 "/unwrapkey", 401, "",
               "Bearer realm=\"\", error=\"insufficient_claims\", claims=\"eyJhIjoxfQ==\"");
        EXPECT(ENTRA, 200, "{\"access_token\":\"better\",\"expires_in\":60}",
               .wants = "claims=%7B%22a%22%3A1%7D");
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer better");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        all_asked();
}

/* Challenges */

static void test_call__tenant_learnt_without_a_token(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened(&(struct tk_kms_azure_options){0});
        struct tk_fault fault;

        EXPECT(KEY "?", 401, "", CHALLENGE);
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED, .wants = "Bearer tok1");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        EXPECT(KEY "/" V1 "/unwrapkey", 200, UNWRAPPED);
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        all_asked();
}

static void test_call__foreign_challenge_gets_no_token(void **state)
{
        TK_CLEANUP(tk_kms_freep)
        struct tk_kms *kms = opened(&(struct tk_kms_azure_options){
                .key = "https://evil.example/keys/kek", .tenant_id = "tenant-1"});
        struct tk_kms_wrap wrap = good_wrap;
        struct tk_fault fault;

        strcpy(wrap.key_id, "https://evil.example/keys/kek");
        EXPECT("https://evil.example/keys/kek?", 401, "", CHALLENGE);
        assert_int_equal(unwrap(kms, &wrap, &fault), -EACCES);
        assert_non_null(strstr(fault.text, "no token was sent"));
        assert_int_equal(net.tokens, 0);
        all_asked();
}

static void test_open__audience_has_to_fit(void **state)
{
        struct tk_kms_azure_options options = {.key = "https://evil.example/keys/kek",
                                               .audience = "https://vault.azure.net"};
        struct tk_fault fault = {0};
        struct tk_kms *kms = NULL;

        assert_int_equal(tk_kms_azure_open(&options, &kms, &fault), -EINVAL);
        assert_int_equal(fault.kind, TK_FAULT_CONFIG);
}

static void test_open__refused(void **state)
{
        static const struct tk_kms_azure_options bad[] = {
                {.key = NULL},
                {.key = "http://v.vault.azure.net/keys/k"},
                {.key = KEY, .auth = TK_AZURE_AUTH_CLIENT_SECRET, .client_id = "a"},
                {.key = KEY, .auth = TK_AZURE_AUTH_CLIENT_CERTIFICATE, .client_id = "a"},
                {.key = KEY, .auth = TK_AZURE_AUTH_CLIENT_CERTIFICATE, .certificate = "/c"},
                {.key = KEY, .auth = TK_AZURE_AUTH_WORKLOAD_IDENTITY, .client_id = "a"},
                {.key = KEY, .tenant_id = "../x"},
                {.key = KEY, .client_id = "a b"},
                {.key = KEY, .authority = "http://login.microsoftonline.com"},
                {.key = KEY, .authority = "login.microsoftonline.com/x"},
                {.key = KEY, .ca_file = "/nonexistent"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct tk_fault fault = {0};
                struct tk_kms *kms = NULL;

                assert_int_equal(tk_kms_azure_open(&bad[i], &kms, &fault), -EINVAL);
                assert_int_equal(fault.kind, TK_FAULT_CONFIG);
                assert_null(kms);
        }
}

/* Attempts */

static void test_call__retried_until_it_works(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1, 503);
        EXPECT(KEY "/" V1, .failure = TK_HTTP_BROKEN);
        EXPECT(KEY "/" V1, 429, .retry_after = "7");
        EXPECT(KEY "/" V1, .failure = TK_HTTP_NO_HOST);
        EXPECT(KEY "/" V1, 200, UNWRAPPED);
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        assert_true(net.slept_ms >= 7000);
        all_asked();
}

static void test_call__gives_up_before_the_deadline(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        for (int i = 0; i < 6; i++)
                EXPECT(KEY "/" V1, 500);
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
        assert_int_equal(fault.kind, TK_FAULT_KMS_UNREACHABLE);
        assert_true(net.slept_ms <= 20000);
        all_asked();
}

static void test_call__retry_after_behind_the_deadline(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1, 429, .retry_after = "3600");
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
        /* The gate is shut for all: nothing is sent. */
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
        assert_int_equal(net.slept_ms, 0);
        pass_s(3601);
        EXPECT(KEY "/" V1, 200, UNWRAPPED);
        assert_int_equal(unwrap(kms, &good_wrap, &fault), 0);
        all_asked();
}

static void test_call__what_came_before_the_time_ran_out_is_said(void **state)
{
        static const struct {
                struct step before;
                const char *says;
        } cases[] = {
                {{KEY "/" V1 "/unwrapkey", 503}, "HTTP 503 "},
                {{KEY "/" V1 "/unwrapkey", 429, .retry_after = "1"}, "HTTP 429 "},
                {{KEY "/" V1 "/unwrapkey", .failure = TK_HTTP_NO_CONNECT}, "check route"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
                struct tk_fault fault;

                expect(&cases[i].before);
                EXPECT(KEY "/" V1 "/unwrapkey", .failure = TK_HTTP_TIMEOUT, .takes_ms = 20000);
                assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
                assert_int_equal(fault.kind, TK_FAULT_KMS_UNREACHABLE);
                assert_non_null(strstr(fault.text, cases[i].says));
                assert_non_null(strstr(fault.text, "asked again"));
                all_asked();
        }
}

/* "Throttled" or "no connection" would say that it surely was not done. */
static void
test_call__what_would_happen_twice_may_have_happened_when_the_time_runs_out(void **state)
{
        static const struct step before[] = {
                {KEY "/rotate", 429, .retry_after = "1"},
                {KEY "/rotate", .failure = TK_HTTP_NO_CONNECT},
        };

        for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
                char version[TK_KMS_VERSION_MAX] = "";
                struct tk_fault fault = {0};

                expect(&before[i]);
                EXPECT(KEY "/rotate", .failure = TK_HTTP_TIMEOUT, .takes_ms = 20000);
                assert_int_equal(tk_kms_admin_rotate(kms, version, &fault), -ENOKEY);
                assert_non_null(strstr(fault.text, "too slow"));
                all_asked();
        }
}

static void test_call__certificate_is_not_retried(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_fault fault;

        EXPECT(KEY "/" V1, .failure = TK_HTTP_TLS);
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
        assert_non_null(strstr(fault.text, "ca_file"));
        all_asked();
}

/* Section 9 of the reference, row by row. */

#define FORBIDDEN(inner)                                                                           \
        "{\"error\":{\"code\":\"Forbidden\",\"message\":\"m\",\"innererror\":{\"code\":\"" inner   \
        "\"}}}"

static void test_unwrap__what_each_answer_means(void **state)
{
        static const struct {
                int status;
                const char *body;
                int r;
                enum tk_fault_kind kind;
                const char *says;
        } rows[] = {
                {403, FORBIDDEN("KeyDisabled"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "set-attributes --id " KEY "/" V1 " --enabled true"},
                {404, "{\"error\":{\"code\":\"KeyNotFound\"}}", -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "az keyvault key recover --vault-name v --name kek"},
                {403, FORBIDDEN("ForbiddenByRbac"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "\"Key Vault Crypto Service Encryption User\""},
                {403, FORBIDDEN("ForbiddenByPolicy"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "az keyvault set-policy --name v"},
                {403, FORBIDDEN("AccessDenied"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED, "unwrapKey"},
                {403, FORBIDDEN("KeyOperationForbidden"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "--ops wrapKey unwrapKey"},
                {403, FORBIDDEN("ForbiddenByFirewall"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "network-rule add --name v"},
                {403, FORBIDDEN("ForbiddenByConnection"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED,
                 "privatelink.vaultcore.azure.net"},
                {403, FORBIDDEN("Unheard"), -EKEYREVOKED, TK_FAULT_KEY_REVOKED, "Unheard"},
                {403, "", -EKEYREVOKED, TK_FAULT_KEY_REVOKED, "refused"},
                {400, "{\"error\":{\"code\":\"BadParameter\"}}", -EBADMSG, TK_FAULT_VOLUME_DAMAGED,
                 "damaged"},
                {302, "", -ENOKEY, TK_FAULT_KMS_UNREACHABLE, "proxy"},
                {418, "teapot", -ENOKEY, TK_FAULT_KMS_UNREACHABLE, "HTTP 418"},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
                struct tk_fault fault;

                EXPECT(KEY "/" V1, rows[i].status, rows[i].body);
                assert_int_equal(unwrap(kms, &good_wrap, &fault), rows[i].r);
                assert_int_equal(fault.kind, rows[i].kind);
                if (!strstr(fault.text, rows[i].says))
                        fail_msg("%s: not in: %s", rows[i].says, fault.text);
                all_asked();
        }
}

static void test_unwrap__firewall_as_outage(void **state)
{
        TK_CLEANUP(tk_kms_freep)
        struct tk_kms *kms = opened(&(struct tk_kms_azure_options){.tenant_id = "tenant-1",
                                                                   .firewall_is_outage = true});
        struct tk_fault fault;

        EXPECT(KEY "/" V1, 403, FORBIDDEN("ForbiddenByFirewall"));
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
        EXPECT(KEY "/" V1, 403, FORBIDDEN("KeyDisabled"));
        assert_int_equal(unwrap(kms, &good_wrap, &fault), -EKEYREVOKED);
}

static void test_unwrap__answers_that_cannot_be_right(void **state)
{
        static const char *const bodies[] = {
                "",
                "{}",
                "[]",
                "{\"kid\":\"" KEY "/" V2 "\",\"value\":\"AQEB\"}",
                "{\"kid\":\"https://" HOST "/keys/other/" V1 "\",\"value\":\"AQEB\"}",
                "{\"kid\":\"https://w.vault.azure.net/keys/kek/" V1 "\",\"value\":\"AQEB\"}",
                "{\"kid\":\"" KEY "/" V1 "\",\"value\":\"AQEB\",\"value\":\"AQEB\"}",
                "{\"kid\":\"" KEY "/" V1 "\",\"value\":\"AQ==\"}",
                "<html>",
        };

        for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
                struct tk_fault fault;

                EXPECT(KEY "/" V1, 200, bodies[i]);
                assert_int_equal(unwrap(kms, &good_wrap, &fault), -ENOKEY);
                all_asked();
        }
}

static void test_unwrap__nothing_is_sent_for_foreign_wraps(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_kms_wrap wrap;
        struct tk_fault fault;

        wrap = good_wrap;
        strcpy(wrap.key_id, "https://w.vault.azure.net/keys/kek");
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        strcpy(wrap.key_id, "https://" HOST "/keys/other");
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        strcpy(wrap.key_id, KEY "/" V1);
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        strcpy(wrap.key_id, "00112233");
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        memset(wrap.key_id, 'x', sizeof(wrap.key_id));
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        wrap = good_wrap;
        strcpy(wrap.version, "../../secrets/x");
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        wrap.version[0] = '\0';
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOENT);
        wrap = good_wrap;
        strcpy(wrap.algorithm, "RSA1_5");
        assert_int_equal(unwrap(kms, &wrap, &fault), -ENOTSUP);
        strcpy(wrap.algorithm, "RSA-OAEP-256");
        assert_int_equal(unwrap(kms, &wrap, &fault), -EBADMSG); /* 40 bytes are no RSA block */
        wrap = good_wrap;
        wrap.blob_len = 0;
        assert_int_equal(unwrap(kms, &wrap, &fault), -EBADMSG);
        assert_int_equal(net.tokens, 0);
}

static void test_unwrap__case_of_vault_and_key_does_not_matter(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        struct tk_kms_wrap wrap = good_wrap;
        struct tk_fault fault;

        strcpy(wrap.key_id, "https://V.VAULT.AZURE.NET/keys/KEK");
        EXPECT(KEY "/" V1, 200,
               "{\"kid\":\"https://V.vault.azure.net/keys/Kek/" V1 "\",\"value\":\"AQEB\"}");
        assert_int_equal(unwrap(kms, &wrap, &fault), 0);
}

/* Reading and wrapping */

static int current_of(const char *attributes, struct tk_fault *fault, char *version)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        char body[1024];

        *fault = (struct tk_fault){0};
        snprintf(body, sizeof(body),
                 "{\"key\":{\"kid\":\"" KEY "/" V1 "\",\"kty\":\"oct-HSM\"},\"attributes\":{%s}}",
                 attributes);
        EXPECT(KEY "?", 200, body);
        return tk_kms_current(kms, version, fault);
}

static void test_current__states(void **state)
{
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault;

        assert_int_equal(
                current_of("\"enabled\":true,\"recoveryLevel\":\"Recoverable\"", &fault, version),
                0);
        assert_string_equal(version, V1);
        assert_int_equal(
                current_of("\"enabled\":false,\"recoveryLevel\":\"Recoverable\"", &fault, version),
                -EKEYREVOKED);
        assert_int_equal(current_of("\"enabled\":true,\"recoveryLevel\":\"Recoverable\",\"exp\":"
                                    "1699990000",
                                    &fault, version),
                         -EKEYEXPIRED);
        assert_int_equal(current_of("\"enabled\":true,\"recoveryLevel\":\"Recoverable\",\"exp\":"
                                    "1699999900",
                                    &fault, version),
                         0); /* within the leeway for clocks */
        assert_int_equal(current_of("\"enabled\":true,\"recoveryLevel\":\"Recoverable\",\"nbf\":"
                                    "1700009000",
                                    &fault, version),
                         -EKEYEXPIRED);
        assert_int_equal(current_of("\"enabled\":true,\"recoveryLevel\":\"Recoverable+Purgeable\"",
                                    &fault, version),
                         -EPERM);
        assert_int_equal(fault.kind, TK_FAULT_CONFIG);
        assert_non_null(strstr(fault.text, "--enable-purge-protection true"));
        assert_int_equal(current_of("\"enabled\":true", &fault, version), -EPERM);
}

static void test_current__pinned_version(void **state)
{
        TK_CLEANUP(tk_kms_freep)
        struct tk_kms *kms =
                opened(&(struct tk_kms_azure_options){.key = KEY "/" V1, .tenant_id = "tenant-1"});
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault = {0};

        EXPECT(KEY "/" V1 "?", 200, GOOD_KEY);
        assert_int_equal(tk_kms_current(kms, version, &fault), 0);
        assert_string_equal(version, V1);
        all_asked();
}

static void test_wrap__by_the_service(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = simple();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_kms_wrap wrap;
        struct tk_fault fault = {0};

        assert_int_equal(tk_secret_new(3, &key), 0);
        EXPECT(KEY "/" V1 "?", 200, GOOD_KEY);
        EXPECT(KEY "/" V1 "/wrapkey", 200, "{\"kid\":\"" KEY "/" V1 "\",\"value\":\"AAECAwQFBgc\"}",
               .wants = "\"alg\":\"A256KW\"");
        assert_int_equal(tk_kms_wrap(kms, V1, key, &wrap, &fault), 0);
        assert_string_equal(wrap.key_id, KEY);
        assert_string_equal(wrap.version, V1);
        assert_string_equal(wrap.algorithm, "A256KW");
        assert_int_equal(wrap.blob_len, 8);
        /* The description is fresh for a minute. */
        EXPECT(KEY "/" V1 "/wrapkey", 403, FORBIDDEN("KeyExpired"));
        assert_int_equal(tk_kms_wrap(kms, V1, key, &wrap, &fault), -EKEYEXPIRED);
        pass_s(61);
        EXPECT(KEY "/" V1 "?", 403, FORBIDDEN("KeyDisabled"));
        assert_int_equal(tk_kms_wrap(kms, V1, key, &wrap, &fault), -EKEYREVOKED);
        all_asked();
}

int main(void)
{
        static const char *const variables[] = {"AZURE_TENANT_ID",
                                                "AZURE_CLIENT_ID",
                                                "AZURE_CLIENT_SECRET",
                                                "AZURE_CLIENT_CERTIFICATE_PATH",
                                                "AZURE_FEDERATED_TOKEN_FILE",
                                                "AZURE_AUTHORITY_HOST",
                                                "AZURE_TOKEN_CREDENTIALS"};
        const struct CMUnitTest tests[] = {
                TK_TEST(test_token__one_for_many_calls),
                TK_TEST(test_token__renewed_at_half_of_its_life),
                TK_TEST(test_token__old_one_serves_while_renewal_fails),
                TK_TEST(test_token__fetched_once_for_all_threads),
                TK_TEST(test_token__401_renews_once),
                TK_TEST(test_token__claims_go_into_the_next_request),
                TK_TEST(test_call__tenant_learnt_without_a_token),
                TK_TEST(test_call__foreign_challenge_gets_no_token),
                TK_TEST(test_open__audience_has_to_fit),
                TK_TEST(test_open__refused),
                TK_TEST(test_call__retried_until_it_works),
                TK_TEST(test_call__gives_up_before_the_deadline),
                TK_TEST(test_call__retry_after_behind_the_deadline),
                TK_TEST(test_call__what_came_before_the_time_ran_out_is_said),
                TK_TEST(test_call__what_would_happen_twice_may_have_happened_when_the_time_runs_out),
                TK_TEST(test_call__certificate_is_not_retried),
                TK_TEST(test_unwrap__what_each_answer_means),
                TK_TEST(test_unwrap__firewall_as_outage),
                TK_TEST(test_unwrap__answers_that_cannot_be_right),
                TK_TEST(test_unwrap__nothing_is_sent_for_foreign_wraps),
                TK_TEST(test_unwrap__case_of_vault_and_key_does_not_matter),
                TK_TEST(test_current__states),
                TK_TEST(test_current__pinned_version),
                TK_TEST(test_wrap__by_the_service),
        };

        for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
                unsetenv(variables[i]);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
