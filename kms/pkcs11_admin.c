/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Administration of the root key in the token: what `turnkeyfs key` does with `pkcs11`.
 *
 * A version is disabled by taking CKA_DECRYPT and CKA_UNWRAP from it, so that the token
 * itself refuses; where the token doesn't let those be changed, by its label. Nothing is
 * destroyed: deleting is a change of label, too.
 */

#include "kms/pkcs11_internal.h"
#include "kms/pkcs11_make.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAKE_MS = 180000, ROUNDS_MAX = 64 };

static int refuse_pinned(const struct tk_p11 *p11, const char *what, struct tk_fault *fault)
{
        if (!p11->uri.pinned[0])
                return 0;
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                            "[pkcs11] uri is pinned to version %s, so %s would change nothing "
                            "here: leave id= out of it",
                            p11->uri.pinned, what);
}

static int run(void *impl, struct tk_p11_job **job, struct tk_fault *fault)
{
        return tk_p11_job_run(impl, job, fault);
}

/* An RSA key takes a small token a minute, and so do hundreds of labels. */
static int run_long(void *impl, struct tk_p11_job **job, struct tk_fault *fault)
{
        (*job)->deadline_ms = MAKE_MS;
        return run(impl, job, fault);
}

/* Making -------------------------------------------------------------------- */

static int use_create(struct tk_p11_use *use)
{
        struct tk_p11_job *job = use->job;
        int r = tk_p11_find_all(use, &job->versions);

        if (r < 0)
                return r;
        if (job->versions.count > 0 || job->versions.unnamed > 0)
                return tk_fault_set(&job->fault, TK_FAULT_USAGE, -EEXIST,
                                    "the root key %s is there already; make a new version of it "
                                    "by: turnkeyfs key rotate",
                                    use->p11->uri.key_id);
        return tk_p11_make(use, &job->spec, &job->versions);
}

static int job_create(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, true, use_create);
}

static int admin_create(void *impl, const struct tk_kms_key_spec *spec, struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r;

        r = refuse_pinned(impl, "a new key", fault);
        if (r == 0)
                r = tk_p11_job_new(job_create, &job);
        if (r < 0)
                return r;
        job->spec = *spec;
        return run_long(impl, &job, fault);
}

/* As the newest version is. */
static int use_rotate(struct tk_p11_use *use)
{
        struct tk_p11_job *job = use->job;
        const struct tk_p11_version *newest;
        int r = tk_p11_find_all(use, &job->versions);

        if (r < 0)
                return r;
        if (job->versions.count == 0)
                return tk_fault_set(&job->fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                                    "the root key %s is not in the token; make it by: turnkeyfs "
                                    "key create",
                                    use->p11->uri.key_id);
        newest = &job->versions.list[job->versions.count - 1];
        job->spec = (struct tk_kms_key_spec){.bits = newest->class == CKO_PRIVATE_KEY ? newest->bits
                                                                                      : 0};
        snprintf(job->spec.type, sizeof(job->spec.type), "%s",
                 newest->class == CKO_PRIVATE_KEY ? "RSA" : "AES");
        return tk_p11_make(use, &job->spec, &job->versions);
}

static int job_rotate(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, true, use_rotate);
}

static int admin_rotate(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r;

        r = refuse_pinned(impl, "a new version", fault);
        if (r == 0)
                r = tk_p11_job_new(job_rotate, &job);
        if (r == 0)
                r = run_long(impl, &job, fault);
        if (r == 0)
                memcpy(ret_version, job->version, TK_KMS_VERSION_MAX);
        return r;
}

static int use_import(struct tk_p11_use *use)
{
        int r = tk_p11_find_all(use, &use->job->versions);

        return r < 0 ? r : tk_p11_import(use, use->job->key, &use->job->versions);
}

static int job_import(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, true, use_import);
}

static int admin_import(void *impl, const struct tk_secret *key, bool is_blob,
                        struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r;

        if (is_blob)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "a token takes no .byok transfer blob, which is for a key "
                                    "vault; give the private key, or 32 bytes for an AES key");
        r = refuse_pinned(impl, "an imported key", fault);
        if (r == 0)
                r = tk_p11_check_import(key, fault);
        if (r < 0)
                return r;
        r = tk_p11_job_new(job_import, &job);
        if (r == 0)
                r = tk_secret_dup_bytes(tk_secret_bytes(key), tk_secret_len(key), &job->key);
        return r < 0 ? r : run_long(impl, &job, fault);
}

/* Listing ------------------------------------------------------------------- */

static int use_list(struct tk_p11_use *use)
{
        return tk_p11_find_all(use, &use->job->versions);
}

static int job_list(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, false, use_list);
}

static void describe(const struct tk_p11_version *from, struct tk_kms_key_version *version)
{
        *version = (struct tk_kms_key_version){.enabled = tk_p11_is_enabled(from),
                                               .not_before = from->start,
                                               .expires = from->end};
        tk_p11_version_text(from, version->version);
        snprintf(version->type, sizeof(version->type), "%s %u",
                 from->class == CKO_PRIVATE_KEY ? "RSA" : "AES", from->bits);
}

static int admin_list(void *impl, struct tk_kms_key_version **ret_versions, size_t *ret_count,
                      struct tk_fault *fault)
{
        const struct tk_p11 *p11 = impl;
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        const struct tk_p11_version *newest;
        int r;

        r = tk_p11_job_new(job_list, &job);
        if (r == 0)
                r = run(impl, &job, fault);
        if (r < 0)
                return r;
        versions = calloc(job->versions.count + 1, sizeof(*versions));
        if (!versions)
                return -ENOMEM;
        newest = tk_p11_newest(&job->versions, time(NULL));
        for (size_t i = 0; i < job->versions.count; i++) {
                describe(&job->versions.list[i], &versions[i]);
                versions[i].current = p11->uri.pinned[0]
                                              ? strcmp(versions[i].version, p11->uri.pinned) == 0
                                              : &job->versions.list[i] == newest;
        }
        *ret_versions = TK_TAKE(versions);
        *ret_count = job->versions.count;
        return 0;
}

/* Changing ------------------------------------------------------------------ */

static CK_RV set_bool(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                      bool on)
{
        CK_BBOOL value = on ? CK_TRUE : CK_FALSE;
        CK_ATTRIBUTE attribute = {type, &value, sizeof(value)};

        use->changed = true;
        return use->f->C_SetAttributeValue(use->session, object, &attribute, 1);
}

static CK_RV set_label(struct tk_p11_use *use, CK_OBJECT_HANDLE object, const char *suffix)
{
        char label[TK_P11_LABEL_MAX + 32];
        CK_ATTRIBUTE attribute = {CKA_LABEL, label, 0};

        attribute.ulValueLen =
                (CK_ULONG)snprintf(label, sizeof(label), "%s%s", use->p11->uri.label, suffix);
        use->changed = true;
        return use->f->C_SetAttributeValue(use->session, object, &attribute, 1);
}

static int say_unchanged(struct tk_p11_use *use, CK_RV rv, const char *what)
{
        use->verdict = tk_p11_judge(rv);
        if (use->verdict == TK_P11_LOST || use->verdict == TK_P11_AWAY)
                return tk_p11_fail(use, rv, what);
        return tk_fault_set(&use->job->fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "this token does not let the root key %s be changed (%s), so it can't "
                            "%s; use the token's own tools",
                            use->p11->uri.key_id, tk_p11_name(rv) ? tk_p11_name(rv) : "no reason",
                            what);
}

static int disable(struct tk_p11_use *use, const struct tk_p11_version *version)
{
        CK_RV rv = CKR_OK;

        if (!tk_p11_is_enabled(version))
                return 0;
        if (version->unwrap)
                rv = set_bool(use, version->handle, CKA_UNWRAP, false);
        if (rv == CKR_OK && version->decrypt)
                rv = set_bool(use, version->handle, CKA_DECRYPT, false);
        if (rv != CKR_OK && tk_p11_judge(rv) != TK_P11_LOST && tk_p11_judge(rv) != TK_P11_AWAY)
                rv = set_label(use, version->handle, TK_P11_DISABLED);
        return rv == CKR_OK ? 0 : say_unchanged(use, rv, "be disabled");
}

/* What the other direction may do tells what was taken away. */
static int enable(struct tk_p11_use *use, const struct tk_p11_version *version)
{
        bool unwraps = version->wrap && !version->unwrap;
        bool decrypts = !version->decrypt && (version->encrypt || !version->wrap);
        CK_RV rv = CKR_OK;

        if (version->renamed)
                rv = set_label(use, version->handle, "");
        if (rv == CKR_OK && unwraps)
                rv = set_bool(use, version->handle, CKA_UNWRAP, true);
        if (rv == CKR_OK && decrypts)
                rv = set_bool(use, version->handle, CKA_DECRYPT, true);
        return rv == CKR_OK ? 0 : say_unchanged(use, rv, "be enabled");
}

static int use_set_enabled(struct tk_p11_use *use)
{
        struct tk_p11_version version;
        int r = tk_p11_find_any(use, use->job->version, &version);

        if (r < 0)
                return r;
        return use->job->enabled ? enable(use, &version) : disable(use, &version);
}

static int job_set_enabled(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, true, use_set_enabled);
}

static int admin_set_enabled(void *impl, const char *version, bool enabled, struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        struct tk_fault said = {0};
        int r = tk_p11_job_new(job_set_enabled, &job);

        if (r < 0)
                return r;
        snprintf(job->version, sizeof(job->version), "%s", version);
        job->enabled = enabled;
        r = run(impl, &job, &said);
        if (r == -EKEYREVOKED)
                return tk_fault_set(fault, TK_FAULT_USAGE, -ENOENT,
                                    "the token has no version '%s' of the root key %s; 'turnkeyfs "
                                    "key list' shows them",
                                    version, ((struct tk_p11 *)impl)->uri.key_id);
        if (r < 0 && said.kind)
                tk_fault_describe(fault, said.kind, "%s", said.text);
        return r;
}

/* Deleting and bringing back: label by label ----------------------------- */

static int rename_all(struct tk_p11_use *use, CK_OBJECT_CLASS class, const char *from,
                      const char *to, size_t *count)
{
        /* The public half opens nothing: where it stays behind, no harm is done. */
        bool harmless = class == CKO_PUBLIC_KEY;

        /* Until none is left: of more than are found at once, and by a token that says yes only. */
        for (unsigned round = 0; round < ROUNDS_MAX; round++) {
                CK_OBJECT_HANDLE handles[TK_P11_VERSIONS_MAX];
                size_t renamed = 0;
                size_t found;
                int r = tk_p11_find_objects(use, class, from, NULL, 0, handles, TK_P11_VERSIONS_MAX,
                                            &found);

                if (r < 0)
                        return r;
                for (size_t i = 0; i < found; i++) {
                        CK_RV rv = set_label(use, handles[i], to);

                        if (rv != CKR_OK && !harmless)
                                return say_unchanged(use, rv, "be renamed");
                        renamed += rv == CKR_OK;
                }
                if (renamed == 0)
                        return 0;
                *count += harmless ? 0 : renamed;
        }
        return harmless ? 0 : say_unchanged(use, CKR_ATTRIBUTE_READ_ONLY, "be renamed");
}

static int rename_versions(struct tk_p11_use *use, bool back, size_t *count)
{
        static const char *const names[][2] = {
                {"", TK_P11_DELETED},
                {TK_P11_DISABLED, TK_P11_DISABLED TK_P11_DELETED},
        };
        static const CK_OBJECT_CLASS classes[] = {CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY};

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                for (size_t k = 0; k < sizeof(classes) / sizeof(classes[0]); k++) {
                        int r = rename_all(use, classes[k], names[i][back], names[i][!back], count);

                        if (r < 0)
                                return r;
                }
        return 0;
}

static int use_delete(struct tk_p11_use *use)
{
        size_t count = 0;
        int r = rename_versions(use, false, &count);

        if (r < 0 || count > 0)
                return r;
        return tk_fault_set(&use->job->fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "the root key %s is not in the token", use->p11->uri.key_id);
}

static int use_recover(struct tk_p11_use *use)
{
        size_t count = 0;
        int r = rename_versions(use, true, &count);

        if (r < 0 || count > 0)
                return r;
        return tk_fault_set(&use->job->fault, TK_FAULT_KEY_REVOKED, -ENOENT,
                            "the token has no deleted key '%s" TK_P11_DELETED
                            "': nothing is to be brought back, or it was destroyed",
                            use->p11->uri.label);
}

static int job_delete(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, true, use_delete);
}

static int job_recover(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)p11;
        return tk_p11_use(job, true, use_recover);
}

static int admin_delete(void *impl, struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r = refuse_pinned(impl, "deleting the key with all its versions", fault);

        if (r == 0)
                r = tk_p11_job_new(job_delete, &job);
        return r < 0 ? r : run_long(impl, &job, fault);
}

static int admin_recover(void *impl, struct tk_fault *fault)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;
        int r = tk_p11_job_new(job_recover, &job);

        return r < 0 ? r : run_long(impl, &job, fault);
}

const struct tk_kms_admin tk_p11_admin = {
        .create = admin_create,
        .import = admin_import,
        .list = admin_list,
        .rotate = admin_rotate,
        .set_enabled = admin_set_enabled,
        .delete_key = admin_delete,
        .recover = admin_recover,
};
