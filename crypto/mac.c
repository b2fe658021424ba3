/* SPDX-License-Identifier: Apache-2.0 */

/*
 * HMAC and hash over OpenSSL's EVP.
 *
 * HMAC is put together from its two hashes here: OpenSSL's fetches its parts by name for
 * every call, which takes three times as long as the hashing.
 */

#include "crypto/mac.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

enum { BLOCK = 64, INNER = 0x36, OUTER = 0x5c };

struct tk_sha256 {
        EVP_MD_CTX *context;
};

static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;

static void sha256_fetch(void)
{
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static void context_freep(EVP_MD_CTX **context)
{
        EVP_MD_CTX_free(*context); /* wipes its state */
}

/* The key as one block of the hash. */
static int make_block(const struct tk_secret *key, uint8_t ret_block[BLOCK])
{
        size_t len = tk_secret_len(key);

        memset(ret_block, 0, BLOCK);
        if (len > BLOCK)
                return tk_mac_sha256(tk_secret_bytes(key), len, ret_block);
        memcpy(ret_block, tk_secret_bytes(key), len);
        return 0;
}

/* The hash of the key's @block, each byte mixed with @pad, and then of @bytes. */
static int hash_keyed(EVP_MD_CTX *context, const uint8_t block[BLOCK], uint8_t pad,
                      const void *bytes, size_t len, uint8_t ret_digest[TK_MAC_LEN])
{
        uint8_t padded[BLOCK];
        bool good;

        for (size_t i = 0; i < BLOCK; i++)
                padded[i] = block[i] ^ pad;
        good = EVP_DigestInit_ex2(context, sha256, NULL) == 1 &&
               EVP_DigestUpdate(context, padded, BLOCK) == 1 &&
               EVP_DigestUpdate(context, bytes, len) == 1 &&
               EVP_DigestFinal_ex(context, ret_digest, NULL) == 1;
        tk_wipe(padded, BLOCK);
        return good ? 0 : -EIO;
}

int tk_mac_hmac(const struct tk_secret *key, const void *bytes, size_t len,
                uint8_t ret_mac[TK_MAC_LEN])
{
        TK_CLEANUP(context_freep) EVP_MD_CTX *context = EVP_MD_CTX_new();
        uint8_t block[BLOCK];
        int r;

        pthread_once(&sha256_once, sha256_fetch);
        if (!context)
                return -ENOMEM;
        if (!sha256)
                return -EIO;
        r = make_block(key, block);
        if (r == 0)
                r = hash_keyed(context, block, INNER, bytes, len, ret_mac);
        if (r == 0)
                r = hash_keyed(context, block, OUTER, ret_mac, TK_MAC_LEN, ret_mac);
        tk_wipe(block, BLOCK);
        return r;
}

int tk_mac_sha256(const void *bytes, size_t len, uint8_t ret_digest[TK_MAC_LEN])
{
        if (!EVP_Digest(bytes, len, ret_digest, NULL, EVP_sha256(), NULL))
                return -EIO;
        return 0;
}

static int begin(struct tk_sha256 *hash)
{
        return EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) ? 0 : -EIO;
}

int tk_sha256_new(struct tk_sha256 **ret_hash)
{
        TK_CLEANUP(tk_sha256_freep) struct tk_sha256 *hash = calloc(1, sizeof(*hash));
        int r;

        if (!hash)
                return -ENOMEM;
        hash->context = EVP_MD_CTX_new();
        if (!hash->context)
                return -ENOMEM;
        r = begin(hash);
        if (r < 0)
                return r;
        *ret_hash = TK_TAKE(hash);
        return 0;
}

struct tk_sha256 *tk_sha256_free(struct tk_sha256 *hash)
{
        if (!hash)
                return NULL;
        EVP_MD_CTX_free(hash->context);
        free(hash);
        return NULL;
}

int tk_sha256_add(struct tk_sha256 *hash, const void *bytes, size_t len)
{
        return EVP_DigestUpdate(hash->context, bytes, len) ? 0 : -EIO;
}

int tk_sha256_end(struct tk_sha256 *hash, uint8_t ret_digest[TK_MAC_LEN])
{
        if (!EVP_DigestFinal_ex(hash->context, ret_digest, NULL))
                return -EIO;
        return begin(hash);
}
