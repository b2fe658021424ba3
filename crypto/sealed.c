/* SPDX-License-Identifier: Apache-2.0 */

/* Values under a key. */

#include "crypto/sealed.h"

#include "crypto/random.h"
#include <errno.h>

/* A context with @key in it. */
static int start(const struct tk_secret *key, struct tk_aead **ret_aead)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        int r;

        r = tk_aead_new(&aead);
        if (r < 0)
                return r;
        r = tk_aead_set_key(aead, key);
        if (r < 0)
                return r;
        *ret_aead = TK_TAKE(aead);
        return 0;
}

int tk_sealed_make_bytes(const struct tk_secret *key, const void *aad, size_t aad_len,
                         const void *bytes, size_t len, uint8_t *ret_sealed)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        int r;

        r = tk_random_bytes(ret_sealed, TK_AEAD_IV_LEN);
        if (r < 0)
                return r;
        r = start(key, &aead);
        if (r < 0)
                return r;
        return tk_aead_seal(aead,
                            &(struct tk_aead_msg){.iv = ret_sealed,
                                                  .aad = aad,
                                                  .aad_len = aad_len,
                                                  .in = bytes,
                                                  .out = ret_sealed + TK_AEAD_IV_LEN,
                                                  .len = len},
                            ret_sealed + TK_AEAD_IV_LEN + len);
}

int tk_sealed_open_bytes(const struct tk_secret *key, const void *aad, size_t aad_len,
                         const uint8_t *sealed, size_t sealed_len, void *ret_bytes)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        int r;

        if (sealed_len < TK_SEALED_OVERHEAD)
                return -EBADMSG;
        r = start(key, &aead);
        if (r < 0)
                return r;
        return tk_aead_open(aead,
                            &(struct tk_aead_msg){.iv = sealed,
                                                  .aad = aad,
                                                  .aad_len = aad_len,
                                                  .in = sealed + TK_AEAD_IV_LEN,
                                                  .out = ret_bytes,
                                                  .len = sealed_len - TK_SEALED_OVERHEAD},
                            sealed + sealed_len - TK_AEAD_TAG_LEN);
}

int tk_sealed_make(const struct tk_secret *kek, const void *aad, size_t aad_len,
                   const struct tk_secret *key, uint8_t ret_sealed[TK_SEALED_KEY_LEN])
{
        if (tk_secret_len(key) != TK_KEY_LEN)
                return -EINVAL;
        return tk_sealed_make_bytes(kek, aad, aad_len, tk_secret_bytes(key), TK_KEY_LEN,
                                    ret_sealed);
}

int tk_sealed_open(const struct tk_secret *kek, const void *aad, size_t aad_len,
                   const uint8_t sealed[TK_SEALED_KEY_LEN], struct tk_secret **ret_key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        r = tk_secret_new(TK_KEY_LEN, &key);
        if (r < 0)
                return r;
        r = tk_sealed_open_bytes(kek, aad, aad_len, sealed, TK_SEALED_KEY_LEN,
                                 tk_secret_bytes_mutable(key));
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}
