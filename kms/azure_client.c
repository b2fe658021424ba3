/* SPDX-License-Identifier: Apache-2.0 */

/* Calls to one vault or HSM. */

#include "kms/azure_client.h"

#include "base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define API_VERSION "7.4"

enum { DEADLINE_MS = 20000, CONFLICT_WAIT_MS = 2000 };

static const char public_authority[] = "login.microsoftonline.com";
static const struct tk_retry_policy policy = {.attempts_max = 6, .base_ms = 500, .cap_ms = 16000};
static const struct tk_retry_policy patient = {.attempts_max = 20, .base_ms = 500, .cap_ms = 2000};

const struct tk_azure_operation tk_azure_get = {.permission = "get"};
const struct tk_azure_operation tk_azure_wrap = {.permission = "wrapKey"};
const struct tk_azure_operation tk_azure_unwrap = {.permission = "unwrapKey"};

void tk_azure_client_url(const struct tk_azure_client *client, const char *collection,
                         const char *version, const char *action, char ret_url[TK_HTTP_URL_MAX])
{
        snprintf(ret_url, TK_HTTP_URL_MAX, "https://%s/%s/%s%s%s%s%s?api-version=" API_VERSION,
                 client->key.host, collection, client->key.name, version[0] ? "/" : "", version,
                 action[0] ? "/" : "", action);
}

/* Learning from the vault */

/* The challenge has to be for the vault's own domain, or nothing of it is used. */
static int learn(struct tk_azure_client *client, const struct tk_azure_challenge *challenge,
                 struct tk_fault *fault)
{
        if (challenge->resource[0] &&
            !tk_azure_audience_fits(challenge->resource, client->key.host))
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -EACCES,
                                    "the vault %s asks for a token for %s, which is not its own "
                                    "domain; no token was sent. Check [azure] key: is this host "
                                    "the vault?",
                                    client->key.host, challenge->resource);
        TK_LOCK_SCOPE(&client->lock);
        if (!client->audience[0])
                memcpy(client->audience, challenge->resource, sizeof(client->audience));
        if (!client->tenant[0])
                memcpy(client->tenant, challenge->tenant, sizeof(client->tenant));
        return 0;
}

static bool knows_enough(struct tk_azure_client *client)
{
        TK_LOCK_SCOPE(&client->lock);
        return client->audience[0] &&
               (client->tenant[0] || !tk_azure_auth_wants_tenant(client->auth));
}

static int say_no_challenge(const struct tk_azure_client *client,
                            const struct tk_http_answer *answer, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                            "%s does not answer like a key vault (HTTP %d to a request without a "
                            "token); check [azure] key, or give [azure] tenant_id and audience",
                            client->key.host, answer->status);
}

/* A first request without token and body, whose answer tells tenant and audience. */
static int discover(struct tk_azure_client *client, const struct tk_azure_call *call,
                    int64_t deadline_ms, struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        struct tk_http_request request = {.method = TK_HTTP_GET};
        struct tk_azure_challenge challenge;
        char url[TK_HTTP_URL_MAX];
        int r;

        tk_azure_client_url(client, "keys", "", "", url);
        request.url = url;
        r = tk_azure_net_ask(&client->net,
                             &(struct tk_azure_ask){.request = &request,
                                                    .policy = &policy,
                                                    .deadline_ms = deadline_ms,
                                                    .gate = &client->gate},
                             &answer);
        if (r == -EHOSTUNREACH)
                return tk_azure_net_say_unreachable("the key vault", url, &answer, fault);
        if (r < 0)
                return r;
        if (answer.status != 401 && answer.status >= 400)
                return tk_azure_client_say_refused(client, call, &answer, fault);
        if (answer.status != 401 || tk_azure_auth_parse_challenge(answer.challenge, &challenge) < 0)
                return say_no_challenge(client, &answer, fault);
        r = learn(client, &challenge, fault);
        if (r < 0)
                return r;
        return knows_enough(client) ? 0 : say_no_challenge(client, &answer, fault);
}

/* One series of attempts */

static int64_t wait_after_conflict(int status)
{
        if (status == 409)
                return CONFLICT_WAIT_MS;
        return tk_retry_may_help(status) ? 0 : TK_RETRY_GIVE_UP;
}

static void trace(const struct tk_azure_call *call, const struct tk_http_answer *answer,
                  int64_t took_ms)
{
        tk_log(TK_LOG_DEBUG, "azure: %s %.*s: HTTP %d in %" PRId64 " ms, x-ms-request-id %s",
               call->operation->permission, (int)strcspn(call->url, "?"), call->url, answer->status,
               took_ms, answer->request_id[0] ? answer->request_id : "none");
}

static int send_with(struct tk_azure_client *client, const struct tk_azure_call *call,
                     const struct tk_azure_token *token, int64_t deadline_ms,
                     struct tk_http_answer *ret_answer, struct tk_fault *fault)
{
        struct tk_http_request request = {
                .method = call->method,
                .url = call->url,
                .headers = {tk_azure_token_header(token)},
                .body = call->body,
                .content_type = "application/json",
                .once = call->once,
        };
        struct tk_azure_ask ask = {
                .request = &request,
                .policy = call->conflict_passes ? &patient : &policy,
                .deadline_ms = deadline_ms,
                .gate = &client->gate,
                .wait_after = call->conflict_passes ? wait_after_conflict : NULL,
        };
        int64_t start_ms = tk_azure_net_now(&client->net);
        int r = tk_azure_net_ask(&client->net, &ask, ret_answer);

        if (r == -EHOSTUNREACH)
                return tk_azure_net_say_unreachable("the key vault", call->url, ret_answer, fault);
        if (r == 0)
                trace(call, ret_answer, tk_azure_net_now(&client->net) - start_ms);
        return r;
}

static int get_token(struct tk_azure_client *client, int64_t deadline_ms,
                     struct tk_azure_token **ret_token, struct tk_fault *fault)
{
        struct tk_azure_want want = {.deadline_ms = deadline_ms};
        char audience[sizeof(client->audience)];
        char tenant[sizeof(client->tenant)];

        {
                TK_LOCK_SCOPE(&client->lock);
                memcpy(audience, client->audience, sizeof(audience));
                memcpy(tenant, client->tenant, sizeof(tenant));
        }
        want.audience = audience;
        want.tenant = tenant[0] ? tenant : NULL;
        return tk_azure_tokens_get(client->tokens, &want, ret_token, fault);
}

/* A 401: what the vault wants instead. The token is not used again. */
static int take_challenge(struct tk_azure_client *client, const struct tk_azure_token *token,
                          const struct tk_http_answer *answer, struct tk_fault *fault)
{
        struct tk_azure_challenge challenge = {0};
        int r = 0;

        if (tk_azure_auth_parse_challenge(answer->challenge, &challenge) == 0)
                r = learn(client, &challenge, fault);
        tk_azure_tokens_reject(client->tokens, token,
                               challenge.wants_claims ? challenge.claims : NULL);
        return r;
}

/* Requests of a mount wait for the deadline; what waits for the vault's own work has more time. */
static int64_t deadline_of(const struct tk_azure_client *client, const struct tk_azure_call *call)
{
        unsigned share_ms = client->deadline_ms;

        if (call->conflict_passes && share_ms < DEADLINE_MS)
                share_ms = DEADLINE_MS;
        return tk_azure_net_now(&client->net) + share_ms;
}

int tk_azure_client_call(struct tk_azure_client *client, const struct tk_azure_call *call,
                         struct tk_http_answer *ret_answer, struct tk_fault *fault)
{
        int64_t deadline_ms = deadline_of(client, call);
        int r;

        ret_answer->body = NULL;
        if (!knows_enough(client)) {
                r = discover(client, call, deadline_ms, fault);
                if (r < 0)
                        return r;
        }
        for (bool renewed = false;; renewed = true) {
                TK_CLEANUP(tk_azure_token_unrefp) struct tk_azure_token *token = NULL;

                r = get_token(client, deadline_ms, &token, fault);
                if (r < 0)
                        return r;
                r = send_with(client, call, token, deadline_ms, ret_answer, fault);
                if (r < 0)
                        return r;
                if (call->ret_status)
                        *call->ret_status = ret_answer->status;
                if (ret_answer->status == 401) {
                        r = take_challenge(client, token, ret_answer, fault);
                        if (r == 0 && !renewed) {
                                tk_http_answer_done(ret_answer);
                                continue;
                        }
                }
                if (r == 0 && (ret_answer->status == 200 || ret_answer->status == 204))
                        return 0;
                if (r == 0)
                        r = tk_azure_client_say_refused(client, call, ret_answer, fault);
                tk_http_answer_done(ret_answer);
                return r;
        }
}

/* Making and freeing */

static int set_audience(const char *option, const struct tk_azure_cloud *cloud,
                        struct tk_azure_client *client, struct tk_fault *fault)
{
        const char *audience = option ? option : cloud ? cloud->audience : "";
        size_t len = strlen(audience);

        if (option && !tk_azure_audience_fits(option, client->key.host))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "[azure] audience = %s is not a domain above the vault's host "
                                    "%s: tokens for it must not go there",
                                    option, client->key.host);
        if (len >= sizeof(client->audience))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "[azure] audience is too long");
        if (len > 0 && audience[len - 1] == '/')
                len--;
        memcpy(client->audience, audience, len);
        return 0;
}

static int set_key(const struct tk_kms_azure_options *options, struct tk_azure_client *client,
                   struct tk_fault *fault)
{
        char url[TK_AZURE_URL_MAX];
        size_t len;

        if (!options->key || tk_azure_id_parse(options->key, &client->key) < 0)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "[azure] key is to be the key's identifier, such as "
                                    "https://VAULT.vault.azure.net/keys/NAME; with a version "
                                    "behind it to stay with that one");
        tk_azure_id_base(&client->key, url);
        len = strlen(url);
        if (len >= sizeof(client->url))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "the key identifier %s has more than %d characters: give the "
                                    "key a shorter name",
                                    url, TK_KMS_KEY_ID_MAX - 1);
        memcpy(client->url, url, len + 1);
        return 0;
}

static int set_http(const struct tk_kms_azure_options *options, const struct tk_azure_net *net,
                    struct tk_azure_client *client, struct tk_fault *fault)
{
        int r;

        if (net) {
                client->net = *net;
                client->http = net->http;
                client->http_is_borrowed = true;
                return 0;
        }
        r = tk_http_new(&(struct tk_http_options){.ca_file = options->ca_file,
                                                  .connect_ms = options->connect_timeout_ms,
                                                  .total_ms = options->request_timeout_ms},
                        &client->http);
        if (r == -ENOENT)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "[azure] ca_file = %s can't be read", options->ca_file);
        if (r == 0)
                tk_azure_net_init(&client->net, client->http);
        return r;
}

int tk_azure_client_new(const struct tk_kms_azure_options *options, const struct tk_azure_net *net,
                        struct tk_azure_client **ret_client, struct tk_fault *fault)
{
        TK_CLEANUP(tk_azure_client_freep) struct tk_azure_client *client = NULL;
        const struct tk_azure_cloud *cloud;
        int r;

        client = calloc(1, sizeof(*client));
        if (!client)
                return -ENOMEM;
        pthread_mutex_init(&client->lock, NULL);
        pthread_mutex_init(&client->gate.lock, NULL);
        client->deadline_ms = options->deadline_ms ? options->deadline_ms : DEADLINE_MS;
        client->firewall_is_outage = options->firewall_is_outage;
        r = set_key(options, client, fault);
        if (r < 0)
                return r;
        cloud = tk_azure_cloud_of(client->key.host);
        client->managed_hsm =
                cloud ? cloud->managed_hsm : strstr(client->key.host, ".managedhsm.") != NULL;
        r = set_audience(options->audience, cloud, client, fault);
        if (r == 0)
                r = set_http(options, net, client, fault);
        if (r == 0)
                r = tk_azure_auth_new(options, &client->net,
                                      cloud ? cloud->authority : public_authority, &client->auth,
                                      fault);
        if (r == 0)
                r = tk_azure_tokens_new(client->auth, &client->net, &client->tokens);
        if (r < 0)
                return r;
        *ret_client = TK_TAKE(client);
        return 0;
}

struct tk_azure_client *tk_azure_client_free(struct tk_azure_client *client)
{
        if (!client)
                return NULL;
        tk_azure_tokens_free(client->tokens);
        tk_azure_auth_free(client->auth);
        if (!client->http_is_borrowed)
                tk_http_free(client->http);
        pthread_mutex_destroy(&client->gate.lock);
        pthread_mutex_destroy(&client->lock);
        free(client);
        return NULL;
}
