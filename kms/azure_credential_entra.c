/* SPDX-License-Identifier: Apache-2.0 */

/* Credentials that ask Entra ID itself: client secret, client certificate, federated token. */

#include "kms/azure_credential.h"

#include "crypto/random.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
        QUICK_MS = 3000,
        CERTIFICATE_MAX = 64 * 1024,
        FEDERATED_MAX = 32 * 1024,
        SKEW_NOTABLE_S = 120,
};

static const struct tk_retry_policy policy = {.attempts_max = 6, .base_ms = 500, .cap_ms = 16000};
static const struct tk_retry_policy once = {.attempts_max = 1};

/* What the administrator has to do about the errors that are known. %s: client id, tenant. */
static const struct {
        int64_t number;
        const char *advice;
} known_errors[] = {
        {7000215, "the client secret is wrong: make a new one (az ad app credential reset --id "
                  "CLIENT_ID) and store it where [azure] client_secret points"},
        {7000222, "the client secret has expired: make a new one (az ad app credential reset --id "
                  "CLIENT_ID) and store it where [azure] client_secret points"},
        {700016, "this tenant has no such application: check [azure] client_id and tenant_id, or "
                 "whether the application was deleted"},
        {700027, "the certificate is not one of the application's: add it (az ad app credential "
                 "reset --id CLIENT_ID --cert @CERTIFICATE.pem --append)"},
        {700024, "the assertion is outside its time: set this machine's clock"},
        {90002, "there is no such tenant: check [azure] tenant_id"},
        {7000112, "the application is disabled: enable it (az ad sp update --id CLIENT_ID --set "
                  "accountEnabled=true)"},
        {7000114, "the application is disabled: enable it (az ad sp update --id CLIENT_ID --set "
                  "accountEnabled=true)"},
        {53003, "a conditional access policy blocks it: an administrator of the tenant has to "
                "let this identity in"},
        {70021, "no federated credential of the application fits this token: add one (az ad app "
                "federated-credential create --id CLIENT_ID)"},
        {700211, "no federated credential of the application has this token's issuer: add one (az "
                 "ad app federated-credential create --id CLIENT_ID)"},
        {700213, "no federated credential of the application has this token's subject: add one "
                 "(az ad app federated-credential create --id CLIENT_ID)"},
};

static const char *advice_for(int64_t number)
{
        for (size_t i = 0; i < sizeof(known_errors) / sizeof(known_errors[0]); i++)
                if (known_errors[i].number == number)
                        return known_errors[i].advice;
        return "an administrator of the tenant has to look into it";
}

static bool is_temporary(int status, const struct tk_azure_auth_error *error)
{
        return tk_retry_may_help(status) || error->number == 50196 ||
               strcasecmp(error->error, "temporarily_unavailable") == 0;
}

/* The token endpoint answered, but with no token. */
static int say_refused(const struct tk_azure_auth *auth, const char *tenant,
                       const struct tk_http_answer *answer, struct tk_fault *fault)
{
        struct tk_azure_auth_error error;
        int64_t skew = tk_azure_net_skew(auth->net, answer);
        char clock[80] = "";

        tk_azure_auth_parse_error(tk_text_of(answer->body), tk_text_len(answer->body), &error);
        if (skew > SKEW_NOTABLE_S || skew < -SKEW_NOTABLE_S)
                snprintf(clock, sizeof(clock),
                         "; the clock of this machine is %" PRId64 " seconds off", skew);
        if (is_temporary(answer->status, &error))
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "%s is in trouble (HTTP %d %s%s); it usually passes by itself",
                                    auth->authority, answer->status, error.error,
                                    tk_azure_net_late(answer));
        if (answer->status == 400 || answer->status == 401 || answer->status == 403)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EACCES,
                                    "Entra ID gives no token to application %s in tenant %s: %s%s "
                                    "(HTTP %d, %s, trace %s)",
                                    auth->client_id, tenant, advice_for(error.number), clock,
                                    answer->status,
                                    error.description[0] ? error.description : "no reason given",
                                    error.trace_id[0] ? error.trace_id : "unknown");
        return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                            "%s does not answer like Entra ID (HTTP %d); check [azure] authority",
                            auth->authority, answer->status);
}

static int take_grant(const struct tk_azure_auth *auth, const char *tenant,
                      const struct tk_http_answer *answer, struct tk_azure_grant *ret_grant,
                      struct tk_fault *fault)
{
        int r;

        if (answer->status != 200)
                return say_refused(auth, tenant, answer, fault);
        r = tk_azure_auth_parse_token(tk_text_of(answer->body), tk_text_len(answer->body),
                                      tk_azure_net_unix_now(auth->net), &ret_grant->token,
                                      &ret_grant->lifetime_s);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "%s gave an answer that is no token; check [azure] authority",
                                    auth->authority);
        return r;
}

static int post(const struct tk_azure_auth *auth, const struct tk_azure_want *want,
                const char *tenant, const struct tk_secret *body, struct tk_azure_grant *ret_grant,
                struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        char url[TK_AZURE_URL_MAX];
        struct tk_http_request request = {
                .method = TK_HTTP_POST,
                .url = url,
                .body = body,
                .content_type = "application/x-www-form-urlencoded",
                .timeout_ms = want->quick ? QUICK_MS : 0,
        };
        int r;

        snprintf(url, sizeof(url), "%s/%s/oauth2/v2.0/token", auth->authority, tenant);
        r = tk_azure_net_ask(auth->net,
                             &(struct tk_azure_ask){.request = &request,
                                                    .policy = want->quick ? &once : &policy,
                                                    .deadline_ms = want->deadline_ms},
                             &answer);
        if (r == -EHOSTUNREACH)
                return tk_azure_net_say_unreachable("Entra ID", url, &answer, fault);
        return r < 0 ? r : take_grant(auth, tenant, &answer, ret_grant, fault);
}

/* The configured tenant, or the one that the vault named. */
static const char *tenant_of(const struct tk_azure_auth *auth, const struct tk_azure_want *want)
{
        return auth->tenant_id ? auth->tenant_id : want->tenant;
}

static int say_no_tenant(struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                            "the tenant is not known and the vault did not say it: give it as "
                            "[azure] tenant_id");
}

static int ask_with(const struct tk_azure_auth *auth, const struct tk_azure_want *want,
                    const struct tk_secret *secret, const struct tk_secret *assertion,
                    struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        const char *tenant = tenant_of(auth, want);
        int r;

        if (!tenant)
                return say_no_tenant(fault);
        r = tk_azure_auth_build_form(&(struct tk_azure_token_form){.client_id = auth->client_id,
                                                                   .audience = want->audience,
                                                                   .claims = want->claims,
                                                                   .secret = secret,
                                                                   .assertion = assertion},
                                     &body);
        return r < 0 ? r : post(auth, want, tenant, body, ret_grant, fault);
}

int tk_azure_credential_secret(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                               struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        return ask_with(auth, want, auth->secret, NULL, ret_grant, fault);
}

/* Read a file that a credential consists of; @what names it to a person. */
static int read_file(const char *path, const char *what, size_t max, struct tk_secret **ret_text,
                     struct tk_fault *fault)
{
        int r = tk_azure_read_file(path, max, ret_text);

        if (r == -ENOMEM || r == -EPERM || r >= 0)
                return r;
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EACCES, "can't read the %s %s: %s", what, path,
                            r == -ENODATA ? "it is empty or no file" : strerror(-r));
}

static int say_certificate(const char *path, int r, struct tk_fault *fault)
{
        const char *why = "it holds no RSA private key of 2048, 3072 or 4096 bits in PEM form";

        if (r == -ENOMEM || r == -EPERM)
                return r;
        if (r == -EKEYREJECTED)
                why = "its private key is encrypted, and the password is wrong or missing";
        else if (r == -ENOENT)
                why = "it holds no certificate for its private key";
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EACCES,
                            "[azure] certificate = %s can't be used: %s", path, why);
}

/* The certificate's own date is checked by Entra ID, whose answer is clear. */
int tk_azure_credential_certificate(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                    struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pem = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *jwt = NULL;
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *key = NULL;
        const char *tenant = tenant_of(auth, want);
        struct tk_rsa_certificate certificate;
        char endpoint[TK_AZURE_URL_MAX];
        uint8_t id[16];
        int r;

        if (!tenant)
                return say_no_tenant(fault);
        r = read_file(auth->certificate, "certificate", CERTIFICATE_MAX, &pem, fault);
        if (r < 0)
                return r;
        r = tk_rsa_new_private(pem, auth->certificate_password, &key);
        if (r == 0)
                r = tk_rsa_find_certificate(key, pem, &certificate);
        if (r < 0)
                return say_certificate(auth->certificate, r, fault);
        r = tk_random_bytes(id, sizeof(id));
        if (r < 0)
                return r;
        snprintf(endpoint, sizeof(endpoint), "%s/%s/oauth2/v2.0/token", auth->authority, tenant);
        r = tk_azure_auth_build_assertion(
                &(struct tk_azure_assertion){.endpoint = endpoint,
                                             .client_id = auth->client_id,
                                             .id = id,
                                             .now = tk_azure_net_unix_now(auth->net),
                                             .key = key,
                                             .certificate = &certificate,
                                             .scheme = TK_RSA_PS256},
                &jwt);
        return r < 0 ? r : ask_with(auth, want, NULL, jwt, ret_grant, fault);
}

int tk_azure_credential_workload(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                 struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *token = NULL;
        int r = read_file(auth->token_file, "federated token", FEDERATED_MAX, &token, fault);

        return r < 0 ? r : ask_with(auth, want, NULL, token, ret_grant, fault);
}
