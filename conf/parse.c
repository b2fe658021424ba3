/* SPDX-License-Identifier: Apache-2.0 */

/* Configuration text into the struct: every complaint carries file and line. */

#include "base/fdio.h"
#include "base/ini.h"
#include "conf/schema.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { CONF_TEXT_MAX = 64 * 1024, KNOWN_MAX = 512 };

struct parser {
        struct tk_conf *conf;
        const char *path;
        struct tk_fault *fault;
        int given[TK_CONF_OPTIONS_MAX]; /* by option: the line that gave it, 0 for none */
};

int tk_conf_new(struct tk_conf **ret_conf)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;

        conf = calloc(1, sizeof(*conf));
        if (!conf)
                return -ENOMEM;
        conf->kms.provider = strdup("local");
        if (!conf->kms.provider)
                return -ENOMEM;
        conf->kms.revocation_window = 60;
        conf->kms.rotation_window = 3600;
        conf->kms.rewrap_rate = 5000;
        conf->metrics.interval = 30;
        conf->kms.outage_grace = 86400;
        conf->azure.require_purge_protection = true;
        conf->mount.allow_other = geteuid() == 0;
        conf->mount.hardening = true;
        conf->mount.keep_cpus_awake = TK_CONF_AUTO;
        conf->log.level = TK_CONF_LOG_INFO;
        *ret_conf = TK_TAKE(conf);
        return 0;
}

struct tk_conf *tk_conf_free(struct tk_conf *conf)
{
        if (!conf)
                return NULL;
        free(conf->path);
        free(conf->volume.fingerprint);
        free(conf->kms.provider);
        free(conf->kms.previous);
        free(conf->local.keystore);
        free(conf->local.passphrase.arg);
        free(conf->azure.key);
        free(conf->azure.client_id);
        free(conf->azure.tenant_id);
        free(conf->azure.certificate);
        free(conf->azure.certificate_password.arg);
        free(conf->azure.client_secret.arg);
        free(conf->azure.token_file);
        free(conf->azure.authority);
        free(conf->azure.audience);
        free(conf->azure.ca_file);
        free(conf->pkcs11.module);
        free(conf->pkcs11.uri);
        free(conf->pkcs11.pin.arg);
        free(conf->metrics.socket);
        free(conf->metrics.socket_group);
        free(conf->metrics.textfile);
        free(conf);
        return NULL;
}

static void append_word(char known[KNOWN_MAX], const char *word)
{
        size_t len = strlen(known);

        snprintf(known + len, KNOWN_MAX - len, "%s%s", len ? ", " : "", word);
}

/* The keys of @section; or, for NULL, all sections. Empty if there is no such section. */
static void list_known(const char *section, char known[KNOWN_MAX])
{
        const struct tk_conf_option *option;
        const char *last = "";

        known[0] = '\0';
        for (size_t i = 0; (option = tk_conf_option_at(i)); i++) {
                if (section && strcmp(option->section, section) == 0)
                        append_word(known, option->name);
                if (!section && strcmp(option->section, last) != 0)
                        append_word(known, option->section);
                last = option->section;
        }
}

static int fail_unknown(const struct parser *parser, const struct tk_ini_entry *entry)
{
        char known[KNOWN_MAX];

        list_known(entry->section, known);
        if (known[0])
                return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s:%d: unknown key '%s' in [%s]; known keys are: %s",
                                    parser->path, entry->line, entry->name, entry->section, known);
        list_known(NULL, known);
        if (entry->section[0] == '\0')
                return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s:%d: '%s' stands before the first [section]; known "
                                    "sections are: %s",
                                    parser->path, entry->line, entry->name, known);
        return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                            "%s:%d: unknown section [%s]; known sections are: %s", parser->path,
                            entry->line, entry->section, known);
}

static int fail_value(const struct parser *parser, const struct tk_ini_entry *entry,
                      const struct tk_conf_option *option)
{
        return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                            "%s:%d: bad value '%s' for '%s' in [%s]; expected: %s", parser->path,
                            entry->line, option->hide ? "..." : entry->value, entry->name,
                            entry->section, option->type);
}

static int handle(void *context, const struct tk_ini_entry *entry)
{
        struct parser *parser = context;
        const struct tk_conf_option *option;
        int i = tk_conf_option_find(entry->section, entry->name);
        int r;

        if (i < 0)
                return fail_unknown(parser, entry);
        if (parser->given[i])
                return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s:%d: '%s' in [%s] is given twice, first in line %d (an "
                                    "indented line continues the value above it)",
                                    parser->path, entry->line, entry->name, entry->section,
                                    parser->given[i]);
        parser->given[i] = entry->line;

        option = tk_conf_option_at((size_t)i);
        r = option->set(entry->value, (char *)parser->conf + option->offset);
        return r == -EINVAL ? fail_value(parser, entry, option) : r;
}

/* What is given for a provider must be for the one that is chosen. */
static int check_provider(const struct parser *parser)
{
        const struct tk_conf *conf = parser->conf;
        const struct tk_conf_option *option;

        for (size_t i = 0; (option = tk_conf_option_at(i)); i++) {
                if (!parser->given[i] || !tk_conf_is_provider(option->section) ||
                    strcmp(option->section, conf->kms.provider) == 0)
                        continue;
                return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s:%d: '%s' in [%s] is for [kms] provider = %s, but the "
                                    "provider is %s; take the line out, or choose that provider",
                                    parser->path, parser->given[i], option->name, option->section,
                                    option->section, conf->kms.provider);
        }
        if (strcmp(conf->kms.provider, "azure") == 0 && !conf->azure.key)
                return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s: [kms] provider = azure needs the root key's identifier, "
                                    "[azure] key = https://VAULT/keys/NAME",
                                    parser->path);
        if (strcmp(conf->kms.provider, "pkcs11") == 0 &&
            (!conf->pkcs11.module || !conf->pkcs11.uri))
                return tk_fault_set(
                        parser->fault, TK_FAULT_CONFIG, -EINVAL,
                        "%s: [kms] provider = pkcs11 needs the module and the root key, "
                        "[pkcs11] module = /PATH and uri = "
                        "pkcs11:token=TOKEN;object=LABEL",
                        parser->path);
        return 0;
}

/* New versions are made for nothing if none is taken up, or the next one comes before that. */
static int check_rotation(const struct parser *parser)
{
        const struct tk_conf *conf = parser->conf;
        int i = tk_conf_option_find("local", "rotate_every");

        if (conf->local.rotate_every == 0 ||
            (conf->kms.rotation_window > 0 &&
             conf->local.rotate_every >= conf->kms.rotation_window))
                return 0;
        return tk_fault_set(parser->fault, TK_FAULT_CONFIG, -EINVAL,
                            "%s:%d: 'rotate_every' in [local] is shorter than [kms] "
                            "rotation_window, or that is 0: a new version has to be taken up "
                            "before the next one comes",
                            parser->path, parser->given[i]);
}

int tk_conf_parse(const char *text, const char *path, struct tk_conf **ret_conf,
                  struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        struct parser parser = {.path = path, .fault = fault};
        int line = 0;
        int r;

        r = tk_conf_new(&conf);
        if (r < 0)
                return r;
        conf->path = strdup(path);
        if (!conf->path)
                return -ENOMEM;

        parser.conf = conf;
        r = tk_ini_parse(text, handle, &parser, &line);
        if (r == -EMSGSIZE)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r,
                                    "%s:%d: the line is longer than 198 characters", path, line);
        if (r == -EINVAL)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r,
                                    "%s:%d: neither a [section] nor 'key = value' nor a comment",
                                    path, line);
        if (r == 0)
                r = check_provider(&parser);
        if (r == 0)
                r = check_rotation(&parser);
        if (r < 0)
                return r;
        *ret_conf = TK_TAKE(conf);
        return 0;
}

int tk_conf_load(const char *path, struct tk_conf **ret_conf, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len;
        int r;

        r = tk_fdio_read_file(AT_FDCWD, path, CONF_TEXT_MAX, &text, &len);
        if (r == -EFBIG)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r,
                                    "%s: a configuration is at most %d KiB long; is this the "
                                    "right file?",
                                    path, CONF_TEXT_MAX / 1024);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r,
                                    "cannot read the configuration %s: %s", path, strerror(-r));
        if (strlen(text) != len)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s: this is no text: it holds NUL bytes", path);
        return tk_conf_parse(text, path, ret_conf, fault);
}
