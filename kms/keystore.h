/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The text of a local keystore: parse, check, format.
 *
 * Layout: docs/format.md, "Local keystore". This module sees text only; the file
 * and its passphrase are local.c. A parsed keystore is not changed by readers,
 * so threads may share it.
 */

#include "base/fault.h"
#include "base/secret.h"
#include "crypto/kdf.h"
#include "crypto/sealed.h"
#include <stddef.h>
#include <stdint.h>

enum {
        TK_KEYSTORE_FORMAT = 1,
        TK_KEYSTORE_ID_LEN = 16,
        TK_KEYSTORE_SALT_LEN = 16,
        TK_KEYSTORE_SEALED_LEN = TK_SEALED_KEY_LEN,
        TK_KEYSTORE_TEXT_MAX = 1024 * 1024, /* thousands of versions */
};

/* One version of the root key. */
struct tk_keystore_version {
        uint32_t number;  /* from 1 */
        uint64_t created; /* Unix seconds */
        bool enabled;
        struct tk_secret *stored; /* as the file holds it: the key, or the sealed key */
        struct tk_secret *key;    /* the key; NULL until it was unlocked */
};

struct tk_keystore {
        uint8_t id[TK_KEYSTORE_ID_LEN];
        bool protected; /* by a passphrase; @cost and @salt count only then */
        struct tk_kdf_scrypt cost;
        uint8_t salt[TK_KEYSTORE_SALT_LEN];
        struct tk_keystore_version *versions; /* by number, ascending */
        size_t version_count;
};

/*
 * Parse the NUL-terminated @text of @len bytes; @path is only named in complaints,
 * which never repeat a value. Returns -EBADMSG if it is no keystore or was damaged,
 * -ENOTSUP if a newer release wrote it, -ENOMEM, -EPERM (memory can't be locked).
 */
TK_MUST_USE int tk_keystore_parse(const char *text, size_t len, const char *path,
                                  struct tk_keystore **ret_keystore, struct tk_fault *fault);

/* The text of @keystore, all versions and the checksum, without a NUL. -ENOMEM, -EPERM, -EIO. */
TK_MUST_USE int tk_keystore_format(const struct tk_keystore *keystore, struct tk_secret **ret_text);

/*
 * Add a version with a number above all others; both secrets are taken over, also
 * on failure, and @key may be NULL. -ENOMEM.
 */
TK_MUST_USE int tk_keystore_consume_version(struct tk_keystore *keystore,
                                            const struct tk_keystore_version *version);

/* The version of that number; NULL if there is none. */
const struct tk_keystore_version *tk_keystore_find(const struct tk_keystore *keystore,
                                                   uint32_t number);

struct tk_keystore *tk_keystore_free(struct tk_keystore *keystore);
TK_DEFINE_CLEANUP(struct tk_keystore *, tk_keystore_free)

/* A decimal number up to @max without sign, spaces or leading zeros. -EINVAL. */
TK_MUST_USE int tk_keystore_number(const char *text, uint64_t max, uint64_t *ret_number);
