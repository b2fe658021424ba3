/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Key record: one DEK, wrapped, as it lies in an attribute.
 *
 * There are two kinds: with dek_wrap = kek the DEK is sealed under a KEK version
 * (64 bytes); with dek_wrap = kms it is a blob that the KMS unwraps, and a MAC
 * under a key of the volume says that the blob was made here. Byte layout:
 * docs/format.md, "Key record". This module sees bytes only; the attribute and
 * the copy in the file are fs/keyattr.h.
 */

#include "crypto/aead.h"
#include "crypto/mac.h"

enum {
        TK_VOLUME_ID_LEN = 16,
        TK_RECORD_LEN = 64,       /* of the kind for dek_wrap = kek */
        TK_RECORD_BLOB_MAX = 512, /* what RSA-4096 makes */
        TK_RECORD_MAX = 6 + TK_RECORD_BLOB_MAX + TK_MAC_LEN,
};

enum tk_record_kind {
        TK_RECORD_KEK = 1, /* the record version in the first byte */
        TK_RECORD_KMS = 2,
};

/* A record's bytes; a value, copied at will. Its length follows from the bytes. */
struct tk_record {
        uint8_t bytes[TK_RECORD_MAX];
};

/* Length of a record that one of the functions below made or accepted. */
size_t tk_record_len(const struct tk_record *record);

/*
 * The KEK version (1 and up) that a record of @len bytes names. -EBADMSG if it is
 * malformed, -ENOTSUP if a newer release wrote it.
 */
TK_MUST_USE int tk_record_kek_version(const void *bytes, size_t len, uint16_t *ret_version);

/* Wrap @dek under @kek, which is version @kek_version of the volume's KEK. */
TK_MUST_USE int tk_record_wrap(const struct tk_secret *kek, uint16_t kek_version,
                               const uint8_t volume_id[TK_VOLUME_ID_LEN],
                               const struct tk_secret *dek, struct tk_record *ret_record);

/* The DEK of @record. -EBADMSG if it is of the other kind or does not authenticate under @kek. */
TK_MUST_USE int tk_record_unwrap(const struct tk_record *record, const struct tk_secret *kek,
                                 const uint8_t volume_id[TK_VOLUME_ID_LEN],
                                 struct tk_secret **ret_dek);

/*
 * A record around @blob (1 to TK_RECORD_BLOB_MAX bytes), a DEK that the KMS
 * wrapped by the root key version of @kek_version. @mac_key is the volume's.
 */
TK_MUST_USE int tk_record_enclose(const struct tk_secret *mac_key, uint16_t kek_version,
                                  const uint8_t volume_id[TK_VOLUME_ID_LEN], const uint8_t *blob,
                                  size_t blob_len, struct tk_record *ret_record);

/* The blob inside, borrowed from @record. -EBADMSG if the MAC does not hold. */
TK_MUST_USE int tk_record_disclose(const struct tk_record *record, const struct tk_secret *mac_key,
                                   const uint8_t volume_id[TK_VOLUME_ID_LEN],
                                   const uint8_t **ret_blob, size_t *ret_blob_len);
