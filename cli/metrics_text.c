/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Metrics, for the most part a view of what `status` says of the daemon: one number there is
 * one line of the tables below. No key identifiers and no names of files: a textfile may be
 * read by everybody.
 */

#include "cli/metrics_text.h"

#include "base/bytes.h"
#include "cli/text.h"
#include "fs/escrow_note.h"
#include "fs/lease.h"
#include "kms/kms_stats.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

struct page {
        FILE *out;
        char *labels;         /* that every sample has */
        const json_t *daemon; /* what `status` says */
        int64_t now;          /* Unix seconds */
};

/* Samples ------------------------------------------------------------------ */

static void family(const struct page *page, const char *name, const char *type, const char *help)
{
        fprintf(page->out, "# HELP turnkeyfs_%s %s\n# TYPE turnkeyfs_%s %s\n", name, help, name,
                type);
}

/* A sample with labels of its own, @more: "" or `,name="value"`. */
static void sample(const struct page *page, const char *name, const char *more, double value)
{
        fprintf(page->out, "turnkeyfs_%s{%s%s} %.15g\n", name, page->labels, more, value);
}

/* A sample with one label, whose value needs no escaping. */
static void sample_of(const struct page *page, const char *name, const char *label,
                      const char *value, double number)
{
        char more[64];

        snprintf(more, sizeof(more), ",%s=\"%s\"", label, value);
        sample(page, name, more, number);
}

static void gauge(const struct page *page, const char *name, const char *help, double value)
{
        family(page, name, "gauge", help);
        sample(page, name, "", value);
}

void tk_metrics_label(FILE *out, const char *value)
{
        for (; *value; value++) {
                if (*value == '\n')
                        fputs("\\n", out);
                else if (*value == '"' || *value == '\\')
                        fprintf(out, "\\%c", *value);
                else
                        fputc(*value, out);
        }
}

/* What is in the daemon's status -------------------------------------------- */

/* A number of the status at @path, whose members are separated by dots; NAN for null. */
static double number_at(const json_t *object, const char *path)
{
        char name[32];

        for (;;) {
                size_t len = strcspn(path, ".");

                snprintf(name, sizeof(name), "%.*s", (int)len, path);
                object = json_object_get(object, name);
                if (!path[len])
                        break;
                path += len + 1;
        }
        if (json_is_boolean(object))
                return json_is_true(object);
        return json_is_number(object) ? json_number_value(object) : NAN;
}

struct number {
        const char *path;
        const char *name;
        const char *type;
        const char *help;
        const char *label; /* of several samples of one family; NULL: it has none */
        const char *value;
};

/* Samples of one family stand together. */
static const struct number numbers[] = {
        {"lease.left_s", "lease_left_seconds", "gauge",
         "Until the mount is closed if nothing more is heard of the KMS; 0: it is closed."},
        {"lease.failures", "kms_failures_in_a_row", "gauge",
         "Checks of the key in a row that brought no answer."},
        {"rotation.files_by_version.current", "rotation_files", "gauge",
         "Files by the KEK version that their keys are under; unseen ones are older, too.", "kek",
         "current"},
        {"rotation.files_by_version.older", "rotation_files", "gauge", NULL, "kek", "older"},
        {"rotation.files_by_version.unseen", "rotation_files", "gauge", NULL, "kek", "unseen"},
        {"rotation.files", "rotation_pass_files", "gauge",
         "Files that the rotation's present pass has seen."},
        {"rotation.rewrapped", "rotation_rewrapped_files", "gauge",
         "Files whose keys the present or last rotation has rewrapped."},
        {"rotation.failed", "rotation_failed_files", "gauge",
         "Files whose keys the present or last rotation could not rewrap."},
        {"rotation.passes", "rotation_passes", "gauge",
         "Passes over the tree that the present or last rotation has begun."},
        {"rotation.left_s", "rotation_left_seconds", "gauge",
         "Until the rotation is through, by its pace; absent where that can not be told."},
        {"rotation.window_s", "rotation_window_seconds", "gauge",
         "The configured rotation window; 0: there is none."},
        {"rotation.window_missed", "rotation_window_missed", "gauge",
         "1 if files are under an older version although the window has passed."},
        {"counters.read_requests", "requests_total", "counter", "Requests that were served.",
         "operation", "read"},
        {"counters.write_requests", "requests_total", "counter", NULL, "operation", "write"},
        {"counters.fsync_requests", "requests_total", "counter", NULL, "operation", "fsync"},
        {"counters.read_bytes", "transferred_bytes_total", "counter",
         "Plaintext handed to and taken from applications.", "operation", "read"},
        {"counters.written_bytes", "transferred_bytes_total", "counter", NULL, "operation",
         "write"},
        {"counters.block_failures", "integrity_errors_total", "counter",
         "What did not authenticate: damaged or tampered with.", "kind", "block"},
        {"counters.record_failures", "integrity_errors_total", "counter", NULL, "kind", "record"},
        {"counters.name_failures", "integrity_errors_total", "counter", NULL, "kind", "name"},
        {"counters.target_failures", "integrity_errors_total", "counter", NULL, "kind", "target"},
        {"counters.attribute_failures", "integrity_errors_total", "counter", NULL, "kind",
         "attribute"},
        {"counters.records_restored", "key_records_restored_total", "counter",
         "Key records rewritten from their twin."},
        {"counters.known_inodes", "known_inodes", "gauge", "Inodes that the kernel knows."},
        {"counters.open_files", "open_files", "gauge", "Backing files that are open."},
        {"counters.cached_deks", "cached_deks", "gauge",
         "DEKs that the KMS unwrapped and that are kept (dek_wrap = kms)."},
        {"journal.size_bytes", "journal_size_bytes", "gauge", "Size of the journal on disk."},
        {"journal.waiting_bytes", "journal_waiting_bytes", "gauge",
         "Blocks in memory that are not in place yet."},
        {"journal.waiting", "journal_waiting_entries", "gauge",
         "Journal entries that are not in place yet."},
        {"journal.batches", "journal_batches", "gauge",
         "Batches in memory that are not in place yet."},
        {"journal.oldest_s", "journal_oldest_entry_seconds", "gauge",
         "Age of the oldest entry that is not in place yet."},
        {"journal.flush_failures", "journal_flush_failures_total", "counter",
         "Flushes of the journal that failed."},
        {"journal.stuck", "journal_stuck", "gauge",
         "1 if entries can not be put in place: overwrites wait."},
        {"held.files", "journal_held_files", "gauge",
         "Files in use that can not be written or synced below: their overwrites wait."},
        {"held.kept", "journal_kept_files", "gauge",
         "Files of which overwrites are kept until they can be put in place."},
        {"threads", "threads", "gauge", "Threads that serve requests at most."},
        {"read_only", "read_only", "gauge", "1 for a read-only mount."},
};

static void print_numbers(const struct page *page)
{
        const char *name = "";

        for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
                const struct number *number = &numbers[i];
                double value = number_at(page->daemon, number->path);

                if (isnan(value))
                        continue;
                if (strcmp(name, number->name) != 0)
                        family(page, number->name, number->type, number->help);
                name = number->name;
                if (number->label)
                        sample_of(page, name, number->label, number->value, value);
                else
                        sample(page, name, "", value);
        }
}

static void print_errors(const struct page *page)
{
        const json_t *errors = json_object_get(page->daemon, "errors");

        family(page, "errors_total", "counter",
               "Requests answered with an error that tells of "
               "trouble.");
        for (unsigned i = 0; i < TK_STATS_ERRORS; i++)
                sample_of(page, "errors_total", "kind", tk_stats_error_name(i),
                          number_at(errors, tk_stats_error_name(i)));
}

/* One of several states, each a sample: the one that holds is 1. */
static void one_hot(const struct page *page, const char *name, const char *const *states,
                    size_t count, const char *state)
{
        for (size_t i = 0; i < count; i++)
                sample_of(page, name, "state", states[i], strcmp(states[i], state) == 0);
}

static void print_states(const struct page *page)
{
        static const char *const jobs[] = {"none",       "running", "done",  "current",
                                           "incomplete", "stopped", "failed"};
        const json_t *rotation = json_object_get(page->daemon, "rotation");
        const char *states[TK_LEASE_EXPIRED + 1];

        for (unsigned i = 0; i <= TK_LEASE_EXPIRED; i++)
                states[i] = tk_lease_name(i);
        family(page, "state", "gauge", "What the mount does about its root key: one of them is 1.");
        one_hot(page, "state", states, sizeof(states) / sizeof(states[0]),
                json_string_value(json_object_get(page->daemon, "state")));
        family(page, "rotation_state", "gauge", "The last rotation since the mount began.");
        one_hot(page, "rotation_state", jobs, sizeof(jobs) / sizeof(jobs[0]),
                json_string_value(json_object_get(rotation, "state")));
}

/* Times --------------------------------------------------------------------- */

/* The time that was @path's seconds ago. */
static void print_ago(const struct page *page, const char *path, const char *name, const char *help)
{
        double ago = number_at(page->daemon, path);

        if (!isnan(ago))
                gauge(page, name, help, (double)page->now - ago);
}

static void print_times(const struct page *page)
{
        gauge(page, "metrics_timestamp_seconds", "When these metrics were made.",
              (double)page->now);
        print_ago(page, "uptime_s", "start_timestamp_seconds", "When the mount began.");
        print_ago(page, "lease.confirmed_ago_s", "kms_confirmed_timestamp_seconds",
                  "When the KMS last gave the key out.");
        print_ago(page, "lease.version_checked_ago_s", "kms_version_checked_timestamp_seconds",
                  "When the KMS last said which version of the root key is the current one.");
}

/* The volume ----------------------------------------------------------------- */

static void print_kek(const struct page *page, struct tk_volume *volume)
{
        char version[TK_KMS_VERSION_MAX];
        struct tk_volume_kek kek = tk_volume_newest_kek(volume, version);
        char number[16];

        snprintf(number, sizeof(number), "%u", kek.version);
        family(page, "key_info", "gauge",
               "Which KEK version new files are under, and which "
               "version of the root key protects it.");
        fprintf(page->out, "turnkeyfs_key_info{%s,provider=\"", page->labels);
        tk_metrics_label(page->out, json_string_value(json_object_get(page->daemon, "provider")));
        fprintf(page->out, "\",kek_version=\"%s\",key_version=\"", number);
        tk_metrics_label(page->out, version);
        fputs("\"} 1\n", page->out);
        gauge(page, "kek_created_timestamp_seconds", "When the newest KEK version was made.",
              (double)kek.created);
        gauge(page, "kek_age_seconds", "Age of the newest KEK version.",
              (double)(page->now - kek.created));
        gauge(page, "kek_active_versions", "KEK versions that files may be under.",
              (double)tk_volume_active_count(volume));
}

static void print_escrow(const struct page *page, struct tk_volume *volume)
{
        struct tk_escrow_note note;

        if (tk_escrow_note_read(volume, &note) < 0)
                return;
        gauge(page, "escrow_exported_timestamp_seconds",
              "When the last escrow was exported; absent: there is none.", (double)note.exported);
        gauge(page, "escrow_age_seconds", "Age of the last escrow; absent: there is none.",
              (double)(page->now - note.exported));
        gauge(page, "escrow_outdated", "1 if a rotation has ended since the last escrow.",
              tk_escrow_note_is_outdated(volume, &note));
}

/* The KMS -------------------------------------------------------------------- */

static void print_duration(const struct page *page, const char *labels,
                           const struct tk_kms_stats *stats)
{
        static const char name[] = "kms_request_duration_seconds";
        uint64_t sum = 0;

        for (unsigned i = 0; i < TK_KMS_BUCKETS; i++) {
                sum += stats->buckets[i];
                fprintf(page->out, "turnkeyfs_%s_bucket{%s%s,le=\"%g\"} %" PRIu64 "\n", name,
                        page->labels, labels, tk_kms_bucket_ms[i] / 1000.0, sum);
        }
        fprintf(page->out, "turnkeyfs_%s_bucket{%s%s,le=\"+Inf\"} %" PRIu64 "\n", name,
                page->labels, labels, stats->calls);
        fprintf(page->out, "turnkeyfs_%s_sum{%s%s} %.6f\n", name, page->labels, labels,
                (double)stats->total_us / 1e6);
        fprintf(page->out, "turnkeyfs_%s_count{%s%s} %" PRIu64 "\n", name, page->labels, labels,
                stats->calls);
}

/* The counter has all outcomes from the beginning, so that a rate sees the first failure. */
static void print_kms(const struct page *page)
{
        char labels[64];

        family(page, "kms_requests_total", "counter", "Calls of the KMS, by what came of them.");
        for (unsigned i = 0; i < TK_KMS_OPS; i++)
                for (unsigned k = 0; k < TK_KMS_OUTCOMES; k++) {
                        snprintf(labels, sizeof(labels), ",operation=\"%s\",outcome=\"%s\"",
                                 tk_kms_operation_name(i), tk_kms_outcome_name(k));
                        sample(page, "kms_requests_total", labels,
                               (double)tk_kms_stats_of(i, k).calls);
                }
        family(page, "kms_request_duration_seconds", "histogram",
               "How long calls of the KMS took, retries included.");
        for (unsigned i = 0; i < TK_KMS_OPS; i++)
                for (unsigned k = 0; k < TK_KMS_OUTCOMES; k++) {
                        struct tk_kms_stats stats = tk_kms_stats_of(i, k);

                        if (stats.calls == 0 && k != TK_KMS_OK)
                                continue;
                        snprintf(labels, sizeof(labels), ",operation=\"%s\",outcome=\"%s\"",
                                 tk_kms_operation_name(i), tk_kms_outcome_name(k));
                        print_duration(page, labels, &stats);
                }
}

/* The page ------------------------------------------------------------------- */

static int make_labels(const struct tk_serve *serve, const json_t *daemon, char **ret_labels)
{
        char id[2 * TK_VOLUME_ID_LEN + 1];
        size_t len;
        FILE *out = open_memstream(ret_labels, &len);

        if (!out)
                return -ENOMEM;
        tk_hex_encode(tk_volume_id(serve->volume), TK_VOLUME_ID_LEN, id);
        fprintf(out, "volume=\"%s\",mountpoint=\"", id);
        tk_metrics_label(out, json_string_value(json_object_get(daemon, "mountpoint")));
        fputc('"', out);
        return fclose(out) == 0 ? 0 : -ENOMEM;
}

static void print_page(const struct page *page, const struct tk_serve *serve)
{
        family(page, "build_info", "gauge", "The version of the program.");
        sample_of(page, "build_info", "version", TK_VERSION, 1);
        print_states(page);
        print_times(page);
        print_kek(page, serve->volume);
        print_numbers(page);
        print_errors(page);
        print_kms(page);
        print_escrow(page, serve->volume);
        gauge(page, "unclean_mounts", "Mounts that ended by a crash or power loss.",
              (double)tk_serve_unclean_count(serve->volume, page->daemon));
}

int tk_metrics_text(const struct tk_serve *serve, char **ret_text, size_t *ret_len)
{
        TK_CLEANUP(tk_freep) char *labels = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;
        struct page page = {.now = time(NULL)};
        json_t *daemon = tk_serve_status(serve);
        int r = daemon ? make_labels(serve, daemon, &labels) : -ENOMEM;

        if (r == 0 && !(page.out = open_memstream(&text, ret_len)))
                r = -ENOMEM;
        if (r == 0) {
                page.labels = labels;
                page.daemon = daemon;
                print_page(&page, serve);
                r = fclose(page.out) == 0 ? 0 : -ENOMEM;
        }
        json_decref(daemon);
        if (r == 0)
                *ret_text = TK_TAKE(text);
        return r;
}
