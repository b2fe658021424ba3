/* SPDX-License-Identifier: Apache-2.0 */

/* From a command's arguments to an unlocked volume. */

#include "cli/open.h"

#include "cli/hygiene.h"
#include "cli/mountinfo.h"
#include "cli/paths.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

void tk_open_keys_done(struct tk_open_keys *keys)
{
        tk_provider_done(&keys->current);
        tk_provider_done(&keys->previous);
}

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

int tk_open_find_cipherdir(const char *path, char **ret_cipherdir, struct tk_fault *fault)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};
        TK_CLEANUP(tk_freep) char *resolved = NULL;
        int r;

        r = tk_path_resolve_mountpoint(path, &resolved);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, r, "cannot find %s: %s", path,
                                    strerror(-r));
        r = tk_mountinfo_at(resolved, &info);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot read /proc/self/mountinfo: %s", strerror(-r));
        *ret_cipherdir = r > 0 ? TK_TAKE(info.cipherdir) : TK_TAKE(resolved);
        return 0;
}

struct tk_provider_volume tk_open_target(const struct tk_volume *volume)
{
        return (struct tk_provider_volume){.id = tk_volume_id(volume),
                                           .cipherdir = tk_volume_path(volume)};
}

/* Only its provider counts. */
int tk_open_previous(const struct tk_volume *volume, const struct tk_conf *conf,
                     struct tk_open_keys *keys, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *previous = NULL;
        struct tk_provider_volume target = tk_open_target(volume);
        int r;

        if (!conf->kms.previous || keys->previous.kms)
                return 0;
        r = tk_conf_load(conf->kms.previous, &previous, fault);
        if (r < 0)
                return r;
        return tk_provider_open(previous, &target, &keys->previous, fault);
}

int tk_open_unlock_with(struct tk_volume *volume, const struct tk_conf *conf,
                        struct tk_open_keys *keys, struct tk_fault *fault)
{
        struct tk_volume_unlock options = {.fingerprint = conf->volume.fingerprint,
                                           .lease_ms = (int64_t)conf->kms.revocation_window * 1000};
        int r;

        /* Once the move is finished, the previous key is not asked any more. */
        if (conf->kms.previous && tk_volume_active_count(volume) > 1 &&
            !tk_volume_is_shared(volume)) {
                r = tk_open_previous(volume, conf, keys, fault);
                if (r < 0)
                        return r;
                options.previous = keys->previous.kms;
        }
        r = tk_volume_unlock(volume, keys->current.kms, &options, fault);
        if (r == -ENOENT && !options.previous && tk_volume_active_count(volume) > 1 &&
            !tk_volume_is_shared(volume))
                tk_fault_add(fault,
                             "; while 'rotate --to' is unfinished, both keys are needed: name the "
                             "configuration of the other one as [kms] previous");
        return r;
}

int tk_open_unlock(struct tk_volume *volume, const struct tk_conf *conf, const char *doing,
                   struct tk_open_keys *ret_keys, struct tk_fault *fault)
{
        struct tk_provider_volume target = tk_open_target(volume);
        int r;

        *ret_keys = (struct tk_open_keys){0};
        r = tk_volume_lock(volume, doing, fault);
        if (r < 0)
                return r;
        r = tk_provider_open(conf, &target, &ret_keys->current, fault);
        if (r < 0)
                return r;
        return tk_open_unlock_with(volume, conf, ret_keys, fault);
}
