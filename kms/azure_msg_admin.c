/* SPDX-License-Identifier: Apache-2.0 */

/* Messages that change keys, and lists of versions. */

#include "kms/azure_msg_admin.h"

#include "base/bytes.h"
#include "kms/azure_msg_internal.h"
#include <errno.h>
#include <string.h>
#include <strings.h>

enum { ITEMS_MAX = 100, DAYS_MAX = 100000 };

static const char wrapping_ops[] = "\"key_ops\":[\"wrapKey\",\"unwrapKey\"]";

int tk_azure_msg_build_create(const struct tk_kms_key_spec *spec, struct tk_secret **ret_body)
{
        struct tk_text text = {0};

        tk_text_add(&text, "{\"kty\":");
        tk_text_add_json(&text, spec->type);
        tk_text_add(&text, ",\"key_size\":");
        tk_text_add_number(&text, spec->bits);
        tk_text_add(&text, ",");
        tk_text_add(&text, wrapping_ops);
        tk_text_add(&text, ",\"attributes\":{\"enabled\":true");
        if (spec->not_before > 0) {
                tk_text_add(&text, ",\"nbf\":");
                tk_text_add_number(&text, spec->not_before);
        }
        if (spec->expires > 0) {
                tk_text_add(&text, ",\"exp\":");
                tk_text_add_number(&text, spec->expires);
        }
        tk_text_add(&text, "}}");
        return tk_text_take(&text, ret_body);
}

int tk_azure_msg_build_import(const struct tk_rsa *rsa, bool hsm, struct tk_secret **ret_body)
{
        static const struct {
                const char *name;
                enum tk_rsa_part part;
        } members[] = {
                {"n", TK_RSA_N}, {"e", TK_RSA_E},   {"d", TK_RSA_D},   {"p", TK_RSA_P},
                {"q", TK_RSA_Q}, {"dp", TK_RSA_DP}, {"dq", TK_RSA_DQ}, {"qi", TK_RSA_QI},
        };
        struct tk_text text = {0};

        tk_text_add(&text, hsm ? "{\"Hsm\":true,\"key\":{\"kty\":\"RSA-HSM\","
                               : "{\"Hsm\":false,\"key\":{\"kty\":\"RSA\",");
        tk_text_add(&text, wrapping_ops);
        for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *number = NULL;
                int r = tk_rsa_part(rsa, members[i].part, &number);

                if (r < 0) {
                        tk_text_done(&text);
                        return r;
                }
                tk_text_add(&text, ",\"");
                tk_text_add(&text, members[i].name);
                tk_text_add(&text, "\":\"");
                tk_text_add_base64url(&text, tk_secret_bytes(number), tk_secret_len(number));
                tk_text_add(&text, "\"");
        }
        tk_text_add(&text, "},\"attributes\":{\"enabled\":true}}");
        return tk_text_take(&text, ret_body);
}

int tk_azure_msg_build_import_blob(const struct tk_secret *blob, struct tk_secret **ret_body)
{
        struct tk_text text = {0};

        tk_text_add(&text, "{\"Hsm\":true,\"key\":{\"kty\":\"RSA-HSM\",");
        tk_text_add(&text, wrapping_ops);
        tk_text_add(&text, ",\"key_hsm\":\"");
        tk_text_add_base64url(&text, tk_secret_bytes(blob), tk_secret_len(blob));
        tk_text_add(&text, "\"},\"attributes\":{\"enabled\":true}}");
        return tk_text_take(&text, ret_body);
}

int tk_azure_msg_build_enabled(bool enabled, struct tk_secret **ret_body)
{
        struct tk_text text = {0};

        tk_text_add(&text, enabled ? "{\"attributes\":{\"enabled\":true}}"
                                   : "{\"attributes\":{\"enabled\":false}}");
        return tk_text_take(&text, ret_body);
}

/* Lists */

void tk_azure_page_done(struct tk_azure_page *page)
{
        free(page->items);
        page->items = NULL;
        page->count = 0;
}

static int take_items(const json_t *array, struct tk_azure_page *page)
{
        size_t count = json_array_size(array);

        if (count > ITEMS_MAX)
                return -EBADMSG;
        page->items = calloc(count > 0 ? count : 1, sizeof(*page->items));
        if (!page->items)
                return -ENOMEM;
        for (size_t i = 0; i < count; i++) {
                const json_t *item = json_array_get(array, i);

                if (!json_is_object(item) ||
                    tk_azure_msg_take_kid(item, true, &page->items[i].id) < 0 ||
                    tk_azure_msg_take_attributes(item, &page->items[i].attributes) < 0)
                        return -EBADMSG;
        }
        page->count = count;
        return 0;
}

int tk_azure_msg_parse_page(const char *text, size_t len, struct tk_azure_page *ret_page)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        struct tk_azure_page page = {.count = 0};
        const json_t *array;
        int r;

        r = tk_azure_json_parse(text, len, &root);
        if (r < 0)
                return r;
        if (tk_azure_json_array(root, "value", &array) != 0 ||
            tk_azure_json_copy(root, "nextLink", page.next, sizeof(page.next)) < 0)
                return -EBADMSG;
        r = take_items(array, &page);
        if (r < 0) {
                tk_azure_page_done(&page);
                return r;
        }
        *ret_page = page;
        return 0;
}

/* Rotation policies */

static void add_days(struct tk_text *text, const char *before, unsigned days, const char *after)
{
        tk_text_add(text, before);
        tk_text_add_number(text, days);
        tk_text_add(text, after);
}

int tk_azure_msg_build_policy(const struct tk_kms_rotation_policy *policy,
                              struct tk_secret **ret_body)
{
        static const char after[] = "{\"trigger\":{\"timeAfterCreate\":\"P";
        static const char before[] = "{\"trigger\":{\"timeBeforeExpiry\":\"P";
        static const char rotate[] = "D\"},\"action\":{\"type\":\"Rotate\"}}";
        static const char notify[] = "D\"},\"action\":{\"type\":\"Notify\"}}";
        bool rotates = policy->rotate_after_days > 0 || policy->rotate_before_days > 0;
        struct tk_text text = {0};

        if (policy->rotate_after_days > 0 && policy->rotate_before_days > 0)
                return -EINVAL;
        tk_text_add(&text, "{\"lifetimeActions\":[");
        if (policy->rotate_after_days > 0)
                add_days(&text, after, policy->rotate_after_days, rotate);
        if (policy->rotate_before_days > 0)
                add_days(&text, before, policy->rotate_before_days, rotate);
        if (rotates && policy->notify_before_days > 0)
                tk_text_add(&text, ",");
        if (policy->notify_before_days > 0)
                add_days(&text, before, policy->notify_before_days, notify);
        tk_text_add(&text, "],\"attributes\":{");
        if (policy->expiry_days > 0)
                add_days(&text, "\"expiryTime\":\"P", policy->expiry_days, "D\"");
        tk_text_add(&text, "}}");
        return tk_text_take(&text, ret_body);
}

/* ISO 8601: P1Y6M, P90D. Hours and less are not used for keys. */
static int parse_duration(const char *text, unsigned *ret_days)
{
        static const struct {
                char letter;
                unsigned days;
        } units[] = {{'Y', 365}, {'M', 30}, {'W', 7}, {'D', 1}};
        uint64_t days = 0;
        size_t unit = 0;

        if (*text++ != 'P' || !*text)
                return -EBADMSG;
        while (*text) {
                uint64_t number = 0;
                size_t digits = strspn(text, "0123456789");

                if (digits == 0 || digits > 6)
                        return -EBADMSG;
                number = strtoul(text, NULL, 10);
                text += digits;
                while (unit < 4 && units[unit].letter != *text)
                        unit++;
                if (unit == 4)
                        return -EBADMSG;
                days += number * units[unit++].days;
                text++;
        }
        if (days > DAYS_MAX)
                return -EBADMSG;
        *ret_days = (unsigned)days;
        return 0;
}

/* 0 days if it is absent. */
static int take_duration(const json_t *object, const char *name, unsigned *ret_days)
{
        const char *text;
        int r = tk_azure_json_string(object, name, &text);

        if (r != 0)
                return r < 0 ? r : 0;
        return parse_duration(text, ret_days);
}

static int take_action(const json_t *entry, struct tk_kms_rotation_policy *policy)
{
        const json_t *trigger;
        const json_t *action;
        const char *type;
        unsigned after = 0;
        unsigned before = 0;

        if (!json_is_object(entry) || tk_azure_json_object(entry, "trigger", &trigger) != 0 ||
            tk_azure_json_object(entry, "action", &action) != 0 ||
            tk_azure_json_string(action, "type", &type) != 0 ||
            take_duration(trigger, "timeAfterCreate", &after) < 0 ||
            take_duration(trigger, "timeBeforeExpiry", &before) < 0)
                return -EBADMSG;
        if (strcasecmp(type, "Rotate") == 0) {
                policy->rotate_after_days = after;
                policy->rotate_before_days = before;
        } else if (strcasecmp(type, "Notify") == 0) {
                policy->notify_before_days = before;
        }
        return 0;
}

int tk_azure_msg_parse_policy(const char *text, size_t len,
                              struct tk_kms_rotation_policy *ret_policy)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        struct tk_kms_rotation_policy policy = {0};
        const json_t *actions;
        const json_t *attributes;
        int r;

        r = tk_azure_json_parse(text, len, &root);
        if (r < 0)
                return r;
        r = tk_azure_json_array(root, "lifetimeActions", &actions);
        for (size_t i = 0; r == 0 && i < json_array_size(actions); i++)
                r = take_action(json_array_get(actions, i), &policy);
        if (r < 0)
                return r;
        r = tk_azure_json_object(root, "attributes", &attributes);
        if (r == 0)
                r = take_duration(attributes, "expiryTime", &policy.expiry_days);
        if (r < 0)
                return r;
        *ret_policy = policy;
        return 0;
}
