/* SPDX-License-Identifier: Apache-2.0 */

/* HMAC and hash over OpenSSL's EVP. */

#include "crypto/mac.h"

#include <errno.h>
#include <openssl/evp.h>

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
