/* SPDX-License-Identifier: Apache-2.0 */

/* The configured credential, or the chain of them that `auth = default` is. */

#include "kms/azure_credential.h"

#include "base/fdio.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const struct tk_azure_credential credentials[] = {
        [TK_AZURE_AUTH_MANAGED_IDENTITY] = {"managed-identity", tk_azure_credential_managed},
        [TK_AZURE_AUTH_WORKLOAD_IDENTITY] = {"workload-identity", tk_azure_credential_workload},
        [TK_AZURE_AUTH_CLIENT_CERTIFICATE] = {"client-certificate",
                                              tk_azure_credential_certificate},
        [TK_AZURE_AUTH_CLIENT_SECRET] = {"client-secret", tk_azure_credential_secret},
        [TK_AZURE_AUTH_AZURE_CLI] = {"azure-cli", tk_azure_credential_cli},
};

/* In the order of Azure's own clients; the name is the one that AZURE_TOKEN_CREDENTIALS uses. */
static const struct link {
        const char *name;
        enum tk_azure_auth_kind kind;
        bool production;
} chain[] = {
        {"EnvironmentCredential", TK_AZURE_AUTH_CLIENT_SECRET, true},
        {"EnvironmentCredential", TK_AZURE_AUTH_CLIENT_CERTIFICATE, true},
        {"WorkloadIdentityCredential", TK_AZURE_AUTH_WORKLOAD_IDENTITY, true},
        {"ManagedIdentityCredential", TK_AZURE_AUTH_MANAGED_IDENTITY, true},
        {"AzureCliCredential", TK_AZURE_AUTH_AZURE_CLI, false},
};

int tk_azure_read_file(const char *path, size_t max, struct tk_secret **ret_text)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        TK_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        struct stat st;
        ssize_t len;
        int r;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -ENODATA;
        r = tk_secret_new(max + 1, &text);
        if (r < 0)
                return r;
        len = tk_fdio_pread(fd, tk_secret_bytes_mutable(text), max + 1, 0);
        if (len < 0)
                return (int)len;
        if ((size_t)len > max)
                return -EFBIG;
        while (len > 0 && strchr(" \t\r\n", tk_secret_bytes(text)[len - 1]))
                len--;
        if (len == 0)
                return -ENODATA;
        tk_secret_bytes_mutable(text)[len] = '\0';
        tk_secret_truncate(text, (size_t)len + 1);
        *ret_text = TK_TAKE(text);
        return 0;
}

/* What the options say, or the environment; NULL if neither does. */
static const char *setting(const char *option, const char *variable)
{
        const char *value = option ? option : getenv(variable);

        return value && value[0] ? value : NULL;
}

static int copy_setting(const char *option, const char *variable, char **ret_copy)
{
        const char *value = setting(option, variable);

        if (!value)
                return 0;
        *ret_copy = strdup(value);
        return *ret_copy ? 0 : -ENOMEM;
}

static int copy_secret(const struct tk_secret *option, const char *variable,
                       struct tk_secret **ret_copy)
{
        const char *value = getenv(variable);

        if (option)
                return tk_secret_dup_bytes(tk_secret_bytes(option), tk_secret_len(option),
                                           ret_copy);
        return value && value[0] ? tk_secret_dup_bytes(value, strlen(value), ret_copy) : 0;
}

static int copy_settings(const struct tk_kms_azure_options *options, struct tk_azure_auth *auth)
{
        int r;

        r = copy_setting(options->tenant_id, "AZURE_TENANT_ID", &auth->tenant_id);
        if (r == 0)
                r = copy_setting(options->client_id, "AZURE_CLIENT_ID", &auth->client_id);
        if (r == 0)
                r = copy_setting(options->token_file, "AZURE_FEDERATED_TOKEN_FILE",
                                 &auth->token_file);
        if (r == 0)
                r = copy_setting(options->certificate, "AZURE_CLIENT_CERTIFICATE_PATH",
                                 &auth->certificate);
        if (r == 0)
                r = copy_secret(options->certificate_password, "AZURE_CLIENT_CERTIFICATE_PASSWORD",
                                &auth->certificate_password);
        if (r == 0)
                r = copy_secret(options->secret, "AZURE_CLIENT_SECRET", &auth->secret);
        return r;
}

static int set_authority(const char *option, const char *fallback, struct tk_azure_auth *auth,
                         struct tk_fault *fault)
{
        const char *text = setting(option, "AZURE_AUTHORITY_HOST");
        size_t len;
        int n;

        if (!text)
                text = fallback;
        n = snprintf(auth->authority, sizeof(auth->authority), "%s%s",
                     strncasecmp(text, "https://", 8) == 0 ? "" : "https://", text);
        if (n < 0 || (size_t)n >= sizeof(auth->authority) || !tk_azure_is_origin(auth->authority))
                return tk_fault_set(
                        fault, TK_FAULT_CONFIG, -EINVAL,
                        "[azure] authority (or AZURE_AUTHORITY_HOST) is to be a host, "
                        "such as login.microsoftonline.com, that is spoken to by https");
        len = strlen(auth->authority);
        if (auth->authority[len - 1] == '/')
                auth->authority[len - 1] = '\0';
        return 0;
}

static int say_missing(const char *auth, const char *what, const char *variable,
                       struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                            "[azure] auth = %s needs [azure] %s (or %s in the environment)", auth,
                            what, variable);
}

static int check(const struct tk_azure_auth *auth, struct tk_fault *fault)
{
        const char *name =
                auth->kind == TK_AZURE_AUTH_DEFAULT ? "default" : credentials[auth->kind].name;

        if (auth->tenant_id && !tk_azure_is_label(auth->tenant_id))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "[azure] tenant_id (or AZURE_TENANT_ID) is neither a GUID nor "
                                    "a domain name");
        if (auth->client_id && !tk_azure_is_label(auth->client_id))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "[azure] client_id (or AZURE_CLIENT_ID) is not a GUID");
        switch (auth->kind) {
        case TK_AZURE_AUTH_CLIENT_SECRET:
                if (!auth->secret)
                        return say_missing(name, "client_secret", "AZURE_CLIENT_SECRET", fault);
                break;
        case TK_AZURE_AUTH_CLIENT_CERTIFICATE:
                if (!auth->certificate)
                        return say_missing(name, "certificate", "AZURE_CLIENT_CERTIFICATE_PATH",
                                           fault);
                break;
        case TK_AZURE_AUTH_WORKLOAD_IDENTITY:
                if (!auth->token_file)
                        return say_missing(name, "token_file", "AZURE_FEDERATED_TOKEN_FILE", fault);
                break;
        default:
                return 0;
        }
        return auth->client_id ? 0 : say_missing(name, "client_id", "AZURE_CLIENT_ID", fault);
}

int tk_azure_auth_new(const struct tk_kms_azure_options *options, const struct tk_azure_net *net,
                      const char *default_authority, struct tk_azure_auth **ret_auth,
                      struct tk_fault *fault)
{
        TK_CLEANUP(tk_azure_auth_freep) struct tk_azure_auth *auth = calloc(1, sizeof(*auth));
        int r;

        if (!auth)
                return -ENOMEM;
        auth->net = net;
        auth->kind = options->auth;
        r = copy_settings(options, auth);
        if (r == 0)
                r = set_authority(options->authority, default_authority, auth, fault);
        if (r == 0)
                r = check(auth, fault);
        if (r < 0)
                return r;
        *ret_auth = TK_TAKE(auth);
        return 0;
}

struct tk_azure_auth *tk_azure_auth_free(struct tk_azure_auth *auth)
{
        if (!auth)
                return NULL;
        tk_secret_free(auth->certificate_password);
        tk_secret_free(auth->secret);
        free(auth->tenant_id);
        free(auth->client_id);
        free(auth->certificate);
        free(auth->token_file);
        free(auth);
        return NULL;
}

bool tk_azure_auth_wants_tenant(const struct tk_azure_auth *auth)
{
        bool entra = auth->kind == TK_AZURE_AUTH_CLIENT_SECRET ||
                     auth->kind == TK_AZURE_AUTH_CLIENT_CERTIFICATE ||
                     auth->kind == TK_AZURE_AUTH_WORKLOAD_IDENTITY;

        return !auth->tenant_id &&
               (entra || (auth->kind == TK_AZURE_AUTH_DEFAULT && auth->client_id));
}

/* Whether AZURE_TOKEN_CREDENTIALS lets this one in: unset, prod, dev, or a name. */
static bool is_admitted(const struct link *link)
{
        const char *only = getenv("AZURE_TOKEN_CREDENTIALS");

        if (!only || !only[0])
                return true;
        if (strcasecmp(only, "prod") == 0)
                return link->production;
        if (strcasecmp(only, "dev") == 0)
                return !link->production;
        return strcasecmp(only, link->name) == 0;
}

/* Whether what this credential needs is there at all. */
static bool is_there(const struct tk_azure_auth *auth, const struct link *link)
{
        switch (link->kind) {
        case TK_AZURE_AUTH_CLIENT_SECRET:
                return auth->client_id && auth->secret;
        case TK_AZURE_AUTH_CLIENT_CERTIFICATE:
                return auth->client_id && auth->certificate;
        case TK_AZURE_AUTH_WORKLOAD_IDENTITY:
                return auth->client_id && auth->token_file;
        case TK_AZURE_AUTH_MANAGED_IDENTITY:
                return tk_azure_managed_is_there(auth);
        default:
                return true;
        }
}

/* Go through the chain. What each one said is collected for the case that none works. */
static int try_chain(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                     struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        char said[1024] = "";

        for (size_t i = 0; i < sizeof(chain) / sizeof(chain[0]); i++) {
                const struct tk_azure_credential *credential = &credentials[chain[i].kind];
                struct tk_fault one = {0};
                size_t len = strlen(said);
                int r = -ENODATA;

                if (!is_admitted(&chain[i]))
                        continue;
                if (is_there(auth, &chain[i]))
                        r = credential->get(auth, want, ret_grant, &one);
                if (r == 0) {
                        atomic_store(&auth->chosen, credential);
                        tk_log(TK_LOG_INFO, "azure: auth = default took %s", credential->name);
                        return 0;
                }
                if (r != -ENODATA) {
                        tk_fault_describe(fault, one.kind, "%s", one.text);
                        return r;
                }
                snprintf(said + len, sizeof(said) - len, "%s%s: %.300s", len > 0 ? "; " : "",
                         credential->name, one.text[0] ? one.text : "not there");
        }
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EACCES,
                            "no identity to ask the key vault with. Tried: %s. Give this machine a "
                            "managed identity (az vm identity assign --name VM --resource-group "
                            "GROUP), or configure [azure] auth",
                            said);
}

int tk_azure_auth_get(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                      struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        const struct tk_azure_credential *credential = &credentials[auth->kind];
        int r;

        if (auth->kind == TK_AZURE_AUTH_DEFAULT) {
                credential = atomic_load(&auth->chosen);
                if (!credential)
                        return try_chain(auth, want, ret_grant, fault);
        }
        r = credential->get(auth, want, ret_grant, fault);
        return r == -ENODATA ? -EACCES : r;
}
