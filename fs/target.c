/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Symlink targets.
 *
 * A symlink has nowhere to keep a key of its own: the volume's serves all. What the
 * target is bound to is therefore the volume alone (docs/threat-model.md).
 */

#include "fs/target.h"

#include "base/bytes.h"
#include <errno.h>
#include <string.h>

size_t tk_target_len(size_t stored_len)
{
        size_t sealed_len = stored_len * 3 / 4;

        return sealed_len > TK_SEALED_OVERHEAD ? sealed_len - TK_SEALED_OVERHEAD : 0;
}

int tk_target_seal(const struct tk_secret *key, const char *target,
                   char ret_stored[TK_TARGET_STORED_MAX + 1])
{
        uint8_t sealed[TK_TARGET_MAX + TK_SEALED_OVERHEAD];
        size_t len = strlen(target);
        int r;

        if (len > TK_TARGET_MAX)
                return -ENAMETOOLONG;
        r = tk_sealed_make_bytes(key, NULL, 0, target, len, sealed);
        if (r < 0)
                return r;
        tk_base64url_encode(sealed, len + TK_SEALED_OVERHEAD, ret_stored);
        return 0;
}

int tk_target_open(const struct tk_secret *key, const char *stored, char *ret_target, size_t max)
{
        uint8_t sealed[TK_TARGET_MAX + TK_SEALED_OVERHEAD];
        size_t len = 0;
        int r;

        r = tk_base64url_decode(stored, sealed, sizeof(sealed), &len);
        if (r < 0 || len < TK_SEALED_OVERHEAD)
                return -EBADMSG;
        if (len - TK_SEALED_OVERHEAD >= max)
                return -ENAMETOOLONG;
        r = tk_sealed_open_bytes(key, NULL, 0, sealed, len, ret_target);
        if (r < 0)
                return r;
        ret_target[len - TK_SEALED_OVERHEAD] = '\0';
        return 0;
}
