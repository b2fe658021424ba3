/* SPDX-License-Identifier: Apache-2.0 */

/* The `azure` backend: the options that kms/azure takes, and its secrets. */

#include "cli/doctor.h"
#include "cli/provider.h"
#include "cli/secret_source.h"
#include "kms/azure_doctor.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const enum tk_azure_auth_kind auth_kinds[] = {
        [TK_CONF_AUTH_DEFAULT] = TK_AZURE_AUTH_DEFAULT,
        [TK_CONF_AUTH_MANAGED_IDENTITY] = TK_AZURE_AUTH_MANAGED_IDENTITY,
        [TK_CONF_AUTH_WORKLOAD_IDENTITY] = TK_AZURE_AUTH_WORKLOAD_IDENTITY,
        [TK_CONF_AUTH_CLIENT_CERTIFICATE] = TK_AZURE_AUTH_CLIENT_CERTIFICATE,
        [TK_CONF_AUTH_CLIENT_SECRET] = TK_AZURE_AUTH_CLIENT_SECRET,
        [TK_CONF_AUTH_AZURE_CLI] = TK_AZURE_AUTH_AZURE_CLI,
};

static int locate(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                  char **ret_place, struct tk_fault *fault)
{
        (void)volume;
        if (!tk_kms_azure_is_key(conf->azure.key))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s: [azure] key = %s is no key identifier, such as "
                                    "https://VAULT.vault.azure.net/keys/NAME",
                                    conf->path, conf->azure.key);
        *ret_place = strdup(conf->azure.key);
        return *ret_place ? 0 : -ENOMEM;
}

static int is_interactive(const struct tk_conf *conf, const char *key, struct tk_fault *fault)
{
        (void)key;
        (void)fault;
        return tk_secret_source_is_interactive(&conf->azure.client_secret) ||
               tk_secret_source_is_interactive(&conf->azure.certificate_password);
}

static int read_secrets(const struct tk_conf *conf, struct tk_secret **ret_secret,
                        struct tk_secret **ret_password, struct tk_fault *fault)
{
        const struct tk_secret_ask secret = {.what = "client secret",
                                             .option = "[azure] client_secret",
                                             .label = conf->azure.key};
        const struct tk_secret_ask password = {
                .what = "certificate password",
                .option = "[azure] certificate_password",
                .label = conf->azure.certificate ? conf->azure.certificate : "the certificate"};
        int r;

        r = tk_secret_source_read(&conf->azure.client_secret, &secret, ret_secret, fault);
        if (r < 0)
                return r;
        return tk_secret_source_read(&conf->azure.certificate_password, &password, ret_password,
                                     fault);
}

/* The options of @conf, and its secrets, which stay the caller's to free. */
struct prepared {
        struct tk_kms_azure_options options;
        struct tk_secret *secret;
        struct tk_secret *password;
};

static void prepared_done(struct prepared *prepared)
{
        tk_secret_free(prepared->secret);
        tk_secret_free(prepared->password);
}

static int prepare(const struct tk_conf *conf, const char *key, struct prepared *prepared,
                   struct tk_fault *fault)
{
        int r;

        prepared->options = (struct tk_kms_azure_options){
                .key = key,
                .auth = auth_kinds[conf->azure.auth],
                .client_id = conf->azure.client_id,
                .tenant_id = conf->azure.tenant_id,
                .certificate = conf->azure.certificate,
                .token_file = conf->azure.token_file,
                .authority = conf->azure.authority,
                .audience = conf->azure.audience,
                .ca_file = conf->azure.ca_file,
                .connect_timeout_ms = conf->azure.connect_timeout * 1000,
                .request_timeout_ms = conf->azure.request_timeout * 1000,
                .deadline_ms = tk_provider_deadline_ms(conf),
                .wrap = conf->azure.wrap_by_service ? TK_AZURE_WRAP_SERVICE : TK_AZURE_WRAP_LOCAL,
                .allow_purge = !conf->azure.require_purge_protection,
                .firewall_is_outage = conf->azure.firewall_is_outage,
                .expiry_revokes = conf->kms.expiry_revokes,
        };
        r = read_secrets(conf, &prepared->secret, &prepared->password, fault);
        if (r < 0)
                return r;
        prepared->options.secret = prepared->secret;
        prepared->options.certificate_password = prepared->password;
        return 0;
}

static int open_key(const struct tk_conf *conf, const char *key, struct tk_kms **ret_kms,
                    struct tk_fault *fault)
{
        TK_CLEANUP(prepared_done) struct prepared prepared = {0};
        int r = prepare(conf, key, &prepared, fault);

        return r < 0 ? r : tk_kms_azure_open(&prepared.options, ret_kms, fault);
}

/* doctor ----------------------------------------------------------------- */

static void examine(const struct tk_conf *conf, const char *key, struct tk_doctor *doctor)
{
        TK_CLEANUP(prepared_done) struct prepared prepared = {0};
        struct tk_fault fault = {0};
        int r = prepare(conf, key, &prepared, &fault);

        if (r < 0)
                tk_doctor_fail_with(doctor, "secrets", r, &fault);
        else
                tk_kms_azure_examine(&prepared.options, tk_provider_report, doctor);
}

static size_t secrets(const struct tk_conf *conf,
                      struct tk_provider_secret ret_secrets[TK_PROVIDER_SECRETS_MAX])
{
        size_t count = 0;

        ret_secrets[count++] =
                (struct tk_provider_secret){"[azure] client_secret", conf->azure.client_secret};
        ret_secrets[count++] = (struct tk_provider_secret){"[azure] certificate_password",
                                                           conf->azure.certificate_password};
        /* The private key in it, unless that is encrypted. */
        if (conf->azure.certificate &&
            conf->azure.certificate_password.source == TK_CONF_SOURCE_NONE)
                ret_secrets[count++] = (struct tk_provider_secret){
                        "[azure] certificate",
                        {.source = TK_CONF_SOURCE_FILE, .arg = conf->azure.certificate}};
        return count;
}

const struct tk_provider_backend tk_provider_azure = {
        .name = "azure",
        .place_name = "key",
        .locate = locate,
        .is_interactive = is_interactive,
        .open = open_key,
        .make = tk_provider_held_make,
        .create = tk_provider_held_create,
        .recover = tk_provider_held_recover,
        .examine = examine,
        .secrets = secrets,
};
