/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The token that all threads of a mount share: one at a time, renewed early, by one thread.
 *
 * A token is renewed at half of its life. While the old one is good the others use it, and a
 * renewal that fails is tried again half a minute later. Without a good one all wait for the
 * thread that gets it, and share its failure. Tokens are counted references.
 */

#include "kms/azure_credential.h"

struct tk_azure_token; /* opaque: azure_token.c */

struct tk_azure_token *tk_azure_token_unref(struct tk_azure_token *token);
TK_DEFINE_CLEANUP(struct tk_azure_token *, tk_azure_token_unref)

/* The whole header line, a text: "Authorization: Bearer ...". Borrowed. */
const struct tk_secret *tk_azure_token_header(const struct tk_azure_token *token);

struct tk_azure_tokens; /* opaque: azure_token.c */

/* Both are borrowed. */
TK_MUST_USE int tk_azure_tokens_new(struct tk_azure_auth *auth, const struct tk_azure_net *net,
                                    struct tk_azure_tokens **ret_tokens);
struct tk_azure_tokens *tk_azure_tokens_free(struct tk_azure_tokens *tokens);
TK_DEFINE_CLEANUP(struct tk_azure_tokens *, tk_azure_tokens_free)

/* A token for @want, which names the audience, tenant and deadline; its claims are kept here. */
TK_MUST_USE int tk_azure_tokens_get(struct tk_azure_tokens *tokens,
                                    const struct tk_azure_want *want,
                                    struct tk_azure_token **ret_token, struct tk_fault *fault);

/*
 * The vault did not accept @token: it is not handed out again. @claims, JSON that the next one
 * has to fulfil, may be NULL or empty.
 */
void tk_azure_tokens_reject(struct tk_azure_tokens *tokens, const struct tk_azure_token *token,
                            const char *claims);
