/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Administration of the root key in Key Vault: what `turnkeyfs key` does with `azure`.
 *
 * It takes other rights than the filesystem needs, so a person's identity (auth = azure-cli)
 * suits it better than the machine's. What would happen twice is sent once.
 */

#include "kms/azure_msg_admin.h"
#include "kms/azure_provider.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
        DEFAULT_BITS = 3072,
        OCT_BITS = 256,
        POLL_MS = 1000,
        POLLS_MAX = 30,
        IMPORT_MAX = 64 * 1024,
};

static const struct tk_azure_operation op_create = {.permission = "create", .manages = true};
static const struct tk_azure_operation op_import = {.permission = "import", .manages = true};
static const struct tk_azure_operation op_rotate = {.permission = "rotate", .manages = true};
static const struct tk_azure_operation op_update = {.permission = "update", .manages = true};
static const struct tk_azure_operation op_delete = {.permission = "delete", .manages = true};
static const struct tk_azure_operation op_recover = {.permission = "recover", .manages = true};
static const struct tk_azure_operation op_get_policy = {.permission = "getrotationpolicy",
                                                        .manages = true};
static const struct tk_azure_operation op_set_policy = {.permission = "setrotationpolicy",
                                                        .manages = true};

/* A call whose good answer is a key, or need not be looked at (@ret_key is NULL). */
static int call_for_key(struct tk_azure *azure, const struct tk_azure_call *call,
                        struct tk_azure_key *ret_key, struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        struct tk_azure_key key;
        int r;

        r = tk_azure_client_call(azure->client, call, &answer, fault);
        if (r < 0 || !ret_key)
                return r;
        r = tk_azure_msg_parse_key(tk_text_of(answer.body), tk_text_len(answer.body), &key);
        if (r == -EBADMSG || (r == 0 && !tk_azure_id_same_key(&key.id, &azure->client->key)))
                return tk_azure_client_say_nonsense(azure->client, &answer,
                                                    "it is not about this key", fault);
        if (r == 0)
                *ret_key = key;
        return r;
}

static int refuse_pinned(const struct tk_azure *azure, const char *what, struct tk_fault *fault)
{
        if (!azure->client->key.version[0])
                return 0;
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                            "[azure] key is pinned to version %s, so %s would change nothing here: "
                            "leave the version out of [azure] key",
                            azure->client->key.version, what);
}

/* Making */

static int check_spec(const struct tk_azure *azure, const struct tk_kms_key_spec *given,
                      struct tk_kms_key_spec *spec, struct tk_fault *fault)
{
        *spec = *given;
        if (!spec->type[0])
                snprintf(spec->type, sizeof(spec->type), "%s",
                         azure->client->managed_hsm ? "RSA-HSM" : "RSA");
        if (!tk_azure_msg_algorithm(spec->type))
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "a root key of type %s can't wrap keys: take RSA, RSA-HSM or, "
                                    "in a Managed HSM, oct-HSM",
                                    spec->type);
        if (strcasecmp(spec->type, "oct-HSM") == 0) {
                if (spec->bits == 0)
                        spec->bits = OCT_BITS;
                if (spec->bits != OCT_BITS)
                        return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                            "a root key of type oct-HSM has 256 bits");
                return 0;
        }
        if (spec->bits == 0)
                spec->bits = DEFAULT_BITS;
        if (spec->bits != 2048 && spec->bits != 3072 && spec->bits != 4096)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "an RSA root key has 2048, 3072 or 4096 bits");
        return 0;
}

/* 1 if the key is in the vault, 0 if not. */
static int exists(struct tk_azure *azure, struct tk_fault *fault)
{
        struct tk_fault said = {0};
        struct tk_azure_key key;
        char url[TK_HTTP_URL_MAX];
        int status = 0;
        int r;

        tk_azure_client_url(azure->client, "keys", "", "", url);
        r = call_for_key(azure,
                         &(struct tk_azure_call){.operation = &tk_azure_get,
                                                 .method = TK_HTTP_GET,
                                                 .url = url,
                                                 .ret_status = &status},
                         &key, &said);
        if (r == 0)
                return 1;
        if (status == 404)
                return 0;
        tk_fault_describe(fault, said.kind, "%s", said.text);
        return r;
}

static int admin_create(void *impl, const struct tk_kms_key_spec *given, struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_kms_key_spec spec;
        struct tk_azure_key key;
        char url[TK_HTTP_URL_MAX];
        int r;

        r = refuse_pinned(azure, "a new key", fault);
        if (r == 0)
                r = check_spec(azure, given, &spec, fault);
        if (r == 0)
                r = exists(azure, fault);
        if (r < 0)
                return r;
        if (r == 1)
                return tk_fault_set(
                        fault, TK_FAULT_USAGE, -EEXIST,
                        "the root key %s is there already; make a new version of it by: "
                        "turnkeyfs key rotate",
                        azure->client->url);
        r = tk_azure_msg_build_create(&spec, &body);
        if (r < 0)
                return r;
        tk_azure_client_url(azure->client, "keys", "", "create", url);
        return call_for_key(azure,
                            &(struct tk_azure_call){.operation = &op_create,
                                                    .method = TK_HTTP_POST,
                                                    .url = url,
                                                    .body = body,
                                                    .once = true},
                            &key, fault);
}

static int build_import(const struct tk_azure *azure, const struct tk_secret *key, bool is_blob,
                        struct tk_secret **ret_body, struct tk_fault *fault)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        int r;

        if (tk_secret_len(key) == 0 || tk_secret_len(key) > IMPORT_MAX)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "a key to import has at most 64 KiB, and is not empty");
        if (is_blob)
                return tk_azure_msg_build_import_blob(key, ret_body);
        r = tk_rsa_new_private(key, NULL, &rsa);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "what is to be imported is no RSA private key of 2048, 3072 or "
                                    "4096 bits in PEM form; a transfer blob needs --byok");
        if (r == -EKEYREJECTED)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "the private key is encrypted; decrypt it first, by: openssl "
                                    "pkey -in KEY.pem");
        return r < 0 ? r : tk_azure_msg_build_import(rsa, azure->client->managed_hsm, ret_body);
}

static int admin_import(void *impl, const struct tk_secret *key, bool is_blob,
                        struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_azure_key made;
        char url[TK_HTTP_URL_MAX];
        int r;

        r = refuse_pinned(azure, "an imported key", fault);
        if (r == 0)
                r = build_import(azure, key, is_blob, &body, fault);
        if (r < 0)
                return r;
        tk_azure_client_url(azure->client, "keys", "", "", url);
        return call_for_key(azure,
                            &(struct tk_azure_call){.operation = &op_import,
                                                    .method = TK_HTTP_PUT,
                                                    .url = url,
                                                    .body = body,
                                                    .once = true},
                            &made, fault);
}

static int admin_rotate(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        struct tk_azure_key key;
        char url[TK_HTTP_URL_MAX];
        int r;

        r = refuse_pinned(azure, "a new version", fault);
        if (r < 0)
                return r;
        tk_azure_client_url(azure->client, "keys", "", "rotate", url);
        r = call_for_key(
                azure,
                &(struct tk_azure_call){
                        .operation = &op_rotate, .method = TK_HTTP_POST, .url = url, .once = true},
                &key, fault);
        if (r == 0)
                memcpy(ret_version, key.id.version, TK_KMS_VERSION_MAX);
        return r;
}

/* Changing */

static int admin_set_enabled(void *impl, const char *version, bool enabled, struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        char url[TK_HTTP_URL_MAX];
        int r;

        if (!tk_azure_is_version(version))
                return tk_fault_set(
                        fault, TK_FAULT_USAGE, -EINVAL,
                        "a version of a root key in the vault is letters and digits, as "
                        "turnkeyfs key list shows them");
        r = tk_azure_msg_build_enabled(enabled, &body);
        if (r < 0)
                return r;
        tk_azure_client_url(azure->client, "keys", version, "", url);
        return call_for_key(azure,
                            &(struct tk_azure_call){.operation = &op_update,
                                                    .method = TK_HTTP_PATCH,
                                                    .url = url,
                                                    .body = body,
                                                    .version = version},
                            NULL, fault);
}

/* Wait until the key is where @collection is; deleting and recovering take seconds. */
static int wait_for(struct tk_azure *azure, const char *collection, struct tk_fault *fault)
{
        char url[TK_HTTP_URL_MAX];

        tk_azure_client_url(azure->client, collection, "", "", url);
        for (int i = 0;; i++) {
                struct tk_fault said = {0};
                int status = 0;
                int r = call_for_key(azure,
                                     &(struct tk_azure_call){.operation = &tk_azure_get,
                                                             .method = TK_HTTP_GET,
                                                             .url = url,
                                                             .ret_status = &status},
                                     NULL, &said);

                /* Who may delete need not be allowed to look: then it is not known when. */
                if (r == 0 || status == 403)
                        return 0;
                if (status != 404 || i == POLLS_MAX) {
                        tk_fault_describe(fault, said.kind, "%s", said.text);
                        return r;
                }
                azure->client->net.sleep_ms(azure->client->net.context, POLL_MS);
        }
}

static int admin_delete(void *impl, struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        char url[TK_HTTP_URL_MAX];
        int r;

        tk_azure_client_url(azure->client, "keys", "", "", url);
        r = call_for_key(azure,
                         &(struct tk_azure_call){
                                 .operation = &op_delete, .method = TK_HTTP_DELETE, .url = url},
                         NULL, fault);
        return r < 0 ? r : wait_for(azure, "deletedkeys", fault);
}

static int admin_recover(void *impl, struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        struct tk_fault said = {0};
        char url[TK_HTTP_URL_MAX];
        int status = 0;
        int r;

        tk_azure_client_url(azure->client, "deletedkeys", "", "recover", url);
        r = call_for_key(azure,
                         &(struct tk_azure_call){.operation = &op_recover,
                                                 .method = TK_HTTP_POST,
                                                 .url = url,
                                                 .conflict_passes = true,
                                                 .ret_status = &status},
                         NULL, &said);
        if (status == 404) {
                r = exists(azure, fault);
                if (r == 1)
                        return 0; /* it is back already, or was never away */
                return r < 0 ? r
                             : tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -ENOENT,
                                            "the vault has no deleted key %s: it was purged, its "
                                            "retention has ended, or its name is another",
                                            azure->client->url);
        }
        if (r < 0) {
                tk_fault_describe(fault, said.kind, "%s", said.text);
                return r;
        }
        return wait_for(azure, "keys", fault);
}

/* Rotation policies */

static int call_for_policy(struct tk_azure *azure, const struct tk_azure_operation *operation,
                           const struct tk_secret *body, struct tk_kms_rotation_policy *ret_policy,
                           struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        char url[TK_HTTP_URL_MAX];
        int r;

        tk_azure_client_url(azure->client, "keys", "", "rotationpolicy", url);
        r = tk_azure_client_call(azure->client,
                                 &(struct tk_azure_call){.operation = operation,
                                                         .method = body ? TK_HTTP_PUT : TK_HTTP_GET,
                                                         .url = url,
                                                         .body = body},
                                 &answer, fault);
        if (r < 0)
                return r;
        r = tk_azure_msg_parse_policy(tk_text_of(answer.body), tk_text_len(answer.body),
                                      ret_policy);
        if (r == -EBADMSG)
                return tk_azure_client_say_nonsense(azure->client, &answer,
                                                    "it is no rotation policy", fault);
        return r;
}

static int admin_get_policy(void *impl, struct tk_kms_rotation_policy *ret_policy,
                            struct tk_fault *fault)
{
        return call_for_policy(impl, &op_get_policy, NULL, ret_policy, fault);
}

static int check_policy(const struct tk_azure *azure, const struct tk_kms_rotation_policy *policy,
                        struct tk_fault *fault)
{
        unsigned least = azure->client->managed_hsm ? 28 : 7;
        unsigned days[] = {policy->rotate_after_days, policy->rotate_before_days};

        if (policy->rotate_after_days > 0 && policy->rotate_before_days > 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "a rotation policy has one time to rotate: after creation, or "
                                    "before expiry");
        for (size_t i = 0; i < 2; i++)
                if (days[i] > 0 && days[i] < least)
                        return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                            "this service rotates %u days after creation or before "
                                            "expiry at the earliest",
                                            least);
        if (policy->expiry_days > 0 && policy->expiry_days < 28)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "a version lives for at least 28 days");
        if (policy->rotate_before_days > 0 && policy->expiry_days == 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "rotating before expiry needs to know when versions expire: "
                                    "give their life, too");
        return 0;
}

static int admin_set_policy(void *impl, const struct tk_kms_rotation_policy *policy,
                            struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_kms_rotation_policy now_set;
        int r;

        r = check_policy(impl, policy, fault);
        if (r == 0)
                r = tk_azure_msg_build_policy(policy, &body);
        return r < 0 ? r : call_for_policy(impl, &op_set_policy, body, &now_set, fault);
}

const struct tk_kms_admin tk_azure_admin = {
        .create = admin_create,
        .import = admin_import,
        .list = tk_azure_admin_list,
        .rotate = admin_rotate,
        .set_enabled = admin_set_enabled,
        .delete_key = admin_delete,
        .recover = admin_recover,
        .get_policy = admin_get_policy,
        .set_policy = admin_set_policy,
};
