/* SPDX-License-Identifier: Apache-2.0 */

/* `escrow`: all key records of a volume into one file, and back from there. */

#include "fs/escrow.h"

#include "base/bytes.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/mountinfo.h"
#include "cli/open.h"
#include "cli/paths.h"
#include "cli/progress.h"
#include "cli/text.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

enum { SCHEMA = 1 };

static void draw(void *context, uint64_t done)
{
        tk_progress_count(context, done);
}

/* Export ------------------------------------------------------------------- */

/* An escrow inside the tree would be lost with it, and be a file of it. */
static int refuse_inside(const char *path, const char *dir, const char *below,
                         struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *inside = NULL;

        if (asprintf(&inside, "%s%s", dir, below) < 0)
                return -ENOMEM;
        if (!tk_path_is_inside(path, inside))
                return 0;
        return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                            "escrow export: %s lies inside %s, whose keys it is to hold; name a "
                            "file elsewhere",
                            path, inside);
}

static int refuse_place(const struct tk_volume *volume, const char *path, struct tk_fault *fault)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};
        int r;

        r = refuse_inside(path, tk_volume_path(volume), "/root", fault);
        if (r == 0)
                r = refuse_inside(path, tk_volume_path(volume), "/journal", fault);
        if (r == 0)
                r = tk_mountinfo_of(tk_volume_path(volume), &info);
        return r > 0 ? refuse_inside(path, info.mountpoint, "", fault) : r;
}

/* The directory of the new escrow @path, and its name there, inside @path. */
static int open_place(char *path, const char **ret_name, int *ret_dirfd, struct tk_fault *fault)
{
        char *slash = strrchr(path, '/');

        *slash = '\0';
        *ret_dirfd = open(path[0] ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*ret_dirfd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno,
                                    "cannot open the directory %s: %s", path[0] ? path : "/",
                                    strerror(errno));
        *slash = '/';
        *ret_name = slash + 1;
        return 0;
}

static int print_export(const struct tk_args *args, const char *path,
                        const struct tk_escrow_export_totals *totals)
{
        if (args->json)
                return tk_text_print_json(json_pack("{si so s{sI sI sI sI sI sI sI}}",      //
                                                    "schema", SCHEMA,                       //
                                                    "escrow", tk_text_json(path), "totals", //
                                                    "files", (json_int_t)totals->files,     //
                                                    "directories",
                                                    (json_int_t)totals->directories,              //
                                                    "unchanged", (json_int_t)totals->unchanged,   //
                                                    "gone", (json_int_t)totals->gone,             //
                                                    "carried", (json_int_t)totals->carried,       //
                                                    "unreadable", (json_int_t)totals->unreadable, //
                                                    "retired", (json_int_t)totals->retired));
        tk_text_print(stdout, path);
        printf(": key records of %" PRIu64 " files and %" PRIu64 " directories; %" PRIu64
               " of them unchanged since the last export, %" PRIu64 " gone\n",
               totals->files, totals->directories, totals->unchanged, totals->gone);
        return 0;
}

/* What the one who exports has to know. */
static int judge_export(const char *cipherdir, const struct tk_escrow_export_totals *totals,
                        struct tk_fault *fault)
{
        fflush(stdout);
        if (totals->carried > 0)
                fprintf(stderr,
                        "turnkeyfs: warning: %" PRIu64 " key records are kept as the escrow had "
                        "them: they are missing or unreadable in the tree; 'turnkeyfs escrow "
                        "restore' puts back what is missing\n",
                        totals->carried);
        if (totals->retired > 0)
                fprintf(stderr,
                        "turnkeyfs: warning: %" PRIu64 " key records are under retired KEK "
                        "versions, and can't be used; 'turnkeyfs verify' names their files\n",
                        totals->retired);
        if (totals->note_error < 0)
                fprintf(stderr,
                        "turnkeyfs: warning: cannot note in %s that it was exported: %s; "
                        "'turnkeyfs status' won't know\n",
                        cipherdir, strerror(-totals->note_error));
        if (totals->unreadable == 0)
                return 0;
        return tk_fault_set(fault, TK_FAULT_PERMISSION, -EACCES,
                            "%" PRIu64 " files or directories of %s could not be read; the escrow "
                            "was written without what is new there; run it as root",
                            totals->unreadable, cipherdir);
}

static int export_to(const struct tk_args *args, struct tk_volume *volume, char *path,
                     struct tk_fault *fault)
{
        struct tk_escrow_export_totals totals = {0};
        struct tk_progress bar;
        struct tk_escrow_progress progress = {.update = draw, .context = &bar};
        TK_AUTOCLOSE int dirfd = -1;
        const char *name = NULL;
        int r;

        r = refuse_place(volume, path, fault);
        if (r == 0)
                r = open_place(path, &name, &dirfd, fault);
        if (r < 0)
                return r;
        tk_progress_init(&bar, "escrow export", 0);
        r = tk_escrow_export(volume, dirfd, name, path, &progress, &totals, fault);
        tk_progress_clear(&bar);
        if (r == 0)
                r = print_export(args, path, &totals);
        return r < 0 ? r : judge_export(tk_volume_path(volume), &totals, fault);
}

static int escrow_export(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        TK_CLEANUP(tk_freep) char *path = NULL;
        int r;

        tk_hygiene_raise_files();
        r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        if (r == 0)
                r = tk_volume_open(cipherdir, &volume, fault);
        if (r < 0)
                return r;
        r = tk_path_resolve(args->paths[1], &path);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_ESCROW, r, "cannot find %s: %s", args->paths[1],
                                    strerror(-r));
        return export_to(args, volume, path, fault);
}

/* Restore ------------------------------------------------------------------ */

static const struct {
        const char *name;
        const char *text;
} outcomes[TK_ESCROW_OUTCOMES] = {
        [TK_ESCROW_RESTORED] = {"restored", NULL},
        [TK_ESCROW_FROM_COPY] = {"from_copy", NULL},
        [TK_ESCROW_UNMATCHED] = {"unmatched", "in the escrow only"},
        [TK_ESCROW_MISSING] = {"missing", "no usable key record, and none in the escrow"},
        [TK_ESCROW_MISFIT] = {"misfit", "no usable key record, and the escrow's does not fit"},
        [TK_ESCROW_BAD] = {"bad", "no usable key record, nor is the escrow's"},
        [TK_ESCROW_RETIRED] = {"retired", "the escrow's key record is under a retired KEK version"},
        [TK_ESCROW_NEWER] = {"newer", "under a KEK version that the volume file does not know"},
        [TK_ESCROW_FAILED] = {"failed", "cannot be restored"},
};

struct report {
        struct tk_progress progress;
        json_t *findings; /* NULL: print lines instead */
        bool out_of_memory;
};

static void on_found(void *context, enum tk_escrow_outcome outcome, const char *path, int error)
{
        struct report *report = context;

        if (!outcomes[outcome].text)
                return;
        if (report->findings) {
                json_t *finding =
                        json_pack("{ss so ss*}", "kind", outcomes[outcome].name, "path",
                                  tk_text_json(path), "error", error ? strerror(-error) : NULL);

                if (json_array_append_new(report->findings, finding) < 0)
                        report->out_of_memory = true;
                return;
        }
        tk_progress_clear(&report->progress);
        printf("%s: ", outcomes[outcome].text);
        tk_text_print(stdout, path[0] ? path : ".");
        printf("%s%s\n", error ? ": " : "", error ? strerror(-error) : "");
}

static void draw_restore(void *context, uint64_t done)
{
        struct report *report = context;

        tk_progress_count(&report->progress, done);
}

static int print_restore(const struct tk_volume *volume, struct report *report, bool volume_file,
                         const struct tk_escrow_restore_totals *totals)
{
        json_t *counts;

        if (!report->findings) {
                printf("%s%" PRIu64 " files, %" PRIu64 " directories: %" PRIu64
                       " key records put back, %" PRIu64 " rewritten from the copy in the file, "
                       "%" PRIu64 " without a usable one; %" PRIu64 " in the escrow only\n",
                       volume_file ? "The volume file was put back. " : "", totals->files,
                       totals->directories, totals->count[TK_ESCROW_RESTORED],
                       totals->count[TK_ESCROW_FROM_COPY], tk_escrow_unusable(totals),
                       totals->count[TK_ESCROW_UNMATCHED]);
                return 0;
        }
        counts = json_pack("{sI sI}", "files", (json_int_t)totals->files, "directories",
                           (json_int_t)totals->directories);
        for (int i = 0; i < TK_ESCROW_OUTCOMES; i++)
                json_object_set_new(counts, outcomes[i].name,
                                    json_integer((json_int_t)totals->count[i]));
        return tk_text_print_json(json_pack(
                "{si so sb so sO}", "schema", SCHEMA, "path", tk_text_json(tk_volume_path(volume)),
                "volume_file", volume_file, "totals", counts, "findings", report->findings));
}

/* What to do about records that could not be put back. */
static int judge_restore(struct tk_volume *volume, const struct tk_escrow_restore_totals *totals,
                         struct tk_fault *fault)
{
        uint64_t unusable = tk_escrow_unusable(totals);
        char retired[320] = "";
        const char *newer = "";

        if (unusable == 0)
                return 0;
        if (totals->count[TK_ESCROW_RETIRED] > 0)
                snprintf(retired, sizeof(retired),
                         "; KEK version %u of the escrow is retired: use an escrow that was "
                         "exported after that rotation, or 'turnkeyfs key readmit %u CIPHERDIR', "
                         "while the root key version of that time exists, and restore again",
                         totals->retired_version, totals->retired_version);
        if (totals->count[TK_ESCROW_NEWER] > 0)
                newer = "; the volume file is older than the tree: use an escrow that was exported "
                        "after the last rotation";
        return tk_fault_set(fault, TK_FAULT_DATA_DAMAGED, -EBADMSG,
                            "%" PRIu64 " files or directories of %s have no usable key record%s%s",
                            unusable, tk_volume_path(volume), retired, newer);
}

/* What a restore works with. */
struct job {
        const char *path; /* CIPHERDIR */
        const char *escrow_path;
        struct tk_escrow_reader *escrow;
        bool volume_file; /* was put back */
};

static int put_volume_file_back(struct job *job, struct tk_fault *fault)
{
        int r = tk_volume_put_back(job->path, tk_escrow_reader_volume_file(job->escrow), fault);

        job->volume_file = r == 0;
        return r;
}

static int open_volume(struct job *job, struct tk_volume **ret_volume, struct tk_fault *fault)
{
        struct tk_fault said = {0};
        int r;

        r = tk_volume_open(job->path, ret_volume, &said);
        if (r < 0 && (said.kind == TK_FAULT_NOT_A_VOLUME || said.kind == TK_FAULT_VOLUME_DAMAGED)) {
                r = put_volume_file_back(job, fault);
                if (r == 0)
                        r = tk_volume_open(job->path, ret_volume, fault);
        } else if (r < 0) {
                tk_fault_describe(fault, said.kind, "%s", said.text);
        }
        if (r < 0 || tk_bytes_equal_ct(tk_volume_id(*ret_volume), tk_escrow_reader_id(job->escrow),
                                       TK_VOLUME_ID_LEN))
                return r;
        return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -EKEYREJECTED,
                            "%s is the escrow of another volume than %s", job->escrow_path,
                            job->path);
}

static int unlock(struct job *job, const struct tk_conf *conf, struct tk_open_keys *keys,
                  struct tk_volume **volume, struct tk_fault *fault)
{
        static const char doing[] = "being restored from an escrow";
        struct tk_fault said = {0};
        int r;

        r = tk_open_unlock(*volume, conf, doing, keys, &said);
        if (r == 0 || said.kind != TK_FAULT_VOLUME_DAMAGED || job->volume_file) {
                if (r < 0 && said.kind)
                        tk_fault_describe(fault, said.kind, "%s", said.text);
                return r;
        }
        *volume = tk_volume_free(*volume);
        tk_open_keys_done(keys);
        *keys = (struct tk_open_keys){0};
        r = put_volume_file_back(job, fault);
        if (r == 0)
                r = tk_volume_open(job->path, volume, fault);
        return r < 0 ? r : tk_open_unlock(*volume, conf, doing, keys, fault);
}

static int restore(const struct tk_args *args, struct job *job, struct tk_volume *volume,
                   struct tk_fault *fault)
{
        TK_CLEANUP(tk_fs_freep) struct tk_fs *fs = NULL;
        struct report report = {.findings = args->json ? json_array() : NULL};
        struct tk_escrow_restore_totals totals = {0};
        /* A replay can only find files that have their records. */
        struct tk_fs_options fs_options = {.keep_journal = true};
        struct tk_escrow_restore_options options = {
                .force = args->force,
                .progress = {.update = draw_restore, .context = &report},
                .found = on_found,
                .context = &report};
        int r = 0;

        if (job->volume_file)
                r = tk_volume_doubt_later_mounts(volume, fault);
        if (r == 0)
                r = tk_fs_new(volume, &fs_options, &fs, fault);
        if (r == 0) {
                tk_progress_init(&report.progress, "escrow restore", 0);
                r = tk_escrow_restore(fs, job->escrow, &options, &totals, fault);
                tk_progress_clear(&report.progress);
        }
        if (r == 0 && report.out_of_memory)
                r = -ENOMEM;
        if (r == 0)
                r = print_restore(volume, &report, job->volume_file, &totals);
        json_decref(report.findings);
        fflush(stdout);
        return r < 0 ? r : judge_restore(volume, &totals, fault);
}

static int escrow_restore(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_open_keys_done) struct tk_open_keys keys = {0};
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL; /* freed before its keys */
        TK_CLEANUP(tk_escrow_reader_freep) struct tk_escrow_reader *escrow = NULL;
        struct job job = {.path = args->paths[0], .escrow_path = args->paths[1]};
        int r;

        tk_hygiene_raise_files();
        r = tk_open_conf(args->config, &conf, fault);
        if (r == 0)
                r = tk_hygiene_lock_memory(conf, fault);
        if (r == 0)
                r = tk_escrow_open(args->paths[1], &escrow, fault);
        if (r < 0)
                return r;
        job.escrow = escrow;
        r = open_volume(&job, &volume, fault);
        if (r == 0)
                r = unlock(&job, conf, &keys, &volume, fault);
        if (r < 0)
                return r;
        tk_log_set_level(TK_LOG_NONE); /* each place is said once, as a finding */
        return restore(args, &job, volume, fault);
}

#define JSON_HELP "  -j, --json          the JSON that docs/cli.md describes\n"

const struct tk_command tk_escrow_verbs[] = {
        {.name = "escrow export",
         .synopsis = "[--json] CIPHERDIR FILE",
         .summary = "save the volume file and all key records, still wrapped, in FILE",
         .options = "j",
         .min_paths = 2,
         .max_paths = 2,
         .run = escrow_export,
         .help = "No key is needed, and the volume may be mounted. If FILE is there already, only "
                 "what\n"
                 "has changed is read. FILE holds no secret in the clear.\n"
                 "\n" JSON_HELP},
        {.name = "escrow restore",
         .synopsis = "[-c CONF] [--json] [--force] CIPHERDIR FILE",
         .summary = "put key records back into a tree that lost its extended attributes",
         .options = "c:jF",
         .min_paths = 2,
         .max_paths = 2,
         .run = escrow_restore,
         .help = "The volume must not be mounted. What is there and authentic stays. Exits with 0 "
                 "if\n"
                 "every file and directory has a usable key record afterwards, with 14 otherwise.\n"
                 "\n"
                 "      --force         replace good records as well, by those that fit "
                 "too\n" JSON_HELP},
        {.name = NULL},
};
