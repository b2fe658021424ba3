/* SPDX-License-Identifier: Apache-2.0 */

/* The configuration turned into an open key provider: dispatch to the backend. */

#include "cli/provider.h"

#include "base/log.h"
#include "cli/doctor.h"
#include "cli/secret_source.h"
#include "kms/finding.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

const struct tk_provider_backend *tk_provider_backend(const struct tk_conf *conf)
{
        static const struct tk_provider_backend *const backends[] = {
                &tk_provider_local, &tk_provider_azure, &tk_provider_pkcs11};

        for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
                if (strcmp(conf->kms.provider, backends[i]->name) == 0)
                        return backends[i];
        assert(false); /* a provider that the configuration accepts, and nobody implements */
        return NULL;
}

unsigned tk_provider_deadline_ms(const struct tk_conf *conf)
{
        unsigned share_ms = conf->kms.revocation_window * 250;

        return share_ms < 2000 ? 2000 : share_ms > 20000 ? 20000 : share_ms;
}

void tk_provider_report(void *doctor, const struct tk_kms_finding *finding)
{
        if (finding->level == TK_KMS_FINDING_OK)
                tk_doctor_ok(doctor, finding->step, "%s", finding->text);
        else if (finding->level == TK_KMS_FINDING_WARN)
                tk_doctor_warn(doctor, finding->step, NULL, "%s", finding->text);
        else
                tk_doctor_fail(doctor, finding->kind, finding->step, NULL, "%s", finding->text);
}

void tk_provider_done(struct tk_provider *provider)
{
        tk_kms_free(provider->kms);
        free(provider->place);
        *provider = (struct tk_provider){0};
}

int tk_provider_locate(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                       char **ret_place, struct tk_fault *fault)
{
        return tk_provider_backend(conf)->locate(conf, volume, ret_place, fault);
}

int tk_provider_is_interactive(const struct tk_conf *conf, const char *place,
                               struct tk_fault *fault)
{
        return tk_provider_backend(conf)->is_interactive(conf, place, fault);
}

/* Where secrets come from ----------------------------------------------------- */

size_t tk_provider_fds(const struct tk_conf *conf, int ret_fds[TK_PROVIDER_SECRETS_MAX])
{
        struct tk_provider_secret secrets[TK_PROVIDER_SECRETS_MAX];
        size_t count = tk_provider_backend(conf)->secrets(conf, secrets);
        size_t found = 0;

        for (size_t i = 0; i < count; i++)
                if (tk_secret_source_fd(&secrets[i].source) >= 0)
                        ret_fds[found++] = tk_secret_source_fd(&secrets[i].source);
        return found;
}

#define EXPOSED "the mode of %s, which %s names, lets others read it"
#define TODO_EXPOSED "run chmod 600 on it; if a stranger may have read it, change the secret"

void tk_provider_check_secrets(const struct tk_conf *conf, struct tk_doctor *doctor)
{
        struct tk_provider_secret secrets[TK_PROVIDER_SECRETS_MAX];
        size_t count = tk_provider_backend(conf)->secrets(conf, secrets);

        for (size_t i = 0; i < count; i++) {
                const char *path = tk_secret_source_exposed(&secrets[i].source);

                if (path && doctor)
                        tk_doctor_warn(doctor, "secrets", TODO_EXPOSED, EXPOSED, path,
                                       secrets[i].option);
                else if (path)
                        tk_log(TK_LOG_WARNING, EXPOSED "; " TODO_EXPOSED, path, secrets[i].option);
        }
}

/* Opening ----------------------------------------------------------------- */

static int start(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                 struct tk_provider *ret_provider, struct tk_fault *fault)
{
        const struct tk_provider_backend *backend = tk_provider_backend(conf);

        *ret_provider = (struct tk_provider){.name = backend->name,
                                             .place_name = backend->place_name,
                                             .makes_versions = backend->makes_versions};
        if (backend->makes_versions)
                ret_provider->rotate_every_s = conf->local.rotate_every;
        return backend->locate(conf, volume, &ret_provider->place, fault);
}

/* @r, and nothing left to free if it is a failure. */
static int finish(struct tk_provider *provider, int r)
{
        if (r < 0)
                tk_provider_done(provider);
        return r;
}

int tk_provider_open(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                     struct tk_provider *ret_provider, struct tk_fault *fault)
{
        const struct tk_provider_backend *backend = tk_provider_backend(conf);
        int r;

        r = start(conf, volume, ret_provider, fault);
        if (r == 0)
                r = backend->open(conf, ret_provider->place, &ret_provider->kms, fault);
        return finish(ret_provider, r);
}

int tk_provider_make(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                     struct tk_provider *ret_provider, struct tk_fault *fault)
{
        const struct tk_provider_backend *backend = tk_provider_backend(conf);
        int r;

        r = start(conf, volume, ret_provider, fault);
        if (r == 0)
                r = backend->make(conf, ret_provider->place, &ret_provider->made,
                                  &ret_provider->kms, fault);
        return finish(ret_provider, r);
}

/* Keys that their owner holds ------------------------------------------------- */

int tk_provider_held_make(const struct tk_conf *conf, const char *place, bool *ret_made,
                          struct tk_kms **ret_kms, struct tk_fault *fault)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        char version[TK_KMS_VERSION_MAX];
        int r;

        *ret_made = false;
        r = tk_provider_backend(conf)->open(conf, place, &kms, fault);
        if (r == 0)
                r = tk_kms_current(kms, version, fault);
        if (r == -EKEYREVOKED)
                tk_fault_add(fault, "; if the key was never made: turnkeyfs key create -c %s",
                             conf->path);
        if (r < 0)
                return r;
        *ret_kms = TK_TAKE(kms);
        return 0;
}

int tk_provider_held_create(const struct tk_conf *conf, const char *place,
                            const struct tk_kms_key_spec *spec, struct tk_fault *fault)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        int r = tk_provider_backend(conf)->open(conf, place, &kms, fault);

        return r < 0 ? r : tk_kms_admin_create(kms, spec, fault);
}

int tk_provider_held_recover(const struct tk_conf *conf, const char *place, struct tk_fault *fault)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        int r = tk_provider_backend(conf)->open(conf, place, &kms, fault);

        return r < 0 ? r : tk_kms_admin_recover(kms, fault);
}
