/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Names and values of user attributes.
 *
 * A name is encrypted deterministically, so that the attribute is found by it; a
 * value is sealed with its name authenticated. Both keys come from the file's DEK:
 * what is copied to another file, or to another name, does not authenticate there.
 */

#include "fs/userattr.h"

#include "base/bytes.h"
#include "crypto/kdf.h"
#include "crypto/siv.h"
#include <errno.h>
#include <string.h>

enum {
        SPACE_LEN = sizeof(TK_USERATTR_SPACE) - 1,
        PREFIX_LEN = sizeof(TK_USERATTR_PREFIX) - 1,
        OWN_MAX = TK_USERATTR_NAME_MAX - SPACE_LEN, /* what is encrypted of a name */
        SEALED_NAME_MAX = TK_SIV_TAG_LEN + OWN_MAX,
};
_Static_assert((SEALED_NAME_MAX * 4 + 2) / 3 == TK_USERATTR_STORED_MAX - PREFIX_LEN,
               "the longest name fills what Linux allows");

struct tk_userattr {
        struct tk_siv *names; /* with its key */
        struct tk_secret *values;
};

static int derive(const struct tk_secret *dek, const char *label, size_t len,
                  struct tk_secret **ret_key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        r = tk_secret_new(len, &key);
        if (r < 0)
                return r;
        r = tk_kdf_expand(dek, label, NULL, 0, key);
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}

int tk_userattr_new(const struct tk_secret *dek, struct tk_userattr **ret_attr)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *names = NULL;
        int r;

        attr = calloc(1, sizeof(*attr));
        if (!attr)
                return -ENOMEM;
        r = derive(dek, "turnkeyfs attribute name", TK_SIV_KEY_LEN, &names);
        if (r == 0)
                r = derive(dek, "turnkeyfs attribute value", TK_KEY_LEN, &attr->values);
        if (r == 0)
                r = tk_siv_new(&attr->names);
        if (r == 0)
                r = tk_siv_set_key(attr->names, names);
        if (r < 0)
                return r;
        *ret_attr = TK_TAKE(attr);
        return 0;
}

struct tk_userattr *tk_userattr_free(struct tk_userattr *attr)
{
        if (!attr)
                return NULL;
        tk_siv_free(attr->names);
        tk_secret_free(attr->values);
        free(attr);
        return NULL;
}

bool tk_userattr_is_stored(const char *stored)
{
        return strncmp(stored, TK_USERATTR_PREFIX, PREFIX_LEN) == 0;
}

int tk_userattr_seal_name(struct tk_userattr *attr, const char *name,
                          char ret_stored[TK_USERATTR_STORED_MAX + 1])
{
        uint8_t sealed[SEALED_NAME_MAX];
        const char *own = name + SPACE_LEN;
        size_t len = strlen(own);
        int r;

        if (len == 0)
                return -EINVAL;
        if (len > OWN_MAX)
                return -ERANGE;
        r = tk_siv_seal(attr->names, NULL, 0, own, len, sealed);
        if (r < 0)
                return r;
        memcpy(ret_stored, TK_USERATTR_PREFIX, PREFIX_LEN);
        tk_base64url_encode(sealed, TK_SIV_TAG_LEN + len, ret_stored + PREFIX_LEN);
        return 0;
}

int tk_userattr_open_name(struct tk_userattr *attr, const char *stored,
                          char ret_name[TK_USERATTR_NAME_MAX + 1])
{
        uint8_t sealed[SEALED_NAME_MAX];
        size_t len = 0;
        int r;

        if (!tk_userattr_is_stored(stored))
                return -EBADMSG;
        r = tk_base64url_decode(stored + PREFIX_LEN, sealed, sizeof(sealed), &len);
        if (r < 0)
                return -EBADMSG;
        r = tk_siv_open(attr->names, NULL, 0, sealed, len, ret_name + SPACE_LEN);
        if (r < 0)
                return r;
        memcpy(ret_name, TK_USERATTR_SPACE, SPACE_LEN);
        ret_name[SPACE_LEN + len - TK_SIV_TAG_LEN] = '\0';
        return 0;
}

int tk_userattr_seal_value(struct tk_userattr *attr, const char *name, const void *value,
                           size_t len, uint8_t *ret_sealed)
{
        const char *own = name + SPACE_LEN;

        return tk_sealed_make_bytes(attr->values, own, strlen(own), value, len, ret_sealed);
}

int tk_userattr_open_value(struct tk_userattr *attr, const char *name, const uint8_t *sealed,
                           size_t sealed_len, void *ret_value)
{
        const char *own = name + SPACE_LEN;

        return tk_sealed_open_bytes(attr->values, own, strlen(own), sealed, sealed_len, ret_value);
}
