/* SPDX-License-Identifier: Apache-2.0 */

/* Findings as lines of JSON: paths are bytes, so they go in base64url. */

#include "cli/verify_wire.h"

#include "cli/text.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* The counts of the totals, by name. */
static const struct {
        const char *name;
        size_t offset;
} counts[] = {
#define COUNT(field)                                                                               \
        {                                                                                          \
#field, offsetof(struct tk_verify_totals, field)                                   \
        }
        COUNT(files),    COUNT(directories), COUNT(others),  COUNT(bytes),   COUNT(bad_blocks),
        COUNT(records),  COUNT(retired),     COUNT(names),   COUNT(orphans), COUNT(repairs),
        COUNT(restored), COUNT(salvaged),    COUNT(findings)
#undef COUNT
};

char *tk_verify_wire_finding(const struct tk_verify_finding *finding)
{
        return tk_text_dump_json(json_pack("{s{si so sI sI so so sb si si si}}",            //
                                           "finding",                                       //
                                           "kind", (int)finding->kind,                      //
                                           "path", tk_text_wire(finding->path),             //
                                           "offset", (json_int_t)finding->offset,           //
                                           "length", (json_int_t)finding->length,           //
                                           "attribute", tk_text_wire(finding->attribute),   //
                                           "renamed_to", tk_text_wire(finding->renamed_to), //
                                           "restored", finding->restored,                   //
                                           "repair_error", finding->repair_error,           //
                                           "retired", (int)finding->retired,                //
                                           "error", finding->error));
}

char *tk_verify_wire_bytes(uint64_t bytes)
{
        return tk_text_dump_json(json_pack("{sI}", "bytes", (json_int_t)bytes));
}

char *tk_verify_wire_end(int r, const struct tk_fault *fault, const struct tk_verify_totals *totals)
{
        json_t *object = json_object();

        for (size_t i = 0; object && i < sizeof(counts) / sizeof(counts[0]); i++) {
                const char *at = (const char *)totals + counts[i].offset;
                uint64_t count;

                memcpy(&count, at, sizeof(count));
                json_object_set_new(object, counts[i].name, json_integer((json_int_t)count));
        }
        return tk_text_dump_json(json_pack("{so si si si so}",                              //
                                           "totals", object,                                //
                                           "retired_version", (int)totals->retired_version, //
                                           "result", r,                                     //
                                           "kind", (int)fault->kind,                        //
                                           "text", tk_text_wire(fault->text)));
}

static int take_finding(const struct tk_verify_callbacks *callbacks, const json_t *object)
{
        TK_CLEANUP(tk_freep) char *path = tk_text_of_wire(json_object_get(object, "path"));
        TK_CLEANUP(tk_freep)
        char *attribute = tk_text_of_wire(json_object_get(object, "attribute"));
        TK_CLEANUP(tk_freep)
        char *renamed_to = tk_text_of_wire(json_object_get(object, "renamed_to"));
        json_int_t kind = json_integer_value(json_object_get(object, "kind"));
        struct tk_verify_finding finding = {
                .kind = (enum tk_verify_kind)kind,
                .path = path,
                .offset = (uint64_t)json_integer_value(json_object_get(object, "offset")),
                .length = (uint64_t)json_integer_value(json_object_get(object, "length")),
                .attribute = attribute,
                .renamed_to = renamed_to,
                .restored = json_is_true(json_object_get(object, "restored")),
                .repair_error = (int)json_integer_value(json_object_get(object, "repair_error")),
                .retired = (uint16_t)json_integer_value(json_object_get(object, "retired")),
                .error = (int)json_integer_value(json_object_get(object, "error"))};

        if (!path || kind < 0 || kind > TK_VERIFY_UNREADABLE)
                return -EPROTO;
        callbacks->finding(callbacks->context, &finding);
        return 0;
}

static void take_totals(struct tk_verify_wire *wire, const json_t *line, const json_t *totals)
{
        TK_CLEANUP(tk_freep) char *text = tk_text_of_wire(json_object_get(line, "text"));
        json_int_t kind = json_integer_value(json_object_get(line, "kind"));

        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
                char *at = (char *)&wire->totals + counts[i].offset;
                uint64_t count =
                        (uint64_t)json_integer_value(json_object_get(totals, counts[i].name));

                memcpy(at, &count, sizeof(count));
        }
        wire->totals.retired_version =
                (uint16_t)json_integer_value(json_object_get(line, "retired_version"));
        wire->r = (int)json_integer_value(json_object_get(line, "result"));
        if (kind > TK_FAULT_NONE && kind <= TK_FAULT_ESCROW && text)
                (void)tk_fault_set(&wire->fault, (enum tk_fault_kind)kind, wire->r, "%s", text);
        wire->ended = true;
}

int tk_verify_wire_take(struct tk_verify_wire *wire, const char *line)
{
        json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        const json_t *finding = json_object_get(root, "finding");
        const json_t *bytes = json_object_get(root, "bytes");
        const json_t *totals = json_object_get(root, "totals");
        struct tk_verify_totals so_far = {0};
        int r = 0;

        if (finding) {
                r = take_finding(wire->callbacks, finding);
        } else if (bytes) {
                so_far.bytes = (uint64_t)json_integer_value(bytes);
                wire->callbacks->progress(wire->callbacks->context, &so_far);
        } else if (totals) {
                take_totals(wire, root, totals);
        } else {
                r = -EPROTO;
        }
        json_decref(root);
        return r;
}
