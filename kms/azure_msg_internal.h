/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Pieces of messages that azure_msg.c and azure_msg_admin.c share. */

#include "kms/azure_json.h"
#include "kms/azure_msg.h"

/* The member "kid" of @object. -EBADMSG, also for one without a version if it has to have one. */
TK_MUST_USE int tk_azure_msg_take_kid(const json_t *object, bool want_version,
                                      struct tk_azure_id *ret_id);

/* The member "attributes" of @object. */
TK_MUST_USE int tk_azure_msg_take_attributes(const json_t *object, struct tk_azure_attributes *ret);

/* A whole key; on failure @ret_key is half written. */
TK_MUST_USE int tk_azure_msg_take_key(const json_t *root, struct tk_azure_key *ret_key);
