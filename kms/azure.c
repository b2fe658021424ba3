/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The `azure` provider.
 *
 * The configuration says which vault and key are asked, never the data: what a wrap names is
 * compared with it. RSA keys wrap by RSA-OAEP-256, on this machine or by the vault; AES keys
 * of a Managed HSM by A256KW, by the HSM. Unwrapping is always the service's: that is how its
 * owner can refuse.
 */

#include "kms/azure.h"

#include "kms/azure_provider.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int azure_current(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        struct tk_azure_key key;
        int r;

        r = tk_azure_read_key(azure, azure->client->key.version, &key, fault);
        if (r == 0)
                r = tk_azure_check_for_wrapping(azure, &key, fault);
        if (r < 0)
                return r;
        memcpy(ret_version, key.id.version, TK_KMS_VERSION_MAX);
        return 0;
}

/* Wrapping */

static void start_wrap(const struct tk_azure *azure, const char *algorithm, const char *version,
                       struct tk_kms_wrap *wrap)
{
        memset(wrap, 0, sizeof(*wrap));
        snprintf(wrap->key_id, sizeof(wrap->key_id), "%s", azure->client->url);
        snprintf(wrap->algorithm, sizeof(wrap->algorithm), "%s", algorithm);
        snprintf(wrap->version, sizeof(wrap->version), "%s", version);
}

static int wrap_locally(const struct tk_azure *azure, const struct tk_azure_key *key,
                        const struct tk_secret *plain, struct tk_kms_wrap *ret_wrap,
                        struct tk_fault *fault)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        uint8_t blob[TK_RSA_BYTES_MAX];
        size_t len = 0;
        int r;

        r = tk_rsa_new_public(key->n, key->n_len, key->e, key->e_len, &rsa);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -ENOTSUP,
                                    "version %s of the root key %s is no RSA key of 2048, 3072 or "
                                    "4096 bits",
                                    key->id.version, azure->client->url);
        if (r == 0)
                r = tk_rsa_wrap(rsa, plain, blob, &len);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "can't wrap by the root key %s: %s", azure->client->url,
                                    strerror(-r));
        start_wrap(azure, TK_AZURE_RSA_OAEP_256, key->id.version, ret_wrap);
        memcpy(ret_wrap->blob, blob, len);
        ret_wrap->blob_len = len;
        return 0;
}

/* wrapkey or unwrapkey by @version. The answer has to come from that version of our key. */
static int ask_crypto(struct tk_azure *azure, const struct tk_azure_operation *operation,
                      const char *version, const char *algorithm, const void *value, size_t len,
                      struct tk_secret **ret_value, struct tk_fault *fault)
{
        struct tk_azure_client *client = azure->client;
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *result = NULL;
        struct tk_azure_id id;
        char url[TK_HTTP_URL_MAX];
        int r;

        r = tk_azure_msg_build_crypto(algorithm, value, len, &body);
        if (r < 0)
                return r;
        tk_azure_client_url(client, "keys", version,
                            operation == &tk_azure_wrap ? "wrapkey" : "unwrapkey", url);
        r = tk_azure_client_call(client,
                                 &(struct tk_azure_call){.operation = operation,
                                                         .method = TK_HTTP_POST,
                                                         .url = url,
                                                         .body = body,
                                                         .version = version},
                                 &answer, fault);
        if (r < 0)
                return r;
        r = tk_azure_msg_parse_crypto(tk_text_of(answer.body), tk_text_len(answer.body), &id,
                                      &result);
        if (r == -EBADMSG)
                return tk_azure_client_say_nonsense(client, &answer, "it holds no wrapped key",
                                                    fault);
        if (r < 0)
                return r;
        if (!tk_azure_id_same_key(&id, &client->key) || !tk_azure_same_version(id.version, version))
                return tk_azure_client_say_nonsense(client, &answer, "another key answered", fault);
        *ret_value = TK_TAKE(result);
        return 0;
}

static int wrap_by_service(struct tk_azure *azure, const struct tk_azure_key *key,
                           const struct tk_secret *plain, struct tk_kms_wrap *ret_wrap,
                           struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *blob = NULL;
        const char *algorithm = tk_azure_msg_algorithm(key->type);
        int r;

        r = ask_crypto(azure, &tk_azure_wrap, key->id.version, algorithm, tk_secret_bytes(plain),
                       tk_secret_len(plain), &blob, fault);
        if (r < 0)
                return r;
        if (tk_secret_len(blob) > TK_KMS_BLOB_MAX || tk_secret_len(blob) < tk_secret_len(plain))
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the vault of the root key %s wrapped a key into %zu bytes, "
                                    "which can't be right",
                                    azure->client->url, tk_secret_len(blob));
        start_wrap(azure, algorithm, key->id.version, ret_wrap);
        memcpy(ret_wrap->blob, tk_secret_bytes(blob), tk_secret_len(blob));
        ret_wrap->blob_len = tk_secret_len(blob);
        return 0;
}

static int azure_wrap(void *impl, const char *version, const struct tk_secret *plain,
                      struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        struct tk_azure_key key;
        int r = 0;

        if (!tk_azure_is_version(version))
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "the root key %s can't have the version that is asked for",
                                    azure->client->url);
        if (!tk_azure_recall_key(azure, version, &key))
                r = tk_azure_read_key(azure, version, &key, fault);
        if (r == 0)
                r = tk_azure_check_for_wrapping(azure, &key, fault);
        if (r < 0)
                return r;
        if (azure->wrap == TK_AZURE_WRAP_LOCAL && key.n_len > 0)
                return wrap_locally(azure, &key, plain, ret_wrap, fault);
        return wrap_by_service(azure, &key, plain, ret_wrap, fault);
}

/* Unwrapping */

/* The algorithm, as a constant of ours; NULL for any other than the two. */
static const char *known_algorithm(const struct tk_kms_wrap *wrap)
{
        static const char *const algorithms[] = {TK_AZURE_RSA_OAEP_256, TK_AZURE_A256KW};

        for (size_t i = 0; i < 2; i++)
                if (strncmp(wrap->algorithm, algorithms[i], sizeof(wrap->algorithm)) == 0)
                        return algorithms[i];
        return NULL;
}

static bool has_plausible_length(const struct tk_kms_wrap *wrap, const char *algorithm)
{
        if (strcmp(algorithm, TK_AZURE_A256KW) == 0)
                return wrap->blob_len >= 24 && wrap->blob_len <= TK_KMS_BLOB_MAX &&
                       wrap->blob_len % 8 == 0;
        return wrap->blob_len == 256 || wrap->blob_len == 384 || wrap->blob_len == 512;
}

static int say_other_key(const struct tk_azure *azure, const struct tk_azure_id *id, bool is_id,
                         struct tk_fault *fault)
{
        char other[TK_AZURE_URL_MAX] = "something that is no key identifier";

        if (is_id)
                tk_azure_id_base(id, other);
        return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                            "the configured root key is %s, but a key of this volume is wrapped by "
                            "%s; correct [azure] key, if that is the right one",
                            azure->client->url, other);
}

/* Refuse what is not ours before anything is sent. */
static int check_wrap(const struct tk_azure *azure, const struct tk_kms_wrap *wrap,
                      const char **ret_algorithm, struct tk_fault *fault)
{
        struct tk_azure_id id;
        bool is_id = strnlen(wrap->key_id, sizeof(wrap->key_id)) < sizeof(wrap->key_id) &&
                     tk_azure_id_parse(wrap->key_id, &id) == 0;

        if (!is_id || id.version[0] || !tk_azure_id_same_key(&id, &azure->client->key))
                return say_other_key(azure, &id, is_id, fault);
        if (!tk_azure_is_version(wrap->version))
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "a key is wrapped by a version of %s that no key can have: the "
                                    "volume file is damaged",
                                    azure->client->url);
        *ret_algorithm = known_algorithm(wrap);
        if (!*ret_algorithm)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                                    "a key is wrapped by %s with an algorithm that this release "
                                    "does not know; use the release that made the volume, or a "
                                    "newer one",
                                    azure->client->url);
        if (!has_plausible_length(wrap, *ret_algorithm))
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                                    "a key wrapped by %s has %zu bytes, which %s never makes: the "
                                    "volume file is damaged; restore it from a backup",
                                    azure->client->url, wrap->blob_len, *ret_algorithm);
        return 0;
}

static int azure_unwrap(void *impl, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                        struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        const char *algorithm;
        int r;

        r = check_wrap(azure, wrap, &algorithm, fault);
        if (r < 0)
                return r;
        r = ask_crypto(azure, &tk_azure_unwrap, wrap->version, algorithm, wrap->blob,
                       wrap->blob_len, &key, fault);
        if (r == 0 && azure->expiry_revokes)
                r = tk_azure_check_dates(azure, wrap->version, fault);
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}

static int azure_probe(void *impl, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;

        if (azure->expiry_revokes)
                tk_azure_forget_key(azure, wrap->version); /* its dates are read anew */
        return azure_unwrap(impl, wrap, &key, fault);
}

/* Opening */

static void azure_free(void *impl)
{
        struct tk_azure *azure = impl;

        tk_azure_client_free(azure->client);
        pthread_mutex_destroy(&azure->lock);
        free(azure);
}

static const struct tk_kms_provider provider = {
        .name = "azure",
        .current = azure_current,
        .wrap = azure_wrap,
        .unwrap = azure_unwrap,
        .probe = azure_probe,
        .free = azure_free,
        .admin = &tk_azure_admin,
};

int tk_azure_open_with(const struct tk_kms_azure_options *options, const struct tk_azure_net *net,
                       struct tk_kms **ret_kms, struct tk_fault *fault)
{
        TK_CLEANUP(tk_azure_client_freep) struct tk_azure_client *client = NULL;
        struct tk_azure *azure;
        int r;

        r = tk_azure_client_new(options, net, &client, fault);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "can't open the azure provider: %s", strerror(-r));
        azure = calloc(1, sizeof(*azure));
        if (!azure)
                return -ENOMEM;
        pthread_mutex_init(&azure->lock, NULL);
        azure->wrap = options->wrap;
        azure->allow_purge = options->allow_purge;
        azure->expiry_revokes = options->expiry_revokes;
        azure->client = TK_TAKE(client);
        return tk_kms_new(&provider, azure, ret_kms);
}

int tk_kms_azure_open(const struct tk_kms_azure_options *options, struct tk_kms **ret_kms,
                      struct tk_fault *fault)
{
        return tk_azure_open_with(options, NULL, ret_kms, fault);
}

bool tk_kms_azure_is_key(const char *text)
{
        struct tk_azure_id id;

        return tk_azure_id_parse(text, &id) == 0;
}
