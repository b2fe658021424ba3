/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `status`: what the volume file says, who holds the lock, and what the mount says
 * of itself. One JSON document is made of it; the text for people is a view of that.
 */

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/mountinfo.h"
#include "cli/open.h"
#include "cli/serve.h"
#include "cli/text.h"
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

/* The text for people ---------------------------------------------------- */

static const char *get_text(const json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));

        return text ? text : "?";
}

static json_int_t get_number(const json_t *object, const char *key)
{
        return json_integer_value(json_object_get(object, key));
}

static void print_field(const char *name, const char *value)
{
        printf("%-16s", name);
        tk_text_print(stdout, value);
        putchar('\n');
}

static void print_keks(const json_t *keks)
{
        const json_t *kek;
        const json_t *protector;
        char when[32];
        size_t i;
        size_t k;

        json_array_foreach(keks, i, kek)
        {
                bool several = json_array_size(json_object_get(kek, "protectors")) > 1;

                printf("KEK version %" JSON_INTEGER_FORMAT "  %s, made %s\n",
                       get_number(kek, "version"), get_text(kek, "state"),
                       tk_text_time(get_number(kek, "created"), when));
                json_array_foreach(json_object_get(kek, "protectors"), k, protector)
                {
                        printf("  protected by ");
                        if (several)
                                printf("%" JSON_INTEGER_FORMAT ", ",
                                       get_number(protector, "number"));
                        printf("%s key ", get_text(protector, "provider"));
                        tk_text_print(stdout, get_text(protector, "key"));
                        printf(" version ");
                        tk_text_print(stdout, get_text(protector, "version"));
                        printf(" (%s)\n", get_text(protector, "algorithm"));
                }
        }
}

static void print_unneeded(const json_t *list)
{
        const json_t *root;
        size_t i;

        json_array_foreach(list, i, root)
        {
                printf("no longer needed by this volume, may be disabled: %s key ",
                       get_text(root, "provider"));
                tk_text_print(stdout, get_text(root, "key"));
                printf(" version ");
                tk_text_print(stdout, get_text(root, "version"));
                putchar('\n');
        }
}

/* What saves the names, where a backup loses extended attributes. */
static void print_escrow(const json_t *escrow)
{
        char when[32];

        if (!json_is_object(escrow)) {
                print_field("escrow", "none was exported; 'turnkeyfs escrow export' saves the key "
                                      "records, which some backups lose");
                return;
        }
        printf("%-16sexported %s%s\n", "escrow", tk_text_time(get_number(escrow, "exported"), when),
               json_is_true(json_object_get(escrow, "outdated"))
                       ? ", and of no use since the rotation after that: export again"
                       : "");
}

static void print_window(const json_t *rotation)
{
        const json_t *kept = json_object_get(rotation, "last_in_window");
        const json_t *left = json_object_get(rotation, "left_s");

        if (json_is_true(json_object_get(rotation, "window_missed")))
                printf("%-16sthe window of %" JSON_INTEGER_FORMAT " s is MISSED: files are still "
                       "under an older version\n",
                       "", get_number(rotation, "window_s"));
        else if (json_is_boolean(kept))
                printf("%-16sthe last one was %s the window of %" JSON_INTEGER_FORMAT " s\n", "",
                       json_is_true(kept) ? "within" : "NOT within",
                       get_number(rotation, "window_s"));
        if (json_is_integer(left))
                printf("%-16sabout %" JSON_INTEGER_FORMAT " s left\n", "",
                       json_integer_value(left));
}

static void print_versions(const json_t *files)
{
        json_int_t unseen = get_number(files, "unseen");
        const json_t *entry;
        const char *comma = "";
        size_t i;

        if (get_number(files, "total") == 0)
                return;
        printf("%-16s", "");
        json_array_foreach(json_object_get(files, "versions"), i, entry)
        {
                json_int_t version = get_number(entry, "version");

                printf("%s%" JSON_INTEGER_FORMAT " files under ", comma,
                       get_number(entry, "files"));
                if (version > 0)
                        printf("KEK version %" JSON_INTEGER_FORMAT, version);
                else
                        printf("others");
                comma = ", ";
        }
        if (unseen > 0)
                printf("%s%" JSON_INTEGER_FORMAT " not seen yet", comma, unseen);
        printf("%s\n", json_is_true(json_object_get(files, "estimated"))
                               ? " (estimated from the inodes in use)"
                               : "");
}

static void print_rotation(const json_t *rotation)
{
        const char *error = json_string_value(json_object_get(rotation, "error"));
        const json_t *files;
        bool started;

        print_field("rotation", get_text(rotation, "state"));
        print_window(rotation);
        files = json_object_get(rotation, "files_by_version");
        started = get_number(rotation, "started") > 0;
        /* Inodes of a whole filesystem are no news before somebody waits for a rotation. */
        if (started || !json_is_true(json_object_get(files, "estimated")))
                print_versions(files);
        if (!started)
                return;
        printf("%-16spass %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
               " files seen in it; %" JSON_INTEGER_FORMAT " rewrapped in all, %" JSON_INTEGER_FORMAT
               " failed\n",
               "", get_number(rotation, "passes"), get_number(rotation, "files"),
               get_number(rotation, "rewrapped"), get_number(rotation, "failed"));
        if (error)
                print_field("", error);
}

static void print_uptime(json_int_t seconds)
{
        printf("%-16s", "up");
        if (seconds >= 86400)
                printf("%" JSON_INTEGER_FORMAT " d ", seconds / 86400);
        printf("%02d:%02d:%02d\n", (int)(seconds / 3600 % 24), (int)(seconds / 60 % 60),
               (int)(seconds % 60));
}

static void print_counters(const json_t *counters)
{
        static const struct {
                const char *key;
                const char *text;
                bool alarming;
        } lines[] = {
                {"block_failures", "blocks that did not authenticate", true},
                {"record_failures", "files and directories whose key records could not be used",
                 true},
                {"target_failures", "symlink targets that did not authenticate", true},
                {"attribute_failures", "attributes that did not authenticate", true},
                {"name_failures", "entries whose names could not be read", true},
                {"records_restored", "key records restored from their twin", false},
                {"open_files", "files open", false},
                {"known_inodes", "inodes known to the kernel", false},
        };
        char size[16];

        printf("%-16s%s", "read", tk_text_size((uint64_t)get_number(counters, "read_bytes"), size));
        printf(", written %s\n",
               tk_text_size((uint64_t)get_number(counters, "written_bytes"), size));
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
                json_int_t count = get_number(counters, lines[i].key);

                printf("%-16" JSON_INTEGER_FORMAT "%s%s\n", count, lines[i].text,
                       lines[i].alarming && count > 0 ? "  <-- damage: see the log, run verify"
                                                      : "");
        }
}

/* The root key's place, under the name that its provider has for it. */
static void print_place(const json_t *daemon, const char *name)
{
        if (json_object_get(daemon, name))
                print_field(name, get_text(daemon, name));
}

static void print_lease(const json_t *lease)
{
        const char *trouble = get_text(lease, "trouble");
        const char *version_trouble = get_text(lease, "version_trouble");
        const json_t *checked = json_object_get(lease, "version_checked_ago_s");

        if (trouble[0])
                print_field("", trouble);
        if (version_trouble[0] && strcmp(version_trouble, trouble) != 0)
                print_field("newest version", version_trouble);
        printf("%-16sgiven out %" JSON_INTEGER_FORMAT " s ago", "",
               get_number(lease, "confirmed_ago_s"));
        if (json_is_integer(checked))
                printf("; asked for a new version %" JSON_INTEGER_FORMAT " s ago",
                       json_integer_value(checked));
        putchar('\n');
}

static void print_held(const json_t *held)
{
        if (get_number(held, "files") > 0) {
                printf("%-16s%" JSON_INTEGER_FORMAT " that can't be written, the first ",
                       "files held", get_number(held, "files"));
                tk_text_print(stdout, get_text(held, "path"));
                printf(": %s\n", get_text(held, "error"));
        }
        if (get_number(held, "kept") > 0)
                printf("%-16sof %" JSON_INTEGER_FORMAT " files overwrites are kept until these can "
                       "be written\n",
                       "", get_number(held, "kept"));
}

static void print_hardening(const json_t *hardening)
{
        static const struct {
                const char *key;
                const char *text;
        } parts[] = {{"capabilities", "capabilities"},
                     {"no_new_privileges", "new privileges"},
                     {"system_calls", "system calls"}};
        const char *comma = "";

        printf("%-16s", "given up");
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
                if (!json_is_true(json_object_get(hardening, parts[i].key)))
                        continue;
                printf("%s%s", comma, parts[i].text);
                comma = ", ";
        }
        if (strcmp(get_text(hardening, "landlock"), "none") != 0) {
                printf("%s%s (Landlock)", comma, get_text(hardening, "landlock"));
                comma = ", ";
        }
        printf("%s\n", *comma ? "" : "nothing");
}

static void print_daemon(const json_t *daemon)
{
        printf("\n");
        print_field("provider", get_text(daemon, "provider"));
        print_place(daemon, "keystore");
        print_place(daemon, "key");
        print_field("state", get_text(daemon, "state"));
        print_lease(json_object_get(daemon, "lease"));
        print_field("fingerprint", get_text(daemon, "fingerprint"));
        printf("%-16s%s, %s\n", "access",
               json_is_true(json_object_get(daemon, "read_only")) ? "read-only" : "read and write",
               json_is_true(json_object_get(daemon, "allow_other")) ? "all users" : "owner only");
        printf("%-16s%" JSON_INTEGER_FORMAT "\n", "mount number",
               get_number(daemon, "mount_number"));
        print_uptime(get_number(daemon, "uptime_s"));
        printf("%-16s%" JSON_INTEGER_FORMAT "\n", "threads", get_number(daemon, "threads"));
        print_field("memory locked", get_text(daemon, "memory_locked"));
        print_hardening(json_object_get(daemon, "hardening"));
        print_rotation(json_object_get(daemon, "rotation"));
        print_held(json_object_get(daemon, "held"));
        print_counters(json_object_get(daemon, "counters"));
}

static void print_mounted(const json_t *root)
{
        const json_t *lock = json_object_get(root, "lock");
        const json_t *mountpoint = json_object_get(root, "mountpoint");

        if (json_is_object(lock)) {
                printf("%-16s", "in use");
                tk_text_print(stdout, get_text(lock, "doing"));
                printf(" (process %" JSON_INTEGER_FORMAT ")\n", get_number(lock, "pid"));
        } else if (json_is_string(mountpoint)) {
                printf("%-16s", "in use");
                printf("no, but a dead mount is left at ");
                tk_text_print(stdout, json_string_value(mountpoint));
                printf(": unmount it\n");
        } else {
                print_field("in use", "no");
        }
}

static void print_text(const json_t *root, const char *why)
{
        const json_t *daemon = json_object_get(root, "daemon");
        char when[32];

        print_field("encrypted", get_text(root, "path"));
        print_field("volume id", get_text(root, "volume_id"));
        print_field("made", tk_text_time(get_number(root, "created"), when));
        printf("%-16s%" JSON_INTEGER_FORMAT ", names = %s, dek_wrap = %s\n", "format",
               get_number(root, "format"), get_text(root, "names"), get_text(root, "dek_wrap"));
        print_mounted(root);
        printf("%-16s%" JSON_INTEGER_FORMAT "\n", "unclean mounts",
               get_number(root, "unclean_mounts"));
        print_keks(json_object_get(root, "kek_versions"));
        print_unneeded(json_object_get(root, "no_longer_needed"));
        print_escrow(json_object_get(root, "escrow"));
        if (json_is_object(daemon))
                print_daemon(daemon);
        else if (why)
                printf("\nthe mount does not say how it is: %s\n", why);
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
                            get_text(root, "path"));
}

int tk_cmd_status(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        const char *why;
        json_t *root;
        int r;

        r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        if (r < 0)
                return r;
        r = tk_volume_open(cipherdir, &volume, fault);
        if (r < 0)
                return r;
        root = gather(volume, &why);
        if (!root)
                return -ENOMEM;
        r = judge(root, fault);
        if (args->json)
                return tk_text_print_json(root) < 0 ? -EIO : r;
        print_text(root, why);
        json_decref(root);
        return r;
}
