/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `protector`: several root keys for one volume.
 *
 * The new one comes from a configuration of its own, as with `rotate --to`. It is opened here,
 * also for a mount: its secrets never get there, only the public half of its envelope does.
 * What was added is proved from the volume file as it is then.
 */

#include "base/bytes.h"
#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/open.h"
#include "cli/serve.h"
#include "cli/text.h"
#include "cli/tty.h"
#include "fs/protector.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SCHEMA = 1 };

/* What a verb works on. */
struct job {
        const struct tk_args *args;
        struct tk_conf *conf;
        struct tk_volume *volume;
        struct tk_open_keys keys;
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        bool mounted;
};

static void job_done(struct job *job)
{
        tk_volume_free(job->volume); /* before its keys */
        tk_open_keys_done(&job->keys);
        tk_conf_free(job->conf);
}

static int open_volume(struct job *job, const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        int r;

        job->args = args;
        r = tk_open_conf(args->config, &job->conf, fault);
        if (r == 0)
                r = tk_hygiene_lock_memory(job->conf, fault);
        if (r == 0)
                r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        return r < 0 ? r : tk_volume_open(cipherdir, &job->volume, fault);
}

/* From the mount, if there is one; otherwise the volume is unlocked here. */
static int get_ready(struct job *job, const char *doing, struct tk_fault *fault)
{
        const char *why;
        json_t *daemon = tk_serve_ask(job->volume, &why);
        const char *fingerprint = json_string_value(json_object_get(daemon, "fingerprint"));
        int r = 0;

        job->mounted = daemon != NULL;
        if (!daemon)
                r = tk_open_unlock(job->volume, job->conf, doing, &job->keys, fault);
        if (r == 0 && !daemon)
                fingerprint = tk_volume_fingerprint(job->volume);
        if (r == 0 && (!fingerprint || strlen(fingerprint) != TK_FINGERPRINT_LEN))
                r = tk_fault_set(fault, TK_FAULT_INTERNAL, -EPROTO,
                                 "the mount of %s does not say its fingerprint",
                                 tk_volume_path(job->volume));
        if (r == 0)
                memcpy(job->fingerprint, fingerprint, sizeof(job->fingerprint));
        json_decref(daemon);
        return r;
}

/* add -------------------------------------------------------------------- */

static int check_mode(const struct tk_volume *volume, struct tk_fault *fault)
{
        if (tk_volume_dek_wrap(volume) == TK_DEK_WRAP_KEK)
                return 0;
        return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "%s was made with dek_wrap = kms: its one root key wraps each file's "
                            "key itself, and a file's key record has room for one; several "
                            "protectors need a volume with dek_wrap = kek",
                            tk_volume_path(volume));
}

/* Whether @provider opens the volume as its file is now: to the same volume key. */
static int prove(const struct job *job, const struct tk_provider *provider, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        struct tk_volume_unlock unlock = {.fingerprint = job->fingerprint};
        int r;

        r = tk_volume_open(tk_volume_path(job->volume), &volume, fault);
        return r < 0 ? r : tk_volume_unlock(volume, provider->kms, &unlock, fault);
}

static int say_unproved(const struct job *job, unsigned number, int r, const struct tk_fault *said,
                        struct tk_fault *fault)
{
        return tk_fault_set(fault, said->kind ? said->kind : TK_FAULT_INTERNAL, r,
                            "protector %u was added to %s, but does not open it: %s; remove it by "
                            "'turnkeyfs protector remove'",
                            number, tk_volume_path(job->volume),
                            said->kind ? said->text : strerror(-r));
}

/* A new root key that nothing uses is left, and said to be. */
static int say_left(const struct tk_provider *provider, int r, struct tk_fault *fault)
{
        if (r < 0 && provider->made && fault->kind)
                tk_fault_add(fault, "; the new %s %s is left, and may be removed: nothing uses it",
                             provider->place_name, provider->place);
        return r;
}

static int hand_over(struct job *job, const struct tk_provider *provider, unsigned *ret_number,
                     struct tk_fault *fault)
{
        struct tk_volume_wrap envelope;
        int r;

        r = tk_protector_make(tk_volume_id(job->volume), job->fingerprint, provider->kms, NULL,
                              &envelope, NULL, fault);
        if (r < 0)
                return r;
        if (!job->mounted)
                return tk_volume_add_protector(job->volume, &envelope, ret_number, fault);
        r = tk_serve_ask_add_protector(job->volume, &envelope, ret_number, fault);
        if (r == TK_SERVE_NOBODY)
                return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, -ENOTCONN,
                                    "%s was unmounted meanwhile; try again",
                                    tk_volume_path(job->volume));
        return r;
}

static int say_added(const struct job *job, const struct tk_provider *provider, unsigned number)
{
        const char *place = provider->place;

        if (job->args->json)
                return tk_text_print_json(json_pack("{si ss si so so}", "schema", SCHEMA, "done",
                                                    "added", "number", (int)number, "place",
                                                    tk_text_json(place), "made",
                                                    json_boolean(provider->made)));
        printf("added: protector %u, %s ", number, provider->place_name);
        tk_text_print(stdout, place);
        printf("%s\nIt was tried: it opens the volume as it is now, and follows each rotation.\n",
               provider->made ? " (new)" : "");
        if (provider->makes_versions)
                printf("Keep the keystore away from the data, and from this machine if it is for "
                       "emergencies.\n");
        return 0;
}

static int add(struct job *job, const struct tk_conf *new_conf, struct tk_fault *fault)
{
        TK_CLEANUP(tk_provider_done) struct tk_provider provider = {0};
        struct tk_provider_volume target = tk_open_target(job->volume);
        struct tk_fault said = {0};
        unsigned number = 0;
        int r;

        r = tk_provider_make(new_conf, &target, &provider, fault);
        if (r < 0)
                return r;
        r = hand_over(job, &provider, &number, fault);
        if (r < 0)
                return say_left(&provider, r, fault);
        r = prove(job, &provider, &said);
        if (r < 0)
                return say_unproved(job, number, r, &said, fault);
        return say_added(job, &provider, number);
}

static int protector_add(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        TK_CLEANUP(tk_conf_freep) struct tk_conf *new_conf = NULL;
        int r;

        r = open_volume(&job, args, fault);
        if (r == 0)
                r = check_mode(job.volume, fault);
        if (r == 0)
                r = tk_conf_load(args->paths[1], &new_conf, fault);
        if (r == 0)
                r = get_ready(&job, "being given a protector", fault);
        return r < 0 ? r : add(&job, new_conf, fault);
}

/* remove ----------------------------------------------------------------- */

static int parse_number(const char *text, unsigned *ret_number, struct tk_fault *fault)
{
        char *end = NULL;
        unsigned long number = strtoul(text, &end, 10);

        if (text[0] < '1' || text[0] > '9' || *end || number > TK_PROTECTORS_MAX)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "protector: '%s' is no protector's number; 'turnkeyfs "
                                    "protector list' shows them",
                                    text);
        *ret_number = (unsigned)number;
        return 0;
}

/* The wrap of the newest KEK version by protector @number. */
static int find(struct tk_volume *volume, unsigned number, struct tk_volume_wrap *ret_wrap,
                struct tk_fault *fault)
{
        for (size_t i = tk_volume_wrap_count(volume); i-- > 0;) {
                *ret_wrap = tk_volume_wrap_at(volume, i);
                if (ret_wrap->protector == number &&
                    ret_wrap->kek_version == tk_volume_kek_count(volume))
                        return 0;
        }
        return tk_fault_set(fault, TK_FAULT_USAGE, -ENOENT,
                            "%s has no protector %u; 'turnkeyfs protector list' shows them",
                            tk_volume_path(volume), number);
}

static int confirm(const struct tk_args *args, const struct tk_volume_wrap *wrap,
                   struct tk_fault *fault)
{
        char question[512];

        if (args->yes)
                return 0;
        snprintf(question, sizeof(question),
                 "Remove protector %u, %s key %s? It does not open the volume any more. [yes/no] ",
                 wrap->protector, wrap->provider, wrap->wrap.key_id);
        return tk_tty_want_yes("protector", question, fault);
}

static int say_removed(const struct tk_args *args, const struct tk_volume_wrap *wrap)
{
        if (args->json)
                return tk_text_print_json(json_pack("{si ss si ss so}", "schema", SCHEMA, "done",
                                                    "removed", "number", (int)wrap->protector,
                                                    "provider", wrap->provider, "key",
                                                    tk_text_json(wrap->wrap.key_id)));
        printf("removed: protector %u, %s key ", wrap->protector, wrap->provider);
        tk_text_print(stdout, wrap->wrap.key_id);
        printf("\nIt still opens copies from before: backups and escrows. Run 'turnkeyfs rotate' "
               "now, so that with them it opens no key record that is made from then on.\n");
        return 0;
}

static int protector_remove(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        struct tk_volume_wrap wrap = {0};
        unsigned number = 0;
        int r;

        r = parse_number(args->paths[1], &number, fault);
        if (r == 0)
                r = open_volume(&job, args, fault);
        if (r == 0)
                r = find(job.volume, number, &wrap, fault);
        if (r == 0)
                r = confirm(args, &wrap, fault);
        if (r == 0)
                r = get_ready(&job, "being relieved of a protector", fault);
        if (r < 0)
                return r;
        r = job.mounted ? tk_serve_ask_remove_protector(job.volume, number, fault)
                        : tk_volume_remove_protector(job.volume, number, fault);
        if (r == TK_SERVE_NOBODY)
                return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, -ENOTCONN,
                                    "%s was unmounted meanwhile; try again",
                                    tk_volume_path(job.volume));
        return r < 0 ? r : say_removed(args, &wrap);
}

/* list ------------------------------------------------------------------- */

/* What the configured one says. */
struct check {
        bool asked;
        unsigned number; /* 0: none of the volume's */
        int result;
        char newest[TK_KMS_VERSION_MAX]; /* of its root key; empty: not known */
        struct tk_fault said;
};

/* Unlocked as for a mount, but without the lock: the volume may be mounted. */
static void ask_configured(struct job *job, struct check *check)
{
        struct tk_provider_volume target = tk_open_target(job->volume);
        struct tk_kms *kms;
        int r;

        check->asked = true;
        r = tk_provider_open(job->conf, &target, &job->keys.current, &check->said);
        kms = job->keys.current.kms;
        if (r == 0)
                r = tk_volume_find_protector(job->volume, kms, &check->number, &check->said);
        if (r == 0)
                r = tk_open_unlock_with(job->volume, job->conf, &job->keys, &check->said);
        if (r == 0 && tk_kms_current(kms, check->newest, NULL) < 0)
                check->newest[0] = '\0';
        check->result = r;
}

static const char *state_of(const struct check *check)
{
        switch (check->result) {
        case 0:
                return "usable";
        case -EKEYREVOKED:
        case -ENOENT:
                return "refused";
        case -EKEYEXPIRED:
                return "expired";
        case -ENOKEY:
                return "unreachable";
        default:
                return "failed";
        }
}

/* Whether the @index-th wrap is the newest of a protector, and in use. */
static bool is_listed(struct tk_volume *volume, size_t index)
{
        struct tk_volume_wrap wrap = tk_volume_wrap_at(volume, index);

        if (!tk_volume_kek_at(volume, wrap.kek_version - 1U).active)
                return false;
        for (size_t i = 0; i < tk_volume_wrap_count(volume); i++) {
                struct tk_volume_wrap other = tk_volume_wrap_at(volume, i);

                if (other.protector == wrap.protector && other.kek_version > wrap.kek_version &&
                    strcmp(other.wrap.key_id, wrap.wrap.key_id) == 0)
                        return false;
        }
        return true;
}

/* The KEK versions in use that the key of @wrap opens. */
static json_t *versions_of(struct tk_volume *volume, const struct tk_volume_wrap *wrap)
{
        json_t *list = json_array();

        for (size_t i = 0; i < tk_volume_wrap_count(volume); i++) {
                struct tk_volume_wrap other = tk_volume_wrap_at(volume, i);

                if (other.protector == wrap->protector &&
                    strcmp(other.wrap.key_id, wrap->wrap.key_id) == 0 &&
                    tk_volume_kek_at(volume, other.kek_version - 1U).active)
                        json_array_append_new(list, json_integer(other.kek_version));
        }
        return list;
}

static json_t *check_json(const struct check *check, const struct tk_volume_wrap *wrap)
{
        if (!check->asked || check->number != wrap->protector)
                return json_null();
        return json_pack("{ss so so}", "state", state_of(check), "newest_version",
                         check->newest[0] ? tk_text_json(check->newest) : json_null(), "error",
                         check->said.kind ? tk_text_json(check->said.text) : json_null());
}

static json_t *protector_json(struct tk_volume *volume, const struct tk_volume_wrap *wrap,
                              const struct check *check)
{
        json_t *versions = versions_of(volume, wrap);
        bool lagging = json_array_size(versions) < tk_volume_active_count(volume);

        return json_pack("{si ss so so so so sb so}",                     //
                         "number", (int)wrap->protector,                  //
                         "provider", wrap->provider,                      //
                         "key", tk_text_json(wrap->wrap.key_id),          //
                         "version", tk_text_json(wrap->wrap.version),     //
                         "algorithm", tk_text_json(wrap->wrap.algorithm), //
                         "kek_versions", versions,                        //
                         "lagging", (int)lagging,                         //
                         "checked", check_json(check, wrap));
}

static json_t *gather(struct tk_volume *volume, const struct check *check)
{
        json_t *list = json_array();

        for (unsigned number = 1; number <= TK_PROTECTORS_MAX; number++)
                for (size_t i = 0; i < tk_volume_wrap_count(volume); i++) {
                        struct tk_volume_wrap wrap = tk_volume_wrap_at(volume, i);

                        if (wrap.protector == number && is_listed(volume, i))
                                json_array_append_new(list, protector_json(volume, &wrap, check));
                }
        return list;
}

static const char *text_of(const json_t *object, const char *name)
{
        const char *text = json_string_value(json_object_get(object, name));

        return text ? text : "?";
}

static void print_one(const json_t *protector)
{
        const json_t *checked = json_object_get(protector, "checked");
        const char *newest = json_string_value(json_object_get(checked, "newest_version"));

        printf("protector %" JSON_INTEGER_FORMAT "  %s key ",
               json_integer_value(json_object_get(protector, "number")),
               text_of(protector, "provider"));
        tk_text_print(stdout, text_of(protector, "key"));
        printf(" version ");
        tk_text_print(stdout, text_of(protector, "version"));
        printf(" (%s)\n", text_of(protector, "algorithm"));
        if (json_is_true(json_object_get(protector, "lagging")))
                printf("             does not open every KEK version in use: a rotation to "
                       "another key is unfinished\n");
        if (!json_is_object(checked))
                return;
        printf("             asked now: %s\n", text_of(checked, "state"));
        if (newest && strcmp(newest, text_of(protector, "version")) != 0)
                printf("             its key has a newer version, %s\n", newest);
}

static int print_list(struct job *job, const struct check *check)
{
        json_t *list = gather(job->volume, check);
        const json_t *protector;
        size_t i;

        if (job->args->json)
                return tk_text_print_json(json_pack("{si so si sb so}", "schema", SCHEMA, "path",
                                                    tk_text_json(tk_volume_path(job->volume)),
                                                    "format", tk_volume_format(job->volume),
                                                    "authentic", check->asked && check->result == 0,
                                                    "protectors", list));
        json_array_foreach(list, i, protector) print_one(protector);
        json_decref(list);
        return 0;
}

static int protector_list(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        struct check check = {0};
        int r;

        r = open_volume(&job, args, fault);
        if (r < 0)
                return r;
        if (args->config)
                ask_configured(&job, &check);
        r = print_list(&job, &check);
        fflush(stdout);
        if (r < 0 || check.result == 0)
                return r;
        return tk_fault_set(fault, check.said.kind ? check.said.kind : TK_FAULT_INTERNAL,
                            check.result, "%s",
                            check.said.kind ? check.said.text : strerror(-check.result));
}

#define JSON_HELP "  -j, --json          the JSON that docs/cli.md describes\n"

const struct tk_command tk_protector_verbs[] = {
        {.name = "protector add",
         .synopsis = "[-c CONF] PATH NEWCONF",
         .summary = "let the root key of another configuration open the volume, too",
         .options = "c:j",
         .min_paths = 2,
         .max_paths = 2,
         .run = protector_add,
         .help = "PATH is the mountpoint or the CIPHERDIR; without a mount, -c says how to open "
                 "it. The key\n"
                 "of NEWCONF is asked here, once; it need not be there for later rotations. A "
                 "keystore that\n"
                 "is missing is made.\n\n" JSON_HELP},
        {.name = "protector remove",
         .synopsis = "[-c CONF] [--yes] PATH NUMBER",
         .summary = "take a root key out; not the one that the volume is opened by",
         .options = "c:jY",
         .min_paths = 2,
         .max_paths = 2,
         .run = protector_remove,
         .help = "      --yes           don't ask\n" JSON_HELP},
        {.name = "protector list",
         .synopsis = "[-c CONF] [--json] PATH",
         .summary = "show them; with -c, try the one that CONF names",
         .options = "c:j",
         .min_paths = 1,
         .max_paths = 1,
         .run = protector_list,
         .help = "Without -c no key is needed, and the list is as the volume file has it. With -c "
                 "the root key\n"
                 "is asked, and the volume file authenticated; it may be mounted meanwhile. Exits "
                 "with 0 if\n"
                 "the key opens the volume.\n\n" JSON_HELP},
        {.name = NULL},
};
