/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Attributes of the user namespace as they lie below (names = encrypted): names and
 * values under keys of the file's DEK (docs/format.md, "Attributes"). Bytes in, bytes
 * out; the attributes themselves are op_userattr.c's.
 */

#include "crypto/sealed.h"
#include <linux/limits.h>
#include <string.h>

#define TK_USERATTR_SPACE "user."
#define TK_USERATTR_PREFIX "user.turnkey."

enum {
        TK_USERATTR_STORED_MAX = XATTR_NAME_MAX, /* characters of a stored name */
        TK_USERATTR_NAME_MAX = 170,              /* of a name, with "user." */
};

/* The keys for the attributes of one file or directory. For one thread at a time. */
struct tk_userattr; /* opaque: userattr.c */

TK_MUST_USE int tk_userattr_new(const struct tk_secret *dek, struct tk_userattr **ret_attr);
struct tk_userattr *tk_userattr_free(struct tk_userattr *attr);
TK_DEFINE_CLEANUP(struct tk_userattr *, tk_userattr_free)

/* Whether @name is in the user namespace: no other one is encrypted. */
static inline bool tk_userattr_is_in_space(const char *name)
{
        return strncmp(name, TK_USERATTR_SPACE, sizeof(TK_USERATTR_SPACE) - 1) == 0;
}

/* Whether @stored, the name of an attribute below, is one that was made here. */
bool tk_userattr_is_stored(const char *stored);

/* The name under which @name, which begins with "user.", is stored. -ERANGE above
 * TK_USERATTR_NAME_MAX characters, -EINVAL for "user." alone. */
TK_MUST_USE int tk_userattr_seal_name(struct tk_userattr *attr, const char *name,
                                      char ret_stored[TK_USERATTR_STORED_MAX + 1]);

/* The name that is stored as @stored. -EBADMSG if it is damaged, or another file's. */
TK_MUST_USE int tk_userattr_open_name(struct tk_userattr *attr, const char *stored,
                                      char ret_name[TK_USERATTR_NAME_MAX + 1]);

/* The value of attribute @name, of @len bytes: @ret_sealed holds TK_SEALED_OVERHEAD more. */
TK_MUST_USE int tk_userattr_seal_value(struct tk_userattr *attr, const char *name,
                                       const void *value, size_t len, uint8_t *ret_sealed);

/*
 * The value, TK_SEALED_OVERHEAD bytes shorter than @sealed_len. -EBADMSG if it is
 * damaged, or another attribute's or another file's.
 */
TK_MUST_USE int tk_userattr_open_value(struct tk_userattr *attr, const char *name,
                                       const uint8_t *sealed, size_t sealed_len, void *ret_value);
