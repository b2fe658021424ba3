/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The way to the root key, step by step.
 *
 * Each step is done as the provider does it, by the same functions, so that what doctor says
 * is what a mount would meet.
 */

#include "kms/azure_doctor.h"

#include "crypto/random.h"
#include "kms/azure_provider.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DEADLINE_MS = 20000, SKEW_WARN_S = 60, EXPIRY_WARN_S = 30 * 86400, DAY_S = 86400 };

struct examination {
        const struct tk_kms_azure_options *options;
        struct tk_kms_report report;
        struct tk_azure azure; /* its client is NULL until it was made */
        struct tk_kms *kms;
        struct tk_azure_key key; /* the newest or pinned version */
};

static int check_options(struct examination *exam)
{
        struct tk_kms_azure_options options = *exam->options;
        struct tk_fault fault = {0};
        int r;

        if (options.deadline_ms == 0)
                options.deadline_ms = DEADLINE_MS;
        r = tk_azure_client_new(&options, NULL, &exam->azure.client, &fault);
        if (r == 0)
                r = tk_kms_azure_open(&options, &exam->kms, &fault);
        if (r < 0)
                return tk_kms_say_failed(&exam->report, "configuration", r, &fault);
        exam->azure.wrap = options.wrap;
        exam->azure.allow_purge = options.allow_purge;
        return 0;
}

/* Names, connection, TLS ------------------------------------------------- */

/* How far a request came that got no answer. */
static const char *failed_step(enum tk_http_failure failure)
{
        switch (failure) {
        case TK_HTTP_NO_HOST:
                return "DNS";
        case TK_HTTP_TLS:
                return "TLS";
        default:
                return "connection";
        }
}

static void check_clock(const struct examination *exam, const struct tk_http_answer *answer)
{
        int64_t skew = tk_azure_net_skew(&exam->azure.client->net, answer);

        if (answer->date < 0)
                return;
        if (skew > SKEW_WARN_S || skew < -SKEW_WARN_S)
                tk_kms_say(&exam->report, TK_KMS_FINDING_WARN, "clock",
                           "this machine's clock is %" PRId64
                           " seconds %s the vault's: set it, and keep it by NTP, or tokens and "
                           "dates of keys are taken for invalid",
                           skew > 0 ? skew : -skew, skew > 0 ? "ahead of" : "behind");
        else
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "clock", "agrees with the vault's");
}

static void check_challenge(const struct examination *exam, const struct tk_http_answer *answer)
{
        const struct tk_azure_client *client = exam->azure.client;
        struct tk_azure_challenge challenge;

        if (answer->status != 401 ||
            tk_azure_auth_parse_challenge(answer->challenge, &challenge) < 0)
                tk_kms_say(&exam->report, TK_KMS_FINDING_WARN, "challenge",
                           "%s does not ask for a token as a key vault does (HTTP %d); check "
                           "[azure] key",
                           client->key.host, answer->status);
        else if (challenge.resource[0] &&
                 !tk_azure_audience_fits(challenge.resource, client->key.host))
                tk_kms_say(&exam->report, TK_KMS_FINDING_WARN, "challenge",
                           "%s asks for a token for %s, which is not its own domain: none will be "
                           "sent; check [azure] key",
                           client->key.host, challenge.resource);
        else
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "challenge",
                           "tenant %s, tokens for %s",
                           challenge.tenant[0] ? challenge.tenant : "not named",
                           challenge.resource[0] ? challenge.resource
                                                 : "a resource that is not named");
}

/* One request without a token: names, connection, TLS, clock, challenge. */
static int check_vault(const struct examination *exam)
{
        const struct tk_azure_client *client = exam->azure.client;
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        struct tk_http_request request = {.method = TK_HTTP_GET};
        struct tk_fault fault = {0};
        char url[TK_HTTP_URL_MAX];
        int r;

        tk_azure_client_url(client, "keys", "", "", url);
        request.url = url;
        r = tk_http_perform(client->http, &request, &answer);
        if (r == -EHOSTUNREACH) {
                r = tk_azure_net_say_unreachable("the key vault", url, &answer, &fault);
                return tk_kms_say_failed(&exam->report, failed_step(answer.failure), r, &fault);
        }
        if (r < 0)
                return tk_kms_say_failed(&exam->report, "connection", r, &fault);
        tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "vault",
                   "%s resolves, is reached, and shows a certificate that is trusted",
                   client->key.host);
        check_clock(exam, &answer);
        check_challenge(exam, &answer);
        return 0;
}

/* The key ---------------------------------------------------------------- */

/* The first call with a token: what fails before the vault's answer is the identity's fault. */
static int check_get(struct examination *exam)
{
        struct tk_azure_client *client = exam->azure.client;
        struct tk_fault fault = {0};
        int r = tk_azure_read_key(&exam->azure, client->key.version, &exam->key, &fault);

        if (r == -EACCES || r == -EINVAL)
                return tk_kms_say_failed(&exam->report, "identity", r, &fault);
        if (r == 0 || r == -EKEYREVOKED || r == -EKEYEXPIRED)
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "identity",
                           "Entra ID knows it, and gave a token");
        if (r < 0)
                return tk_kms_say_failed(&exam->report, "get", r, &fault);
        tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "get", "%s, version %s, %s%s", client->url,
                   exam->key.id.version, exam->key.type,
                   client->key.version[0] ? " (pinned: new versions are not followed)" : "");
        return 0;
}

static void check_expiry(const struct examination *exam)
{
        int64_t expires = exam->key.attributes.expires;
        int64_t left = expires - tk_azure_net_unix_now(&exam->azure.client->net);

        if (expires < 0)
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "dates",
                           "the version does not expire");
        else if (left < EXPIRY_WARN_S)
                tk_kms_say(&exam->report, TK_KMS_FINDING_WARN, "dates",
                           "the version expires in %" PRId64
                           " days: its owner makes a new one by: az keyvault key rotate --id %s",
                           left / DAY_S, exam->azure.client->url);
        else
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "dates",
                           "the version expires in %" PRId64 " days", left / DAY_S);
}

/* Enabled, within its dates, of a type that wraps, safe from being purged. */
static int check_usable(const struct examination *exam)
{
        const struct tk_azure_attributes *attributes = &exam->key.attributes;
        struct tk_fault fault = {0};
        int r = tk_azure_check_for_wrapping(&exam->azure, &exam->key, &fault);

        if (r == -EPERM)
                return tk_kms_say_failed(&exam->report, "recovery level", r, &fault);
        if (r < 0)
                return tk_kms_say_failed(&exam->report, "state", r, &fault);
        check_expiry(exam);
        if (tk_azure_msg_purge_protected(attributes))
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "recovery level",
                           "%s: a deleted key is kept for %" PRId64 " days",
                           attributes->recovery_level, attributes->recoverable_days);
        else
                tk_kms_say(&exam->report, TK_KMS_FINDING_WARN, "recovery level",
                           "%s: without purge protection a deleted key can be destroyed at once, "
                           "and the data with it",
                           attributes->recovery_level[0] ? attributes->recovery_level
                                                         : "not given");
        return 0;
}

static int check_crypto(const struct examination *exam)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_kms_wrap wrap;
        struct tk_fault fault = {0};
        int r;

        r = tk_random_secret(TK_KEY_LEN, &key);
        if (r == 0)
                r = tk_kms_wrap(exam->kms, exam->key.id.version, key, &wrap, &fault);
        if (r < 0)
                return tk_kms_say_failed(&exam->report, "wrap", r, &fault);
        tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "wrap", "%s, %s", wrap.algorithm,
                   exam->azure.wrap == TK_AZURE_WRAP_LOCAL && exam->key.n_len > 0
                           ? "on this machine"
                           : "by the vault");
        r = tk_kms_unwrap(exam->kms, &wrap, &again, &fault);
        if (r == 0 && !tk_secret_equal(key, again))
                r = tk_fault_set(&fault, TK_FAULT_INTERNAL, -EIO,
                                 "a key that was wrapped did not come back the same");
        if (r < 0)
                return tk_kms_say_failed(&exam->report, "unwrap", r, &fault);
        tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "unwrap", "a test key came back the same");
        return 0;
}

/* Listing is a permission that the filesystem does without: no more than a hint. */
static void check_versions(struct examination *exam)
{
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        struct tk_fault fault = {0};
        size_t count = 0;
        size_t enabled = 0;

        if (tk_azure_admin_list(&exam->azure, &versions, &count, &fault) < 0) {
                tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "versions",
                           "can't be listed by this identity, which a mount does without");
                return;
        }
        for (size_t i = 0; i < count; i++)
                enabled += versions[i].enabled;
        tk_kms_say(&exam->report, TK_KMS_FINDING_OK, "versions", "%zu, %zu of them enabled", count,
                   enabled);
}

static void run(struct examination *exam)
{
        if (check_options(exam) < 0 || check_vault(exam) < 0 || check_get(exam) < 0)
                return;
        check_versions(exam);
        if (check_usable(exam) == 0)
                (void)!check_crypto(exam);
}

void tk_kms_azure_examine(const struct tk_kms_azure_options *options, tk_kms_finding_fn report,
                          void *context)
{
        struct examination exam = {.options = options, .report = {report, context}};

        pthread_mutex_init(&exam.azure.lock, NULL);
        run(&exam);
        tk_kms_free(exam.kms);
        tk_azure_client_free(exam.azure.client);
        pthread_mutex_destroy(&exam.azure.lock);
}
