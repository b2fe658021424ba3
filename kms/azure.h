/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The `azure` provider: the root key lies in Azure Key Vault or Managed HSM.
 *
 * What the owner of the key sees and has to do: docs/kms-azure.md. Calls block at most for
 * the deadline. Besides the errors of kms.h: -EACCES, the identity of this machine is not
 * accepted any more (its secret expired, it was removed); nothing was said about the key.
 */

#include "kms/kms.h"

enum tk_azure_auth_kind {
        TK_AZURE_AUTH_DEFAULT, /* the first of Azure's own chain that is there */
        TK_AZURE_AUTH_MANAGED_IDENTITY,
        TK_AZURE_AUTH_WORKLOAD_IDENTITY,
        TK_AZURE_AUTH_CLIENT_CERTIFICATE,
        TK_AZURE_AUTH_CLIENT_SECRET,
        TK_AZURE_AUTH_AZURE_CLI,
};

enum tk_azure_wrap_place {
        TK_AZURE_WRAP_LOCAL,   /* RSA: with the public half, on this machine */
        TK_AZURE_WRAP_SERVICE, /* by the vault: sees a disabled key at once, costs a call */
};

/* Everything is borrowed for the call. NULL and 0 mean "the default". */
struct tk_kms_azure_options {
        const char *key;         /* https://VAULT/keys/NAME, or .../NAME/VERSION: pinned */
        const char *client_id;   /* of the application, or of a user-assigned identity */
        const char *tenant_id;   /* default: what the vault says */
        const char *certificate; /* PEM file: certificate and private key */
        const struct tk_secret *certificate_password;
        const struct tk_secret *secret; /* of the application: its bytes, without a NUL */
        const char *token_file;         /* with the federated token of the workload identity */
        const char *authority;          /* host, or https://host; default: the cloud's */
        const char *audience;           /* https://HOST; only for a cloud that is not Microsoft's */
        const char *ca_file;            /* PEM; trusted instead of the system's authorities */
        enum tk_azure_auth_kind auth;
        enum tk_azure_wrap_place wrap;
        unsigned connect_timeout_ms; /* default 5 s */
        unsigned request_timeout_ms; /* default 15 s */
        unsigned deadline_ms;        /* for a call with all its attempts; default 20 s */
        bool allow_purge;            /* accept a vault without purge protection */
        bool firewall_is_outage;     /* 403 by its network rules: unreachable, not revoked */
        bool expiry_revokes;         /* nothing is unwrapped outside a version's dates */
};

/*
 * No I/O but for ca_file. -EINVAL and a TK_FAULT_CONFIG for options that can't work;
 * -ENOTSUP if this program was built without Azure.
 */
TK_MUST_USE int tk_kms_azure_open(const struct tk_kms_azure_options *options,
                                  struct tk_kms **ret_kms, struct tk_fault *fault);

/* Whether @text is a key identifier that tk_kms_azure_open takes. */
bool tk_kms_azure_is_key(const char *text);
