/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Siblings of long names: symlinks "@HASH.name" whose targets are the ciphertexts
 * that the entries "@HASH" stand for.
 *
 * A sibling is made before its entry and removed after it, so that no crash leaves an
 * entry without one; one without an entry is an orphan, which is ignored and in
 * nobody's way. A symlink is made whole by one operation of the backing filesystem.
 * All of this does nothing for short names. Thread-safe.
 *
 * What is called like a sibling and is no symlink was put there by somebody. It is an entry
 * whose name can't be read, and never removed here: it may hold files.
 */

#include "fs/names.h"

/*
 * From here until tk_sibling_unlock nobody else adds or removes entries of these names
 * (NULL: none). Taken before all other locks of fs/.
 */
void tk_sibling_lock(struct tk_fs *fs, const struct tk_name *a, const struct tk_name *b);
void tk_sibling_unlock(struct tk_fs *fs, const struct tk_name *a, const struct tk_name *b);

/*
 * Whether the entry @name of the directory @fd, of type @type (DT_...) as far as it is known,
 * is a sibling, and so no entry to applications.
 */
bool tk_sibling_is(int fd, const char *name, unsigned char type);

/*
 * Have the sibling of @name in the directory @fd, before its entry. -EIO if something else
 * is in its place (logged).
 */
TK_MUST_USE int tk_sibling_add(struct tk_fs *fs, int fd, const struct tk_name *name);

/* After an entry came, or failed to, or went: its sibling goes if there is no entry. */
void tk_sibling_tidy(int fd, const struct tk_name *name);

/* What the sibling of the entry @backing holds: -ENOENT if it is not there, -EBADMSG if no text. */
TK_MUST_USE int tk_sibling_read(int fd, const char *backing,
                                char ret_target[TK_NAMES_TARGET_MAX + 1]);

/*
 * Empty the directory @name of @fd of orphans, so that it can be removed: -ENOTEMPTY if
 * it holds anything else. Without locks of fs/ held.
 */
TK_MUST_USE int tk_sibling_purge(struct tk_fs *fs, int fd, const char *name);
