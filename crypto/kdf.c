/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Key derivation over OpenSSL's EVP_KDF.
 *
 * The algorithm is fetched once for the process: fetching costs several times
 * the derivation, and content needs one for each group that a request touches.
 */

#include "crypto/kdf.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>

enum { INFO_MAX = 256 };
static const uint64_t scrypt_max_mem = 1024UL * 1024 * 1024;

static pthread_once_t hkdf_once = PTHREAD_ONCE_INIT;
static EVP_KDF *hkdf;

static void hkdf_fetch(void)
{
        hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
}

static void ctx_freep(EVP_KDF_CTX **ctx)
{
        EVP_KDF_CTX_free(*ctx); /* wipes the key */
}

int tk_kdf_expand(const struct tk_secret *key, const char *label, const uint8_t *context,
                  size_t context_len, struct tk_secret *out)
{
        TK_CLEANUP(ctx_freep) EVP_KDF_CTX *ctx = NULL;
        int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
        size_t label_len = strlen(label);
        uint8_t info[INFO_MAX];
        char digest[] = "SHA256";
        OSSL_PARAM params[] = {
                OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
                OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
                                                  (void *)(uintptr_t)tk_secret_bytes(key),
                                                  tk_secret_len(key)),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info,
                                                  label_len + context_len),
                OSSL_PARAM_construct_end(),
        };

        if (label_len + context_len > sizeof(info))
                return -EINVAL;
        memcpy(info, label, label_len);
        if (context_len > 0)
                memcpy(info + label_len, context, context_len);

        pthread_once(&hkdf_once, hkdf_fetch);
        if (!hkdf)
                return -EIO;
        ctx = EVP_KDF_CTX_new(hkdf);
        if (!ctx)
                return -ENOMEM;
        if (EVP_KDF_derive(ctx, tk_secret_bytes_mutable(out), tk_secret_len(out), params) != 1)
                return -EIO;
        return 0;
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
