/* SPDX-License-Identifier: Apache-2.0 */

/* `reload`: tell a mount to read its configuration again, and say what came of it. */

#include "cli/command.h"
#include "cli/open.h"
#include "cli/serve.h"
#include <errno.h>
#include <stdio.h>

static void print_names(const char *what, const json_t *names)
{
        const json_t *name;
        size_t i;

        if (json_array_size(names) == 0)
                return;
        fputs(what, stdout);
        json_array_foreach(names, i, name)
                printf("%s %s", i > 0 ? "," : "", json_string_value(name));
        putchar('\n');
}

int tk_cmd_reload(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        const json_t *changed;
        const json_t *waiting;
        json_t *answer = NULL;
        int r;

        r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        if (r == 0)
                r = tk_volume_open(cipherdir, &volume, fault);
        if (r == 0)
                r = tk_serve_ask_reload(volume, &answer, fault);
        if (r == TK_SERVE_NOBODY)
                return tk_fault_set(fault, TK_FAULT_MOUNT, -ENOTCONN,
                                    "%s is not mounted: there is nothing to reload", cipherdir);
        if (r < 0)
                return r;
        changed = json_object_get(answer, "changed");
        waiting = json_object_get(answer, "waiting");
        print_names("in force from now on:", changed);
        print_names("from the next mount on only:", waiting);
        if (json_array_size(changed) + json_array_size(waiting) == 0)
                puts("nothing has changed");
        json_decref(answer);
        return 0;
}
