/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Key record: one DEK, wrapped under a KEK version, as it lies in an attribute.
 *
 * Byte layout: docs/format.md, "Key record". This module sees bytes only; the
 * attribute and the copy in the file are fs/keyattr.h.
 */

#include "crypto/aead.h"

enum { TK_RECORD_LEN = 64, TK_VOLUME_ID_LEN = 16, TK_RECORD_VERSION = 1 };

/* A record's bytes; a value, copied at will. */
struct tk_record {
        uint8_t bytes[TK_RECORD_LEN];
};

/*
 * The KEK version (1 and up) that a record of @len bytes names. -EBADMSG if it is
 * malformed, -ENOTSUP if a newer release wrote it.
 */
TK_MUST_USE int tk_record_kek_version(const void *bytes, size_t len, uint16_t *ret_version);

/* Wrap @dek under @kek, which is version @kek_version of the volume's KEK. */
TK_MUST_USE int tk_record_wrap(const struct tk_secret *kek, uint16_t kek_version,
                               const uint8_t volume_id[TK_VOLUME_ID_LEN],
                               const struct tk_secret *dek, struct tk_record *ret_record);

/* The DEK of @record. -EBADMSG if the record does not authenticate under @kek. */
TK_MUST_USE int tk_record_unwrap(const struct tk_record *record, const struct tk_secret *kek,
                                 const uint8_t volume_id[TK_VOLUME_ID_LEN],
                                 struct tk_secret **ret_dek);
