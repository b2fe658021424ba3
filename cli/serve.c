/* SPDX-License-Identifier: Apache-2.0 */

/* What a running mount says of itself over the control channel: docs/cli.md, "daemon". */

#include "cli/serve.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/control.h"
#include "cli/hygiene.h"
#include "cli/text.h"
#include "fs/keeper.h"
#include "fs/translate.h"
#include "kms/kms_stats.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static json_t *counters(const struct tk_stats *stats, const struct tk_fs_load *load)
{
        struct tk_stats_sum read = tk_stats_sum(stats, TK_STATS_READ);
        struct tk_stats_sum written = tk_stats_sum(stats, TK_STATS_WRITE);
        struct tk_stats_sum synced = tk_stats_sum(stats, TK_STATS_FSYNC);

        return json_pack("{sI sI sI sI sI sI sI sI sI sI sI sI sI sI}",               //
                         "read_bytes", (json_int_t)read.bytes,                        //
                         "written_bytes", (json_int_t)written.bytes,                  //
                         "read_requests", (json_int_t)read.requests,                  //
                         "write_requests", (json_int_t)written.requests,              //
                         "fsync_requests", (json_int_t)synced.requests,               //
                         "block_failures", (json_int_t)stats->block_failures,         //
                         "record_failures", (json_int_t)stats->record_failures,       //
                         "name_failures", (json_int_t)stats->name_failures,           //
                         "records_restored", (json_int_t)stats->records_restored,     //
                         "target_failures", (json_int_t)stats->target_failures,       //
                         "attribute_failures", (json_int_t)stats->attribute_failures, //
                         "open_files", (json_int_t)stats->open_files,                 //
                         "known_inodes", (json_int_t)stats->known_inodes,             //
                         "cached_deks", (json_int_t)load->cached_deks);
}

/* Errors that requests were answered with, by kind. */
static json_t *errors(const struct tk_stats *stats)
{
        json_t *object = json_object();

        for (unsigned i = 0; i < TK_STATS_ERRORS; i++)
                json_object_set_new(object, tk_stats_error_name(i),
                                    json_integer((json_int_t)stats->errors[i]));
        return object;
}

/* null if overwrites are not journaled. */
static json_t *journal(const struct tk_fs_load *load)
{
        if (!load->has_journal)
                return json_null();
        return json_pack("{sI sI sI si sI sI sb}",                                   //
                         "size_bytes", (json_int_t)load->journal.len,                //
                         "waiting_bytes", (json_int_t)load->journal.waiting_bytes,   //
                         "waiting", (json_int_t)load->journal.waiting,               //
                         "batches", (int)load->journal.batches,                      //
                         "oldest_s", (json_int_t)(load->journal.oldest_ms / 1000),   //
                         "flush_failures", (json_int_t)load->journal.flush_failures, //
                         "stuck", load->journal.stuck);
}

/* Calls of the KMS, by operation: how many, how many of those failed, and how long they took. */
static json_t *kms_calls(void)
{
        json_t *object = json_object();

        for (unsigned i = 0; i < TK_KMS_OPS; i++) {
                uint64_t calls = 0;
                uint64_t total_us = 0;
                uint64_t good = 0;

                for (unsigned k = 0; k < TK_KMS_OUTCOMES; k++) {
                        struct tk_kms_stats stats = tk_kms_stats_of(i, k);

                        calls += stats.calls;
                        total_us += stats.total_us;
                        good += k == TK_KMS_OK ? stats.calls : 0;
                }
                json_object_set_new(object, tk_kms_operation_name(i),
                                    json_pack("{sI sI sI}", "calls", (json_int_t)calls, "failed",
                                              (json_int_t)(calls - good), "mean_us",
                                              (json_int_t)(calls ? total_us / calls : 0)));
        }
        return object;
}

/* How the KMS answers: docs/cli.md, "daemon.lease". */
static json_t *lease(const struct tk_keeper_status *keeper)
{
        json_t *checked = keeper->rotation_checked_ago_ms < 0
                                  ? json_null()
                                  : json_integer(keeper->rotation_checked_ago_ms / 1000);

        return json_pack("{sI so sI si sI so so so}",                                      //
                         "confirmed_ago_s", (json_int_t)(keeper->confirmed_ago_ms / 1000), //
                         "left_s",
                         keeper->left_ms < 0 ? json_null()
                                             : json_integer(keeper->left_ms / 1000), //
                         "next_probe_s", (json_int_t)(keeper->next_in_ms / 1000),    //
                         "failures", (int)keeper->failures,                          //
                         "probes", (json_int_t)keeper->probes,                       //
                         "version_checked_ago_s", checked,                           //
                         "trouble", tk_text_json(keeper->trouble),                   //
                         "version_trouble", tk_text_json(keeper->version_trouble));
}

/* Files whose overwrites wait: docs/cli.md, "daemon.held". */
static json_t *held(const struct tk_serve *serve)
{
        struct tk_held_status status;

        tk_fs_held_status(serve->fs, &status);
        return json_pack("{si si so so}",                                           //
                         "files", (int)status.held,                                 //
                         "kept", (int)status.kept,                                  //
                         "path",                                                    //
                         status.held > 0 ? tk_text_json(status.path) : json_null(), //
                         "error",                                                   //
                         status.held > 0 ? tk_text_json(strerror(-status.error)) : json_null());
}

/* What is in force: docs/cli.md, "daemon.hardening". */
static json_t *hardening(const struct tk_harden *harden)
{
        return json_pack("{sb sb sb ss}",                                //
                         "capabilities", harden->capabilities,           //
                         "no_new_privileges", harden->no_new_privileges, //
                         "system_calls", harden->system_calls,           //
                         "landlock", tk_harden_files_name(harden->files));
}

json_t *tk_serve_status(const struct tk_serve *serve)
{
        struct tk_keeper_status keeper = {
                .state = TK_LEASE_ACTIVE, .left_ms = -1, .rotation_checked_ago_ms = -1};
        const struct tk_provider *provider = tk_rotation_provider(serve->rotation);
        const struct tk_stats *stats = tk_fs_stats(serve->fs);
        struct tk_fs_load load;

        (void)tk_fs_keeper_status(serve->fs, &keeper);
        tk_fs_look(serve->fs, &load);
        return json_pack("{si so ss so si ss so so ss* sb sb si sI si sb ss so so so so so so}", //
                         "pid", (int)getpid(),                                                   //
                         "mountpoint", tk_text_json(serve->mountpoint),                          //
                         "provider", provider->name,                                             //
                         provider->place_name, tk_text_json(provider->place),                    //
                         "protector", (int)tk_volume_own_protector(serve->volume),               //
                         "state", tk_lease_name(keeper.state),                                   //
                         "lease", lease(&keeper),                                                //
                         "kms_calls", kms_calls(),                                               //
                         "fingerprint", tk_volume_fingerprint(serve->volume),                    //
                         "read_only", serve->read_only,                                          //
                         "allow_other", serve->allow_other,                                      //
                         "mount_number", (int)tk_volume_mount_number(serve->volume),             //
                         "uptime_s",                                                             //
                         (json_int_t)((tk_clock_ms() - serve->started_ms) / 1000),               //
                         "threads", (int)serve->threads,                                         //
                         "keeps_cpus_awake", serve->keeps_cpus_awake,                            //
                         "memory_locked", tk_hygiene_locked(),                                   //
                         "hardening", hardening(serve->harden),                                  //
                         "rotation", tk_rotation_json(serve->rotation),                          //
                         "journal", journal(&load),                                              //
                         "held", held(serve),                                                    //
                         "errors", errors(stats),                                                //
                         "counters", counters(stats, &load));
}

static json_t *failure(int r, const struct tk_fault *fault)
{
        return json_pack("{si so}",                                                    //
                         "kind", (int)(fault->kind ? fault->kind : TK_FAULT_INTERNAL), //
                         "error", tk_text_json(fault->kind ? fault->text : strerror(-r)));
}

static int check_writable(const struct tk_serve *serve, struct tk_fault *fault)
{
        if (!serve->read_only)
                return 0;
        return tk_fault_set(fault, TK_FAULT_USAGE, -EROFS,
                            "%s is mounted read-only; unmount it, or mount it for writing",
                            tk_volume_path(serve->volume));
}

static json_t *rotate(const struct tk_serve *serve, const char *to)
{
        struct tk_fault fault = {0};
        int r;

        r = check_writable(serve, &fault);
        if (r == 0)
                r = tk_rotation_start(serve->rotation, to, &fault);
        return r == 0 ? json_pack("{sb}", "started", 1) : failure(r, &fault);
}

/* What came of it is logged: whoever reloads by the service manager sees the log. */
static void log_names(const struct tk_serve *serve, const char *what, const json_t *names)
{
        const json_t *name;
        size_t i;

        json_array_foreach(names, i, name)
                tk_log(TK_LOG_INFO, "%s: reloaded: %s %s", tk_volume_path(serve->volume),
                       json_string_value(name), what);
}

static json_t *reload(const struct tk_serve *serve)
{
        json_t *changed = NULL;
        json_t *waiting = NULL;
        struct tk_fault fault = {0};
        int r;

        r = tk_reload(serve->reload, &changed, &waiting, &fault);
        if (r < 0) {
                json_decref(changed);
                json_decref(waiting);
                tk_log(TK_LOG_WARNING, "%s: not reloaded, all stays as it is: %s",
                       tk_volume_path(serve->volume), fault.kind ? fault.text : strerror(-r));
                return failure(r, &fault);
        }
        log_names(serve, "is in force", changed);
        log_names(serve, "has to wait for the next mount", waiting);
        return json_pack("{sb so so}", "started", 1, "changed", changed, "waiting", waiting);
}

/* Protectors --------------------------------------------------------------- */

static json_t *envelope_json(const struct tk_volume_wrap *envelope)
{
        char blob[TK_KMS_BLOB_MAX * 2];
        char public_half[TK_HPKE_PUBLIC_LEN * 2];

        tk_base64url_encode(envelope->wrap.blob, envelope->wrap.blob_len, blob);
        tk_base64url_encode(envelope->public_half, TK_HPKE_PUBLIC_LEN, public_half);
        return json_pack("{ss ss ss ss ss ss}", "provider", envelope->provider, "key",
                         envelope->wrap.key_id, "version", envelope->wrap.version, "algorithm",
                         envelope->wrap.algorithm, "blob", blob, "public", public_half);
}

static bool take_text(const json_t *object, const char *name, char *text, size_t max)
{
        const char *value = json_string_value(json_object_get(object, name));

        return value && value[0] && snprintf(text, max, "%s", value) < (int)max;
}

static bool take_bytes(const json_t *object, const char *name, uint8_t *bytes, size_t max,
                       size_t *ret_len)
{
        const char *value = json_string_value(json_object_get(object, name));

        return value && tk_base64url_decode(value, bytes, max, ret_len) == 0 && *ret_len > 0;
}

static bool take_envelope(const char *text, struct tk_volume_wrap *envelope)
{
        json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        struct tk_kms_wrap *wrap = &envelope->wrap;
        size_t public_len = 0;
        bool taken;

        taken = take_text(object, "provider", envelope->provider, sizeof(envelope->provider)) &&
                take_text(object, "key", wrap->key_id, sizeof(wrap->key_id)) &&
                take_text(object, "version", wrap->version, sizeof(wrap->version)) &&
                take_text(object, "algorithm", wrap->algorithm, sizeof(wrap->algorithm)) &&
                take_bytes(object, "blob", wrap->blob, sizeof(wrap->blob), &wrap->blob_len) &&
                take_bytes(object, "public", envelope->public_half, TK_HPKE_PUBLIC_LEN,
                           &public_len) &&
                public_len == TK_HPKE_PUBLIC_LEN;
        json_decref(object);
        envelope->has_envelope = taken;
        return taken;
}

static json_t *add_protector(const struct tk_serve *serve, const char *text)
{
        struct tk_volume_wrap envelope = {0};
        struct tk_fault fault = {0};
        unsigned number = 0;
        int r;

        r = check_writable(serve, &fault);
        if (r == 0 && !take_envelope(text, &envelope))
                r = tk_fault_set(&fault, TK_FAULT_USAGE, -EINVAL, "this is no protector");
        if (r == 0)
                r = tk_volume_add_protector(serve->volume, &envelope, &number, &fault);
        if (r < 0)
                return failure(r, &fault);
        tk_log(TK_LOG_WARNING, "%s: the %s key %s was added: it opens the volume as protector %u",
               tk_volume_path(serve->volume), envelope.provider, envelope.wrap.key_id, number);
        return json_pack("{sb si}", "started", 1, "number", (int)number);
}

static json_t *remove_protector(const struct tk_serve *serve, const char *text)
{
        unsigned number = (unsigned)strtoul(text, NULL, 10);
        struct tk_fault fault = {0};
        int r;

        r = check_writable(serve, &fault);
        if (r == 0)
                r = tk_volume_remove_protector(serve->volume, number, &fault);
        if (r < 0)
                return failure(r, &fault);
        tk_log(TK_LOG_WARNING, "%s: protector %u was removed", tk_volume_path(serve->volume),
               number);
        return json_pack("{sb}", "started", 1);
}

/* Where a path lies below, or the other way: both come and go in base64url. */
static json_t *translate(const struct tk_serve *serve, const char *encoded, bool to_backing)
{
        TK_CLEANUP(tk_freep) char *translated = NULL;
        char path[PATH_MAX + 1];
        size_t len;
        int r;

        r = tk_base64url_decode(encoded, (uint8_t *)path, PATH_MAX, &len);
        if (r == 0) {
                path[len] = '\0';
                r = to_backing ? tk_translate_to_backing(serve->fs, path, &translated)
                               : tk_translate_to_plain(serve->fs, path, &translated);
        }
        if (!translated)
                return json_pack("{si}", "errno", r < 0 ? -r : EIO);
        return json_pack("{so}", "path", tk_text_wire(translated));
}

bool tk_serve_is_slow(const char *request)
{
        return strcmp(request, "status") != 0 && strcmp(request, "rotate") != 0;
}

char *tk_serve_answer(void *context, const char *request)
{
        static const char rotate_to[] = "rotate-to /";
        static const char backing_of[] = "backing-of ";
        static const char plain_of[] = "plain-of ";
        static const char protector_add[] = "protector-add ";
        static const char protector_remove[] = "protector-remove ";
        const struct tk_serve *serve = context;
        json_t *root = NULL;

        if (strcmp(request, "status") == 0)
                root = tk_serve_status(serve);
        else if (strcmp(request, "rotate") == 0)
                root = rotate(serve, NULL);
        else if (strcmp(request, "reload") == 0)
                root = reload(serve);
        else if (strncmp(request, rotate_to, sizeof(rotate_to) - 1) == 0)
                root = rotate(serve, request + sizeof(rotate_to) - 2);
        else if (strncmp(request, backing_of, sizeof(backing_of) - 1) == 0)
                root = translate(serve, request + sizeof(backing_of) - 1, true);
        else if (strncmp(request, plain_of, sizeof(plain_of) - 1) == 0)
                root = translate(serve, request + sizeof(plain_of) - 1, false);
        else if (strncmp(request, protector_add, sizeof(protector_add) - 1) == 0)
                root = add_protector(serve, request + sizeof(protector_add) - 1);
        else if (strncmp(request, protector_remove, sizeof(protector_remove) - 1) == 0)
                root = remove_protector(serve, request + sizeof(protector_remove) - 1);
        return tk_text_dump_json(root);
}

static bool is_refusal(int r)
{
        return r == -EACCES || r == -ECONNRESET || r == -EPIPE;
}

/* No answer for a reason of the mount's, in words. */
static const char *why_silent(int r)
{
        if (is_refusal(r))
                return "it refuses us";
        return r == -ENOMSG ? "it closed the connection" : strerror(-r);
}

json_t *tk_serve_ask(struct tk_volume *volume, const char **ret_why)
{
        TK_CLEANUP(tk_freep) char *answer = NULL;
        json_t *daemon = NULL;
        int r;

        *ret_why = NULL;
        r = tk_control_ask(tk_volume_dirfd(volume), "status", &answer);
        if (r == 0)
                daemon = json_loads(answer, JSON_REJECT_DUPLICATES, NULL);
        if (r == 0 && !json_is_object(daemon)) {
                json_decref(daemon);
                *ret_why = "its answer is no JSON object";
                return NULL;
        }
        if (r < 0 && r != -ENOENT && r != -ECONNREFUSED)
                *ret_why = why_silent(r);
        return daemon;
}

/* What the mount answered to "rotate" and the like, @answer, as a fault of ours. */
static int judge_answer(const json_t *answer, struct tk_fault *fault)
{
        const char *error = json_string_value(json_object_get(answer, "error"));
        json_int_t kind = json_integer_value(json_object_get(answer, "kind"));

        if (json_is_true(json_object_get(answer, "started")))
                return 0;
        if (kind <= TK_FAULT_NONE || kind > TK_FAULT_UNSUPPORTED)
                kind = TK_FAULT_INTERNAL;
        return tk_fault_set(fault, (enum tk_fault_kind)kind, -EIO, "%s",
                            error && error[0] ? error : "the mount's answer can't be understood");
}

/* No answer, for the reason @r: TK_SERVE_NOBODY, or a fault. */
static int say_no_answer(const struct tk_volume *volume, int r, struct tk_fault *fault)
{
        if (r == -ENOENT || r == -ECONNREFUSED)
                return TK_SERVE_NOBODY;
        if (r == -ENOMSG)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, r,
                                    "the mount of %s does not answer this request: it is being "
                                    "unmounted, or of an older version; unmount it and mount it "
                                    "again",
                                    tk_volume_path(volume));
        return tk_fault_set(fault, is_refusal(r) ? TK_FAULT_PERMISSION : TK_FAULT_INTERNAL, r,
                            "the mount of %s does not answer: %s%s", tk_volume_path(volume),
                            why_silent(r),
                            is_refusal(r) ? "; ask as root or as the mount's owner" : "");
}

/* What the exchange @asked and its @text came to; the caller drops the answer. */
static int take_answer(const struct tk_volume *volume, int asked, const char *text,
                       json_t **ret_answer, struct tk_fault *fault)
{
        json_t *answer;
        int r;

        if (asked < 0)
                return say_no_answer(volume, asked, fault);
        answer = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        r = judge_answer(answer, fault);
        if (r < 0)
                json_decref(answer);
        else
                *ret_answer = answer;
        return r;
}

int tk_serve_ask_rotate(struct tk_volume *volume, const char *to, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *request = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;
        json_t *answer = NULL;
        int r;

        if (asprintf(&request, "rotate%s%s", to ? "-to " : "", to ? to : "") < 0)
                return -ENOMEM;
        r = tk_control_ask(tk_volume_dirfd(volume), request, &text);
        r = take_answer(volume, r, text, &answer, fault);
        json_decref(answer);
        return r;
}

int tk_serve_ask_reload(struct tk_volume *volume, json_t **ret_answer, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        int r;

        r = tk_control_ask_slow(tk_volume_dirfd(volume), "reload", &text);
        return take_answer(volume, r, text, ret_answer, fault);
}

/* The mount proves its own key first, which may take a while. */
static int ask_protector(struct tk_volume *volume, const char *verb, const char *what,
                         json_t **ret_answer, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *request = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;
        int r;

        if (asprintf(&request, "%s %s", verb, what) < 0)
                return -ENOMEM;
        r = tk_control_ask_slow(tk_volume_dirfd(volume), request, &text);
        return take_answer(volume, r, text, ret_answer, fault);
}

int tk_serve_ask_add_protector(struct tk_volume *volume, const struct tk_volume_wrap *envelope,
                               unsigned *ret_number, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        json_t *object = envelope_json(envelope);
        json_t *answer;
        int r;

        text = tk_text_dump_json(object);
        if (!text)
                return -ENOMEM;
        r = ask_protector(volume, "protector-add", text, &answer, fault);
        if (r != 0)
                return r;
        *ret_number = (unsigned)json_integer_value(json_object_get(answer, "number"));
        json_decref(answer);
        return 0;
}

int tk_serve_ask_remove_protector(struct tk_volume *volume, unsigned number, struct tk_fault *fault)
{
        char text[16];
        json_t *answer;
        int r;

        snprintf(text, sizeof(text), "%u", number);
        r = ask_protector(volume, "protector-remove", text, &answer, fault);
        if (r == 0)
                json_decref(answer);
        return r;
}

/* What the mount answered to the above. */
static int take_path(const json_t *answer, char **ret_path)
{
        int error = (int)json_integer_value(json_object_get(answer, "errno"));

        *ret_path = tk_text_of_wire(json_object_get(answer, "path"));
        if (*ret_path)
                return 0;
        return error > 0 ? -error : -EPROTO;
}

int tk_serve_ask_path(struct tk_volume *volume, bool to_backing, const char *path, char **ret_path)
{
        TK_CLEANUP(tk_freep) char *request = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len = strlen(path);
        size_t verb_len;
        json_t *answer;
        int r;

        if (len > PATH_MAX)
                return -ENAMETOOLONG;
        request = malloc(32 + tk_base64url_len(len));
        if (!request)
                return -ENOMEM;
        verb_len = (size_t)sprintf(request, "%s ", to_backing ? "backing-of" : "plain-of");
        tk_base64url_encode((const uint8_t *)path, len, request + verb_len);
        r = tk_control_ask(tk_volume_dirfd(volume), request, &text);
        if (r == -ENOENT || r == -ECONNREFUSED)
                return TK_SERVE_NOBODY;
        if (r < 0)
                return is_refusal(r) ? -EACCES : r;
        answer = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        r = take_path(answer, ret_path);
        json_decref(answer);
        return r;
}

size_t tk_serve_unclean_count(struct tk_volume *volume, const json_t *daemon)
{
        size_t count = tk_volume_unclean_count(volume);
        bool numbered = json_integer_value(json_object_get(daemon, "mount_number")) > 0;

        return count > 0 && numbered ? count - 1 : count;
}
