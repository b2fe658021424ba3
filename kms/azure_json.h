/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * JSON from a service, read strictly: no duplicate names, bounded depth, types as expected.
 *
 * No I/O. What jansson keeps of a secret is wiped when it is freed.
 */

#include "base/secret.h"
#include <jansson.h>

/* The object that @text of @len bytes holds; -EBADMSG if it holds anything else. */
TK_MUST_USE int tk_azure_json_parse(const char *text, size_t len, json_t **ret_root);

static inline void tk_azure_json_freep(json_t **root)
{
        json_decref(*root);
}

/*
 * Members of @object. Absent and null are alike: the getters return 1 then and leave the
 * result alone; -EBADMSG for another type or a value that does not fit; else 0.
 */
TK_MUST_USE int tk_azure_json_string(const json_t *object, const char *name, const char **ret_text);
TK_MUST_USE int tk_azure_json_copy(const json_t *object, const char *name, char *text, size_t max);
TK_MUST_USE int tk_azure_json_number(const json_t *object, const char *name, int64_t *ret_number);
TK_MUST_USE int tk_azure_json_bool(const json_t *object, const char *name, bool *ret_flag);
TK_MUST_USE int tk_azure_json_object(const json_t *object, const char *name,
                                     const json_t **ret_object);
TK_MUST_USE int tk_azure_json_array(const json_t *object, const char *name,
                                    const json_t **ret_array);

/* A number, or a text of digits, as some token services write it. */
TK_MUST_USE int tk_azure_json_digits(const json_t *object, const char *name, int64_t *ret_number);

/* Copy what is printable in @text, line ends as blanks, the rest as '?'; cut to fit. */
void tk_azure_printable(const char *text, char *out, size_t max);

/* The same for a member; @out is left alone if there is none. */
void tk_azure_json_printable(const json_t *object, const char *name, char *out, size_t max);
