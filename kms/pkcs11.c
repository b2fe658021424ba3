/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The `pkcs11` provider.
 *
 * The configuration says which token and key are asked, never the data: what a wrap names
 * is compared with it. Unwrapping is always the token's: that is how its owner can refuse.
 */

#include "kms/pkcs11.h"

#include "base/thread.h"
#include "kms/pkcs11_internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DEFAULT_DEADLINE_MS = 20000 };

/* The current version ---------------------------------------------------- */

static int say_none(struct tk_p11_use *use, const struct tk_p11_versions *versions)
{
        const char *key = use->p11->uri.key_id;
        struct tk_fault *fault = &use->job->fault;
        size_t enabled = 0;

        for (size_t i = 0; i < versions->count; i++)
                enabled += tk_p11_is_enabled(&versions->list[i]);
        if (enabled > 0)
                return tk_fault_set(fault, TK_FAULT_KEY_EXPIRED, -EKEYEXPIRED,
                                    "all enabled versions of the root key %s are outside their "
                                    "dates (CKA_START_DATE, CKA_END_DATE); make a new one by: "
                                    "turnkeyfs key rotate",
                                    key);
        if (versions->count > 0)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                                    "all versions of the root key %s are disabled; its owner "
                                    "enables one by: turnkeyfs key enable",
                                    key);
        use->verdict = TK_P11_GONE;
        if (versions->unnamed > 0)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                                    "the root key %s is in the token, but without a CKA_ID of 1 to "
                                    "%d bytes, which tells its versions apart; give it one by: "
                                    "pkcs11-tool --set-id",
                                    key, TK_P11_ID_MAX);
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "the root key %s is not in the token: deleted, renamed, or never "
                            "there",
                            key);
}

static int use_current(struct tk_p11_use *use)
{
        struct tk_p11_job *job = use->job;
        const struct tk_p11_version *newest;
        struct tk_p11_version pinned;
        int r;

        if (use->p11->uri.pinned[0]) {
                r = tk_p11_find_one(use, use->p11->uri.pinned, &pinned);
                if (r == 0)
                        memcpy(job->version, use->p11->uri.pinned, TK_KMS_VERSION_MAX);
                return r;
        }
        r = tk_p11_find_all(use, &job->versions);
        if (r < 0)
                return r;
        newest = tk_p11_newest(&job->versions, time(NULL));
        if (!newest)
                return say_none(use, &job->versions);
        tk_p11_version_text(newest, job->version);
        return 0;
}

static int job_current(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, false, use_current);
}

static int pkcs11_current(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r;

        r = tk_p11_job_new(job_current, &job);
        if (r == 0)
                r = tk_p11_job_run(impl, &job, fault);
        if (r == 0)
                memcpy(ret_version, job->version, TK_KMS_VERSION_MAX);
        return r;
}

/* Wrapping ------------------------------------------------------------------ */

static int use_wrap(struct tk_p11_use *use)
{
        struct tk_p11_job *job = use->job;
        struct tk_p11_version version;
        int r;

        r = tk_p11_find_one(use, job->version, &version);
        return r < 0 ? r : tk_p11_wrap_by(use, &version, job->key, &job->wrap);
}

static int job_wrap(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, false, use_wrap);
}

static int pkcs11_wrap(void *impl, const char *version, const struct tk_secret *key,
                       struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        const struct tk_p11 *p11 = impl;
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r;

        if (tk_secret_len(key) != TK_KEY_LEN)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -EMSGSIZE,
                                    "a token wraps keys of %d bytes only", TK_KEY_LEN);
        r = tk_p11_job_new(job_wrap, &job);
        if (r == 0)
                r = tk_secret_dup_bytes(tk_secret_bytes(key), tk_secret_len(key), &job->key);
        if (r < 0)
                return r;
        snprintf(job->version, sizeof(job->version), "%s", version);
        snprintf(job->wrap.version, sizeof(job->wrap.version), "%s", version);
        memcpy(job->wrap.key_id, p11->uri.key_id, sizeof(job->wrap.key_id));
        r = tk_p11_job_run(impl, &job, fault);
        if (r == 0)
                *ret_wrap = job->wrap;
        return r;
}

/* Unwrapping ---------------------------------------------------------------- */

/* Nothing outside its dates, unless a newer version that is within them is there for it. */
static int check_dates(struct tk_p11_use *use, const char *text)
{
        struct tk_p11_version version;
        const struct tk_p11_version *newest;
        int64_t now = time(NULL);
        int r;

        r = tk_p11_find_one(use, text, &version);
        if (r < 0 || tk_p11_is_within_dates(&version, now))
                return r;
        r = tk_p11_find_all(use, &use->job->versions);
        if (r < 0)
                return r;
        newest = tk_p11_newest(&use->job->versions, now);
        if (newest && tk_p11_compare(newest, &version) > 0)
                return 0;
        return tk_fault_set(&use->job->fault, TK_FAULT_KEY_EXPIRED, -EKEYEXPIRED,
                            "version %s of the root key %s is outside its dates (CKA_START_DATE, "
                            "CKA_END_DATE); make a new one by: turnkeyfs key rotate",
                            text, use->p11->uri.key_id);
}

static int use_unwrap(struct tk_p11_use *use)
{
        struct tk_p11_job *job = use->job;
        int r;

        job->key = tk_secret_free(job->key);
        r = tk_p11_unwrap_by(use, &job->wrap, &job->key);
        if (r == 0 && use->p11->expiry_revokes)
                r = check_dates(use, job->wrap.version);
        return r;
}

static int job_unwrap(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, false, use_unwrap);
}

/* Refuse what is not ours before anything is sent. */
static int check_wrap(const struct tk_p11 *p11, const struct tk_kms_wrap *wrap,
                      struct tk_fault *fault)
{
        if (strnlen(wrap->key_id, sizeof(wrap->key_id)) == sizeof(wrap->key_id) ||
            !tk_p11_uri_same_key(&p11->uri, wrap->key_id))
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "the configured root key is %s, but a key of this volume is "
                                    "wrapped by another (%.*s); correct [pkcs11] uri, if that is "
                                    "the right one",
                                    p11->uri.key_id, TK_KMS_KEY_ID_MAX - 1, wrap->key_id);
        if (strnlen(wrap->version, sizeof(wrap->version)) == sizeof(wrap->version))
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "a key is wrapped by a version of %s that no key can have: the "
                                    "volume file is damaged",
                                    p11->uri.key_id);
        return tk_p11_check_blob(p11, wrap, fault);
}

static int pkcs11_unwrap(void *impl, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                         struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r;

        r = check_wrap(impl, wrap, fault);
        if (r < 0)
                return r;
        r = tk_p11_job_new(job_unwrap, &job);
        if (r < 0)
                return r;
        job->wrap = *wrap;
        r = tk_p11_job_run(impl, &job, fault);
        if (r == 0)
                *ret_key = TK_TAKE(job->key);
        return r;
}

static int pkcs11_probe(void *impl, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;

        return pkcs11_unwrap(impl, wrap, &key, fault);
}

/* Opening ------------------------------------------------------------------- */

static void new_lock(pthread_mutex_t *lock, pthread_cond_t *cond)
{
        pthread_mutex_init(lock, NULL);
        tk_thread_cond_init(cond);
}

/* What a hanging call still uses is left to it: the program is about to end. */
static void p11_free(struct tk_p11 *p11)
{
        if (!p11 || !tk_p11_end(p11))
                return;
        if (p11->reread_free)
                p11->reread_free(p11->reread_context);
        tk_p11_uri_done(&p11->uri);
        tk_secret_free(p11->pin);
        pthread_cond_destroy(&p11->session_back);
        pthread_mutex_destroy(&p11->connection_lock);
        pthread_cond_destroy(&p11->job_ended);
        pthread_mutex_destroy(&p11->jobs_lock);
        free(p11->uri_text);
        free(p11->module);
        free(p11);
}

static void p11_freep(struct tk_p11 **p11)
{
        p11_free(*p11);
}

static int p11_new(const struct tk_kms_pkcs11_options *options, struct tk_p11 **ret_p11,
                   struct tk_fault *fault)
{
        TK_CLEANUP(p11_freep) struct tk_p11 *p11 = calloc(1, sizeof(*p11));
        int r = 0;

        if (!p11) {
                if (options->reread_free)
                        options->reread_free(options->reread_context);
                return -ENOMEM;
        }
        new_lock(&p11->jobs_lock, &p11->job_ended);
        new_lock(&p11->connection_lock, &p11->session_back);
        p11->reread = options->reread;
        p11->reread_free = options->reread_free;
        p11->reread_context = options->reread_context;
        p11->deadline_ms = options->deadline_ms ? options->deadline_ms : DEFAULT_DEADLINE_MS;
        p11->expiry_revokes = options->expiry_revokes;
        p11->pin_fresh = options->attended;
        p11->module = strdup(options->module);
        p11->uri_text = strdup(options->uri);
        if (!p11->module || !p11->uri_text)
                return -ENOMEM;
        r = tk_p11_uri_parse(options->uri, &p11->uri, fault);
        if (r == 0 && options->pin)
                r = tk_secret_dup_bytes(tk_secret_bytes(options->pin), tk_secret_len(options->pin),
                                        &p11->pin);
        if (r < 0)
                return r;
        *ret_p11 = TK_TAKE(p11);
        return 0;
}

static void pkcs11_free(void *impl)
{
        p11_free(impl);
}

static const struct tk_kms_provider provider = {
        .name = "pkcs11",
        .current = pkcs11_current,
        .wrap = pkcs11_wrap,
        .unwrap = pkcs11_unwrap,
        .probe = pkcs11_probe,
        .free = pkcs11_free,
        .admin = &tk_p11_admin,
};

int tk_p11_open(const struct tk_kms_pkcs11_options *options, struct tk_p11 **ret_p11,
                struct tk_kms **ret_kms, struct tk_fault *fault)
{
        int r = p11_new(options, ret_p11, fault);

        return r < 0 ? r : tk_kms_new(&provider, *ret_p11, ret_kms);
}

int tk_kms_pkcs11_open(const struct tk_kms_pkcs11_options *options, struct tk_kms **ret_kms,
                       struct tk_fault *fault)
{
        struct tk_p11 *p11;

        return tk_p11_open(options, &p11, ret_kms, fault);
}

int tk_kms_pkcs11_check_uri(const char *uri, struct tk_fault *fault)
{
        struct tk_p11_uri parsed;
        int r = tk_p11_uri_parse(uri, &parsed, fault);

        tk_p11_uri_done(&parsed);
        return r;
}
