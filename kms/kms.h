/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Key management services: whoever holds the root key.
 *
 * A provider wraps and unwraps KEKs and knows nothing of files. This header is
 * all that fs/ may see of it. Calls may block for a bounded time and are
 * thread-safe.
 *
 * Shared error meanings: -ENOKEY the KMS can't be reached; -EKEYREVOKED it
 * refuses the key; -EKEYEXPIRED the key is outside its dates; -EBADMSG this
 * wrap is damaged; -ENOENT the wrap names a key or version that is not there.
 */

#include "base/fault.h"
#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>

enum {
        TK_KMS_KEY_ID_MAX = 192,
        TK_KMS_VERSION_MAX = 64,
        TK_KMS_ALGORITHM_MAX = 32,
        TK_KMS_BLOB_MAX = 1024, /* RSA-4096 makes 512 bytes */
};

/* A KEK wrapped by one version of a root key, as the volume file keeps it. A value. */
struct tk_kms_wrap {
        char key_id[TK_KMS_KEY_ID_MAX];       /* which root key, in the provider's words */
        char version[TK_KMS_VERSION_MAX];     /* which version of it */
        char algorithm[TK_KMS_ALGORITHM_MAX]; /* how it was wrapped */
        uint8_t blob[TK_KMS_BLOB_MAX];
        size_t blob_len;
};

struct tk_kms; /* opaque: an open provider */
struct tk_kms_admin;

/* What a provider implements; @impl is its own state. */
struct tk_kms_provider {
        const char *name; /* "local", "azure", "pkcs11": as in [kms] provider */
        int (*current)(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault);
        int (*wrap)(void *impl, const char *version, const struct tk_secret *key,
                    struct tk_kms_wrap *ret_wrap, struct tk_fault *fault);
        int (*unwrap)(void *impl, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                      struct tk_fault *fault);
        int (*probe)(void *impl, const struct tk_kms_wrap *wrap, struct tk_fault *fault);
        void (*free)(void *impl);
        const struct tk_kms_admin *admin; /* kms_admin.h; NULL: none */
};

/* Takes over @impl, also on failure. */
TK_MUST_USE int tk_kms_new(const struct tk_kms_provider *provider, void *impl,
                           struct tk_kms **ret_kms);
struct tk_kms *tk_kms_free(struct tk_kms *kms);
TK_DEFINE_CLEANUP(struct tk_kms *, tk_kms_free)

const char *tk_kms_provider_name(const struct tk_kms *kms);

/* The root key version that new KEK versions are to be wrapped by. */
TK_MUST_USE int tk_kms_current(struct tk_kms *kms, char ret_version[TK_KMS_VERSION_MAX],
                               struct tk_fault *fault);

/* Wrap @key by the root key's @version. */
TK_MUST_USE int tk_kms_wrap(struct tk_kms *kms, const char *version, const struct tk_secret *key,
                            struct tk_kms_wrap *ret_wrap, struct tk_fault *fault);

/* The key inside @wrap, which must name the configured root key: any other is refused. */
TK_MUST_USE int tk_kms_unwrap(struct tk_kms *kms, const struct tk_kms_wrap *wrap,
                              struct tk_secret **ret_key, struct tk_fault *fault);

/* Whether @wrap could be unwrapped now; the key is not handed out. */
TK_MUST_USE int tk_kms_probe(struct tk_kms *kms, const struct tk_kms_wrap *wrap,
                             struct tk_fault *fault);
