/* SPDX-License-Identifier: Apache-2.0 */

/* Versions of the root key as the vault describes them: read, remembered for a while, judged. */

#include "kms/azure_provider.h"
#include <errno.h>
#include <inttypes.h>

enum {
        /* How old the description of a version may be when it wraps locally. */
        FRESH_MS = 60 * 1000,
        /* A few minutes of leeway for clocks, as the vault itself gives. */
        LEEWAY_S = 300,
};

/* Remember it in place of an older reading, or of the oldest. */
static void remember(struct tk_azure *azure, const struct tk_azure_key *key)
{
        size_t place = 0;

        TK_LOCK_SCOPE(&azure->lock);
        for (size_t i = 0; i < TK_AZURE_KNOWN_MAX; i++) {
                const struct tk_azure_known *known = &azure->known[i];

                if (known->read_ms &&
                    tk_azure_same_version(known->key.id.version, key->id.version)) {
                        place = i;
                        break;
                }
                if (known->read_ms < azure->known[place].read_ms)
                        place = i;
        }
        azure->known[place].key = *key;
        azure->known[place].read_ms = tk_azure_net_now(&azure->client->net);
}

bool tk_azure_recall_key(struct tk_azure *azure, const char *version, struct tk_azure_key *ret_key)
{
        int64_t now = tk_azure_net_now(&azure->client->net);

        TK_LOCK_SCOPE(&azure->lock);
        for (size_t i = 0; i < TK_AZURE_KNOWN_MAX; i++) {
                const struct tk_azure_known *known = &azure->known[i];

                if (known->read_ms == 0 || now - known->read_ms > FRESH_MS ||
                    !tk_azure_same_version(known->key.id.version, version))
                        continue;
                *ret_key = known->key;
                return true;
        }
        return false;
}

void tk_azure_forget_key(struct tk_azure *azure, const char *version)
{
        TK_LOCK_SCOPE(&azure->lock);
        for (size_t i = 0; i < TK_AZURE_KNOWN_MAX; i++)
                if (tk_azure_same_version(azure->known[i].key.id.version, version))
                        azure->known[i].read_ms = 0;
}

int tk_azure_read_key(struct tk_azure *azure, const char *version, struct tk_azure_key *ret_key,
                      struct tk_fault *fault)
{
        struct tk_azure_client *client = azure->client;
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        struct tk_azure_key key;
        char url[TK_HTTP_URL_MAX];
        int r;

        tk_azure_client_url(client, "keys", version, "", url);
        r = tk_azure_client_call(client,
                                 &(struct tk_azure_call){.operation = &tk_azure_get,
                                                         .method = TK_HTTP_GET,
                                                         .url = url,
                                                         .version = version},
                                 &answer, fault);
        if (r < 0)
                return r;
        r = tk_azure_msg_parse_key(tk_text_of(answer.body), tk_text_len(answer.body), &key);
        if (r == -EBADMSG)
                return tk_azure_client_say_nonsense(client, &answer, "it is no key", fault);
        if (r < 0)
                return r;
        if (!tk_azure_id_same_key(&key.id, &client->key) ||
            (version[0] && !tk_azure_same_version(key.id.version, version)))
                return tk_azure_client_say_nonsense(client, &answer, "it is about another key",
                                                    fault);
        remember(azure, &key);
        *ret_key = key;
        return 0;
}

static int check_type(const struct tk_azure *azure, const struct tk_azure_key *key,
                      struct tk_fault *fault)
{
        const char *algorithm = tk_azure_msg_algorithm(key->type);

        if (!algorithm)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -ENOTSUP,
                                    "the root key %s is of type %s, which can't wrap keys; use an "
                                    "RSA key: az keyvault key create --kty RSA --size 3072",
                                    azure->client->url, key->type);
        return 0;
}

static int check_purge(const struct tk_azure *azure, const struct tk_azure_key *key,
                       struct tk_fault *fault)
{
        const char *level = key->attributes.recovery_level;
        char vault[TK_AZURE_HOST_MAX];

        if (azure->allow_purge || tk_azure_msg_purge_protected(&key->attributes))
                return 0;
        tk_azure_vault_name(azure->client->key.host, vault);
        return tk_fault_set(
                fault, TK_FAULT_CONFIG, -EPERM,
                "the vault %s has no purge protection (recovery level %s): who deletes "
                "the root key could make the data unreadable for ever. Switch it on by: "
                "az keyvault %s %s --enable-purge-protection true; or accept the risk by "
                "[azure] require_purge_protection = no",
                vault, level[0] ? level : "not given",
                azure->client->managed_hsm ? "update-hsm --hsm-name" : "update --name", vault);
}

/* Leeway included. The fault says what the version can't do. */
static int check_dates(const struct tk_azure *azure, const struct tk_azure_key *key,
                       const char *consequence, struct tk_fault *fault)
{
        const char *url = azure->client->url;
        int64_t now = tk_azure_net_unix_now(&azure->client->net);

        if (key->attributes.expires >= 0 && key->attributes.expires + LEEWAY_S < now)
                return tk_fault_set(fault, TK_FAULT_KEY_EXPIRED, -EKEYEXPIRED,
                                    "version %s of the root key %s has expired: %s; its owner "
                                    "makes a new version by: az keyvault key rotate --id %s; or "
                                    "moves the date by: az keyvault key set-attributes --id %s/%s "
                                    "--expires YYYY-MM-DD",
                                    key->id.version, url, consequence, url, url, key->id.version);
        if (key->attributes.not_before > now + LEEWAY_S)
                return tk_fault_set(fault, TK_FAULT_KEY_EXPIRED, -EKEYEXPIRED,
                                    "version %s of the root key %s is not valid yet, but from "
                                    "%" PRId64 " (Unix time) on: %s; its owner moves the date by: "
                                    "az keyvault key set-attributes --id %s/%s --not-before "
                                    "YYYY-MM-DD",
                                    key->id.version, url, key->attributes.not_before, consequence,
                                    url, key->id.version);
        return 0;
}

int tk_azure_check_dates(struct tk_azure *azure, const char *version, struct tk_fault *fault)
{
        struct tk_fault ignored = {0};
        struct tk_azure_key key = {0};
        struct tk_azure_key newest = {0};
        int r = 0;

        if (!tk_azure_recall_key(azure, version, &key))
                r = tk_azure_read_key(azure, version, &key, &ignored);
        if (r < 0 || check_dates(azure, &key, "", &ignored) == 0)
                return 0;
        r = tk_azure_read_key(azure, azure->client->key.version, &newest, &ignored);
        if (r == 0 && newest.attributes.enabled && check_dates(azure, &newest, "", &ignored) == 0)
                return 0;
        return check_dates(azure, &key, "by [kms] key_expiry = revoke it unwraps nothing", fault);
}

int tk_azure_check_for_wrapping(const struct tk_azure *azure, const struct tk_azure_key *key,
                                struct tk_fault *fault)
{
        const struct tk_azure_client *client = azure->client;
        int r;

        if (!key->attributes.enabled)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                                    "version %s of the root key %s is disabled; its owner enables "
                                    "it by: az keyvault key set-attributes --id %s/%s --enabled "
                                    "true",
                                    key->id.version, client->url, client->url, key->id.version);
        r = check_dates(azure, key, "it still unwraps, but wraps nothing new", fault);
        if (r == 0)
                r = check_purge(azure, key, fault);
        return r < 0 ? r : check_type(azure, key, fault);
}
