/* SPDX-License-Identifier: Apache-2.0 */

/* The text of `status`, and of `status --watch`: views of the JSON that docs/cli.md describes. */

#include "cli/status.h"

#include "cli/text.h"
#include <inttypes.h>
#include <string.h>

static const char *get_text(const json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));

        return text ? text : "?";
}

static json_int_t get_number(const json_t *object, const char *key)
{
        return json_integer_value(json_object_get(object, key));
}

static void print_field(FILE *out, const char *name, const char *value)
{
        fprintf(out, "%-16s", name);
        tk_text_print(out, value);
        fputc('\n', out);
}

/* Of a protector, or what is no longer one: "azure key https://... version ...". */
static void print_root_key(FILE *out, const json_t *root)
{
        fprintf(out, "%s key ", get_text(root, "provider"));
        tk_text_print(out, get_text(root, "key"));
        fputs(" version ", out);
        tk_text_print(out, get_text(root, "version"));
}

static void print_keks(FILE *out, const json_t *keks)
{
        const json_t *kek;
        const json_t *protector;
        char when[32];
        size_t i;
        size_t k;

        json_array_foreach(keks, i, kek)
        {
                bool several = json_array_size(json_object_get(kek, "protectors")) > 1;

                fprintf(out, "KEK version %" JSON_INTEGER_FORMAT "  %s, made %s\n",
                        get_number(kek, "version"), get_text(kek, "state"),
                        tk_text_time(get_number(kek, "created"), when));
                json_array_foreach(json_object_get(kek, "protectors"), k, protector)
                {
                        fprintf(out, "  protected by ");
                        if (several)
                                fprintf(out, "%" JSON_INTEGER_FORMAT ", ",
                                        get_number(protector, "number"));
                        print_root_key(out, protector);
                        fprintf(out, " (%s)\n", get_text(protector, "algorithm"));
                }
        }
}

static void print_unneeded(FILE *out, const json_t *list)
{
        const json_t *root;
        size_t i;

        json_array_foreach(list, i, root)
        {
                fputs("no longer needed by this volume, may be disabled: ", out);
                print_root_key(out, root);
                fputc('\n', out);
        }
}

/* What saves the names, where a backup loses extended attributes. */
static void print_escrow(FILE *out, const json_t *escrow)
{
        char when[32];

        if (!json_is_object(escrow)) {
                print_field(out, "escrow",
                            "none was exported; 'turnkeyfs escrow export' saves the key "
                            "records, which some backups lose");
                return;
        }
        fprintf(out, "%-16sexported %s%s\n", "escrow",
                tk_text_time(get_number(escrow, "exported"), when),
                json_is_true(json_object_get(escrow, "outdated"))
                        ? ", and of no use since the rotation after that: export again"
                        : "");
}

static void print_window(FILE *out, const json_t *rotation)
{
        const json_t *kept = json_object_get(rotation, "last_in_window");
        const json_t *left = json_object_get(rotation, "left_s");

        if (json_is_true(json_object_get(rotation, "window_missed")))
                fprintf(out,
                        "%-16sthe window of %" JSON_INTEGER_FORMAT " s is MISSED: files are still "
                        "under an older version\n",
                        "", get_number(rotation, "window_s"));
        else if (json_is_boolean(kept))
                fprintf(out, "%-16sthe last one was %s the window of %" JSON_INTEGER_FORMAT " s\n",
                        "", json_is_true(kept) ? "within" : "NOT within",
                        get_number(rotation, "window_s"));
        if (json_is_integer(left))
                fprintf(out, "%-16sabout %" JSON_INTEGER_FORMAT " s left\n", "",
                        json_integer_value(left));
}

static void print_versions(FILE *out, const json_t *files)
{
        json_int_t unseen = get_number(files, "unseen");
        const json_t *entry;
        const char *comma = "";
        size_t i;

        if (get_number(files, "total") == 0)
                return;
        fprintf(out, "%-16s", "");
        json_array_foreach(json_object_get(files, "versions"), i, entry)
        {
                json_int_t version = get_number(entry, "version");

                fprintf(out, "%s%" JSON_INTEGER_FORMAT " files under ", comma,
                        get_number(entry, "files"));
                if (version > 0)
                        fprintf(out, "KEK version %" JSON_INTEGER_FORMAT, version);
                else
                        fprintf(out, "others");
                comma = ", ";
        }
        if (unseen > 0)
                fprintf(out, "%s%" JSON_INTEGER_FORMAT " not seen yet", comma, unseen);
        fprintf(out, "%s\n",
                json_is_true(json_object_get(files, "estimated"))
                        ? " (estimated from the inodes in use)"
                        : "");
}

static void print_rotation(FILE *out, const json_t *rotation)
{
        const char *error = json_string_value(json_object_get(rotation, "error"));
        const json_t *files;
        bool started;

        print_field(out, "rotation", get_text(rotation, "state"));
        print_window(out, rotation);
        files = json_object_get(rotation, "files_by_version");
        started = get_number(rotation, "started") > 0;
        /* Inodes of a whole filesystem are no news before somebody waits for a rotation. */
        if (started || !json_is_true(json_object_get(files, "estimated")))
                print_versions(out, files);
        if (!started)
                return;
        fprintf(out,
                "%-16spass %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
                " files seen in it; %" JSON_INTEGER_FORMAT
                " rewrapped in all, %" JSON_INTEGER_FORMAT " failed\n",
                "", get_number(rotation, "passes"), get_number(rotation, "files"),
                get_number(rotation, "rewrapped"), get_number(rotation, "failed"));
        if (error)
                print_field(out, "", error);
}

static void print_duration(FILE *out, json_int_t seconds)
{
        if (seconds >= 86400)
                fprintf(out, "%" JSON_INTEGER_FORMAT " d ", seconds / 86400);
        fprintf(out, "%02d:%02d:%02d", (int)(seconds / 3600 % 24), (int)(seconds / 60 % 60),
                (int)(seconds % 60));
}

static void print_uptime(FILE *out, const json_t *daemon)
{
        fprintf(out, "%-16s", "up");
        print_duration(out, get_number(daemon, "uptime_s"));
        fprintf(out, ", process %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " threads%s\n",
                get_number(daemon, "pid"), get_number(daemon, "threads"),
                json_is_true(json_object_get(daemon, "keeps_cpus_awake"))
                        ? ", keeps CPUs awake while busy"
                        : "");
}

static const struct counter {
        const char *key;
        const char *text;
        bool alarming;
} counted[] = {
        {"block_failures", "blocks that did not authenticate", true},
        {"record_failures", "files and directories whose key records could not be used", true},
        {"target_failures", "symlink targets that did not authenticate", true},
        {"attribute_failures", "attributes that did not authenticate", true},
        {"name_failures", "entries whose names could not be read", true},
        {"records_restored", "key records restored from their twin", false},
        {"open_files", "files open", false},
        {"known_inodes", "inodes known to the kernel", false},
        {"cached_deks", "file keys kept that the KMS unwrapped", false},
};
enum { COUNTED = sizeof(counted) / sizeof(counted[0]) };

static void print_counter(FILE *out, const struct counter *counter, json_int_t count)
{
        fprintf(out, "%-16" JSON_INTEGER_FORMAT "%s%s\n", count, counter->text,
                counter->alarming && count > 0 ? "  <-- damage: see the log, run verify" : "");
}

static void print_traffic(FILE *out, const json_t *counters)
{
        char size[16];

        fprintf(out, "%-16s%s in %" JSON_INTEGER_FORMAT " requests", "read",
                tk_text_size((uint64_t)get_number(counters, "read_bytes"), size),
                get_number(counters, "read_requests"));
        fprintf(out, ", written %s in %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " fsyncs\n",
                tk_text_size((uint64_t)get_number(counters, "written_bytes"), size),
                get_number(counters, "write_requests"), get_number(counters, "fsync_requests"));
}

static void print_counters(FILE *out, const json_t *counters)
{
        print_traffic(out, counters);
        for (size_t i = 0; i < COUNTED; i++)
                print_counter(out, &counted[i], get_number(counters, counted[i].key));
}

/* The root key's place, under the name that its provider has for it. */
static void print_place(FILE *out, const json_t *daemon, const char *name)
{
        if (json_object_get(daemon, name))
                print_field(out, name, get_text(daemon, name));
}

static void print_lease(FILE *out, const json_t *lease)
{
        const char *trouble = get_text(lease, "trouble");
        const char *version_trouble = get_text(lease, "version_trouble");
        const json_t *checked = json_object_get(lease, "version_checked_ago_s");

        if (trouble[0])
                print_field(out, "", trouble);
        if (version_trouble[0] && strcmp(version_trouble, trouble) != 0)
                print_field(out, "newest version", version_trouble);
        fprintf(out, "%-16sgiven out %" JSON_INTEGER_FORMAT " s ago", "lease",
                get_number(lease, "confirmed_ago_s"));
        if (json_is_integer(json_object_get(lease, "left_s")))
                fprintf(out, ", %" JSON_INTEGER_FORMAT " s left", get_number(lease, "left_s"));
        fprintf(out, ", asked for again in %" JSON_INTEGER_FORMAT " s",
                get_number(lease, "next_probe_s"));
        if (get_number(lease, "failures") > 0)
                fprintf(out, "; %" JSON_INTEGER_FORMAT " times in a row without an answer",
                        get_number(lease, "failures"));
        if (json_is_integer(checked))
                fprintf(out, "; asked for a new version %" JSON_INTEGER_FORMAT " s ago",
                        json_integer_value(checked));
        fputc('\n', out);
}

/* Calls of the KMS: what each kind of them took on average. */
static void print_kms(FILE *out, json_t *kms)
{
        const char *separator = "";
        json_t *calls;
        const char *name;

        fprintf(out, "%-16s", "KMS calls");
        json_object_foreach(kms, name, calls)
        {
                json_int_t failed = get_number(calls, "failed");

                fprintf(out, "%s%s %" JSON_INTEGER_FORMAT, separator, name,
                        get_number(calls, "calls"));
                if (get_number(calls, "calls") > 0)
                        fprintf(out, " (%.3g ms)", (double)get_number(calls, "mean_us") / 1000);
                if (failed > 0)
                        fprintf(out, ", %" JSON_INTEGER_FORMAT " of them failed", failed);
                separator = "; ";
        }
        fputc('\n', out);
}

/* Requests answered with an error that tells of trouble. */
static void print_errors(FILE *out, json_t *errors)
{
        const char *separator = "";
        json_t *count;
        const char *name;

        fprintf(out, "%-16s", "errors");
        json_object_foreach(errors, name, count)
        {
                if (json_integer_value(count) == 0)
                        continue;
                fprintf(out, "%s%s %" JSON_INTEGER_FORMAT, separator, name,
                        json_integer_value(count));
                separator = ", ";
        }
        fprintf(out, "%s\n", *separator ? "" : "none");
}

static void print_journal(FILE *out, const json_t *journal)
{
        char waiting[16];
        char size[16];

        if (!json_is_object(journal)) {
                print_field(out, "journal", "none");
                return;
        }
        fprintf(out, "%-16s%s in %" JSON_INTEGER_FORMAT " batches not in place yet", "journal",
                tk_text_size((uint64_t)get_number(journal, "waiting_bytes"), waiting),
                get_number(journal, "batches"));
        if (get_number(journal, "waiting") > 0)
                fprintf(out, ", the oldest for %" JSON_INTEGER_FORMAT " s",
                        get_number(journal, "oldest_s"));
        fprintf(out, "; %s on disk",
                tk_text_size((uint64_t)get_number(journal, "size_bytes"), size));
        if (get_number(journal, "flush_failures") > 0)
                fprintf(out, "; %" JSON_INTEGER_FORMAT " flushes FAILED",
                        get_number(journal, "flush_failures"));
        fprintf(out, "%s\n",
                json_is_true(json_object_get(journal, "stuck")) ? "; STUCK: overwrites wait" : "");
}

static void print_held(FILE *out, const json_t *held)
{
        if (get_number(held, "files") > 0) {
                fprintf(out, "%-16s%" JSON_INTEGER_FORMAT " that can't be written, the first ",
                        "files held", get_number(held, "files"));
                tk_text_print(out, get_text(held, "path"));
                fprintf(out, ": %s\n", get_text(held, "error"));
        }
        if (get_number(held, "kept") > 0)
                fprintf(out,
                        "%-16sof %" JSON_INTEGER_FORMAT
                        " files overwrites are kept until these can "
                        "be written\n",
                        "", get_number(held, "kept"));
}

static void print_hardening(FILE *out, const json_t *hardening)
{
        static const struct {
                const char *key;
                const char *text;
        } parts[] = {{"capabilities", "capabilities"},
                     {"no_new_privileges", "new privileges"},
                     {"system_calls", "system calls"}};
        const char *comma = "";

        fprintf(out, "%-16s", "given up");
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
                if (!json_is_true(json_object_get(hardening, parts[i].key)))
                        continue;
                fprintf(out, "%s%s", comma, parts[i].text);
                comma = ", ";
        }
        if (strcmp(get_text(hardening, "landlock"), "none") != 0) {
                fprintf(out, "%s%s (Landlock)", comma, get_text(hardening, "landlock"));
                comma = ", ";
        }
        fprintf(out, "%s\n", *comma ? "" : "nothing");
}

static void print_daemon(FILE *out, const json_t *daemon)
{
        fprintf(out, "\n");
        print_field(out, "provider", get_text(daemon, "provider"));
        print_place(out, daemon, "keystore");
        print_place(out, daemon, "key");
        fprintf(out, "%-16s%" JSON_INTEGER_FORMAT "\n", "protector",
                get_number(daemon, "protector"));
        print_field(out, "state", get_text(daemon, "state"));
        print_lease(out, json_object_get(daemon, "lease"));
        print_kms(out, json_object_get(daemon, "kms_calls"));
        print_field(out, "fingerprint", get_text(daemon, "fingerprint"));
        fprintf(out, "%-16s%s, %s\n", "access",
                json_is_true(json_object_get(daemon, "read_only")) ? "read-only" : "read and write",
                json_is_true(json_object_get(daemon, "allow_other")) ? "all users" : "owner only");
        fprintf(out, "%-16s%" JSON_INTEGER_FORMAT "\n", "mount number",
                get_number(daemon, "mount_number"));
        print_uptime(out, daemon);
        print_field(out, "memory locked", get_text(daemon, "memory_locked"));
        print_hardening(out, json_object_get(daemon, "hardening"));
        print_rotation(out, json_object_get(daemon, "rotation"));
        print_journal(out, json_object_get(daemon, "journal"));
        print_held(out, json_object_get(daemon, "held"));
        print_errors(out, json_object_get(daemon, "errors"));
        print_counters(out, json_object_get(daemon, "counters"));
}

static void print_mounted(FILE *out, const json_t *root)
{
        const json_t *lock = json_object_get(root, "lock");
        const json_t *mountpoint = json_object_get(root, "mountpoint");

        if (json_is_object(lock)) {
                fprintf(out, "%-16s", "in use");
                tk_text_print(out, get_text(lock, "doing"));
                fprintf(out, " (process %" JSON_INTEGER_FORMAT ")\n", get_number(lock, "pid"));
        } else if (json_is_string(mountpoint)) {
                fprintf(out, "%-16s", "in use");
                fprintf(out, "no, but a dead mount is left at ");
                tk_text_print(out, json_string_value(mountpoint));
                fprintf(out, ": unmount it\n");
        } else {
                print_field(out, "in use", "no");
        }
}

void tk_status_print(FILE *out, const json_t *root, const char *why)
{
        const json_t *daemon = json_object_get(root, "daemon");
        char when[32];

        print_field(out, "encrypted", get_text(root, "path"));
        print_field(out, "volume id", get_text(root, "volume_id"));
        print_field(out, "made", tk_text_time(get_number(root, "created"), when));
        fprintf(out, "%-16s%" JSON_INTEGER_FORMAT ", names = %s, dek_wrap = %s\n", "format",
                get_number(root, "format"), get_text(root, "names"), get_text(root, "dek_wrap"));
        print_mounted(out, root);
        fprintf(out, "%-16s%" JSON_INTEGER_FORMAT "\n", "unclean mounts",
                get_number(root, "unclean_mounts"));
        print_keks(out, json_object_get(root, "kek_versions"));
        print_unneeded(out, json_object_get(root, "no_longer_needed"));
        print_escrow(out, json_object_get(root, "escrow"));
        if (json_is_object(daemon))
                print_daemon(out, daemon);
        else if (why)
                fprintf(out, "\nthe mount does not say how it is: %s\n", why);
}

/* A look at what changes --------------------------------------------------- */

/* What the mount counted at the look before; NULL: there was none, or it was another mount. */
static const json_t *counters_before(const struct tk_status_look *look)
{
        const json_t *daemon = json_object_get(look->root, "daemon");
        const json_t *last = json_object_get(look->last, "daemon");

        if (look->apart_ms <= 0 || get_number(daemon, "pid") != get_number(last, "pid") ||
            get_number(daemon, "uptime_s") < get_number(last, "uptime_s"))
                return NULL;
        return json_object_get(last, "counters");
}

struct traffic {
        const char *name;
        const char *bytes; /* NULL: it has none */
        const char *requests;
};

static void print_rate(FILE *out, const struct traffic *traffic, const struct tk_status_look *look)
{
        const json_t *counters = json_object_get(json_object_get(look->root, "daemon"), "counters");
        const json_t *last = counters_before(look);
        json_int_t bytes = traffic->bytes ? get_number(counters, traffic->bytes) : 0;
        json_int_t requests = get_number(counters, traffic->requests);
        char size[16];

        fprintf(out, "%-16s", traffic->name);
        if (last && !traffic->bytes)
                fprintf(out, "%13s", "");
        else if (last)
                fprintf(out, "%9s/s  ",
                        tk_text_size((uint64_t)((bytes - get_number(last, traffic->bytes)) * 1000 /
                                                look->apart_ms),
                                     size));
        if (last)
                fprintf(out, "%7.1f requests/s  ",
                        (double)(requests - get_number(last, traffic->requests)) * 1000 /
                                (double)look->apart_ms);
        if (traffic->bytes)
                fprintf(out, "%s in ", tk_text_size((uint64_t)bytes, size));
        fprintf(out, "%" JSON_INTEGER_FORMAT " requests in all\n", requests);
}

/* The version that new files are under: the newest one. */
static void print_newest_kek(FILE *out, const struct tk_status_look *look)
{
        const json_t *keks = json_object_get(look->root, "kek_versions");
        const json_t *kek = json_array_get(keks, json_array_size(keks) - 1);
        const json_t *protectors = json_object_get(kek, "protectors");
        const json_t *protector;
        size_t i;

        fprintf(out, "%-16sKEK version %" JSON_INTEGER_FORMAT ", ", "key",
                get_number(kek, "version"));
        print_duration(out, look->now - get_number(kek, "created"));
        fputs(" old", out);
        json_array_foreach(protectors, i, protector)
        {
                fputs("; ", out);
                print_root_key(out, protector);
        }
        fputc('\n', out);
}

static void print_cache(FILE *out, const json_t *counters)
{
        fprintf(out,
                "%-16s%" JSON_INTEGER_FORMAT " files open, %" JSON_INTEGER_FORMAT
                " inodes known, %" JSON_INTEGER_FORMAT " file keys kept\n",
                "cache", get_number(counters, "open_files"), get_number(counters, "known_inodes"),
                get_number(counters, "cached_deks"));
        for (size_t i = 0; i < COUNTED; i++)
                if (counted[i].alarming && get_number(counters, counted[i].key) > 0)
                        print_counter(out, &counted[i], get_number(counters, counted[i].key));
}

static void print_busy(FILE *out, const struct tk_status_look *look)
{
        static const struct traffic kinds[] = {{"read", "read_bytes", "read_requests"},
                                               {"written", "written_bytes", "write_requests"},
                                               {"fsync", NULL, "fsync_requests"}};
        const json_t *daemon = json_object_get(look->root, "daemon");

        print_field(out, "state", get_text(daemon, "state"));
        print_lease(out, json_object_get(daemon, "lease"));
        print_newest_kek(out, look);
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
                print_rate(out, &kinds[i], look);
        print_errors(out, json_object_get(daemon, "errors"));
        print_cache(out, json_object_get(daemon, "counters"));
        print_journal(out, json_object_get(daemon, "journal"));
        print_held(out, json_object_get(daemon, "held"));
        print_kms(out, json_object_get(daemon, "kms_calls"));
        print_rotation(out, json_object_get(daemon, "rotation"));
        print_uptime(out, daemon);
}

static void print_away(FILE *out, const struct tk_status_look *look)
{
        fprintf(out, "%-16s", "state");
        if (look->why)
                fprintf(out, "the mount does not say how it is: %s", look->why);
        else if (look->gone_s >= 0)
                fprintf(out, "the mount ended %" JSON_INTEGER_FORMAT " s ago; waiting for another",
                        (json_int_t)look->gone_s);
        else
                fputs("not mounted; waiting for a mount", out);
        fputc('\n', out);
        print_newest_kek(out, look);
        fprintf(out, "%-16s%" JSON_INTEGER_FORMAT "\n", "unclean mounts",
                get_number(look->root, "unclean_mounts"));
}

void tk_status_print_look(FILE *out, const struct tk_status_look *look)
{
        char when[32];

        print_field(out, tk_text_time(look->now, when), "");
        print_field(out, "encrypted", get_text(look->root, "path"));
        print_mounted(out, look->root);
        if (json_is_object(json_object_get(look->root, "daemon")))
                print_busy(out, look);
        else
                print_away(out, look);
}
