/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The configuration: INI text in, one checked struct out.
 *
 * The option table is schema.c; every complaint carries file and line. An
 * unknown section or key, a bad value or a value given twice is an error.
 * Everything has a default, so that an empty configuration is a good one.
 */

#include "base/fault.h"
#include <stdbool.h>

enum tk_conf_passphrase {
        TK_CONF_PASSPHRASE_NONE,       /* passphrase = none (default) */
        TK_CONF_PASSPHRASE_PROMPT,     /* passphrase = prompt: asked on the terminal */
        TK_CONF_PASSPHRASE_FILE,       /* passphrase = file:/PATH */
        TK_CONF_PASSPHRASE_FD,         /* passphrase = fd:N */
        TK_CONF_PASSPHRASE_CREDENTIAL, /* passphrase = credential:NAME, in $CREDENTIALS_DIRECTORY */
};

enum tk_conf_log_level {
        TK_CONF_LOG_ERROR,
        TK_CONF_LOG_WARNING,
        TK_CONF_LOG_INFO,
        TK_CONF_LOG_DEBUG
};

struct tk_conf {
        char *path; /* the file it came from; NULL: defaults only */

        struct {
                char *fingerprint; /* [volume] fingerprint: 64 hex digits; NULL: not pinned */
                bool dek_wrap_kms; /* [volume] dek_wrap = kms, for init; default kek */
        } volume;

        struct {
                char *provider;             /* [kms] provider: "local" */
                unsigned revocation_window; /* [kms] revocation_window: seconds; default 60 */
        } kms;

        struct {
                char *keystore; /* [local] keystore: absolute path; NULL: the default place */
                enum tk_conf_passphrase passphrase;
                char *passphrase_arg; /* the path, name or number behind the colon; NULL: none */
        } local;

        struct {
                bool allow_other; /* [mount] allow_other: default yes for root, no otherwise */
                bool read_only;   /* [mount] read_only: default no */
                unsigned threads; /* [mount] threads: 1 to 64; 0, the default: by CPU count */
        } mount;

        struct {
                bool require_lock; /* [memory] lock = require; the default is warn */
        } memory;

        struct {
                enum tk_conf_log_level level; /* [log] level: default info */
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
