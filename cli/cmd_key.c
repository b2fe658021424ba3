/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `key`: the root key through its provider.
 *
 * What takes something away asks on the terminal, or wants --yes.
 */

#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/open.h"
#include "cli/secret_source.h"
#include "cli/text.h"
#include "cli/tty.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SCHEMA = 1, KEY_FILE_MAX = 64 * 1024, DAYS_MAX = 36500, BITS_MAX = 16384 };

/* What a verb works on. */
struct job {
        const struct tk_args *args;
        struct tk_conf *conf;
        struct tk_volume *volume; /* NULL: no CIPHERDIR was given */
        struct tk_provider provider;
};

static void job_done(struct job *job)
{
        tk_provider_done(&job->provider);
        tk_volume_free(job->volume);
        tk_conf_free(job->conf);
}

static struct tk_provider_volume target_of(const struct job *job)
{
        return job->volume ? tk_open_target(job->volume) : (struct tk_provider_volume){0};
}

/* The configuration, and the volume if the @path_index-th path names one. */
static int prepare(struct job *job, const struct tk_args *args, int path_index,
                   struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        int r;

        job->args = args;
        r = tk_open_conf(args->config, &job->conf, fault);
        if (r < 0)
                return r;
        r = tk_hygiene_lock_memory(job->conf, fault);
        if (r < 0 || args->path_count <= path_index)
                return r;
        r = tk_open_find_cipherdir(args->paths[path_index], &cipherdir, fault);
        return r < 0 ? r : tk_volume_open(cipherdir, &job->volume, fault);
}

/* The same, and the key's place. */
static int locate(struct job *job, const struct tk_args *args, char **ret_place,
                  struct tk_fault *fault)
{
        struct tk_provider_volume target;
        int r;

        r = prepare(job, args, 0, fault);
        if (r < 0)
                return r;
        target = target_of(job);
        return tk_provider_locate(job->conf, &target, ret_place, fault);
}

/* The same, with the provider open. */
static int open_job(struct job *job, const struct tk_args *args, int path_index,
                    struct tk_fault *fault)
{
        struct tk_provider_volume target;
        int r;

        r = prepare(job, args, path_index, fault);
        if (r < 0)
                return r;
        target = target_of(job);
        return tk_provider_open(job->conf, &target, &job->provider, fault);
}

/* Decimal, up to @max. */
static int parse_number(const char *option, const char *text, unsigned max, unsigned *ret_number,
                        struct tk_fault *fault)
{
        char *end = NULL;
        unsigned long number = strtoul(text, &end, 10);

        if (text[0] < '0' || text[0] > '9' || *end || number > max)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "key: %s wants a number up to %u, not '%s'", option, max, text);
        *ret_number = (unsigned)number;
        return 0;
}

/* Ask whether to do @what, which has @consequence, unless --yes was given. */
static int confirm(const struct job *job, const char *what, const char *consequence,
                   struct tk_fault *fault)
{
        char question[1024];

        if (job->args->yes)
                return 0;
        snprintf(question, sizeof(question), "%s %s %s? %s [yes/no] ", what,
                 job->provider.place_name, job->provider.place, consequence);
        return tk_tty_want_yes("key", question, fault);
}

/* {"schema": 1, "done": @verb, ...}, or @text with the place. */
static int say_done(const struct tk_args *args, const char *verb, const char *version,
                    const char *place)
{
        if (args->json)
                return tk_text_print_json(json_pack("{si ss ss* so}", "schema", SCHEMA, "done",
                                                    verb, "version", version, "place",
                                                    tk_text_json(place)));
        printf("%s: ", verb);
        tk_text_print(stdout, place);
        printf("%s%s\n", version ? " version " : "", version ? version : "");
        return 0;
}

/* Verbs ------------------------------------------------------------------ */

static int key_create(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        TK_CLEANUP(tk_freep) char *place = NULL;
        struct tk_kms_key_spec spec = {0};
        int r = 0;

        if (args->bits)
                r = parse_number("--bits", args->bits, BITS_MAX, &spec.bits, fault);
        if (r < 0)
                return r;
        snprintf(spec.type, sizeof(spec.type), "%s", args->type ? args->type : "");
        r = locate(&job, args, &place, fault);
        if (r == 0)
                r = tk_provider_backend(job.conf)->create(job.conf, place, &spec, fault);
        return r < 0 ? r : say_done(args, "created", NULL, place);
}

static int key_import(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        r = open_job(&job, args, 1, fault);
        if (r < 0)
                return r;
        r = tk_secret_source_file(args->paths[0], KEY_FILE_MAX, &key);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, r, "cannot read the key from %s: %s",
                                    args->paths[0], strerror(-r));
        r = tk_kms_admin_import(job.provider.kms, key, args->byok, fault);
        return r < 0 ? r : say_done(args, "imported", NULL, job.provider.place);
}

static json_t *version_json(const struct tk_kms_key_version *version)
{
        json_t *object = json_pack("{so so sb sb so}", "version", tk_text_json(version->version),
                                   "type", tk_text_json(version->type), "enabled", version->enabled,
                                   "current", version->current, "created",
                                   version->created ? json_integer((json_int_t)version->created)
                                                    : json_null());

        json_object_set_new(object, "not_before",
                            version->not_before ? json_integer((json_int_t)version->not_before)
                                                : json_null());
        json_object_set_new(object, "expires",
                            version->expires ? json_integer((json_int_t)version->expires)
                                             : json_null());
        return object;
}

static int list_json(const struct job *job, const struct tk_kms_key_version *versions, size_t count)
{
        json_t *list = json_array();

        for (size_t i = 0; i < count; i++)
                json_array_append_new(list, version_json(&versions[i]));
        return tk_text_print_json(json_pack("{si ss so so}", "schema", SCHEMA, "provider",
                                            job->provider.name, job->provider.place_name,
                                            tk_text_json(job->provider.place), "versions", list));
}

static void print_version(const struct tk_kms_key_version *version)
{
        char when[32];

        tk_text_print(stdout, version->version);
        printf("  ");
        tk_text_print(stdout, version->type);
        printf("  %s%s", version->enabled ? "enabled" : "disabled",
               version->current ? ", current" : "");
        if (version->created)
                printf(", made %s", tk_text_time(version->created, when));
        if (version->not_before)
                printf(", valid from %s", tk_text_time(version->not_before, when));
        if (version->expires)
                printf(", expires %s", tk_text_time(version->expires, when));
        putchar('\n');
}

static int key_list(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        size_t count = 0;
        int r;

        r = open_job(&job, args, 0, fault);
        if (r == 0)
                r = tk_kms_admin_list(job.provider.kms, &versions, &count, fault);
        if (r < 0)
                return r;
        if (args->json)
                return list_json(&job, versions, count);
        for (size_t i = 0; i < count; i++)
                print_version(&versions[i]);
        return 0;
}

static int key_rotate(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        char version[TK_KMS_VERSION_MAX];
        int r;

        r = open_job(&job, args, 0, fault);
        if (r == 0)
                r = tk_kms_admin_rotate(job.provider.kms, version, fault);
        return r < 0 ? r : say_done(args, "rotated", version, job.provider.place);
}

static int key_disable(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        char what[128];
        int r;

        r = open_job(&job, args, 1, fault);
        if (r < 0)
                return r;
        snprintf(what, sizeof(what), "Disable version %s of the", args->paths[0]);
        r = confirm(&job, what, "What it still protects becomes unreadable until it is enabled.",
                    fault);
        if (r == 0)
                r = tk_kms_admin_set_enabled(job.provider.kms, args->paths[0], false, fault);
        return r < 0 ? r : say_done(args, "disabled", args->paths[0], job.provider.place);
}

static int key_enable(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        int r;

        r = open_job(&job, args, 1, fault);
        if (r == 0)
                r = tk_kms_admin_set_enabled(job.provider.kms, args->paths[0], true, fault);
        return r < 0 ? r : say_done(args, "enabled", args->paths[0], job.provider.place);
}

static int key_delete(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        int r;

        r = open_job(&job, args, 0, fault);
        if (r == 0)
                r = confirm(&job, "Delete the",
                            "Every volume under it becomes unreadable until it is recovered.",
                            fault);
        if (r == 0)
                r = tk_kms_admin_delete(job.provider.kms, fault);
        return r < 0 ? r : say_done(args, "deleted", NULL, job.provider.place);
}

static int key_recover(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        TK_CLEANUP(tk_freep) char *place = NULL;
        int r;

        r = locate(&job, args, &place, fault);
        if (r == 0)
                r = tk_provider_backend(job.conf)->recover(job.conf, place, fault);
        return r < 0 ? r : say_done(args, "recovered", NULL, place);
}

/* The rotation policy ---------------------------------------------------- */

static const struct {
        const char *option;
        const char *member;
        const char *text;
        size_t offset;
} days[TK_ARGS_DAYS] = {
        {"--rotate-after", "rotate_after_days", "a new version after",
         offsetof(struct tk_kms_rotation_policy, rotate_after_days)},
        {"--rotate-before", "rotate_before_days", "a new version before expiry",
         offsetof(struct tk_kms_rotation_policy, rotate_before_days)},
        {"--expiry", "expiry_days", "a version made by rotation expires after",
         offsetof(struct tk_kms_rotation_policy, expiry_days)},
        {"--notify-before", "notify_before_days", "a notice before expiry",
         offsetof(struct tk_kms_rotation_policy, notify_before_days)},
};

static unsigned *days_field(struct tk_kms_rotation_policy *policy, size_t i)
{
        return (unsigned *)(void *)((char *)policy + days[i].offset);
}

static int print_policy(const struct job *job, struct tk_kms_rotation_policy *policy)
{
        json_t *root;

        if (!job->args->json) {
                for (size_t i = 0; i < TK_ARGS_DAYS; i++) {
                        printf("%-41s", days[i].text);
                        if (*days_field(policy, i))
                                printf("%u days\n", *days_field(policy, i));
                        else
                                printf("never\n");
                }
                return 0;
        }
        root = json_pack("{si so}", "schema", SCHEMA, job->provider.place_name,
                         tk_text_json(job->provider.place));
        for (size_t i = 0; i < TK_ARGS_DAYS; i++)
                json_object_set_new(root, days[i].member, json_integer(*days_field(policy, i)));
        return tk_text_print_json(root);
}

/* What is given replaces the whole policy: what is left out is 0. Returns whether any was. */
static int read_policy(const struct tk_args *args, struct tk_kms_rotation_policy *policy,
                       struct tk_fault *fault)
{
        int given = 0;

        for (size_t i = 0; i < TK_ARGS_DAYS; i++) {
                int r;

                if (!args->days[i])
                        continue;
                r = parse_number(days[i].option, args->days[i], DAYS_MAX, days_field(policy, i),
                                 fault);
                if (r < 0)
                        return r;
                given = 1;
        }
        return given;
}

static int key_policy(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(job_done) struct job job = {0};
        struct tk_kms_rotation_policy policy = {0};
        int given;
        int r;

        given = read_policy(args, &policy, fault);
        if (given < 0)
                return given;
        r = open_job(&job, args, 0, fault);
        if (r < 0)
                return r;
        if (given)
                r = tk_kms_admin_set_policy(job.provider.kms, &policy, fault);
        if (r == 0)
                r = tk_kms_admin_get_policy(job.provider.kms, &policy, fault);
        return r < 0 ? r : print_policy(&job, &policy);
}

#define JSON_HELP "  -j, --json          the JSON that docs/cli.md describes\n"
#define YES_HELP "      --yes           don't ask\n"

const struct tk_command tk_key_verbs[] = {
        {.name = "key create",
         .synopsis = "[-c CONF] [--type TYPE] [--bits N] [CIPHERDIR]",
         .summary = "make the root key that the configuration names",
         .options = "c:jKS",
         .max_paths = 1,
         .run = key_create,
         .help = "With azure, TYPE is RSA (default), RSA-HSM or oct-HSM, and N 2048, 3072 or 4096 "
                 "(oct-HSM:\n256). With pkcs11, TYPE is AES (default, where the token has it) or "
                 "RSA. "
                 "With local it\nis a new keystore.\n\n" JSON_HELP},
        {.name = "key import",
         .synopsis = "[-c CONF] [--byok] FILE [CIPHERDIR]",
         .summary = "bring your own key into the vault or token",
         .options = "c:jB",
         .min_paths = 1,
         .max_paths = 2,
         .run = key_import,
         .help = "FILE is an RSA private key in PEM, or with pkcs11 also the 32 bytes of an AES "
                 "key.\n\n"
                 "      --byok          FILE is a .byok transfer blob, passed on as it "
                 "is\n" JSON_HELP},
        {.name = "key list",
         .synopsis = "[-c CONF] [--json] [CIPHERDIR]",
         .summary = "show all versions, oldest first",
         .options = "c:j",
         .max_paths = 1,
         .run = key_list,
         .help = JSON_HELP},
        {.name = "key rotate",
         .synopsis = "[-c CONF] [CIPHERDIR]",
         .summary = "make a new version; 'turnkeyfs rotate' brings files under it",
         .options = "c:j",
         .max_paths = 1,
         .run = key_rotate,
         .help = JSON_HELP},
        {.name = "key disable",
         .synopsis = "[-c CONF] [--yes] VERSION [CIPHERDIR]",
         .summary = "refuse the use of a version until it is enabled",
         .options = "c:jY",
         .min_paths = 1,
         .max_paths = 2,
         .run = key_disable,
         .help = YES_HELP JSON_HELP},
        {.name = "key enable",
         .synopsis = "[-c CONF] VERSION [CIPHERDIR]",
         .summary = "allow the use of a version again",
         .options = "c:j",
         .min_paths = 1,
         .max_paths = 2,
         .run = key_enable,
         .help = JSON_HELP},
        {.name = "key delete",
         .synopsis = "[-c CONF] [--yes] [CIPHERDIR]",
         .summary = "delete the key with all versions; recover brings it back",
         .options = "c:jY",
         .max_paths = 1,
         .run = key_delete,
         .help = YES_HELP JSON_HELP},
        {.name = "key recover",
         .synopsis = "[-c CONF] [CIPHERDIR]",
         .summary = "bring a deleted key back",
         .options = "c:j",
         .max_paths = 1,
         .run = key_recover,
         .help = JSON_HELP},
        {.name = "key policy",
         .synopsis = "[-c CONF] [--rotate-after DAYS] ... [CIPHERDIR]",
         .summary = "show or set when the vault makes new versions by itself",
         .options = "c:j4567",
         .max_paths = 1,
         .run = key_policy,
         .help = "Without an option it is shown. With any, it is replaced: what is left out is "
                 "off.\n\n"
                 "      --rotate-after DAYS   a new version so long after the last one\n"
                 "      --rotate-before DAYS  a new version so long before expiry\n"
                 "      --expiry DAYS         the life of a version made by rotation\n"
                 "      --notify-before DAYS  an event so long before expiry\n" JSON_HELP},
        {.name = "key readmit",
         .synopsis = "[-c CONF] KEK-VERSION CIPHERDIR",
         .summary = "accept key records under a retired KEK version, for a restored backup",
         .options = "c:j",
         .min_paths = 2,
         .max_paths = 2,
         .run = tk_key_readmit,
         .help = "CIPHERDIR must not be mounted, and the root key version that protects the KEK\n"
                 "version must be enabled. The next rotation, which the next mount begins, "
                 "rewraps\n"
                 "what is under it and retires it again. 'turnkeyfs status' lists the KEK "
                 "versions.\n\n" JSON_HELP},
        {.name = NULL},
};
