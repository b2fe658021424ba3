/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Key derivation: HKDF-Expand from HMAC, which OpenSSL's takes three times as long for
 * and content needs for each group that a request touches; scrypt over OpenSSL's EVP_KDF.
 */

#include "crypto/kdf.h"

#include "crypto/mac.h"
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>

enum { INFO_MAX = 256, OUT_MAX = 255 * TK_MAC_LEN };
static const uint64_t scrypt_max_mem = 1024UL * 1024 * 1024;

static void ctx_freep(EVP_KDF_CTX **ctx)
{
        EVP_KDF_CTX_free(*ctx); /* wipes the key */
}

/* RFC 5869, section 2.3: each part is the HMAC of the part before it, the info and a counter. */
int tk_kdf_expand(const struct tk_secret *key, const char *label, const uint8_t *context,
                  size_t context_len, struct tk_secret *out)
{
        size_t label_len = strlen(label);
        size_t info_len = label_len + context_len;
        uint8_t message[TK_MAC_LEN + INFO_MAX + 1]; /* part, info, counter */
        uint8_t *info = message + TK_MAC_LEN;
        uint8_t part[TK_MAC_LEN];
        int r = 0;

        if (info_len > INFO_MAX || tk_secret_len(out) > OUT_MAX)
                return -EINVAL;
        memcpy(info, label, label_len);
        if (context_len > 0)
                memcpy(info + label_len, context, context_len);

        for (size_t done = 0; r == 0 && done < tk_secret_len(out); done += TK_MAC_LEN) {
                size_t left = tk_secret_len(out) - done;
                const uint8_t *from = done > 0 ? message : info;

                info[info_len] = (uint8_t)(done / TK_MAC_LEN + 1);
                r = tk_mac_hmac(key, from, (size_t)(info + info_len + 1 - from), part);
                if (r < 0)
                        break;
                memcpy(message, part, TK_MAC_LEN);
                memcpy(tk_secret_bytes_mutable(out) + done, part,
                       left < TK_MAC_LEN ? left : TK_MAC_LEN);
        }
        tk_wipe(message, sizeof(message));
        tk_wipe(part, sizeof(part));
        return r;
}

int tk_kdf_scrypt(const struct tk_secret *passphrase, const uint8_t *salt, size_t salt_len,
                  const struct tk_kdf_scrypt *cost, struct tk_secret *out)
{
        TK_CLEANUP(ctx_freep) EVP_KDF_CTX *ctx = NULL;
        EVP_KDF *kdf;
        uint64_t n = cost->n;
        uint64_t max_mem = scrypt_max_mem + (1 << 20);
        uint32_t r = cost->r;
        uint32_t p = cost->p;
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD,
                                                  (void *)(uintptr_t)tk_secret_bytes(passphrase),
                                                  tk_secret_len(passphrase)),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt,
                                                  salt_len),
                OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
                OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
                OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
                OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &max_mem),
                OSSL_PARAM_construct_end(),
        };

        if (n < 2 || (n & (n - 1)) != 0 || n > 1U << 30 || r < 1 || r > 64 || p < 1 || p > 64)
                return -EINVAL;
        if (128 * n * r > scrypt_max_mem)
                return -ENOMEM;

        kdf = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
        if (!kdf)
                return -EIO;
        ctx = EVP_KDF_CTX_new(kdf);
        EVP_KDF_free(kdf);
        if (!ctx)
                return -ENOMEM;
        if (EVP_KDF_derive(ctx, tk_secret_bytes_mutable(out), tk_secret_len(out), params) != 1)
                return -EIO;
        return 0;
}
