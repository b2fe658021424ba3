/* SPDX-License-Identifier: Apache-2.0 */

/* A key under a key. */

#include "crypto/sealed.h"

#include "crypto/random.h"
#include <errno.h>

enum { OFF_KEY = TK_AEAD_IV_LEN, OFF_TAG = OFF_KEY + TK_KEY_LEN };

/* A context with @kek in it. */
static int start(const struct tk_secret *kek, struct tk_aead **ret_aead)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        int r;

        r = tk_aead_new(&aead);
        if (r < 0)
                return r;
        r = tk_aead_set_key(aead, kek);
        if (r < 0)
                return r;
        *ret_aead = TK_TAKE(aead);
        return 0;
}

int tk_sealed_make(const struct tk_secret *kek, const void *aad, size_t aad_len,
                   const struct tk_secret *key, uint8_t ret_sealed[TK_SEALED_KEY_LEN])
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        int r;

        if (tk_secret_len(key) != TK_KEY_LEN)
                return -EINVAL;
        r = tk_random_bytes(ret_sealed, TK_AEAD_IV_LEN);
        if (r < 0)
                return r;
        r = start(kek, &aead);
        if (r < 0)
                return r;
        return tk_aead_seal(aead,
                            &(struct tk_aead_msg){.iv = ret_sealed,
                                                  .aad = aad,
                                                  .aad_len = aad_len,
                                                  .in = tk_secret_bytes(key),
                                                  .out = ret_sealed + OFF_KEY,
                                                  .len = TK_KEY_LEN},
                            ret_sealed + OFF_TAG);
}

int tk_sealed_open(const struct tk_secret *kek, const void *aad, size_t aad_len,
                   const uint8_t sealed[TK_SEALED_KEY_LEN], struct tk_secret **ret_key)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        r = tk_secret_new(TK_KEY_LEN, &key);
        if (r < 0)
                return r;
        r = start(kek, &aead);
        if (r < 0)
                return r;
        r = tk_aead_open(aead,
                         &(struct tk_aead_msg){.iv = sealed,
                                               .aad = aad,
                                               .aad_len = aad_len,
                                               .in = sealed + OFF_KEY,
                                               .out = tk_secret_bytes_mutable(key),
                                               .len = TK_KEY_LEN},
                         sealed + OFF_TAG);
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}
