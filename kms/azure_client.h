/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls to one vault or HSM: with a token, repeated as far as it helps, and judged.
 *
 * Tokens go to the configured host only. What a refusal means and who has to do what about
 * it is said here, in the fault.
 */

#include "kms/azure_credential.h"
#include "kms/azure_msg.h"
#include "kms/azure_token.h"

/* What is asked of the vault, and which permission it takes. */
struct tk_azure_operation {
        const char *permission; /* in access policies: unwrapKey */
        bool manages;           /* changes keys, rather than using them */
};

extern const struct tk_azure_operation tk_azure_get, tk_azure_wrap, tk_azure_unwrap;

struct tk_azure_client {
        struct tk_http *http; /* owned unless it is a test's */
        bool http_is_borrowed;
        struct tk_azure_net net;
        struct tk_azure_auth *auth;
        struct tk_azure_tokens *tokens;
        struct tk_azure_id key;      /* the configured one; its version is empty unless pinned */
        char url[TK_KMS_KEY_ID_MAX]; /* of the key, without a version: as wraps keep it */
        bool managed_hsm;
        bool firewall_is_outage;
        unsigned deadline_ms;
        struct tk_retry_gate gate;
        pthread_mutex_t lock;
        char audience[TK_AZURE_HOST_MAX + 16]; /* under lock; empty: not known yet */
        char tenant[TK_AZURE_TENANT_MAX];      /* under lock; empty: not known yet */
};

/* @http and the functions of @net may be a test's; NULL: the real ones. */
TK_MUST_USE int tk_azure_client_new(const struct tk_kms_azure_options *options,
                                    const struct tk_azure_net *net,
                                    struct tk_azure_client **ret_client, struct tk_fault *fault);
struct tk_azure_client *tk_azure_client_free(struct tk_azure_client *client);
TK_DEFINE_CLEANUP(struct tk_azure_client *, tk_azure_client_free)

struct tk_azure_call {
        const struct tk_azure_operation *operation;
        enum tk_http_method method;
        const char *url;              /* on the client's host: make it by tk_azure_client_url */
        const struct tk_secret *body; /* JSON text; NULL: none */
        const char *version;          /* that it is about, for messages; NULL or empty: none */
        bool once;                    /* a repeat would do it twice */
        bool conflict_passes;         /* a 409 is answered by waiting */
        int *ret_status;              /* the last answer's, also of a refusal; NULL: not wanted */
};

/* https://HOST/COLLECTION/NAME[/VERSION][/ACTION]?api-version=...; empty parts are left out. */
void tk_azure_client_url(const struct tk_azure_client *client, const char *collection,
                         const char *version, const char *action, char ret_url[TK_HTTP_URL_MAX]);

/*
 * Ask the vault. 0 and its good answer, to be released; or, with a fault: -EKEYREVOKED,
 * -EKEYEXPIRED, -ENOKEY, -EACCES as azure.h and kms.h have them, -EBADMSG for a 400, -EEXIST
 * for a 409, -ENOMEM, -EPERM.
 */
TK_MUST_USE int tk_azure_client_call(struct tk_azure_client *client,
                                     const struct tk_azure_call *call,
                                     struct tk_http_answer *ret_answer, struct tk_fault *fault);

/* The answer to a good call makes no sense. Returns -ENOKEY. */
int tk_azure_client_say_nonsense(const struct tk_azure_client *client,
                                 const struct tk_http_answer *answer, const char *what,
                                 struct tk_fault *fault);

/* Say what a refusal means. Returns the error. Used by tk_azure_client_call. */
int tk_azure_client_say_refused(const struct tk_azure_client *client,
                                const struct tk_azure_call *call,
                                const struct tk_http_answer *answer, struct tk_fault *fault);
