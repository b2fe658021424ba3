/* SPDX-License-Identifier: Apache-2.0 */

/* The `local` backend: where the keystore is, and its passphrase. */

#include "base/bytes.h"
#include "base/log.h"
#include "cli/paths.h"
#include "cli/provider.h"
#include "cli/secret_source.h"
#include "kms/local.h"
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* From the environment if it is an absolute path there, or from the user database. */
static const char *home_directory(void)
{
        const char *home = getenv("HOME");
        const struct passwd *user;

        if (home && home[0] == '/')
                return home;
        user = getpwuid(geteuid());
        return user && user->pw_dir && user->pw_dir[0] == '/' ? user->pw_dir : NULL;
}

static int default_keystore(const struct tk_provider_volume *volume, char **ret_path,
                            struct tk_fault *fault)
{
        char id[2 * TK_VOLUME_ID_LEN + 1];
        const char *data = getenv("XDG_DATA_HOME");
        const char *home = home_directory();
        int len;

        if (!volume->id)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "which keystore? Give the encrypted directory, or a "
                                    "configuration (-c) with [local] keystore");
        tk_hex_encode(volume->id, TK_VOLUME_ID_LEN, id);
        if (geteuid() == 0)
                len = asprintf(ret_path, "/var/lib/turnkeyfs/%s.keystore", id);
        else if (data && data[0] == '/')
                len = asprintf(ret_path, "%s/turnkeyfs/%s.keystore", data, id);
        else if (home)
                len = asprintf(ret_path, "%s/.local/share/turnkeyfs/%s.keystore", home, id);
        else
                return tk_fault_set(fault, TK_FAULT_CONFIG, -ENOENT,
                                    "there is no home directory to keep the keystore in; say in "
                                    "[local] keystore of a configuration where it is to be");
        return len < 0 ? -ENOMEM : 0;
}

static int check_outside(const char *keystore, const char *cipherdir, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *file = NULL;
        TK_CLEANUP(tk_freep) char *dir = NULL;
        int r;

        r = tk_path_resolve(keystore, &file);
        if (r == -ELOOP)
                return tk_fault_set(fault, TK_FAULT_KEYSTORE_MISSING, r,
                                    "the keystore %s is a symbolic link to nowhere; mend the link "
                                    "or restore the keystore from a backup",
                                    keystore);
        if (r == -EINVAL)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r,
                                    "the keystore %s: '..' follows a directory that is not there; "
                                    "write the path without it",
                                    keystore);
        if (r == -ENOTDIR)
                return tk_fault_set(fault, TK_FAULT_KEYSTORE_MISSING, r,
                                    "the keystore %s is not there: %s", keystore, strerror(-r));
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot find the keystore %s: %s", keystore, strerror(-r));
        r = tk_path_resolve(cipherdir, &dir);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, r, "cannot find %s: %s",
                                    cipherdir, strerror(-r));
        if (tk_path_is_inside(file, dir))
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "the keystore %s lies inside the encrypted directory %s: "
                                    "whoever got a copy of that would have its key, too; choose "
                                    "another place in [local] keystore",
                                    keystore, cipherdir);
        return 0;
}

static int locate(const struct tk_conf *conf, const struct tk_provider_volume *volume,
                  char **ret_place, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *keystore = NULL;
        int r;

        if (conf->local.keystore) {
                keystore = strdup(conf->local.keystore);
                r = keystore ? 0 : -ENOMEM;
        } else {
                r = default_keystore(volume, &keystore, fault);
        }
        if (r == 0 && volume->cipherdir)
                r = check_outside(keystore, volume->cipherdir, fault);
        if (r < 0)
                return r;
        *ret_place = TK_TAKE(keystore);
        return 0;
}

static int is_interactive(const struct tk_conf *conf, const char *keystore, struct tk_fault *fault)
{
        int wanted = tk_kms_local_wants_passphrase(keystore, fault);

        return wanted <= 0 ? wanted : tk_secret_source_is_interactive(&conf->local.passphrase);
}

static int read_passphrase(const struct tk_conf *conf, const char *keystore, bool confirm,
                           struct tk_secret **ret_passphrase, struct tk_fault *fault)
{
        return tk_secret_source_read(&conf->local.passphrase,
                                     &(struct tk_secret_ask){.what = "passphrase",
                                                             .option = "[local] passphrase",
                                                             .label = keystore,
                                                             .confirm = confirm},
                                     ret_passphrase, fault);
}

/* The passphrase of an existing keystore; NULL if it has none. */
static int get_passphrase(const struct tk_conf *conf, const char *keystore,
                          struct tk_secret **ret_passphrase, struct tk_fault *fault)
{
        bool configured = conf->local.passphrase.source != TK_CONF_SOURCE_NONE;
        int wanted = tk_kms_local_wants_passphrase(keystore, fault);

        *ret_passphrase = NULL;
        if (wanted < 0)
                return wanted;
        if (wanted == 0) {
                if (configured)
                        tk_log(TK_LOG_WARNING,
                               "the keystore %s is not protected by a passphrase, although the "
                               "configuration names a source for one",
                               keystore);
                return 0;
        }
        if (!configured)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EKEYREJECTED,
                                    "the keystore %s is protected by a passphrase; say in [local] "
                                    "passphrase where it comes from, such as 'prompt'",
                                    keystore);
        return read_passphrase(conf, keystore, false, ret_passphrase, fault);
}

static int open_keystore(const struct tk_conf *conf, const char *keystore, struct tk_kms **ret_kms,
                         struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        int r;

        r = get_passphrase(conf, keystore, &passphrase, fault);
        if (r < 0)
                return r;
        return tk_kms_local_open(
                &(struct tk_kms_local_options){.keystore = keystore, .passphrase = passphrase},
                ret_kms, fault);
}

/* With its passphrase in hand it is opened at once: nobody has to type it a third time. */
static int create_keystore(const struct tk_conf *conf, const char *keystore,
                           struct tk_kms **ret_kms, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        struct tk_kms_local_options options = {.keystore = keystore};
        int r;

        r = read_passphrase(conf, keystore, true, &passphrase, fault);
        if (r < 0)
                return r;
        options.passphrase = passphrase;
        r = tk_kms_local_create(&options, fault);
        if (r < 0)
                return r;
        return tk_kms_local_open(&options, ret_kms, fault);
}

static bool is_there(const char *keystore)
{
        struct stat st;

        return lstat(keystore, &st) == 0 || errno != ENOENT;
}

static int make(const struct tk_conf *conf, const char *keystore, bool *ret_made,
                struct tk_kms **ret_kms, struct tk_fault *fault)
{
        *ret_made = !is_there(keystore);
        if (*ret_made)
                return create_keystore(conf, keystore, ret_kms, fault);
        return open_keystore(conf, keystore, ret_kms, fault);
}

static int create(const struct tk_conf *conf, const char *keystore,
                  const struct tk_kms_key_spec *spec, struct tk_fault *fault)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;

        if (spec->type[0] || spec->bits || spec->not_before || spec->expires)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "a keystore's key is always AES with 256 bits, without dates; "
                                    "leave the options out");
        /* Nobody is asked for a passphrase in vain. */
        if (is_there(keystore))
                return tk_fault_set(fault, TK_FAULT_USAGE, -EEXIST,
                                    "the keystore %s exists already and is never overwritten; make "
                                    "a new version in it by 'turnkeyfs key rotate'",
                                    keystore);
        return create_keystore(conf, keystore, &kms, fault);
}

static int recover(const struct tk_conf *conf, const char *keystore, struct tk_fault *fault)
{
        (void)conf;
        return tk_kms_local_recover(keystore, fault);
}

static size_t secrets(const struct tk_conf *conf,
                      struct tk_provider_secret ret_secrets[TK_PROVIDER_SECRETS_MAX])
{
        ret_secrets[0] = (struct tk_provider_secret){"[local] passphrase", conf->local.passphrase};
        return 1;
}

const struct tk_provider_backend tk_provider_local = {
        .name = "local",
        .place_name = "keystore",
        .makes_versions = true,
        .locate = locate,
        .is_interactive = is_interactive,
        .open = open_keystore,
        .make = make,
        .create = create,
        .recover = recover,
        .secrets = secrets,
};
