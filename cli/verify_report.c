/* SPDX-License-Identifier: Apache-2.0 */

/* What `verify` found, as text and as JSON: docs/cli.md. */

#include "cli/verify_report.h"

#include "base/bytes.h"
#include "cli/text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SCHEMA = 1 };

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

json_t *tk_verify_finding_json(const struct tk_verify_finding *finding)
{
        json_t *object;

        object = json_pack("{ss so ss}",                        //
                           "kind", kinds[finding->kind].name,   //
                           "path", tk_text_json(finding->path), //
                           "error", strerror(-finding->error));
        if (object && !tk_text_is_utf8(finding->path))
                json_object_set_new(object, "path_hex", tk_text_hex_json(finding->path));
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
        if (object && finding->restored)
                json_object_set_new(object, "restored", json_true());
        if (object && finding->attribute)
                json_object_set_new(object, "attribute", tk_text_json(finding->attribute));
        return object;
}

void tk_verify_print_finding(const struct tk_verify_finding *finding)
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
        if (finding->restored)
                fputs(": restored", stdout);
        if (finding->attribute) {
                fputs(": ", stdout);
                tk_text_print(stdout, finding->attribute);
        }
        if (finding->error != -EBADMSG && finding->error != 0)
                printf(": %s", strerror(-finding->error));
        putchar('\n');
}

int tk_verify_print_json(struct tk_volume *volume, json_t *findings,
                         const struct tk_verify_totals *totals)
{
        return tk_text_print_json(json_pack("{si so sb s{sI sI sI sI sI sI sI sI sI sI} sO}", //
                                            "schema", SCHEMA,                                 //
                                            "path", tk_text_json(tk_volume_path(volume)),     //
                                            "clean", totals->findings == 0,                   //
                                            "totals",                                         //
                                            "files", (json_int_t)totals->files,               //
                                            "directories", (json_int_t)totals->directories,   //
                                            "others", (json_int_t)totals->others,             //
                                            "bytes", (json_int_t)totals->bytes,               //
                                            "bad_blocks", (json_int_t)totals->bad_blocks,     //
                                            "orphans", (json_int_t)totals->orphans,           //
                                            "repairs", (json_int_t)totals->repairs,           //
                                            "restored", (json_int_t)totals->restored,         //
                                            "salvaged", (json_int_t)totals->salvaged,         //
                                            "findings", (json_int_t)totals->findings,         //
                                            "findings", findings));
}

void tk_verify_print_totals(const struct tk_verify_totals *totals, bool repair)
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
        if (totals->salvaged > 0)
                printf("%" PRIu64 " damaged files salvaged; holes stand for what can't be read\n",
                       totals->salvaged);
        if (totals->orphans > 0)
                printf("%" PRIu64 " siblings of long names without entries%s: no damage\n",
                       totals->orphans, repair ? ", removed" : "");
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
        if (totals->restored > 0)
                fprintf(out, "; %" PRIu64 " lost key records were restored from their twins",
                        totals->restored);
        if (totals->findings > totals->records + totals->names + totals->restored)
                fputs("; restore the files concerned from a backup", out);
}

int tk_verify_judge(const struct tk_volume *volume, const struct tk_verify_totals *totals,
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
