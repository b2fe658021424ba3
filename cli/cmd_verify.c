/* SPDX-License-Identifier: Apache-2.0 */

/* `verify`: authenticate every block of every file of a volume that is not mounted. */

#include "base/bytes.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/open.h"
#include "cli/progress.h"
#include "cli/text.h"
#include "fs/verify.h"
#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

enum { SCHEMA = 1 };

struct report {
        struct tk_progress progress;
        json_t *findings; /* NULL: print lines instead */
        bool repair;
        bool out_of_memory;
};

static const struct {
        const char *name;
        const char *text;
} kinds[] = {
        [TK_VERIFY_BLOCK] = {"block", "damaged"},
        [TK_VERIFY_RECORD] = {"record", "no usable key record"},
        [TK_VERIFY_RECORD_LOST] = {"record_lost", "one of two key records is lost"},
        [TK_VERIFY_DIRECTORY] = {"directory",
                                 "no usable key record, so no names, in the directory"},
        [TK_VERIFY_NAME] = {"name", "a name that does not authenticate"},
        [TK_VERIFY_SIBLING] = {"sibling", "a long name whose sibling is lost"},
        [TK_VERIFY_SEAL] = {"seal", "cut, or its seal is gone"},
        [TK_VERIFY_ATTRIBUTE] = {"attribute", "damaged attribute"},
        [TK_VERIFY_TARGET] = {"target", "damaged symlink target"},
        [TK_VERIFY_UNREADABLE] = {"unreadable", "cannot be read"},
};

/*
 * The bytes of the backing files, for the bar alone: whatever can't be counted, or
 * changes meanwhile, only makes it less exact.
 */
static uint64_t count_bytes(const char *cipherdir)
{
        TK_CLEANUP(tk_freep) char *root = NULL;
        char *paths[2] = {NULL, NULL};
        const FTSENT *entry;
        uint64_t bytes = 0;
        FTS *tree;

        if (asprintf(&root, "%s/root", cipherdir) < 0)
                return 0;
        paths[0] = root;
        tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
        if (!tree)
                return 0;
        while ((entry = fts_read(tree)))
                if (entry->fts_info == FTS_F)
                        bytes += (uint64_t)entry->fts_statp->st_size;
        fts_close(tree);
        return bytes;
}

static json_t *hex_json(const char *text)
{
        size_t len = strlen(text);
        TK_CLEANUP(tk_freep) char *hex = malloc(2 * len + 1);

        if (!hex)
                return NULL;
        tk_hex_encode((const uint8_t *)text, len, hex);
        return json_string(hex);
}

static json_t *finding_json(const struct tk_verify_finding *finding)
{
        json_t *object;

        object = json_pack("{ss so ss}",                        //
                           "kind", kinds[finding->kind].name,   //
                           "path", tk_text_json(finding->path), //
                           "error", strerror(-finding->error));
        if (object && !tk_text_is_utf8(finding->path))
                json_object_set_new(object, "path_hex", hex_json(finding->path));
        if (object && finding->kind == TK_VERIFY_BLOCK) {
                json_object_set_new(object, "offset", json_integer((json_int_t)finding->offset));
                json_object_set_new(object, "length", json_integer((json_int_t)finding->length));
        }
        if (object && finding->retired)
                json_object_set_new(object, "retired", json_integer(finding->retired));
        if (object && finding->repair_error)
                json_object_set_new(object, "repair_error",
                                    json_string(strerror(-finding->repair_error)));
        if (object && finding->renamed_to)
                json_object_set_new(object, "renamed_to", tk_text_json(finding->renamed_to));
        if (object && finding->attribute)
                json_object_set_new(object, "attribute", tk_text_json(finding->attribute));
        return object;
}

static void print_finding(const struct tk_verify_finding *finding)
{
        printf("%s: ", kinds[finding->kind].text);
        tk_text_print(stdout, finding->path[0] ? finding->path : ".");
        if (finding->kind == TK_VERIFY_BLOCK)
                printf(": bytes %" PRIu64 " to %" PRIu64, finding->offset,
                       finding->offset + finding->length - 1);
        if (finding->retired)
                printf(": it is under the retired KEK version %u", finding->retired);
        if (finding->repair_error)
                printf(": cannot be renamed: %s", strerror(-finding->repair_error));
        if (finding->renamed_to) {
                fputs(": renamed to ", stdout);
                tk_text_print(stdout, finding->renamed_to);
        }
        if (finding->attribute) {
                fputs(": ", stdout);
                tk_text_print(stdout, finding->attribute);
        }
        if (finding->error != -EBADMSG && finding->error != 0)
                printf(": %s", strerror(-finding->error));
        putchar('\n');
}

static void on_finding(void *context, const struct tk_verify_finding *finding)
{
        struct report *report = context;

        if (report->findings) {
                if (json_array_append_new(report->findings, finding_json(finding)) < 0)
                        report->out_of_memory = true;
                return;
        }
        tk_progress_clear(&report->progress);
        print_finding(finding);
        fflush(stdout);
}

static void on_progress(void *context, const struct tk_verify_totals *so_far)
{
        struct report *report = context;

        tk_progress_update(&report->progress, so_far->bytes);
}

static int print_json(struct tk_volume *volume, json_t *findings,
                      const struct tk_verify_totals *totals)
{
        return tk_text_print_json(json_pack("{si so sb s{sI sI sI sI sI sI sI sI} sO}",     //
                                            "schema", SCHEMA,                               //
                                            "path", tk_text_json(tk_volume_path(volume)),   //
                                            "clean", totals->findings == 0,                 //
                                            "totals",                                       //
                                            "files", (json_int_t)totals->files,             //
                                            "directories", (json_int_t)totals->directories, //
                                            "others", (json_int_t)totals->others,           //
                                            "bytes", (json_int_t)totals->bytes,             //
                                            "bad_blocks", (json_int_t)totals->bad_blocks,   //
                                            "orphans", (json_int_t)totals->orphans,         //
                                            "repairs", (json_int_t)totals->repairs,         //
                                            "findings", (json_int_t)totals->findings,       //
                                            "findings", findings));
}

static void print_totals(const struct tk_verify_totals *totals, bool repair)
{
        char size[16];

        printf("%" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " others, %s: ",
               totals->files, totals->directories, totals->others,
               tk_text_size(totals->bytes, size));
        if (totals->findings == 0)
                printf("no damage\n");
        else
                printf("%" PRIu64 " findings, %" PRIu64 " bad blocks\n", totals->findings,
                       totals->bad_blocks);
        if (totals->repairs > 0)
                printf("%" PRIu64 " entries renamed: a mount shows them\n", totals->repairs);
        if (totals->orphans > 0)
                printf("%" PRIu64 " siblings of long names without entries%s: no damage\n",
                       totals->orphans, repair ? ", removed" : "");
}

static int walk(struct tk_volume *volume, struct report *report,
                struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        TK_CLEANUP(tk_fs_freep) struct tk_fs *fs = NULL;
        struct tk_fs_options options = {.read_only = true};
        struct tk_verify_callbacks callbacks = {.finding = on_finding,
                                                .progress = on_progress,
                                                .context = report,
                                                .repair = report->repair};
        uint64_t bytes = tk_progress_is_wanted() ? count_bytes(tk_volume_path(volume)) : 0;
        int r;

        r = tk_fs_new(volume, &options, &fs, fault);
        if (r < 0)
                return r;
        tk_progress_init(&report->progress, "verify", bytes);
        r = tk_verify_run(fs, &callbacks, ret_totals, fault);
        tk_progress_clear(&report->progress);
        if (r == 0 && report->out_of_memory)
                r = -ENOMEM;
        return r;
}

static int verify(struct tk_volume *volume, bool json, bool repair,
                  struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        struct report report = {.findings = json ? json_array() : NULL, .repair = repair};
        int r;

        r = walk(volume, &report, ret_totals, fault);
        if (r == 0 && json)
                r = print_json(volume, report.findings, ret_totals);
        else if (r == 0)
                print_totals(ret_totals, report.repair);
        json_decref(report.findings);
        return r;
}

/* What to do about the findings, one after the other. */
static void advise(const struct tk_verify_totals *totals, FILE *out)
{
        uint64_t missing = totals->records - totals->retired;
        uint64_t hidden = totals->names - totals->repairs;

        if (totals->retired > 0)
                fprintf(out,
                        "; key records in %" PRIu64 " places are under a retired KEK version: "
                        "'turnkeyfs key readmit %u CIPHERDIR' accepts them again, while the root "
                        "key version of that time exists",
                        totals->retired, totals->retired_version);
        if (missing > 0)
                fprintf(out,
                        "; key records are missing in %" PRIu64 " places: 'turnkeyfs escrow "
                        "restore' puts them back from an escrow, otherwise restore from a backup",
                        missing);
        if (hidden > 0)
                fprintf(out,
                        "; %" PRIu64
                        " entries are in no listing: 'turnkeyfs verify --repair' gives "
                        "them new names",
                        hidden);
        if (totals->repairs > 0)
                fprintf(out, "; %" PRIu64 " entries have new names now", totals->repairs);
        if (totals->findings > totals->records + totals->names)
                fputs("; restore the files concerned from a backup", out);
}

static int judge(const struct tk_volume *volume, const struct tk_verify_totals *totals,
                 struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *advice = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&advice, &len);

        if (!out)
                return -ENOMEM;
        advise(totals, out);
        if (fclose(out) != 0)
                return -ENOMEM;
        return tk_fault_set(fault, TK_FAULT_DATA_DAMAGED, -EBADMSG, "%s: %" PRIu64 " findings%s",
                            tk_volume_path(volume), totals->findings, advice);
}

int tk_cmd_verify(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_open_keys_done) struct tk_open_keys keys = {0};
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL; /* freed before its keys */
        struct tk_verify_totals totals = {0};
        int r;

        r = tk_open_conf(args->config, &conf, fault);
        if (r < 0)
                return r;
        r = tk_hygiene_lock_memory(conf, fault);
        if (r < 0)
                return r;
        r = tk_volume_open(args->paths[0], &volume, fault);
        if (r < 0)
                return r;
        r = tk_open_unlock(volume, conf, "being verified", &keys, fault);
        if (r < 0)
                return r;
        tk_log_set_level(TK_LOG_NONE); /* each damage is said once, as a finding */
        r = verify(volume, args->json, args->repair, &totals, fault);
        if (r < 0 || totals.findings == 0)
                return r;
        fflush(stdout);
        return judge(volume, &totals, fault);
}
