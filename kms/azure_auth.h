/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Messages of Entra ID and of the managed identity services. No I/O.
 *
 * Parsers take whatever came over the wire, as in azure_msg.h.
 */

#include "crypto/rsa.h"
#include "kms/azure_id.h"
#include "kms/text.h"

/* The challenge of a 401. Parts that are absent are empty. */
struct tk_azure_challenge {
        char tenant[TK_AZURE_TENANT_MAX];
        char resource[TK_AZURE_HOST_MAX + 16]; /* an origin: https://vault.azure.net */
        bool wants_claims;                     /* the token lacks what the claims ask for */
        char claims[4096];                     /* JSON */
};

/* From the value of WWW-Authenticate. -EBADMSG if it is no Bearer challenge. */
TK_MUST_USE int tk_azure_auth_parse_challenge(const char *header,
                                              struct tk_azure_challenge *ret_challenge);

/*
 * The file named by the Basic challenge of Azure Arc. -EBADMSG unless it is a file of the
 * agent's own: directly in its token directory, with the suffix .key.
 */
TK_MUST_USE int tk_azure_auth_parse_arc_challenge(const char *header, char *ret_path, size_t max);

/* An answer with a token: @ret_token is its text, @ret_lifetime_s the seconds it still has. */
TK_MUST_USE int tk_azure_auth_parse_token(const char *text, size_t len, int64_t unix_now,
                                          struct tk_secret **ret_token, int64_t *ret_lifetime_s);

/* What `az account get-access-token` prints. */
TK_MUST_USE int tk_azure_auth_parse_cli(const char *text, size_t len, int64_t unix_now,
                                        struct tk_secret **ret_token, int64_t *ret_lifetime_s);

/* What a token service says of a failure. Printable; never fails. */
struct tk_azure_auth_error {
        char error[64];
        int64_t number; /* of AADSTSnnnnn; 0: none */
        char description[384];
        char trace_id[64];
};
void tk_azure_auth_parse_error(const char *text, size_t len, struct tk_azure_auth_error *ret_error);

/* The body of a request to the token endpoint of Entra ID; exactly one of the two last is given. */
struct tk_azure_token_form {
        const char *client_id;
        const char *audience;
        const char *claims;                /* JSON; NULL: none */
        const struct tk_secret *secret;    /* the client's secret */
        const struct tk_secret *assertion; /* a text: a signed or a federated token */
};
TK_MUST_USE int tk_azure_auth_build_form(const struct tk_azure_token_form *form,
                                         struct tk_secret **ret_body);

/* The assertion by which a client proves that it holds its certificate's key. */
struct tk_azure_assertion {
        const char *endpoint; /* the URL that it is sent to */
        const char *client_id;
        const uint8_t *id; /* 16 random bytes */
        int64_t now;       /* seconds since 1970 */
        const struct tk_rsa *key;
        const struct tk_rsa_certificate *certificate;
        enum tk_rsa_scheme scheme;
};
TK_MUST_USE int tk_azure_auth_build_assertion(const struct tk_azure_assertion *assertion,
                                              struct tk_secret **ret_jwt);
