/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Refusals of the vault in words: what happened to which key, who has to do what about it
 * in Azure, and the request id that support asks for.
 */

#include "kms/azure_client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SKEW_NOTABLE_S = 120 };

struct refusal {
        const struct tk_azure_client *client;
        const struct tk_azure_call *call;
        struct tk_azure_error error;
        char vault[TK_AZURE_HOST_MAX];
        char key[TK_AZURE_URL_MAX + TK_KMS_VERSION_MAX]; /* with the version, if there is one */
        char tail[512];                                  /* what the service said, request id */
};

static void describe_tail(struct refusal *refusal, const struct tk_http_answer *answer)
{
        const struct tk_azure_error *error = &refusal->error;

        snprintf(refusal->tail, sizeof(refusal->tail),
                 "(HTTP %d %s%s%s: %.240s; x-ms-request-id %s%s)", answer->status,
                 error->code[0] ? error->code : "without a code", error->inner[0] ? "/" : "",
                 error->inner, error->message[0] ? error->message : "no message",
                 answer->request_id[0] ? answer->request_id : "none", tk_azure_net_late(answer));
}

static int say(const struct refusal *refusal, struct tk_fault *fault, enum tk_fault_kind kind,
               int r, const char *what, const char *todo)
{
        tk_fault_describe(fault, kind, "the root key %s %s: %s %s", refusal->key, what, todo,
                          refusal->tail);
        return r;
}

static int say_disabled(const struct refusal *refusal, struct tk_fault *fault)
{
        char todo[768];

        snprintf(todo, sizeof(todo),
                 "its owner enables it by: az keyvault key set-attributes --id %s --enabled true",
                 refusal->key);
        return say(refusal, fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED, "is disabled", todo);
}

static int say_gone(const struct refusal *refusal, struct tk_fault *fault)
{
        const char *vault_option = refusal->client->managed_hsm ? "--hsm-name" : "--vault-name";
        char todo[640];

        snprintf(todo, sizeof(todo),
                 "deleted, or never there. Its owner sees it in: az keyvault key list-deleted %s "
                 "%s, and brings it back by: az keyvault key recover %s %s --name %s",
                 vault_option, refusal->vault, vault_option, refusal->vault,
                 refusal->client->key.name);
        return say(refusal, fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED, "is not in the vault", todo);
}

static int say_forbids(const struct refusal *refusal, struct tk_fault *fault)
{
        char todo[768];

        snprintf(todo, sizeof(todo),
                 "its permitted operations leave %s out; its owner changes them by: az keyvault "
                 "key set-attributes --id %s --ops wrapKey unwrapKey",
                 refusal->call->operation->permission, refusal->key);
        return say(refusal, fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED, "does not allow this", todo);
}

static int say_expired(const struct refusal *refusal, struct tk_fault *fault)
{
        char todo[768];

        snprintf(todo, sizeof(todo),
                 "its owner makes a new version (az keyvault key rotate) or moves the dates: az "
                 "keyvault key set-attributes --id %s --expires YYYY-MM-DD",
                 refusal->key);
        return say(refusal, fault, TK_FAULT_KEY_EXPIRED, -EKEYEXPIRED,
                   "has expired or is not valid yet", todo);
}

static int say_no_role(const struct refusal *refusal, struct tk_fault *fault)
{
        const struct tk_azure_client *client = refusal->client;
        bool manages = refusal->call->operation->manages;
        const char *role =
                manages ? "Key Vault Crypto Officer" : "Key Vault Crypto Service Encryption User";
        char todo[768];

        if (client->managed_hsm)
                snprintf(todo, sizeof(todo),
                         "an administrator of the HSM gives this machine's identity the role: az "
                         "keyvault role assignment create --hsm-name %s --role \"%s\" --assignee "
                         "OBJECT_ID --scope /keys/%s; just after that it takes some minutes",
                         refusal->vault,
                         manages ? "Managed HSM Crypto Officer"
                                 : "Managed HSM Crypto Service Encryption User",
                         client->key.name);
        else
                snprintf(todo, sizeof(todo),
                         "an owner of the vault gives this machine's identity the role: az role "
                         "assignment create --role \"%s\" --assignee OBJECT_ID --scope $(az "
                         "keyvault show --name %s --query id -o tsv)/keys/%s; just after that it "
                         "takes up to ten minutes",
                         role, refusal->vault, client->key.name);
        return say(refusal, fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                   "is denied to this machine's identity", todo);
}

static int say_no_policy(const struct refusal *refusal, struct tk_fault *fault)
{
        char todo[640];

        snprintf(todo, sizeof(todo),
                 "the vault's access policy lacks the permission %s; an owner of the vault adds "
                 "it by: az keyvault set-policy --name %s --object-id OBJECT_ID --key-permissions "
                 "get wrapKey unwrapKey%s%s",
                 refusal->call->operation->permission, refusal->vault,
                 refusal->call->operation->manages ? " " : "",
                 refusal->call->operation->manages ? refusal->call->operation->permission : "");
        return say(refusal, fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                   "is denied to this machine's identity", todo);
}

static int say_network(const struct refusal *refusal, bool private_only, struct tk_fault *fault)
{
        bool outage = refusal->client->firewall_is_outage;
        char todo[512];

        if (private_only)
                snprintf(todo, sizeof(todo),
                         "the vault %s takes private links only; connect this network by a private "
                         "endpoint and its DNS zone privatelink.vaultcore.azure.net",
                         refusal->vault);
        else
                snprintf(todo, sizeof(todo),
                         "an owner of the vault lets this machine's address in: az keyvault "
                         "network-rule add --name %s --ip-address ADDRESS; it takes up to 15 "
                         "minutes",
                         refusal->vault);
        return say(refusal, fault, outage ? TK_FAULT_KMS_UNREACHABLE : TK_FAULT_KEY_REVOKED,
                   outage ? -ENOKEY : -EKEYREVOKED,
                   "can't be used from here, by the vault's network rules", todo);
}

/* 401 although the token is fresh: wrong tenant, wrong audience, clock, or conditions unmet. */
static int say_not_accepted(const struct refusal *refusal, const struct tk_http_answer *answer,
                            struct tk_fault *fault)
{
        int64_t skew = tk_azure_net_skew(&refusal->client->net, answer);
        char todo[512];

        if (skew > SKEW_NOTABLE_S || skew < -SKEW_NOTABLE_S)
                snprintf(todo, sizeof(todo),
                         "this machine's clock is %" PRId64 " seconds off: set it, and keep it by "
                         "NTP",
                         skew);
        else
                snprintf(
                        todo, sizeof(todo),
                        "the vault does not accept this machine's token, also a fresh one: check "
                        "that [azure] tenant_id is the vault's (az keyvault show --name %s --query "
                        "properties.tenantId), and that the identity exists and is enabled",
                        refusal->vault);
        return say(refusal, fault, TK_FAULT_KEY_REVOKED, -EACCES, "can't be asked for", todo);
}

static int say_busy(const struct refusal *refusal, const struct tk_http_answer *answer,
                    struct tk_fault *fault)
{
        return say(refusal, fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY, "can't be used now",
                   answer->status == 429
                           ? "the vault is asked too often; spread over several vaults, or use "
                             "dek_wrap = kek"
                           : "the vault is in trouble, which usually passes by itself");
}

static int say_bad_request(const struct refusal *refusal, struct tk_fault *fault)
{
        if (refusal->call->operation == &tk_azure_unwrap)
                return say(refusal, fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                           "does not open a wrapped key",
                           "what was wrapped is damaged, or was wrapped by another key; restore "
                           "it from a backup");
        if (refusal->call->operation->manages)
                return say(refusal, fault, TK_FAULT_USAGE, -EINVAL, "can't be changed like that",
                           "the vault says why");
        return say(refusal, fault, TK_FAULT_INTERNAL, -EBADMSG, "was asked something wrong",
                   "the vault rejects the request");
}

int tk_azure_client_say_refused(const struct tk_azure_client *client,
                                const struct tk_azure_call *call,
                                const struct tk_http_answer *answer, struct tk_fault *fault)
{
        struct refusal refusal = {.client = client, .call = call};
        const char *version = call->version ? call->version : "";

        tk_azure_msg_parse_error(tk_text_of(answer->body), tk_text_len(answer->body),
                                 &refusal.error);
        tk_azure_vault_name(client->key.host, refusal.vault);
        snprintf(refusal.key, sizeof(refusal.key), "%s%s%s", client->url, version[0] ? "/" : "",
                 version);
        describe_tail(&refusal, answer);

        switch (tk_azure_msg_judge(answer->status, &refusal.error)) {
        case TK_AZURE_KEY_DISABLED:
                return say_disabled(&refusal, fault);
        case TK_AZURE_KEY_GONE:
                return say_gone(&refusal, fault);
        case TK_AZURE_KEY_FORBIDS:
                return say_forbids(&refusal, fault);
        case TK_AZURE_KEY_EXPIRED:
                return say_expired(&refusal, fault);
        case TK_AZURE_DENIED_ROLE:
                return say_no_role(&refusal, fault);
        case TK_AZURE_DENIED_POLICY:
                return say_no_policy(&refusal, fault);
        case TK_AZURE_FIREWALL:
        case TK_AZURE_PRIVATE_ONLY:
                return say_network(&refusal,
                                   tk_azure_msg_judge(answer->status, &refusal.error) ==
                                           TK_AZURE_PRIVATE_ONLY,
                                   fault);
        case TK_AZURE_NOT_ACCEPTED:
                return say_not_accepted(&refusal, answer, fault);
        case TK_AZURE_BUSY:
                return say_busy(&refusal, answer, fault);
        case TK_AZURE_BAD_REQUEST:
                return say_bad_request(&refusal, fault);
        case TK_AZURE_CONFLICT:
                return say(&refusal, fault, TK_FAULT_USAGE, -EEXIST, "is in the way",
                           "a key of this name is being deleted or recovered, or lies deleted in "
                           "the vault: recover it, purge it, or choose another name");
        case TK_AZURE_DENIED:
        case TK_AZURE_PURGE_PROTECTED:
                return say(&refusal, fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                           "is refused to this machine",
                           "an owner of the vault has to look into it");
        default:
                return say(&refusal, fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY, "can't be used now",
                           "the vault's answer is not one that a vault gives; check who stands "
                           "between, such as a proxy");
        }
}

int tk_azure_client_say_nonsense(const struct tk_azure_client *client,
                                 const struct tk_http_answer *answer, const char *what,
                                 struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                            "the answer of %s about the root key %s can't be right: %s "
                            "(x-ms-request-id %s)",
                            client->key.host, client->url, what,
                            answer->request_id[0] ? answer->request_id : "none");
}
