/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Messages that change keys: built and parsed as in azure_msg.h, without I/O. */

#include "kms/azure_msg.h"
#include "kms/kms_admin.h"

/* The body of create: for wrapping only. A type and a size have to be given. */
TK_MUST_USE int tk_azure_msg_build_create(const struct tk_kms_key_spec *spec,
                                          struct tk_secret **ret_body);

/* The body of import: a private key in the clear; @hsm: it is to lie in the HSM. -ENOENT if public.
 */
TK_MUST_USE int tk_azure_msg_build_import(const struct tk_rsa *rsa, bool hsm,
                                          struct tk_secret **ret_body);

/* The body of import: a transfer blob (BYOK), passed on as it is. */
TK_MUST_USE int tk_azure_msg_build_import_blob(const struct tk_secret *blob,
                                               struct tk_secret **ret_body);

TK_MUST_USE int tk_azure_msg_build_enabled(bool enabled, struct tk_secret **ret_body);

/* One page of a list of versions. */
struct tk_azure_page {
        struct tk_azure_item {
                struct tk_azure_id id;
                struct tk_azure_attributes attributes;
        } * items; /* to be freed by tk_azure_page_done */
        size_t count;
        char next[TK_AZURE_NEXT_MAX]; /* where the next page is; empty: this was the last */
};
void tk_azure_page_done(struct tk_azure_page *page);

TK_MUST_USE int tk_azure_msg_parse_page(const char *text, size_t len,
                                        struct tk_azure_page *ret_page);

/* Rotation policies. Durations are in days: a month counts as 30, a year as 365. */
TK_MUST_USE int tk_azure_msg_build_policy(const struct tk_kms_rotation_policy *policy,
                                          struct tk_secret **ret_body);
TK_MUST_USE int tk_azure_msg_parse_policy(const char *text, size_t len,
                                          struct tk_kms_rotation_policy *ret_policy);
