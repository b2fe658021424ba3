/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Managed identity: the machine's own, from a service on the machine or its host.
 *
 * Virtual machines have the metadata service (IMDS); App Service, Functions and Container
 * Apps an endpoint named in the environment; machines with Azure Arc the agent. All are plain
 * http on loopback or link-local addresses, and never go through a proxy.
 */

#include "kms/azure_credential.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { IS_THERE_MS = 1000, QUICK_MS = 3000, ARC_KEY_MAX = 4096, UPDATING_MS = 10000 };

static const char imds_origin[] = "http://169.254.169.254";
static const char arc_endpoint[] = "http://localhost:40342/metadata/identity/oauth2/token";
static const char arc_agent[] = "/opt/azcmagent/bin/himds";

static const struct tk_retry_policy policy = {.attempts_max = 6, .base_ms = 1000, .cap_ms = 16000};
static const struct tk_retry_policy once = {.attempts_max = 1};

enum source { SOURCE_IMDS, SOURCE_APP_SERVICE, SOURCE_ARC, SOURCE_OTHER };

static enum source find_source(void)
{
        const char *endpoint = getenv("IDENTITY_ENDPOINT");

        if (endpoint && getenv("IDENTITY_HEADER"))
                return getenv("IDENTITY_SERVER_THUMBPRINT") ? SOURCE_OTHER : SOURCE_APP_SERVICE;
        if (getenv("MSI_ENDPOINT"))
                return SOURCE_OTHER;
        if ((endpoint && getenv("IMDS_ENDPOINT")) || access(arc_agent, X_OK) == 0)
                return SOURCE_ARC;
        return SOURCE_IMDS;
}

/* 404, 410 and 429 go away; 410 while the service is being updated, which takes up to 70 s. */
static int64_t imds_wait_after(int status)
{
        if (status == 410)
                return UPDATING_MS;
        return status == 404 || tk_retry_may_help(status) ? 0 : TK_RETRY_GIVE_UP;
}

static int make_header(const char *name, const char *value, struct tk_secret **ret_header)
{
        struct tk_text text = {0};

        tk_text_add(&text, name);
        tk_text_add(&text, ": ");
        tk_text_add(&text, value);
        return tk_text_take(&text, ret_header);
}

/* ENDPOINT?api-version=...&resource=...[&client_id=...] */
static int make_url(const struct tk_azure_auth *auth, const char *endpoint, const char *version,
                    const char *audience, bool with_client, struct tk_secret **ret_url)
{
        struct tk_text text = {0};

        tk_text_add(&text, endpoint);
        tk_text_add(&text, "?api-version=");
        tk_text_add(&text, version);
        tk_text_add_field(&text, "resource", audience, strlen(audience));
        if (with_client && auth->client_id)
                tk_text_add_field(&text, "client_id", auth->client_id, strlen(auth->client_id));
        return tk_text_take(&text, ret_url);
}

/* Where the metadata service is: its one address, or the origin that the environment names. */
static void imds_endpoint(char *endpoint, size_t max)
{
        const char *origin = getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        size_t len;

        if (!origin || !origin[0])
                origin = imds_origin;
        len = strlen(origin);
        while (len > 0 && origin[len - 1] == '/')
                len--;
        snprintf(endpoint, max, "%.*s/metadata/identity/oauth2/token%s", (int)len, origin,
                 origin == imds_origin ? "" : "/");
}

bool tk_azure_managed_is_there(const struct tk_azure_auth *auth)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        char endpoint[TK_AZURE_URL_MAX];
        struct tk_http_request request = {
                .url = endpoint, .timeout_ms = IS_THERE_MS, .local = true};

        if (find_source() != SOURCE_IMDS)
                return true;
        imds_endpoint(endpoint, sizeof(endpoint));
        return tk_http_perform(auth->net->http, &request, &answer) == 0;
}

/* No token in the answer: the machine has no identity, or the service is in trouble. */
static int say_refused(const struct tk_azure_auth *auth, const char *url,
                       const struct tk_http_answer *answer, struct tk_fault *fault)
{
        struct tk_azure_auth_error error;

        tk_azure_auth_parse_error(tk_text_of(answer->body), tk_text_len(answer->body), &error);
        if (answer->status != 400 && answer->status != 401 && answer->status != 403)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the managed identity service at %.*s is in trouble (HTTP %d "
                                    "%s%s)",
                                    (int)strcspn(url, "?"), url, answer->status, error.error,
                                    tk_azure_net_late(answer));
        if (auth->client_id)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -ENODATA,
                                    "this machine does not have the user-assigned managed identity "
                                    "with client id %s: assign it (az vm identity assign --name VM "
                                    "--resource-group GROUP --identities IDENTITY), or correct "
                                    "[azure] client_id (HTTP %d: %s)",
                                    auth->client_id, answer->status, error.description);
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -ENODATA,
                            "this machine has no system-assigned managed identity, or several and "
                            "none is chosen: assign one (az vm identity assign --name VM "
                            "--resource-group GROUP), or name one by [azure] client_id (HTTP %d: "
                            "%s)",
                            answer->status, error.description);
}

static int take_grant(const struct tk_azure_auth *auth, const char *url,
                      const struct tk_http_answer *answer, struct tk_azure_grant *ret_grant,
                      struct tk_fault *fault)
{
        int r;

        if (answer->status != 200)
                return say_refused(auth, url, answer, fault);
        r = tk_azure_auth_parse_token(tk_text_of(answer->body), tk_text_len(answer->body),
                                      tk_azure_net_unix_now(auth->net), &ret_grant->token,
                                      &ret_grant->lifetime_s);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the managed identity service at %.*s gave an answer that is "
                                    "no token",
                                    (int)strcspn(url, "?"), url);
        return r;
}

/* One GET of @url with one header. */
static int ask(const struct tk_azure_auth *auth, const struct tk_azure_want *want, const char *url,
               const struct tk_secret *header, const struct tk_secret *second,
               struct tk_http_answer *ret_answer, struct tk_fault *fault)
{
        struct tk_http_request request = {
                .url = url,
                .headers = {header, second},
                .timeout_ms = want->quick ? QUICK_MS : 0,
                .local = true,
        };
        int r;

        r = tk_azure_net_ask(auth->net,
                             &(struct tk_azure_ask){.request = &request,
                                                    .policy = want->quick ? &once : &policy,
                                                    .deadline_ms = want->deadline_ms,
                                                    .wait_after = imds_wait_after},
                             ret_answer);
        if (r == -EHOSTUNREACH)
                return tk_azure_net_say_unreachable("the managed identity service", url, ret_answer,
                                                    fault);
        return r;
}

static int get_from(const struct tk_azure_auth *auth, const struct tk_azure_want *want,
                    const char *endpoint, const char *version, const struct tk_secret *header,
                    struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *url = NULL;
        int r;

        r = make_url(auth, endpoint, version, want->audience, true, &url);
        if (r == 0)
                r = ask(auth, want, tk_text_of(url), header, NULL, &answer, fault);
        return r < 0 ? r : take_grant(auth, tk_text_of(url), &answer, ret_grant, fault);
}

static int get_imds(const struct tk_azure_auth *auth, const struct tk_azure_want *want,
                    struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *header = NULL;
        char endpoint[TK_AZURE_URL_MAX];
        int r = make_header("Metadata", "true", &header);

        if (r < 0)
                return r;
        imds_endpoint(endpoint, sizeof(endpoint));
        return get_from(auth, want, endpoint, "2018-02-01", header, ret_grant, fault);
}

static int get_app_service(const struct tk_azure_auth *auth, const struct tk_azure_want *want,
                           struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *header = NULL;
        int r = make_header("X-IDENTITY-HEADER", getenv("IDENTITY_HEADER"), &header);

        if (r < 0)
                return r;
        return get_from(auth, want, getenv("IDENTITY_ENDPOINT"), "2019-08-01", header, ret_grant,
                        fault);
}

/* The agent asks for the content of a file that only its group can read, and root. */
static int prove_arc(const struct tk_http_answer *answer, struct tk_secret **ret_header,
                     struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_text text = {0};
        char path[256];
        int r;

        if (answer->status != 401 ||
            tk_azure_auth_parse_arc_challenge(answer->challenge, path, sizeof(path)) < 0)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the Azure Arc agent answers strangely (HTTP %d); check it: "
                                    "azcmagent show",
                                    answer->status);
        r = tk_azure_read_file(path, ARC_KEY_MAX, &key);
        if (r == -ENOMEM || r == -EPERM)
                return r;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -EACCES,
                                    "can't read the Azure Arc agent's %s: %s; run this as root or "
                                    "as a member of the group himds",
                                    path, strerror(-r));
        tk_text_add(&text, "Authorization: Basic ");
        tk_text_add(&text, tk_text_of(key));
        return tk_text_take(&text, ret_header);
}

static int get_arc(const struct tk_azure_auth *auth, const struct tk_azure_want *want,
                   struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer first = {0};
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer second = {0};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *metadata = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *proof = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *url = NULL;
        const char *endpoint = getenv("IDENTITY_ENDPOINT");
        int r;

        r = make_header("Metadata", "true", &metadata);
        if (r == 0)
                r = make_url(auth, endpoint ? endpoint : arc_endpoint, "2020-06-01", want->audience,
                             false, &url);
        if (r == 0)
                r = ask(auth, want, tk_text_of(url), metadata, NULL, &first, fault);
        if (r == 0)
                r = prove_arc(&first, &proof, fault);
        if (r == 0)
                r = ask(auth, want, tk_text_of(url), metadata, proof, &second, fault);
        return r < 0 ? r : take_grant(auth, tk_text_of(url), &second, ret_grant, fault);
}

int tk_azure_credential_managed(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        switch (find_source()) {
        case SOURCE_APP_SERVICE:
                return get_app_service(auth, want, ret_grant, fault);
        case SOURCE_ARC:
                return get_arc(auth, want, ret_grant, fault);
        case SOURCE_IMDS:
                return get_imds(auth, want, ret_grant, fault);
        default:
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENODATA,
                                    "the managed identity of Service Fabric, Azure ML and Cloud "
                                    "Shell is not supported; use another [azure] auth");
        }
}
