/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The configuration: INI text in, one checked struct out.
 *
 * The option table is schema.c; every complaint carries file and line. An
 * unknown section or key, a bad value, a value given twice, or one for a provider
 * that is not chosen is an error.
 * Everything has a default, so that an empty configuration is a good one.
 */

#include "base/fault.h"
#include <stdbool.h>

enum tk_conf_source {
        TK_CONF_SOURCE_NONE,       /* none (default) */
        TK_CONF_SOURCE_PROMPT,     /* prompt: asked on the terminal */
        TK_CONF_SOURCE_FILE,       /* file:/PATH */
        TK_CONF_SOURCE_FD,         /* fd:N */
        TK_CONF_SOURCE_CREDENTIAL, /* credential:NAME, in $CREDENTIALS_DIRECTORY */
};

/* Where a secret is read from. The secret itself is never in a configuration. */
struct tk_conf_secret {
        enum tk_conf_source source;
        char *arg; /* the path, name or number behind the colon; NULL: none */
};

enum tk_conf_auth {
        TK_CONF_AUTH_DEFAULT,
        TK_CONF_AUTH_MANAGED_IDENTITY,
        TK_CONF_AUTH_WORKLOAD_IDENTITY,
        TK_CONF_AUTH_CLIENT_CERTIFICATE,
        TK_CONF_AUTH_CLIENT_SECRET,
        TK_CONF_AUTH_AZURE_CLI,
};

enum tk_conf_log_level {
        TK_CONF_LOG_ERROR,
        TK_CONF_LOG_WARNING,
        TK_CONF_LOG_INFO,
        TK_CONF_LOG_DEBUG
};

enum tk_conf_log_target {
        TK_CONF_LOG_AUTO, /* the journal if stderr is one of its streams; else as before */
        TK_CONF_LOG_JOURNAL,
        TK_CONF_LOG_SYSLOG,
        TK_CONF_LOG_STDERR,
};

enum tk_conf_when {
        TK_CONF_NO,
        TK_CONF_YES,
        TK_CONF_AUTO,
};

struct tk_conf {
        char *path; /* the file it came from; NULL: defaults only */

        struct {
                char *fingerprint;     /* [volume] fingerprint: 64 hex digits; NULL: not pinned */
                bool dek_wrap_kms;     /* [volume] dek_wrap = kms, for init; default kek */
                unsigned journal_size; /* [volume] journal_size: MiB; 0: the default, 16 */
                bool names_plain;      /* [volume] names = plain, for init; default encrypted */
        } volume;

        struct {
                char *provider; /* [kms] provider: "local" (default), "azure", "pkcs11" */
                char *previous; /* [kms] previous: absolute path; NULL: none */
                unsigned revocation_window; /* [kms] revocation_window: seconds; default 60 */
                unsigned rotation_window; /* [kms] rotation_window: seconds; default 3600, 0 off */
                unsigned rewrap_rate;     /* [kms] rewrap_rate: files/s; default 5000, 0 no limit */
                unsigned outage_grace;    /* [kms] outage_grace: seconds; default 86400 */
                bool expiry_revokes;      /* [kms] key_expiry = revoke; default warn */
                unsigned mount_timeout;   /* [kms] mount_timeout: seconds; default 0 */
        } kms;

        struct {
                char *keystore; /* [local] keystore: absolute path; NULL: the default place */
                struct tk_conf_secret passphrase;
                unsigned rotate_every; /* [local] rotate_every: seconds; default 0, never */
        } local;

        struct {
                char *key; /* [azure] key: set if the provider is azure */
                enum tk_conf_auth auth;
                char *client_id;
                char *tenant_id;
                char *certificate; /* absolute path */
                struct tk_conf_secret certificate_password;
                struct tk_conf_secret client_secret;
                char *token_file; /* absolute path */
                char *authority;
                char *audience;
                char *ca_file;                 /* absolute path */
                unsigned connect_timeout;      /* seconds; 0: the provider's default */
                unsigned request_timeout;      /* seconds; 0: the provider's default */
                bool wrap_by_service;          /* [azure] wrap = service; default local */
                bool require_purge_protection; /* default yes */
                bool firewall_is_outage;       /* [azure] firewall = unreachable */
        } azure;

        struct {
                char *module; /* [pkcs11] module: absolute path; set if the provider is pkcs11 */
                char *uri;    /* [pkcs11] uri: likewise */
                struct tk_conf_secret pin;
        } pkcs11;

        struct {
                bool allow_other; /* [mount] allow_other: default yes for root, no otherwise */
                bool read_only;   /* [mount] read_only: default no */
                bool relaxed;     /* [mount] durability = relaxed; default strict */
                bool io_uring;    /* [mount] io_uring: default no */
                enum tk_conf_when keep_cpus_awake; /* [mount] keep_cpus_awake: default auto */
                unsigned threads; /* [mount] threads: 1 to 64; 0, the default: by CPU count */
                bool hardening;   /* [mount] hardening: default yes */
        } mount;

        struct {
                bool require_lock; /* [memory] lock = require; the default is warn */
        } memory;

        struct {
                char *socket;       /* [metrics] socket: absolute path; NULL: none */
                char *socket_group; /* [metrics] socket_group: name or number; NULL: none */
                char *textfile;     /* [metrics] textfile: absolute path; NULL: none */
                unsigned interval;  /* [metrics] interval: seconds; default 30 */
        } metrics;

        struct {
                enum tk_conf_log_level level;   /* [log] level: default info */
                enum tk_conf_log_target target; /* [log] target: default auto */
                bool names;                     /* [log] names: default no */
        } log;
};

/* Defaults only. -ENOMEM. */
TK_MUST_USE int tk_conf_new(struct tk_conf **ret_conf);

/* Load @path over the defaults. The fault names file and line. */
TK_MUST_USE int tk_conf_load(const char *path, struct tk_conf **ret_conf, struct tk_fault *fault);

/* As tk_conf_load from text; @path is only named in complaints. */
TK_MUST_USE int tk_conf_parse(const char *text, const char *path, struct tk_conf **ret_conf,
                              struct tk_fault *fault);

struct tk_conf *tk_conf_free(struct tk_conf *conf);
TK_DEFINE_CLEANUP(struct tk_conf *, tk_conf_free)
