/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Messages of Key Vault and Managed HSM: requests built, answers parsed. No I/O.
 *
 * Parsers take whatever came over the wire: they return -EBADMSG for everything that
 * is not exactly as expected, and leave their results alone then.
 */

#include "crypto/rsa.h"
#include "kms/azure_id.h"
#include "kms/text.h"

#define TK_AZURE_RSA_OAEP_256 "RSA-OAEP-256"
#define TK_AZURE_A256KW "A256KW"

enum { TK_AZURE_NEXT_MAX = 3072 };

enum tk_azure_key_op {
        TK_AZURE_OP_ENCRYPT = 1 << 0,
        TK_AZURE_OP_DECRYPT = 1 << 1,
        TK_AZURE_OP_SIGN = 1 << 2,
        TK_AZURE_OP_VERIFY = 1 << 3,
        TK_AZURE_OP_WRAP = 1 << 4,
        TK_AZURE_OP_UNWRAP = 1 << 5,
        TK_AZURE_OP_IMPORT = 1 << 6,
        TK_AZURE_OP_EXPORT = 1 << 7,
};

/* Dates are seconds since 1970; -1: none. */
struct tk_azure_attributes {
        bool enabled;
        int64_t not_before;
        int64_t expires;
        int64_t created;
        int64_t updated;
        int64_t recoverable_days;
        char recovery_level[64];
        char hsm_platform[16];
};

/* A key version as the service describes it. */
struct tk_azure_key {
        struct tk_azure_id id; /* with its version */
        char type[16];         /* RSA, RSA-HSM, oct-HSM ... */
        unsigned ops;          /* of enum tk_azure_key_op */
        struct tk_azure_attributes attributes;
        uint8_t n[TK_RSA_BYTES_MAX];
        size_t n_len; /* 0: the key has no RSA public half */
        uint8_t e[8];
        size_t e_len;
};

/* An answer to create, import, get, update, rotate or recover. */
TK_MUST_USE int tk_azure_msg_parse_key(const char *text, size_t len, struct tk_azure_key *ret_key);

/* The algorithm that wraps by keys of @type; NULL if they can't. */
const char *tk_azure_msg_algorithm(const char *type);

/* Whether the vault can't lose a deleted key before its retention ends. */
bool tk_azure_msg_purge_protected(const struct tk_azure_attributes *attributes);

/* The body of wrapkey and unwrapkey. */
TK_MUST_USE int tk_azure_msg_build_crypto(const char *algorithm, const void *value, size_t len,
                                          struct tk_secret **ret_body);

/* An answer to wrapkey or unwrapkey: who did it, and the bytes, which are not empty. */
TK_MUST_USE int tk_azure_msg_parse_crypto(const char *text, size_t len, struct tk_azure_id *ret_id,
                                          struct tk_secret **ret_value);

/* What the service says of a failure. Texts are printable; a missing one is empty. */
struct tk_azure_error {
        char code[64];
        char inner[64]; /* the outermost innererror that this release knows, or the outermost */
        char message[384];
};

/* Never fails: what is no error of the service leaves everything empty. */
void tk_azure_msg_parse_error(const char *text, size_t len, struct tk_azure_error *ret_error);

/* What an answer of the vault means. */
enum tk_azure_verdict {
        TK_AZURE_GOOD,
        TK_AZURE_KEY_DISABLED,    /* this version is disabled */
        TK_AZURE_KEY_GONE,        /* deleted, purged, or never there */
        TK_AZURE_KEY_FORBIDS,     /* its key_ops leave the operation out */
        TK_AZURE_KEY_EXPIRED,     /* or not yet valid */
        TK_AZURE_DENIED_ROLE,     /* the identity lacks a role */
        TK_AZURE_DENIED_POLICY,   /* or is not in the access policy */
        TK_AZURE_DENIED,          /* refused for a reason that this release does not know */
        TK_AZURE_FIREWALL,        /* this address may not come in */
        TK_AZURE_PRIVATE_ONLY,    /* only private links may come in */
        TK_AZURE_PURGE_PROTECTED, /* purging is not allowed */
        TK_AZURE_NOT_ACCEPTED,    /* 401: the token */
        TK_AZURE_BAD_REQUEST,     /* 400: this ciphertext, or this request */
        TK_AZURE_CONFLICT,        /* 409 */
        TK_AZURE_BUSY,            /* 408, 429, 5xx */
        TK_AZURE_STRANGE,         /* anything else */
};

enum tk_azure_verdict tk_azure_msg_judge(int status, const struct tk_azure_error *error);
