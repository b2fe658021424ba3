/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The way to the root key in a token, step by step: the module, its token, the login, the
 * key and its protection, and a test key wrapped and unwrapped.
 */

#include "kms/pkcs11_doctor.h"

#include "crypto/random.h"
#include "kms/pkcs11_internal.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { EXPIRY_WARN_S = 30 * 86400, DAY_S = 86400 };

/* What the way looks like: module, token, keys ------------------------------ */

static int use_look(struct tk_p11_use *use)
{
        struct tk_p11_job *job = use->job;
        CK_RV rv;

        rv = use->f->C_GetInfo(&job->about.module);
        if (rv == CKR_OK)
                rv = use->f->C_GetTokenInfo(use->p11->slot, &job->about.token);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "describe its token");
        return tk_p11_find_all(use, &job->versions);
}

static int job_look(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, false, use_look);
}

/* A text of PKCS#11: padded with blanks. */
#define TEXT(field) (int)p11_kit_space_strlen(field, sizeof(field)), (const char *)(field)

static void describe_token(const struct tk_kms_report *report, const struct tk_p11 *p11,
                           const struct tk_p11_about *about)
{
        const CK_TOKEN_INFO *token = &about->token;

        tk_kms_say(report, TK_KMS_FINDING_OK, "module", "%s: %.*s %u.%u, by %.*s", p11->module,
                   TEXT(about->module.libraryDescription), about->module.libraryVersion.major,
                   about->module.libraryVersion.minor, TEXT(about->module.manufacturerID));
        tk_kms_say(report, TK_KMS_FINDING_OK, "token", "%.*s: %.*s %.*s, serial number %.*s",
                   TEXT(token->label), TEXT(token->manufacturerID), TEXT(token->model),
                   TEXT(token->serialNumber));
        if (!(token->flags & CKF_LOGIN_REQUIRED))
                tk_kms_say(report, TK_KMS_FINDING_WARN, "login",
                           "the token wants no login: whoever reaches it can use the key");
        else
                tk_kms_say(report, TK_KMS_FINDING_OK, "login", "%s",
                           token->flags & CKF_PROTECTED_AUTHENTICATION_PATH
                                   ? "by the token's own keypad"
                                   : "the PIN was accepted");
}

/* The key ------------------------------------------------------------------- */

static void describe_protection(const struct tk_kms_report *report, const char *text,
                                const struct tk_p11_version *version)
{
        if (version->sensitive && !version->extractable)
                tk_kms_say(report, TK_KMS_FINDING_OK, "protection",
                           "version %s is sensitive and not extractable: it stays in the token",
                           text);
        else
                tk_kms_say(report, TK_KMS_FINDING_WARN, "protection",
                           "version %s is %s: whoever logs in can take it out of the token; make a "
                           "new version by: turnkeyfs key rotate",
                           text,
                           version->extractable && !version->sensitive
                                   ? "extractable and not sensitive"
                           : version->extractable ? "extractable"
                                                  : "not sensitive");
        if (version->always_authenticate)
                tk_kms_say(report, TK_KMS_FINDING_WARN, "protection",
                           "version %s wants a PIN for each use, which a mount can't give", text);
}

static void describe_dates(const struct tk_kms_report *report, const struct tk_p11_version *version)
{
        int64_t left = version->end - (int64_t)time(NULL);

        if (version->end == 0)
                tk_kms_say(report, TK_KMS_FINDING_OK, "dates", "the version does not expire");
        else
                tk_kms_say(report, left < EXPIRY_WARN_S ? TK_KMS_FINDING_WARN : TK_KMS_FINDING_OK,
                           "dates", "the version expires in %" PRId64 " days%s", left / DAY_S,
                           left < EXPIRY_WARN_S ? ": make a new one by: turnkeyfs key rotate" : "");
}

static void describe_versions(const struct tk_kms_report *report, const struct tk_p11_job *look)
{
        const struct tk_p11_versions *versions = &look->versions;
        size_t enabled = 0;

        for (size_t i = 0; i < versions->count; i++)
                enabled += tk_p11_is_enabled(&versions->list[i]);
        tk_kms_say(report, TK_KMS_FINDING_OK, "versions", "%zu, %zu of them enabled",
                   versions->count, enabled);
        if (versions->unnamed > 0)
                tk_kms_say(report, TK_KMS_FINDING_WARN, "versions",
                           "%zu keys of the label have no CKA_ID of 1 to %d bytes, and are passed "
                           "over; give them one by: pkcs11-tool --set-id",
                           versions->unnamed, TK_P11_ID_MAX);
        for (size_t i = 0; i < versions->count; i++) {
                char text[TK_KMS_VERSION_MAX];

                tk_p11_version_text(&versions->list[i], text);
                if (tk_p11_is_enabled(&versions->list[i]))
                        describe_protection(report, text, &versions->list[i]);
        }
}

static void describe_current(const struct tk_kms_report *report, const struct tk_p11_job *look,
                             const char *current)
{
        for (size_t i = 0; i < look->versions.count; i++) {
                const struct tk_p11_version *version = &look->versions.list[i];
                char text[TK_KMS_VERSION_MAX];

                tk_p11_version_text(version, text);
                if (strcmp(text, current) != 0)
                        continue;
                tk_kms_say(report, TK_KMS_FINDING_OK, "key", "version %s is current: %s %u", text,
                           version->class == CKO_PRIVATE_KEY ? "RSA" : "AES", version->bits);
                describe_dates(report, version);
        }
}

/* There and back ---------------------------------------------------------- */

static int check_crypto(const struct tk_kms_report *report, struct tk_kms *kms, const char *version)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_kms_wrap wrap;
        struct tk_fault fault = {0};
        int r;

        r = tk_random_secret(TK_KEY_LEN, &key);
        if (r == 0)
                r = tk_kms_wrap(kms, version, key, &wrap, &fault);
        if (r < 0)
                return tk_kms_say_failed(report, "wrap", r, &fault);
        tk_kms_say(report, TK_KMS_FINDING_OK, "wrap", "%s", wrap.algorithm);
        r = tk_kms_unwrap(kms, &wrap, &again, &fault);
        if (r == 0 && !tk_secret_equal(key, again))
                r = tk_fault_set(&fault, TK_FAULT_INTERNAL, -EIO,
                                 "a key that was wrapped did not come back the same");
        if (r < 0)
                return tk_kms_say_failed(report, "unwrap", r, &fault);
        tk_kms_say(report, TK_KMS_FINDING_OK, "unwrap", "a test key came back the same");
        return 0;
}

static const char *failed_step(const struct tk_fault *fault)
{
        switch (fault->kind) {
        case TK_FAULT_CONFIG:
                return "configuration";
        case TK_FAULT_PASSPHRASE:
                return "login";
        default:
                return "token";
        }
}

void tk_kms_pkcs11_examine(const struct tk_kms_pkcs11_options *options, tk_kms_finding_fn report,
                           void *context)
{
        const struct tk_kms_report steps = {report, context};
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *look = NULL;
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        struct tk_p11 *p11 = NULL;
        struct tk_fault fault = {0};
        char current[TK_KMS_VERSION_MAX];
        int r;

        r = tk_p11_open(options, &p11, &kms, &fault);
        if (r == 0)
                r = tk_p11_job_new(job_look, &look);
        if (r == 0)
                r = tk_p11_job_run(p11, &look, &fault);
        if (r < 0 || !look) {
                (void)tk_kms_say_failed(&steps, failed_step(&fault), r, &fault);
                return;
        }
        describe_token(&steps, p11, &look->about);
        describe_versions(&steps, look);
        r = tk_kms_current(kms, current, &fault);
        if (r < 0) {
                (void)tk_kms_say_failed(&steps, "key", r, &fault);
                return;
        }
        describe_current(&steps, look, current);
        (void)!check_crypto(&steps, kms, current);
}
