/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Administration of the root key through its provider: what `turnkeyfs key` does.
 * The filesystem itself needs none of it.
 *
 * Calls may block for a bounded time. They describe each failure in the fault:
 * what, which key, why, who must do what. -ENOTSUP if the provider has no such
 * operation.
 */

#include "kms/kms.h"

/* One version of the root key. Times are Unix seconds, 0: none. */
struct tk_kms_key_version {
        char version[TK_KMS_VERSION_MAX];
        char type[TK_KMS_ALGORITHM_MAX]; /* "RSA-HSM 3072", "AES 256" */
        bool enabled;
        bool current; /* what tk_kms_current answers */
        int64_t created;
        int64_t not_before;
        int64_t expires;
};

/* What a new key is to be; zeros and empty texts: the provider's default. */
struct tk_kms_key_spec {
        char type[TK_KMS_ALGORITHM_MAX]; /* "RSA", "RSA-HSM", "oct-HSM" */
        unsigned bits;
        int64_t not_before;
        int64_t expires;
};

/* When the service makes new versions by itself, in days; 0: not. */
struct tk_kms_rotation_policy {
        unsigned rotate_after_days;  /* after creation */
        unsigned rotate_before_days; /* before expiry */
        unsigned expiry_days;        /* life of a version made by rotation */
        unsigned notify_before_days; /* before expiry */
};

struct tk_kms_admin {
        int (*create)(void *impl, const struct tk_kms_key_spec *spec, struct tk_fault *fault);
        /* A PEM private key (RSA), or with @is_blob a .byok transfer blob, passed on as it is. */
        int (*import)(void *impl, const struct tk_secret *key, bool is_blob,
                      struct tk_fault *fault);
        /* All versions, oldest first; the caller frees the array. */
        int (*list)(void *impl, struct tk_kms_key_version **ret_versions, size_t *ret_count,
                    struct tk_fault *fault);
        int (*rotate)(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault);
        int (*rotate_due)(void *impl, int64_t every_s, char ret_version[TK_KMS_VERSION_MAX],
                          struct tk_fault *fault);
        int (*set_enabled)(void *impl, const char *version, bool enabled, struct tk_fault *fault);
        int (*delete_key)(void *impl, struct tk_fault *fault); /* with all versions */
        int (*recover)(void *impl, struct tk_fault *fault);
        int (*get_policy)(void *impl, struct tk_kms_rotation_policy *ret_policy,
                          struct tk_fault *fault);
        int (*set_policy)(void *impl, const struct tk_kms_rotation_policy *policy,
                          struct tk_fault *fault);
};

/* One call each, as above. A member that is NULL is -ENOTSUP with a fault. */
TK_MUST_USE int tk_kms_admin_create(struct tk_kms *kms, const struct tk_kms_key_spec *spec,
                                    struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_import(struct tk_kms *kms, const struct tk_secret *key, bool is_blob,
                                    struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_list(struct tk_kms *kms, struct tk_kms_key_version **ret_versions,
                                  size_t *ret_count, struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_rotate(struct tk_kms *kms, char ret_version[TK_KMS_VERSION_MAX],
                                    struct tk_fault *fault);

/*
 * A new version if the newest one is older than @every_s seconds: 1 and its name, or 0. Not
 * if the newest is disabled; and several programs that ask at once make one.
 */
TK_MUST_USE int tk_kms_admin_rotate_due(struct tk_kms *kms, int64_t every_s,
                                        char ret_version[TK_KMS_VERSION_MAX],
                                        struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_set_enabled(struct tk_kms *kms, const char *version, bool enabled,
                                         struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_delete(struct tk_kms *kms, struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_recover(struct tk_kms *kms, struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_get_policy(struct tk_kms *kms,
                                        struct tk_kms_rotation_policy *ret_policy,
                                        struct tk_fault *fault);
TK_MUST_USE int tk_kms_admin_set_policy(struct tk_kms *kms,
                                        const struct tk_kms_rotation_policy *policy,
                                        struct tk_fault *fault);
