/* SPDX-License-Identifier: Apache-2.0 */

/* The volume key: sealed under KEK versions, and what is derived from it. */

#include "fs/volume_key.h"

#include "base/bytes.h"
#include "crypto/kdf.h"
#include <string.h>

static const char volume_key_label[] = "turnkeyfs volume key";

/* The AAD of a volume key sealed under a KEK version. */
struct volume_key_aad {
        uint8_t bytes[sizeof(volume_key_label) - 1 + TK_VOLUME_ID_LEN + 2];
};

static void make_volume_key_aad(const uint8_t id[TK_VOLUME_ID_LEN], uint16_t version,
                                struct volume_key_aad *ret_aad)
{
        size_t label_len = sizeof(volume_key_label) - 1;

        memcpy(ret_aad->bytes, volume_key_label, label_len);
        memcpy(ret_aad->bytes + label_len, id, TK_VOLUME_ID_LEN);
        tk_put_be16(ret_aad->bytes + label_len + TK_VOLUME_ID_LEN, version);
}

int tk_volume_key_seal(const uint8_t id[TK_VOLUME_ID_LEN], uint16_t version,
                       const struct tk_secret *kek, const struct tk_secret *volume_key,
                       uint8_t ret_sealed[TK_SEALED_KEY_LEN])
{
        struct volume_key_aad aad;

        make_volume_key_aad(id, version, &aad);
        return tk_sealed_make(kek, aad.bytes, sizeof(aad.bytes), volume_key, ret_sealed);
}

int tk_volume_key_unseal(const uint8_t id[TK_VOLUME_ID_LEN], uint16_t version,
                         const struct tk_secret *kek, const uint8_t sealed[TK_SEALED_KEY_LEN],
                         struct tk_secret **ret_volume_key)
{
        struct volume_key_aad aad;

        make_volume_key_aad(id, version, &aad);
        return tk_sealed_open(kek, aad.bytes, sizeof(aad.bytes), sealed, ret_volume_key);
}

static int derive(const struct tk_secret *volume_key, const char *label, struct tk_secret **ret_key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        r = tk_secret_new(TK_KEY_LEN, &key);
        if (r < 0)
                return r;
        r = tk_kdf_expand(volume_key, label, NULL, 0, key);
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}

int tk_volume_key_derive_mac(const struct tk_secret *volume_key, struct tk_secret **ret_mac_key)
{
        return derive(volume_key, "turnkeyfs volume file", ret_mac_key);
}

int tk_volume_key_derive_record_mac(const struct tk_secret *volume_key,
                                    struct tk_secret **ret_mac_key)
{
        return derive(volume_key, "turnkeyfs record MAC", ret_mac_key);
}

int tk_volume_key_derive_target(const struct tk_secret *volume_key,
                                struct tk_secret **ret_target_key)
{
        return derive(volume_key, "turnkeyfs symlink target", ret_target_key);
}

/* The fingerprint is public, but is derived in a secret as every key is. */
int tk_volume_key_fingerprint(const struct tk_secret *volume_key,
                              char ret_fingerprint[TK_FINGERPRINT_LEN + 1])
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *bytes = NULL;
        int r;

        r = derive(volume_key, "turnkeyfs fingerprint", &bytes);
        if (r < 0)
                return r;
        tk_hex_encode(tk_secret_bytes(bytes), TK_KEY_LEN, ret_fingerprint);
        return 0;
}
