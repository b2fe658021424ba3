/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `status`: what the volume file says, who holds the lock, and what the mount says
 * of itself. One JSON document is made of it; the text for people is a view of that
 * (status_text.c).
 */

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/mountinfo.h"
#include "cli/open.h"
#include "cli/serve.h"
#include "cli/status.h"
#include "cli/text.h"
#include "cli/watch.h"
#include "fs/escrow_note.h"
#include "fs/volume.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { SCHEMA = 1 };

/* Gathering -------------------------------------------------------------- */

static json_t *gather_protectors(struct tk_volume *volume, uint16_t kek_version)
{
        json_t *list = json_array();

        for (size_t i = 0; i < tk_volume_wrap_count(volume); i++) {
                struct tk_volume_wrap wrap = tk_volume_wrap_at(volume, i);

                if (wrap.kek_version != kek_version)
                        continue;
                json_array_append_new(list, json_pack("{si so so so so}",                    //
                                                      "number", (int)wrap.protector,         //
                                                      "provider",                            //
                                                      tk_text_json(wrap.provider),           //
                                                      "key", tk_text_json(wrap.wrap.key_id), //
                                                      "version",                             //
                                                      tk_text_json(wrap.wrap.version),       //
                                                      "algorithm",                           //
                                                      tk_text_json(wrap.wrap.algorithm)));
        }
        return list;
}

static json_t *gather_keks(struct tk_volume *volume)
{
        json_t *list = json_array();

        for (size_t i = 0; i < tk_volume_kek_count(volume); i++) {
                struct tk_volume_kek kek = tk_volume_kek_at(volume, i);

                json_array_append_new(list,
                                      json_pack("{si ss sI so}", "version", (int)kek.version,
                                                "state", kek.active ? "active" : "retired",
                                                "created", (json_int_t)kek.created, "protectors",
                                                gather_protectors(volume, kek.version)));
        }
        return list;
}

static bool same_root(const struct tk_volume_wrap *a, const struct tk_volume_wrap *b)
{
        return strcmp(a->provider, b->provider) == 0 &&
               strcmp(a->wrap.key_id, b->wrap.key_id) == 0 &&
               strcmp(a->wrap.version, b->wrap.version) == 0;
}

static bool is_active(struct tk_volume *volume, const struct tk_volume_wrap *wrap)
{
        return tk_volume_kek_at(volume, wrap->kek_version - 1U).active;
}

/* Whether a KEK version in use is under the same root key version as @wrap; or, if @wrap's is
 * retired, one before it: it is listed once. */
static bool is_needed_or_listed(struct tk_volume *volume, size_t index)
{
        struct tk_volume_wrap wrap = tk_volume_wrap_at(volume, index);

        for (size_t i = 0; i < tk_volume_wrap_count(volume); i++) {
                struct tk_volume_wrap other = tk_volume_wrap_at(volume, i);

                if (same_root(&wrap, &other) && (is_active(volume, &other) || i < index))
                        return true;
        }
        return false;
}

/* Root key versions that protect only retired KEK versions: as far as this volume goes, they may
 * be disabled. */
static json_t *gather_unneeded(struct tk_volume *volume)
{
        json_t *list = json_array();

        for (size_t i = 0; i < tk_volume_wrap_count(volume); i++) {
                struct tk_volume_wrap wrap = tk_volume_wrap_at(volume, i);

                if (is_needed_or_listed(volume, i))
                        continue;
                json_array_append_new(list, json_pack("{so so so}",                            //
                                                      "provider", tk_text_json(wrap.provider), //
                                                      "key", tk_text_json(wrap.wrap.key_id),   //
                                                      "version",                               //
                                                      tk_text_json(wrap.wrap.version)));
        }
        return list;
}

/* null if nobody holds the lock. */
static json_t *gather_lock(struct tk_volume *volume)
{
        struct tk_volume_holder holder = {0};

        if (tk_volume_holder(volume, &holder) <= 0)
                return json_null();
        return json_pack("{sI so}", "pid", (json_int_t)holder.pid, "doing",
                         tk_text_json(holder.doing));
}

static json_t *gather_mountpoint(struct tk_volume *volume)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};

        if (tk_mountinfo_of(tk_volume_path(volume), &info) <= 0)
                return json_null();
        return tk_text_json(info.mountpoint);
}

/* null if none was exported, as far as can be told. */
static json_t *gather_escrow(struct tk_volume *volume)
{
        struct tk_escrow_note note;

        if (tk_escrow_note_read(volume, &note) < 0)
                return json_null();
        return json_pack("{sI sb}", "exported", (json_int_t)note.exported, "outdated",
                         tk_escrow_note_is_outdated(volume, &note));
}

static json_t *gather(struct tk_volume *volume, const char **ret_why)
{
        char id[2 * TK_VOLUME_ID_LEN + 1];
        json_t *daemon = tk_serve_ask(volume, ret_why);

        tk_hex_encode(tk_volume_id(volume), TK_VOLUME_ID_LEN, id);
        return json_pack("{si so ss sI si ss ss so so si so so so so}",                         //
                         "schema", SCHEMA,                                                      //
                         "path", tk_text_json(tk_volume_path(volume)),                          //
                         "volume_id", id,                                                       //
                         "created", (json_int_t)tk_volume_created(volume),                      //
                         "format", tk_volume_format(volume),                                    //
                         "names",                                                               //
                         tk_volume_names(volume) == TK_NAMES_ENCRYPTED ? "encrypted" : "plain", //
                         "dek_wrap",
                         tk_volume_dek_wrap(volume) == TK_DEK_WRAP_KMS ? "kms" : "kek", //
                         "mountpoint", gather_mountpoint(volume),                       //
                         "lock", gather_lock(volume),                                   //
                         "unclean_mounts", (int)tk_serve_unclean_count(volume, daemon), //
                         "kek_versions", gather_keks(volume),                           //
                         "no_longer_needed", gather_unneeded(volume),                   //
                         "escrow", gather_escrow(volume),                               //
                         "daemon", daemon ? daemon : json_null());
}

int tk_status_gather(const char *cipherdir, json_t **ret_root, const char **ret_why,
                     struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        int r;

        r = tk_volume_open(cipherdir, &volume, fault);
        if (r < 0)
                return r;
        *ret_root = gather(volume, ret_why);
        return *ret_root ? 0 : -ENOMEM;
}

/* An alarm for whoever runs `status` from a timer; what it is about has been printed. */
static int judge(const json_t *root, struct tk_fault *fault)
{
        const json_t *rotation = json_object_get(json_object_get(root, "daemon"), "rotation");

        if (!json_is_true(json_object_get(rotation, "window_missed")))
                return 0;
        return tk_fault_set(fault, TK_FAULT_WINDOW_MISSED, -ETIME,
                            "the rotation window of %s is missed: files are still under an older "
                            "version; see the rotation's state above, and the log",
                            json_string_value(json_object_get(root, "path")));
}

int tk_cmd_status(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        const char *why;
        json_t *root;
        int r;

        if (args->interval && !args->watch)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "status: --interval goes with --watch only");
        r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        if (r < 0)
                return r;
        if (args->watch)
                return tk_watch(cipherdir, args->interval, args->json, fault);
        r = tk_status_gather(cipherdir, &root, &why, fault);
        if (r < 0)
                return r;
        r = judge(root, fault);
        if (args->json)
                return tk_text_print_json(root) < 0 ? -EIO : r;
        tk_status_print(stdout, root, why);
        json_decref(root);
        return r;
}
