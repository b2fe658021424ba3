/* SPDX-License-Identifier: Apache-2.0 */

/* The `pkcs11` backend: the options that kms/pkcs11 takes, and the token's PIN. */

#include "cli/doctor.h"
#include "cli/provider.h"
#include "cli/secret_source.h"
#include "kms/pkcs11_doctor.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int locate(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                  char **ret_place, struct tk_fault *fault)
{
        struct tk_fault said = {0};
        int r;

        (void)volume;
        r = tk_kms_pkcs11_check_uri(conf->pkcs11.uri, &said);
        if (r < 0 && said.kind)
                return tk_fault_set(fault, said.kind, r, "%s: [pkcs11] uri: %s", conf->path,
                                    said.text);
        if (r < 0)
                return r;
        *ret_place = strdup(conf->pkcs11.uri);
        return *ret_place ? 0 : -ENOMEM;
}

static int is_interactive(const struct tk_conf *conf, const char *uri, struct tk_fault *fault)
{
        (void)uri;
        (void)fault;
        return tk_secret_source_is_interactive(&conf->pkcs11.pin);
}

static int read_pin(const struct tk_conf_secret *source, const char *uri,
                    struct tk_secret **ret_pin, struct tk_fault *fault)
{
        return tk_secret_source_read(
                source,
                &(struct tk_secret_ask){.what = "PIN", .option = "[pkcs11] pin", .label = uri},
                ret_pin, fault);
}

/* A source that can be read again: whoever changes the PIN changes it there, too. */

static int reread(void *context, struct tk_secret **ret_pin)
{
        return read_pin(context, "the token", ret_pin, NULL);
}

static void source_free(void *context)
{
        struct tk_conf_secret *source = context;

        free(source->arg);
        free(source);
}

static int add_reread(const struct tk_conf *conf, struct tk_kms_pkcs11_options *options)
{
        const struct tk_conf_secret *pin = &conf->pkcs11.pin;
        struct tk_conf_secret *copy;

        if (pin->source != TK_CONF_SOURCE_FILE && pin->source != TK_CONF_SOURCE_CREDENTIAL)
                return 0;
        copy = calloc(1, sizeof(*copy));
        if (!copy)
                return -ENOMEM;
        copy->source = pin->source;
        copy->arg = strdup(pin->arg);
        if (!copy->arg) {
                free(copy);
                return -ENOMEM;
        }
        options->reread = reread;
        options->reread_free = source_free;
        options->reread_context = copy;
        return 0;
}

/* The options, whose PIN is the caller's to free. */
static int prepare(const struct tk_conf *conf, const char *uri,
                   struct tk_kms_pkcs11_options *options, struct tk_secret **ret_pin,
                   struct tk_fault *fault)
{
        int r;

        *options = (struct tk_kms_pkcs11_options){
                .module = conf->pkcs11.module,
                .uri = uri,
                .attended = conf->pkcs11.pin.source == TK_CONF_SOURCE_PROMPT,
                .deadline_ms = tk_provider_deadline_ms(conf),
                .expiry_revokes = conf->kms.expiry_revokes,
        };
        r = read_pin(&conf->pkcs11.pin, uri, ret_pin, fault);
        if (r < 0)
                return r;
        options->pin = *ret_pin;
        return add_reread(conf, options);
}

static int open_token(const struct tk_conf *conf, const char *uri, struct tk_kms **ret_kms,
                      struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pin = NULL;
        struct tk_kms_pkcs11_options options;
        int r = prepare(conf, uri, &options, &pin, fault);

        return r < 0 ? r : tk_kms_pkcs11_open(&options, ret_kms, fault);
}

static void examine(const struct tk_conf *conf, const char *uri, struct tk_doctor *doctor)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pin = NULL;
        struct tk_kms_pkcs11_options options;
        struct tk_fault fault = {0};
        int r = prepare(conf, uri, &options, &pin, &fault);

        if (r < 0)
                tk_doctor_fail_with(doctor, "secrets", r, &fault);
        else
                tk_kms_pkcs11_examine(&options, tk_provider_report, doctor);
}

static size_t secrets(const struct tk_conf *conf,
                      struct tk_provider_secret ret_secrets[TK_PROVIDER_SECRETS_MAX])
{
        ret_secrets[0] = (struct tk_provider_secret){"[pkcs11] pin", conf->pkcs11.pin};
        return 1;
}

const struct tk_provider_backend tk_provider_pkcs11 = {
        .name = "pkcs11",
        .place_name = "key",
        .locate = locate,
        .is_interactive = is_interactive,
        .open = open_token,
        .make = tk_provider_held_make,
        .create = tk_provider_held_create,
        .recover = tk_provider_held_recover,
        .examine = examine,
        .secrets = secrets,
};
