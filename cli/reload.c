/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What may change under a mount: what only its own threads look at, each time anew; a rotation
 * reads its rate once, when it begins. The revocation window may not: the kernel's caches and the
 * KMS' timeouts were measured by it.
 */

#include "cli/reload.h"

#include "base/log.h"
#include "cli/hygiene.h"
#include "conf/schema.h"
#include "fs/keeper.h"
#include <errno.h>
#include <string.h>

static bool is_live(const struct tk_conf_option *option)
{
        static const char *const live[][2] = {
                {"kms", "outage_grace"}, {"kms", "rotation_window"}, {"kms", "rewrap_rate"},
                {"log", "level"},        {"log", "names"},
        };

        for (size_t i = 0; i < sizeof(live) / sizeof(live[0]); i++)
                if (strcmp(option->section, live[i][0]) == 0 &&
                    strcmp(option->name, live[i][1]) == 0)
                        return true;
        return false;
}

/* Take over what is live: none of that owns memory. */
static int take_over(struct tk_conf *conf, const struct tk_conf *fresh, json_t *changed,
                     json_t *waiting)
{
        const struct tk_conf_option *option;

        for (size_t i = 0; (option = tk_conf_option_at(i)); i++) {
                bool live = is_live(option);

                if (!tk_conf_option_differs(option, conf, fresh))
                        continue;
                if (json_array_append_new(live ? changed : waiting,
                                          json_sprintf("[%s] %s", option->section, option->name)) <
                    0)
                        return -ENOMEM;
                if (live)
                        memcpy((char *)conf + option->offset, (const char *)fresh + option->offset,
                               option->size);
        }
        return 0;
}

static void put_in_force(const struct tk_reload *reload)
{
        const struct tk_conf *conf = reload->conf;
        unsigned window_s = conf->mount.read_only ? 0 : conf->kms.rotation_window;

        tk_hygiene_set_level(conf);
        tk_log_allow_names(conf->log.names);
        tk_fs_set_windows(reload->fs, (int64_t)conf->kms.outage_grace * 1000,
                          (int64_t)window_s * 1000);
        tk_rotation_set_options(reload->rotation, &(struct tk_rotation_options){
                                                          .window_s = window_s,
                                                          .files_per_s = conf->kms.rewrap_rate});
}

/* The keeper takes its windows over when it begins: before that they would be lost. */
static bool has_keeper(struct tk_fs *fs)
{
        struct tk_keeper_status status;

        return tk_fs_keeper_status(fs, &status);
}

int tk_reload(const struct tk_reload *reload, json_t **ret_changed, json_t **ret_waiting,
              struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *fresh = NULL;
        int r;

        if (!reload->path)
                return tk_fault_set(fault, TK_FAULT_USAGE, -ENOENT,
                                    "the mount was made without a configuration (-c): there is "
                                    "nothing to read again");
        if (!has_keeper(reload->fs))
                return tk_fault_set(fault, TK_FAULT_IN_USE, -EAGAIN,
                                    "the mount is about to begin, or to end: it does not serve "
                                    "now; try again");
        r = tk_conf_load(reload->path, &fresh, fault);
        if (r < 0)
                return r;
        tk_mountopts_apply(reload->opts, fresh);
        *ret_changed = json_array();
        *ret_waiting = json_array();
        r = take_over(reload->conf, fresh, *ret_changed, *ret_waiting);
        put_in_force(reload);
        return r;
}
