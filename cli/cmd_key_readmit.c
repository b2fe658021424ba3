/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `key readmit`: a retired KEK version is accepted again.
 *
 * For files, or a whole tree, that come from a backup older than a rotation. A rotation
 * is then unfinished, which the next mount goes on with as with any other.
 */

#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/open.h"
#include "cli/text.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SCHEMA = 1 };

static int parse_version(const char *text, uint16_t *ret_version, struct tk_fault *fault)
{
        char *end = NULL;
        unsigned long version = strtoul(text, &end, 10);

        if (text[0] < '0' || text[0] > '9' || *end || version == 0 || version > UINT16_MAX)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "key readmit: '%s' is no KEK version: it is a number that "
                                    "'turnkeyfs status' lists",
                                    text);
        *ret_version = (uint16_t)version;
        return 0;
}

/* What @r and @fault say, and what may be done about a root key that is not at hand. */
static int add_advice(int r, bool has_previous, struct tk_fault *fault)
{
        if (r < 0 && fault->kind == TK_FAULT_WRONG_KEY && !has_previous)
                tk_fault_add(fault, "; if the volume was moved to another root key since, name the "
                                    "configuration of the former one as [kms] previous");
        return r;
}

static int readmit(struct tk_volume *volume, const struct tk_conf *conf, uint16_t version,
                   struct tk_open_keys *keys, struct tk_fault *fault)
{
        int r;

        r = tk_open_unlock(volume, conf, "having a KEK version admitted again", keys, fault);
        if (r == 0)
                r = tk_open_previous(volume, conf, keys, fault);
        if (r < 0)
                return r;
        r = tk_volume_readmit(volume, version, keys->current.kms, keys->previous.kms, fault);
        return add_advice(r, keys->previous.kms != NULL, fault);
}

static int say(const struct tk_args *args, const struct tk_volume *volume, bool in_use)
{
        if (args->json)
                return tk_text_print_json(json_pack(
                        "{si ss ss so}", "schema", SCHEMA, "done", in_use ? "in use" : "readmitted",
                        "version", args->paths[0], "place", tk_text_json(tk_volume_path(volume))));
        printf("KEK version %s of ", args->paths[0]);
        tk_text_print(stdout, tk_volume_path(volume));
        printf("%s\n",
               in_use ? " is in use already; nothing was done"
                      : " is accepted again. The next mount, or 'turnkeyfs rotate', rewraps "
                        "what is under it and retires it.");
        return 0;
}

int tk_key_readmit(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_open_keys_done) struct tk_open_keys keys = {0};
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL; /* freed before its keys */
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        uint16_t version = 0;
        int r;

        r = parse_version(args->paths[0], &version, fault);
        if (r == 0)
                r = tk_open_conf(args->config, &conf, fault);
        if (r == 0)
                r = tk_hygiene_lock_memory(conf, fault);
        if (r == 0)
                r = tk_open_find_cipherdir(args->paths[1], &cipherdir, fault);
        if (r == 0)
                r = tk_volume_open(cipherdir, &volume, fault);
        if (r == 0)
                r = readmit(volume, conf, version, &keys, fault);
        return r < 0 ? r : say(args, volume, r > 0);
}
