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

int tk_open_unlock(struct tk_volume *volume, const struct tk_conf *conf, const char *doing,
                   char **ret_keystore, struct tk_fault *fault)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        TK_CLEANUP(tk_freep) char *keystore = NULL;
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
        r = tk_volume_unlock(volume, kms, conf->volume.fingerprint, fault);
        if (r < 0)
                return r;
        *ret_keystore = TK_TAKE(keystore);
        return 0;
}
