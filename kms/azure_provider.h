/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The provider's state, which azure.c and azure_admin.c share. */

#include "kms/azure_client.h"
#include "kms/kms_admin.h"

enum { TK_AZURE_KNOWN_MAX = 4 };

/* What is known of a version since it was last read. */
struct tk_azure_known {
        int64_t read_ms; /* 0: the place is free */
        struct tk_azure_key key;
};

struct tk_azure {
        struct tk_azure_client *client;
        enum tk_azure_wrap_place wrap;
        bool allow_purge;
        bool expiry_revokes;
        pthread_mutex_t lock;
        struct tk_azure_known known[TK_AZURE_KNOWN_MAX]; /* under lock */
};

extern const struct tk_kms_admin tk_azure_admin;

/* The member `list` of it. */
TK_MUST_USE int tk_azure_admin_list(void *impl, struct tk_kms_key_version **ret_versions,
                                    size_t *ret_count, struct tk_fault *fault);

/* Open with a net of the caller's, for tests; as tk_kms_azure_open otherwise. */
TK_MUST_USE int tk_azure_open_with(const struct tk_kms_azure_options *options,
                                   const struct tk_azure_net *net, struct tk_kms **ret_kms,
                                   struct tk_fault *fault);

/*
 * Read @version of the configured key (empty: the newest) from the vault, and check
 * that the answer is about it.
 */
TK_MUST_USE int tk_azure_read_key(struct tk_azure *azure, const char *version,
                                  struct tk_azure_key *ret_key, struct tk_fault *fault);

/* What was read of @version within the last minute; false if it was not. */
bool tk_azure_recall_key(struct tk_azure *azure, const char *version, struct tk_azure_key *ret_key);

/* What was read of @version is to be read again. */
void tk_azure_forget_key(struct tk_azure *azure, const char *version);

/*
 * -EKEYEXPIRED and a fault if @version is outside its dates, unless a newer one that is within
 * them is there for it. What can't be found out is no reason to refuse.
 */
TK_MUST_USE int tk_azure_check_dates(struct tk_azure *azure, const char *version,
                                     struct tk_fault *fault);

/*
 * Whether new keys may be wrapped by it: enabled, within its dates, safe from being lost, of a
 * type that wraps. -EKEYREVOKED, -EKEYEXPIRED, -EPERM or -ENOTSUP, with a fault.
 */
TK_MUST_USE int tk_azure_check_for_wrapping(const struct tk_azure *azure,
                                            const struct tk_azure_key *key, struct tk_fault *fault);
