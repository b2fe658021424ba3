/* SPDX-License-Identifier: Apache-2.0 */

/* JSON from a service, read strictly. */

#include "kms/azure_json.h"

#include "base/wiping.h"
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { DEPTH_MAX = 16, NUMBER_DIGITS_MAX = 15 };

static pthread_once_t json_once = PTHREAD_ONCE_INIT;

static void json_start(void)
{
        json_set_alloc_funcs(tk_hidden_malloc, tk_wiping_free);
}

/* Brackets outside strings nest no deeper than DEPTH_MAX. jansson allows 2048, on the stack. */
static bool is_shallow(const char *text, size_t len)
{
        bool in_string = false;
        unsigned depth = 0;

        for (size_t i = 0; i < len; i++) {
                char c = text[i];

                if (in_string && c == '\\')
                        i++;
                else if (c == '"')
                        in_string = !in_string;
                else if (!in_string && (c == '{' || c == '['))
                        depth++;
                else if (!in_string && (c == '}' || c == ']') && depth > 0)
                        depth--;
                if (depth > DEPTH_MAX)
                        return false;
        }
        return true;
}

int tk_azure_json_parse(const char *text, size_t len, json_t **ret_root)
{
        json_error_t error;
        json_t *root;

        pthread_once(&json_once, json_start);
        if (!is_shallow(text, len))
                return -EBADMSG;
        root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
        if (!json_is_object(root)) {
                json_decref(root);
                return -EBADMSG;
        }
        *ret_root = root;
        return 0;
}

/* The member, NULL if it is absent or null. */
static const json_t *member(const json_t *object, const char *name)
{
        const json_t *value = json_object_get(object, name);

        return json_is_null(value) ? NULL : value;
}

int tk_azure_json_string(const json_t *object, const char *name, const char **ret_text)
{
        const json_t *value = member(object, name);

        if (!value)
                return 1;
        if (!json_is_string(value))
                return -EBADMSG;
        *ret_text = json_string_value(value);
        return 0;
}

int tk_azure_json_copy(const json_t *object, const char *name, char *text, size_t max)
{
        const char *value;
        int r = tk_azure_json_string(object, name, &value);
        size_t len;

        if (r != 0)
                return r;
        len = strlen(value);
        if (len >= max)
                return -EBADMSG;
        memcpy(text, value, len + 1);
        return 0;
}

int tk_azure_json_number(const json_t *object, const char *name, int64_t *ret_number)
{
        const json_t *value = member(object, name);

        if (!value)
                return 1;
        if (!json_is_integer(value))
                return -EBADMSG;
        *ret_number = json_integer_value(value);
        return 0;
}

int tk_azure_json_digits(const json_t *object, const char *name, int64_t *ret_number)
{
        const json_t *value = member(object, name);
        const char *text;
        size_t len;

        if (!json_is_string(value))
                return tk_azure_json_number(object, name, ret_number);
        text = json_string_value(value);
        len = strlen(text);
        if (len == 0 || len > NUMBER_DIGITS_MAX || strspn(text, "0123456789") != len)
                return -EBADMSG;
        *ret_number = strtoll(text, NULL, 10);
        return 0;
}

int tk_azure_json_bool(const json_t *object, const char *name, bool *ret_flag)
{
        const json_t *value = member(object, name);

        if (!value)
                return 1;
        if (!json_is_boolean(value))
                return -EBADMSG;
        *ret_flag = json_is_true(value);
        return 0;
}

int tk_azure_json_object(const json_t *object, const char *name, const json_t **ret_object)
{
        const json_t *value = member(object, name);

        if (!value)
                return 1;
        if (!json_is_object(value))
                return -EBADMSG;
        *ret_object = value;
        return 0;
}

int tk_azure_json_array(const json_t *object, const char *name, const json_t **ret_array)
{
        const json_t *value = member(object, name);

        if (!value)
                return 1;
        if (!json_is_array(value))
                return -EBADMSG;
        *ret_array = value;
        return 0;
}

void tk_azure_printable(const char *text, char *out, size_t max)
{
        size_t len = 0;

        for (; text[len] && len + 1 < max; len++) {
                out[len] = '?';
                if (text[len] == '\n' || text[len] == '\r')
                        out[len] = ' ';
                else if (isascii(text[len]) && isprint(text[len]))
                        out[len] = text[len];
        }
        out[len] = '\0';
}

void tk_azure_json_printable(const json_t *object, const char *name, char *out, size_t max)
{
        const char *text;

        if (tk_azure_json_string(object, name, &text) == 0)
                tk_azure_printable(text, out, max);
}
