/* SPDX-License-Identifier: Apache-2.0 */

/* From a command's arguments to an unlocked volume. */

#include "cli/open.h"

#include "cli/hygiene.h"

int tk_open_conf(const char *path, struct tk_conf **ret_conf, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        int r;

        r = path ? tk_conf_load(path, &conf, fault) : tk_conf_new(&conf);
        if (r < 0)
                return r;
        r = tk_hygiene_start(conf, fault);
        if (r < 0)
                return r;
        *ret_conf = TK_TAKE(conf);
        return 0;
}

struct tk_volume_unlock tk_open_unlock_options(const struct tk_conf *conf)
{
        return (struct tk_volume_unlock){
                .fingerprint = conf->volume.fingerprint,
                .lease_ms = (int64_t)conf->kms.revocation_window * 1000,
        };
}

int tk_open_unlock(struct tk_volume *volume, const struct tk_conf *conf, const char *doing,
                   struct tk_kms **ret_kms, char **ret_keystore, struct tk_fault *fault)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        TK_CLEANUP(tk_freep) char *keystore = NULL;
        struct tk_volume_unlock options = tk_open_unlock_options(conf);
        struct tk_provider_volume target = {.id = tk_volume_id(volume),
                                            .cipherdir = tk_volume_path(volume)};
        int r;

        r = tk_volume_lock(volume, doing, fault);
        if (r < 0)
                return r;
        r = tk_provider_locate(conf, &target, &keystore, fault);
        if (r < 0)
                return r;
        r = tk_provider_open(conf, keystore, &kms, fault);
        if (r < 0)
                return r;
        r = tk_volume_unlock(volume, kms, &options, fault);
        if (r < 0)
                return r;
        *ret_kms = TK_TAKE(kms);
        *ret_keystore = TK_TAKE(keystore);
        return 0;
}
