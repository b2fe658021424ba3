/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Names in Azure: key identifiers, hosts, clouds. No I/O; values only.
 *
 * Vault, key and version compare without regard to case, as the service compares them.
 * A host is kept in lower case, with its port unless that is 443.
 */

#include "kms/kms.h"

enum {
        TK_AZURE_HOST_MAX = 128,
        TK_AZURE_NAME_MAX = 128,
        TK_AZURE_URL_MAX = 512,
        TK_AZURE_TENANT_MAX = 128,
};

struct tk_azure_id {
        char host[TK_AZURE_HOST_MAX];
        char name[TK_AZURE_NAME_MAX];
        char version[TK_KMS_VERSION_MAX]; /* empty: the newest one */
};

/*
 * https://HOST/keys/NAME or https://HOST/keys/NAME/VERSION. -EINVAL for anything else:
 * user names, queries, other characters, over-long parts.
 */
TK_MUST_USE int tk_azure_id_parse(const char *text, struct tk_azure_id *ret_id);

/* As tk_azure_id_parse for the identifier of a deleted key, /deletedkeys/NAME. */
TK_MUST_USE int tk_azure_id_parse_deleted(const char *text, struct tk_azure_id *ret_id);

/* The identifier without its version, as wraps keep it. */
void tk_azure_id_base(const struct tk_azure_id *id, char ret_text[TK_AZURE_URL_MAX]);

/* Whether both name the same key, whatever the version. */
bool tk_azure_id_same_key(const struct tk_azure_id *a, const struct tk_azure_id *b);
bool tk_azure_same_version(const char *a, const char *b);

/* The part of @host before the first dot: the name of the vault or HSM. */
void tk_azure_vault_name(const char *host, char ret_name[TK_AZURE_HOST_MAX]);

/* Whether @url is https and on @host, port included: a link that a token may follow. */
bool tk_azure_url_is_on(const char *url, const char *host);

/* A version is letters and digits; the service makes 32 hexadecimal ones. */
bool tk_azure_is_version(const char *text);

/* Letters, digits, '-' and '.', as tenants and client ids are made of. */
bool tk_azure_is_label(const char *text);

struct tk_azure_cloud {
        const char *suffix;    /* of hosts, with its leading dot */
        const char *audience;  /* what tokens are for */
        const char *authority; /* where tokens come from: a host */
        bool managed_hsm;
};

/* The cloud whose suffix @host has; NULL if it is none of Microsoft's. */
const struct tk_azure_cloud *tk_azure_cloud_of(const char *host);

/* An https origin, such as https://vault.azure.net, with or without a slash behind it. */
bool tk_azure_is_origin(const char *text);

/*
 * Whether tokens for @audience, an origin, may go to @host: @host ends in "." and the
 * audience's host. Ports do not count.
 */
bool tk_azure_audience_fits(const char *audience, const char *host);
