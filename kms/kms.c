/* SPDX-License-Identifier: Apache-2.0 */

/* Dispatch to the provider. */

#include "kms/kms.h"

#include <errno.h>

struct tk_kms {
        const struct tk_kms_provider *provider;
        void *impl;
};

int tk_kms_new(const struct tk_kms_provider *provider, void *impl, struct tk_kms **ret_kms)
{
        struct tk_kms *kms;

        kms = calloc(1, sizeof(*kms));
        if (!kms) {
                provider->free(impl);
                return -ENOMEM;
        }
        kms->provider = provider;
        kms->impl = impl;
        *ret_kms = kms;
        return 0;
}

struct tk_kms *tk_kms_free(struct tk_kms *kms)
{
        if (!kms)
                return NULL;
        kms->provider->free(kms->impl);
        free(kms);
        return NULL;
}

const char *tk_kms_provider_name(const struct tk_kms *kms)
{
        return kms->provider->name;
}

int tk_kms_current(struct tk_kms *kms, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        return kms->provider->current(kms->impl, ret_version, fault);
}

int tk_kms_wrap(struct tk_kms *kms, const char *version, const struct tk_secret *key,
                struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        return kms->provider->wrap(kms->impl, version, key, ret_wrap, fault);
}

int tk_kms_unwrap(struct tk_kms *kms, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                  struct tk_fault *fault)
{
        return kms->provider->unwrap(kms->impl, wrap, ret_key, fault);
}

int tk_kms_probe(struct tk_kms *kms, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        return kms->provider->probe(kms->impl, wrap, fault);
}
