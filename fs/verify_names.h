/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* For verify: the names in one directory, what is wrong with them, and their repair. */

#include "fs/dirkey.h"
#include "fs/names.h"

struct tk_verify_names {
        struct tk_fs *fs;
        int fd;                /* borrowed: the directory */
        struct tk_dirkey *key; /* NULL: there is none */
        unsigned recovered;    /* entries that were given names so far */
};

/*
 * Begin with the directory @fd; to be ended in any case. -ENODATA, -EBADMSG or -ENOTSUP
 * if names are encrypted and its key record is missing, though it has entries, or not
 * usable; or what the keyring says.
 */
TK_MUST_USE int tk_verify_names_begin(struct tk_fs *fs, int fd, struct tk_verify_names *ret_names);
void tk_verify_names_end(struct tk_verify_names *names);

/* As tk_names_read; without a key the name is that which the backing directory has. */
TK_MUST_USE int tk_verify_names_read(const struct tk_verify_names *names, const char *backing,
                                     char ret_name[TK_NAMES_MAX + 1]);

/* Whether the sibling @name has no entry. */
bool tk_verify_names_is_orphan(const struct tk_verify_names *names, const char *name);

/*
 * Give the entry @backing, whose name can't be read, one that can: "recovered-" and the
 * beginning of what it was called. It stays in its directory, with its key.
 */
TK_MUST_USE int tk_verify_names_recover(struct tk_verify_names *names, const char *backing,
                                        char ret_name[TK_NAMES_MAX + 1]);
