/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The DEK of a directory, and the key of its names.
 *
 * The key record lies in the directory's attribute, without a copy. Keys are kept
 * while they are used often: looking a name up unwraps nothing. Thread-safe; no
 * lock is held across cryptography or a call to the KMS.
 */

#include "crypto/record.h"
#include "fs/fs.h"
#include "fs/inode.h"

struct tk_dirkey;  /* one directory's, counted; opaque: dirkey.c */
struct tk_dirkeys; /* those that are kept */

/* At most @max keys are kept; those used longest ago make room. -ENOMEM. */
TK_MUST_USE int tk_dirkeys_new(size_t max, struct tk_dirkeys **ret_keys);
struct tk_dirkeys *tk_dirkeys_free(struct tk_dirkeys *keys);

/* Drop all: each is wiped as soon as nobody uses it. Nothing is kept while @fs is closed. */
void tk_dirkey_wipe_all(struct tk_fs *fs);

/*
 * The key of the directory @inode, whose descriptor of any kind is @fd; the caller
 * puts it back. -ENODATA if it has no record, and with encrypted names is bare; -EIO
 * if its record is lost, damaged or not live (logged, counted); or what the keyring
 * says.
 */
TK_MUST_USE int tk_dirkey_get(struct tk_fs *fs, struct tk_inode *inode, int fd,
                              struct tk_dirkey **ret_key);

/* The same, and a directory without a record gets one where the above gives -ENODATA. */
TK_MUST_USE int tk_dirkey_need(struct tk_fs *fs, struct tk_inode *inode, int fd,
                               struct tk_dirkey **ret_key);

/*
 * For verify: without an inode, neither kept nor logged. -ENODATA, -EBADMSG or -ENOTSUP
 * for a record that is missing, damaged or not live, or a newer release's.
 */
TK_MUST_USE int tk_dirkey_load_alone(struct tk_fs *fs, int fd, struct tk_dirkey **ret_key);

/*
 * The same where names are encrypted: -ENODATA only of a directory that is bare;
 * TK_DIRKEY_LOST of one that has entries, and so had a record.
 */
enum { TK_DIRKEY_LOST = 1 };
TK_MUST_USE int tk_dirkey_load_entries(struct tk_fs *fs, int fd, struct tk_dirkey **ret_key);

/* The key in @record, whosever it is; -EBADMSG or -ENOTSUP, or what the keyring says. */
TK_MUST_USE int tk_dirkey_from_record(struct tk_fs *fs, const struct tk_record *record,
                                      struct tk_dirkey **ret_key);

/*
 * Whether @key opens a name in the directory @fd, of any kind: 1 or 0, or a negative
 * errno. Of a directory without entries, and with plain names, any does.
 */
TK_MUST_USE int tk_dirkey_fits(struct tk_fs *fs, int fd, const struct tk_dirkey *key);

/* A new record for the directory @fd; -EEXIST if it has one. */
TK_MUST_USE int tk_dirkey_make(struct tk_fs *fs, int fd);

/* Whether the directory @fd, of any kind, holds nothing but siblings of names: 1 or 0. */
TK_MUST_USE int tk_dirkey_is_bare(int fd);

struct tk_dirkey *tk_dirkey_put(struct tk_fs *fs, struct tk_dirkey *key);

/* Borrowed while the caller has the key. */
const struct tk_secret *tk_dirkey_dek(const struct tk_dirkey *key);
const struct tk_secret *tk_dirkey_names(const struct tk_dirkey *key); /* for tk_siv_set_key */
