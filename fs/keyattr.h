/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The key record of a file: the attribute, its copy in the file, and what to do
 * when they differ.
 */

#include "crypto/record.h"
#include "fs/fs.h"

#define TK_KEYATTR_NAME "user.turnkey"

struct tk_keyattr {
        struct tk_secret *dek; /* the caller frees it */
        struct tk_record record;
        bool attribute_bad; /* the attribute was missing, damaged, or another file's */
        bool copy_bad;      /* so was the copy in a file that has bytes */
};

/*
 * The DEK of the backing file @fd of @backing_size bytes, and its record. -EBADMSG
 * if neither attribute nor copy is usable; -ENODATA if a file without bytes has
 * no record (make one).
 */
TK_MUST_USE int tk_keyattr_load(struct tk_fs *fs, int fd, uint64_t backing_size,
                                struct tk_keyattr *ret_keyattr);

/*
 * Whether @dek opens a block of the file: 1 or 0, or a negative errno. Of a file without
 * blocks any does.
 */
TK_MUST_USE int tk_keyattr_fits(const struct tk_fs *fs, int fd, uint64_t backing_size,
                                const struct tk_secret *dek);

/*
 * Whether attribute and copy (in a file that has bytes) are the same record, and it is
 * authentic: 1 or 0, or a negative errno. The KMS is not asked.
 */
TK_MUST_USE int tk_keyattr_is_sound(struct tk_fs *fs, int fd, uint64_t backing_size);

/* Rewrite what was bad from the good one; the mtime stays. @fd must be writable. */
TK_MUST_USE int tk_keyattr_heal(int fd, const struct tk_keyattr *keyattr);

/*
 * A new DEK and its record; nothing is written. Within an epoch (fs->changes) that lasts
 * until the record is stored.
 */
TK_MUST_USE int tk_keyattr_make(struct tk_fs *fs, struct tk_secret **ret_dek,
                                struct tk_record *ret_record);

/*
 * The record in the attribute of @fd, not unwrapped. -ENODATA if there is none, -EBADMSG
 * for something that can't be one.
 */
TK_MUST_USE int tk_keyattr_read(struct tk_fs *fs, int fd, struct tk_record *ret_record);

/*
 * The KEK version that the record in the attribute names, or without such a one that in the
 * copy, if @with_copy (a regular file that can be read); 0: none that could be right. It need
 * not be authentic.
 */
uint16_t tk_keyattr_version(struct tk_fs *fs, int fd, bool with_copy);

/* Write the attribute. */
TK_MUST_USE int tk_keyattr_store(int fd, const struct tk_record *record);
