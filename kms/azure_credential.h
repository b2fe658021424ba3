/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Where tokens come from: one function per kind of credential.
 *
 * Nothing here keeps a token: that is azure_token.h. Credentials and files that they name are
 * read anew for each token, since others replace them. Secrets go to the configured authority only.
 */

#include "kms/azure.h"
#include "kms/azure_auth.h"
#include "kms/azure_net.h"

/* What every credential may need. Owned copies; not changed after tk_azure_auth_new. */
struct tk_azure_auth {
        const struct tk_azure_net *net; /* borrowed */
        enum tk_azure_auth_kind kind;
        char authority[TK_AZURE_HOST_MAX + 8]; /* https://HOST */
        char *tenant_id;                       /* these may be NULL */
        char *client_id;
        char *certificate;
        char *token_file;
        struct tk_secret *certificate_password;
        struct tk_secret *secret;
        _Atomic(const struct tk_azure_credential *) chosen; /* which one of the chain worked */
};

struct tk_azure_want {
        const char *audience;
        const char
                *tenant; /* from the vault's challenge, for who has none of his own; may be NULL */
        const char *claims; /* JSON that the vault asks for; may be NULL */
        int64_t deadline_ms;
        bool quick; /* one short attempt: there still is an older token */
};

struct tk_azure_grant {
        struct tk_secret *token; /* a text */
        int64_t lifetime_s;
};

/*
 * A token. Returns 0; -ENOKEY if the service that gives it does not answer; -EACCES if it
 * refuses this identity; -ENODATA if this machine has no such credential; -EINVAL for a
 * configuration that can't work; -ENOMEM, -EPERM.
 */
typedef int (*tk_azure_credential_fn)(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                      struct tk_azure_grant *ret_grant, struct tk_fault *fault);

struct tk_azure_credential {
        const char *name; /* as [azure] auth has it */
        tk_azure_credential_fn get;
};

int tk_azure_credential_secret(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                               struct tk_azure_grant *ret_grant, struct tk_fault *fault);
int tk_azure_credential_certificate(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                    struct tk_azure_grant *ret_grant, struct tk_fault *fault);
int tk_azure_credential_workload(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                 struct tk_azure_grant *ret_grant, struct tk_fault *fault);
int tk_azure_credential_managed(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                struct tk_azure_grant *ret_grant, struct tk_fault *fault);
int tk_azure_credential_cli(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                            struct tk_azure_grant *ret_grant, struct tk_fault *fault);

/* Whether the metadata service of a virtual machine answers, whatever it says: within a second. */
bool tk_azure_managed_is_there(const struct tk_azure_auth *auth);

/*
 * Copies what @options say; what they leave out comes from the environment, as in Azure's own
 * clients. -EINVAL with a fault if that can't work.
 */
TK_MUST_USE int tk_azure_auth_new(const struct tk_kms_azure_options *options,
                                  const struct tk_azure_net *net, const char *default_authority,
                                  struct tk_azure_auth **ret_auth, struct tk_fault *fault);
struct tk_azure_auth *tk_azure_auth_free(struct tk_azure_auth *auth);
TK_DEFINE_CLEANUP(struct tk_azure_auth *, tk_azure_auth_free)

/* Whether a token can't be had without knowing the tenant, and it is not known. */
bool tk_azure_auth_wants_tenant(const struct tk_azure_auth *auth);

/* A token by the configured credential, or by the first of the chain that has one. */
TK_MUST_USE int tk_azure_auth_get(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                                  struct tk_azure_grant *ret_grant, struct tk_fault *fault);

/* A small file as a text without white space at its end. -ENOENT and the like, -EFBIG, -ENODATA. */
TK_MUST_USE int tk_azure_read_file(const char *path, size_t max, struct tk_secret **ret_text);
