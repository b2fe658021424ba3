/* SPDX-License-Identifier: Apache-2.0 */

/* Dispatch to the provider. */

#include "kms/kms.h"

#include "base/registers.h"
#include "kms/kms_admin.h"
#include "kms/kms_stats.h"

#include <errno.h>
#include <time.h>

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

static int64_t now_us(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What follows a call of @operation that began at @began_us. */
static int ended(enum tk_kms_operation operation, int64_t began_us, int r)
{
        tk_registers_wipe();
        tk_kms_stats_count(operation, r, now_us() - began_us);
        return r;
}

int tk_kms_current(struct tk_kms *kms, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        int64_t began_us = now_us();

        return ended(TK_KMS_OP_CURRENT, began_us,
                     kms->provider->current(kms->impl, ret_version, fault));
}

int tk_kms_wrap(struct tk_kms *kms, const char *version, const struct tk_secret *key,
                struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        int64_t began_us = now_us();

        return ended(TK_KMS_OP_WRAP, began_us,
                     kms->provider->wrap(kms->impl, version, key, ret_wrap, fault));
}

int tk_kms_unwrap(struct tk_kms *kms, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                  struct tk_fault *fault)
{
        int64_t began_us = now_us();

        return ended(TK_KMS_OP_UNWRAP, began_us,
                     kms->provider->unwrap(kms->impl, wrap, ret_key, fault));
}

int tk_kms_probe(struct tk_kms *kms, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        int64_t began_us = now_us();

        return ended(TK_KMS_OP_PROBE, began_us, kms->provider->probe(kms->impl, wrap, fault));
}

/* Administration ------------------------------------------------------------ */

static const struct tk_kms_admin *admin_of(const struct tk_kms *kms)
{
        static const struct tk_kms_admin none;

        return kms->provider->admin ? kms->provider->admin : &none;
}

static int no_such(const struct tk_kms *kms, const char *operation, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "the %s provider can't %s; use its own tools", kms->provider->name,
                            operation);
}

int tk_kms_admin_create(struct tk_kms *kms, const struct tk_kms_key_spec *spec,
                        struct tk_fault *fault)
{
        if (!admin_of(kms)->create)
                return no_such(kms, "create a key", fault);
        return admin_of(kms)->create(kms->impl, spec, fault);
}

int tk_kms_admin_import(struct tk_kms *kms, const struct tk_secret *key, bool is_blob,
                        struct tk_fault *fault)
{
        if (!admin_of(kms)->import)
                return no_such(kms, "import a key", fault);
        return admin_of(kms)->import(kms->impl, key, is_blob, fault);
}

int tk_kms_admin_list(struct tk_kms *kms, struct tk_kms_key_version **ret_versions,
                      size_t *ret_count, struct tk_fault *fault)
{
        if (!admin_of(kms)->list)
                return no_such(kms, "list versions", fault);
        return admin_of(kms)->list(kms->impl, ret_versions, ret_count, fault);
}

int tk_kms_admin_rotate(struct tk_kms *kms, char ret_version[TK_KMS_VERSION_MAX],
                        struct tk_fault *fault)
{
        if (!admin_of(kms)->rotate)
                return no_such(kms, "make a new version", fault);
        return admin_of(kms)->rotate(kms->impl, ret_version, fault);
}

int tk_kms_admin_rotate_due(struct tk_kms *kms, int64_t every_s,
                            char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        if (!admin_of(kms)->rotate_due)
                return no_such(kms, "make new versions by itself", fault);
        return admin_of(kms)->rotate_due(kms->impl, every_s, ret_version, fault);
}

int tk_kms_admin_set_enabled(struct tk_kms *kms, const char *version, bool enabled,
                             struct tk_fault *fault)
{
        if (!admin_of(kms)->set_enabled)
                return no_such(kms, "enable or disable a version", fault);
        return admin_of(kms)->set_enabled(kms->impl, version, enabled, fault);
}

int tk_kms_admin_delete(struct tk_kms *kms, struct tk_fault *fault)
{
        if (!admin_of(kms)->delete_key)
                return no_such(kms, "delete the key", fault);
        return admin_of(kms)->delete_key(kms->impl, fault);
}

int tk_kms_admin_recover(struct tk_kms *kms, struct tk_fault *fault)
{
        if (!admin_of(kms)->recover)
                return no_such(kms, "recover the key", fault);
        return admin_of(kms)->recover(kms->impl, fault);
}

int tk_kms_admin_get_policy(struct tk_kms *kms, struct tk_kms_rotation_policy *ret_policy,
                            struct tk_fault *fault)
{
        if (!admin_of(kms)->get_policy)
                return no_such(kms, "show a rotation policy", fault);
        return admin_of(kms)->get_policy(kms->impl, ret_policy, fault);
}

int tk_kms_admin_set_policy(struct tk_kms *kms, const struct tk_kms_rotation_policy *policy,
                            struct tk_fault *fault)
{
        if (!admin_of(kms)->set_policy)
                return no_such(kms, "set a rotation policy", fault);
        return admin_of(kms)->set_policy(kms->impl, policy, fault);
}
