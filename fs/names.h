/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Names, as applications and as the backing directory have them.
 *
 * With names = encrypted a backing name is the base64url of the name's ciphertext
 * under the directory's key, or "@" and a hash of it where that would be too long;
 * then a sibling keeps the ciphertext (sibling.h). Layout: docs/format.md, "Names".
 * Thread-safe.
 */

#include "crypto/siv.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include <limits.h>
#include <string.h>

enum {
        TK_NAMES_MAX = 255,       /* bytes of a name */
        TK_NAMES_SHORT_MAX = 175, /* of one whose ciphertext fits into a backing name */
        TK_NAMES_HASHED_LEN = 44, /* "@" and the hash of a long name */
        TK_NAMES_SIBLING_LEN = TK_NAMES_HASHED_LEN + 5, /* with ".name" behind it */
        TK_NAMES_CIPHER_MAX = TK_SIV_TAG_LEN + TK_NAMES_MAX,
        TK_NAMES_TARGET_MAX = (TK_NAMES_CIPHER_MAX * 4 + 2) / 3, /* its base64url */
};
_Static_assert(((TK_SIV_TAG_LEN + TK_NAMES_SHORT_MAX) * 4 + 2) / 3 == NAME_MAX,
               "the longest short name fills a backing name");

/* A name as the backing directory has it; a value. */
struct tk_name {
        char backing[NAME_MAX + 1];
        bool is_long;                         /* then: */
        char target[TK_NAMES_TARGET_MAX + 1]; /* what its sibling holds */
};

#define TK_NAMES_SIBLING_END ".name"

/* Whether @name is what the sibling of a long name is called: whether it is one, tk_sibling_is. */
static inline bool tk_names_is_sibling(const char *name)
{
        return name[0] == '@' && strlen(name) == TK_NAMES_SIBLING_LEN &&
               strcmp(name + TK_NAMES_HASHED_LEN, TK_NAMES_SIBLING_END) == 0;
}

/* Whether @name is that of an entry whose ciphertext is in a sibling. */
static inline bool tk_names_is_hashed(const char *name)
{
        return name[0] == '@' && strlen(name) == TK_NAMES_HASHED_LEN;
}

/*
 * @name in the directory @parent, whose descriptor of any kind is @parentfd.
 * -ENAMETOOLONG; -ENOENT if the directory has no key yet, as it has no entries; or
 * as tk_dirkey_get.
 */
TK_MUST_USE int tk_names_find(struct tk_fs *fs, struct tk_inode *parent, int parentfd,
                              const char *name, struct tk_name *ret_name);

/* The same for a name that is to be made: the directory gets a key if it has none. */
TK_MUST_USE int tk_names_need(struct tk_fs *fs, struct tk_inode *parent, int parentfd,
                              const char *name, struct tk_name *ret_name);

/* The same with the directory's key at hand (tk_dirkey_names), for @len bytes of name. */
TK_MUST_USE int tk_names_encode(const struct tk_secret *names, const char *name, size_t len,
                                struct tk_name *ret_name);

/*
 * Reading many names of one directory: begin, any number of reads, end, in one
 * thread, which does not look up other names meanwhile. With plain names the reader
 * is nothing.
 */
struct tk_names_reader {
        struct tk_siv *siv; /* NULL: names are plain, or there is no key */
        bool encrypted;
};

/* @names is the directory's key (tk_dirkey_names); NULL if there is none: no name can be read. */
TK_MUST_USE int tk_names_reader_begin(struct tk_names_reader *reader, struct tk_fs *fs,
                                      const struct tk_secret *names);

/*
 * What applications call the entry @backing of the directory @fd: 0 and its name,
 * -EBADMSG if it does not authenticate, -ENOENT if its sibling is missing.
 */
TK_MUST_USE int tk_names_read(struct tk_names_reader *reader, int fd, const char *backing,
                              char ret_name[TK_NAMES_MAX + 1]);
void tk_names_reader_end(struct tk_names_reader *reader);
