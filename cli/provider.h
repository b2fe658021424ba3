/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The configuration turned into an open key provider.
 *
 * Each provider has a backend here (provider_local.c, provider_azure.c, provider_pkcs11.c), which
 * makes its options of the configuration and knows where its root key is: the place, the
 * keystore's path or the key's identifier.
 */

#include "conf/conf.h"
#include "crypto/record.h"
#include "kms/kms_admin.h"

struct tk_doctor;

/* Which volume the provider is for. Borrowed. */
struct tk_provider_volume {
        const uint8_t *id; /* TK_VOLUME_ID_LEN bytes; NULL: no volume in particular */
        const char *cipherdir;
};

/* An open provider, and where its root key is. */
struct tk_provider {
        struct tk_kms *kms;
        const char *name;       /* as in [kms] provider */
        const char *place_name; /* "keystore" or "key": a member of status --json, too */
        char *place;
        bool makes_versions;     /* new ones are made by us, not by the key's owner */
        unsigned rotate_every_s; /* after which a mount makes one; 0: never */
        bool made;               /* the root key was made for a new volume */
};

void tk_provider_done(struct tk_provider *provider);

enum { TK_PROVIDER_SECRETS_MAX = 3 };

/* A secret that a provider needs. Borrowed. */
struct tk_provider_secret {
        const char *option; /* "[pkcs11] pin" */
        struct tk_conf_secret source;
};

/* What a backend does; -ENOMEM or a fault, as the functions below. */
struct tk_provider_backend {
        const char *name;
        const char *place_name;
        bool makes_versions;
        int (*locate)(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                      char **ret_place, struct tk_fault *fault);
        /* 1: somebody has to be there to open it, for a secret; 0: not. */
        int (*is_interactive)(const struct tk_conf *conf, const char *place,
                              struct tk_fault *fault);
        int (*open)(const struct tk_conf *conf, const char *place, struct tk_kms **ret_kms,
                    struct tk_fault *fault);
        /* As open, for a new volume: the root key is there afterwards. */
        int (*make)(const struct tk_conf *conf, const char *place, bool *ret_made,
                    struct tk_kms **ret_kms, struct tk_fault *fault);
        int (*create)(const struct tk_conf *conf, const char *place,
                      const struct tk_kms_key_spec *spec, struct tk_fault *fault);
        int (*recover)(const struct tk_conf *conf, const char *place, struct tk_fault *fault);
        /* For doctor: the way to the key, step by step; NULL: there is nothing to walk. */
        void (*examine)(const struct tk_conf *conf, const char *place, struct tk_doctor *doctor);
        /* Where its secrets come from. Returns their count. */
        size_t (*secrets)(const struct tk_conf *conf,
                          struct tk_provider_secret ret_secrets[TK_PROVIDER_SECRETS_MAX]);
};

/*
 * `make`, `create` and `recover` of a backend whose keys lie where their owner holds them, a
 * vault or a token: nothing is made there for a new volume, since whoever owns it makes the
 * key, and knows of it.
 */
TK_MUST_USE int tk_provider_held_make(const struct tk_conf *conf, const char *place, bool *ret_made,
                                      struct tk_kms **ret_kms, struct tk_fault *fault);
TK_MUST_USE int tk_provider_held_create(const struct tk_conf *conf, const char *place,
                                        const struct tk_kms_key_spec *spec, struct tk_fault *fault);
TK_MUST_USE int tk_provider_held_recover(const struct tk_conf *conf, const char *place,
                                         struct tk_fault *fault);

extern const struct tk_provider_backend tk_provider_local;
extern const struct tk_provider_backend tk_provider_azure;
extern const struct tk_provider_backend tk_provider_pkcs11;

/* How long a call of a provider may take: several fit into the revocation window. */
unsigned tk_provider_deadline_ms(const struct tk_conf *conf);

/* The descriptors that secrets will be read from. Returns their count. */
size_t tk_provider_fds(const struct tk_conf *conf, int ret_fds[TK_PROVIDER_SECRETS_MAX]);

/* Warn of files with secrets whose mode lets others read them: to @doctor, or, if it is NULL, in
 * the log. */
void tk_provider_check_secrets(const struct tk_conf *conf, struct tk_doctor *doctor);

struct tk_kms_finding;

/* A step that a provider found, as a line of doctor's; @doctor is a struct tk_doctor. */
void tk_provider_report(void *doctor, const struct tk_kms_finding *finding);

/* The one that @conf chooses. */
const struct tk_provider_backend *tk_provider_backend(const struct tk_conf *conf);

/*
 * Where the root key for @volume is, without opening it: the caller frees @ret_place.
 * A place inside the CIPHERDIR is refused.
 */
TK_MUST_USE int tk_provider_locate(const struct tk_conf *conf,
                                   const struct tk_provider_volume *volume, char **ret_place,
                                   struct tk_fault *fault);

/* Whether somebody has to be there to open it: 1, 0 or a fault. */
TK_MUST_USE int tk_provider_is_interactive(const struct tk_conf *conf, const char *place,
                                           struct tk_fault *fault);

/* Open the provider for @volume, asking for secrets. Free with tk_provider_done. */
TK_MUST_USE int tk_provider_open(const struct tk_conf *conf,
                                 const struct tk_provider_volume *volume,
                                 struct tk_provider *ret_provider, struct tk_fault *fault);

/*
 * The same for a new volume: `local` makes its keystore if none is there; else
 * the key must be there.
 */
TK_MUST_USE int tk_provider_make(const struct tk_conf *conf,
                                 const struct tk_provider_volume *volume,
                                 struct tk_provider *ret_provider, struct tk_fault *fault);
