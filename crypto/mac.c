/* SPDX-License-Identifier: Apache-2.0 */

/* HMAC and hash over OpenSSL's EVP. */

#include "crypto/mac.h"

#include <errno.h>
#include <openssl/evp.h>

struct tk_sha256 {
        EVP_MD_CTX *context;
};

int tk_mac_hmac(const struct tk_secret *key, const void *bytes, size_t len,
                uint8_t ret_mac[TK_MAC_LEN])
{
        size_t n = 0;

        if (!EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, tk_secret_bytes(key), tk_secret_len(key),
                       bytes, len, ret_mac, TK_MAC_LEN, &n) ||
            n != TK_MAC_LEN)
                return -EIO;
        return 0;
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
