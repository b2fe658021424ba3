/* SPDX-License-Identifier: Apache-2.0 */

/* RSA over OpenSSL's EVP: wrap, sign, and the texts that keys come in. */

#include "crypto/rsa.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

enum { EXPONENT_BYTES_MAX = 8 };

struct tk_rsa {
        EVP_PKEY *key;
};

static void bn_freep(BIGNUM **bn)
{
        BN_clear_free(*bn);
}

static void build_freep(OSSL_PARAM_BLD **build)
{
        OSSL_PARAM_BLD_free(*build);
}

static void params_freep(OSSL_PARAM **params)
{
        OSSL_PARAM_free(*params);
}

static void pkey_freep(EVP_PKEY **key)
{
        EVP_PKEY_free(*key);
}

static void pkey_ctx_freep(EVP_PKEY_CTX **ctx)
{
        EVP_PKEY_CTX_free(*ctx);
}

static void md_ctx_freep(EVP_MD_CTX **ctx)
{
        EVP_MD_CTX_free(*ctx);
}

static void bio_freep(BIO **bio)
{
        BIO_free(*bio);
}

static void x509_freep(X509 **certificate)
{
        X509_free(*certificate);
}

struct tk_rsa *tk_rsa_free(struct tk_rsa *rsa)
{
        if (!rsa)
                return NULL;
        EVP_PKEY_free(rsa->key);
        free(rsa);
        return NULL;
}

size_t tk_rsa_len(const struct tk_rsa *rsa)
{
        return (size_t)EVP_PKEY_get_size(rsa->key);
}

static bool has_size(int bits)
{
        return bits == 2048 || bits == 3072 || bits == 4096;
}

/* Takes over @key. */
static int rsa_new(EVP_PKEY *key, struct tk_rsa **ret_rsa)
{
        struct tk_rsa *rsa = calloc(1, sizeof(*rsa));

        if (!rsa) {
                EVP_PKEY_free(key);
                return -ENOMEM;
        }
        rsa->key = key;
        *ret_rsa = rsa;
        return 0;
}

static int make_public(const BIGNUM *n, const BIGNUM *e, EVP_PKEY **ret_key)
{
        TK_CLEANUP(build_freep) OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
        TK_CLEANUP(params_freep) OSSL_PARAM *params = NULL;
        TK_CLEANUP(pkey_ctx_freep) EVP_PKEY_CTX *ctx = NULL;

        if (!build || !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) ||
            !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e))
                return -ENOMEM;
        params = OSSL_PARAM_BLD_to_param(build);
        ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
        if (!params || !ctx)
                return -ENOMEM;
        if (EVP_PKEY_fromdata_init(ctx) != 1 ||
            EVP_PKEY_fromdata(ctx, ret_key, EVP_PKEY_PUBLIC_KEY, params) != 1)
                return -EIO;
        return 0;
}

int tk_rsa_new_public(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len,
                      struct tk_rsa **ret_rsa)
{
        TK_CLEANUP(bn_freep) BIGNUM *n_bn = NULL;
        TK_CLEANUP(bn_freep) BIGNUM *e_bn = NULL;
        EVP_PKEY *key = NULL;
        int r;

        if (n_len > TK_RSA_BYTES_MAX + 1 || e_len > TK_RSA_BYTES_MAX + 1)
                return -EBADMSG;
        n_bn = BN_bin2bn(n, (int)n_len, NULL);
        e_bn = BN_bin2bn(e, (int)e_len, NULL);
        if (!n_bn || !e_bn)
                return -ENOMEM;
        if (!has_size(BN_num_bits(n_bn)) || !BN_is_odd(n_bn) || !BN_is_odd(e_bn) ||
            BN_is_one(e_bn) || BN_num_bytes(e_bn) > EXPONENT_BYTES_MAX)
                return -EBADMSG;
        r = make_public(n_bn, e_bn, &key);
        return r < 0 ? r : rsa_new(key, ret_rsa);
}

/* Private keys from PEM */

struct password {
        const struct tk_secret *secret; /* NULL: none */
        bool asked;
};

static int give_password(char *buf, int size, int writing, void *context)
{
        struct password *password = context;
        size_t len = password->secret ? tk_secret_len(password->secret) : 0;

        (void)writing;
        password->asked = true;
        if (len == 0 || len > (size_t)size)
                return -1;
        memcpy(buf, tk_secret_bytes(password->secret), len);
        return (int)len;
}

static BIO *bio_of(const struct tk_secret *pem)
{
        size_t len = tk_secret_len(pem);

        return len > 0 && len <= INT32_MAX ? BIO_new_mem_buf(tk_secret_bytes(pem), (int)len) : NULL;
}

int tk_rsa_new_private(const struct tk_secret *pem, const struct tk_secret *password,
                       struct tk_rsa **ret_rsa)
{
        TK_CLEANUP(bio_freep) BIO *bio = bio_of(pem);
        TK_CLEANUP(pkey_freep) EVP_PKEY *key = NULL;
        struct password given = {.secret = password};

        if (!bio)
                return -EBADMSG;
        key = PEM_read_bio_PrivateKey(bio, NULL, give_password, &given);
        ERR_clear_error();
        if (!key)
                return given.asked ? -EKEYREJECTED : -EBADMSG;
        if (!EVP_PKEY_is_a(key, "RSA") || !has_size(EVP_PKEY_get_bits(key)))
                return -EBADMSG;
        return rsa_new(TK_TAKE(key), ret_rsa);
}

/* Wrap and sign */

int tk_rsa_wrap(const struct tk_rsa *rsa, const struct tk_secret *key,
                uint8_t out[TK_RSA_BYTES_MAX], size_t *ret_len)
{
        return tk_rsa_wrap_with(rsa, TK_RSA_SHA256, key, out, ret_len);
}

int tk_rsa_wrap_with(const struct tk_rsa *rsa, enum tk_rsa_hash hash, const struct tk_secret *key,
                     uint8_t out[TK_RSA_BYTES_MAX], size_t *ret_len)
{
        TK_CLEANUP(pkey_ctx_freep) EVP_PKEY_CTX *ctx = NULL;
        const EVP_MD *md = hash == TK_RSA_SHA1 ? EVP_sha1() : EVP_sha256();
        size_t len = TK_RSA_BYTES_MAX;

        if (tk_secret_len(key) + TK_RSA_OAEP256_OVERHEAD > tk_rsa_len(rsa))
                return -EMSGSIZE;
        ctx = EVP_PKEY_CTX_new_from_pkey(NULL, rsa->key, NULL);
        if (!ctx)
                return -ENOMEM;
        if (EVP_PKEY_encrypt_init(ctx) != 1 ||
            EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 ||
            EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) != 1 ||
            EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) != 1 ||
            EVP_PKEY_encrypt(ctx, out, &len, tk_secret_bytes(key), tk_secret_len(key)) != 1)
                return -EIO;
        *ret_len = len;
        return 0;
}

int tk_rsa_sign(const struct tk_rsa *rsa, enum tk_rsa_scheme scheme, const void *message,
                size_t message_len, uint8_t out[TK_RSA_BYTES_MAX], size_t *ret_len)
{
        TK_CLEANUP(md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        EVP_PKEY_CTX *key_ctx = NULL; /* belongs to ctx */
        size_t len = TK_RSA_BYTES_MAX;

        if (!ctx)
                return -ENOMEM;
        if (EVP_DigestSignInit(ctx, &key_ctx, EVP_sha256(), NULL, rsa->key) != 1)
                return -EIO;
        if (scheme == TK_RSA_PS256 &&
            (EVP_PKEY_CTX_set_rsa_padding(key_ctx, RSA_PKCS1_PSS_PADDING) != 1 ||
             EVP_PKEY_CTX_set_rsa_mgf1_md(key_ctx, EVP_sha256()) != 1 ||
             EVP_PKEY_CTX_set_rsa_pss_saltlen(key_ctx, RSA_PSS_SALTLEN_DIGEST) != 1))
                return -EIO;
        if (EVP_DigestSign(ctx, out, &len, message, message_len) != 1)
                return -EIO;
        *ret_len = len;
        return 0;
}

/* Certificates */

static int describe_certificate(const X509 *certificate, struct tk_rsa_certificate *ret)
{
        unsigned len = sizeof(ret->sha1);
        struct tm tm = {0};

        if (X509_digest(certificate, EVP_sha1(), ret->sha1, &len) != 1)
                return -EIO;
        len = sizeof(ret->sha256);
        if (X509_digest(certificate, EVP_sha256(), ret->sha256, &len) != 1)
                return -EIO;
        if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) != 1)
                return -EBADMSG;
        ret->not_after = timegm(&tm);
        return 0;
}

int tk_rsa_find_certificate(const struct tk_rsa *rsa, const struct tk_secret *pem,
                            struct tk_rsa_certificate *ret_certificate)
{
        TK_CLEANUP(bio_freep) BIO *bio = bio_of(pem);
        struct tk_rsa_certificate found;

        if (!bio)
                return -ENOENT;
        for (;;) {
                TK_CLEANUP(x509_freep)
                X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
                unsigned long error = certificate ? 0 : ERR_peek_last_error();
                int r;

                if (!certificate) {
                        ERR_clear_error();
                        return ERR_GET_REASON(error) == PEM_R_NO_START_LINE ? -ENOENT : -EBADMSG;
                }
                if (EVP_PKEY_eq(rsa->key, X509_get0_pubkey(certificate)) != 1)
                        continue;
                r = describe_certificate(certificate, &found);
                if (r == 0)
                        *ret_certificate = found;
                return r;
        }
}

int tk_rsa_part(const struct tk_rsa *rsa, enum tk_rsa_part part, struct tk_secret **ret_number)
{
        static const char *const names[] = {
                [TK_RSA_N] = OSSL_PKEY_PARAM_RSA_N,
                [TK_RSA_E] = OSSL_PKEY_PARAM_RSA_E,
                [TK_RSA_D] = OSSL_PKEY_PARAM_RSA_D,
                [TK_RSA_P] = OSSL_PKEY_PARAM_RSA_FACTOR1,
                [TK_RSA_Q] = OSSL_PKEY_PARAM_RSA_FACTOR2,
                [TK_RSA_DP] = OSSL_PKEY_PARAM_RSA_EXPONENT1,
                [TK_RSA_DQ] = OSSL_PKEY_PARAM_RSA_EXPONENT2,
                [TK_RSA_QI] = OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
        };
        TK_CLEANUP(bn_freep) BIGNUM *bn = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *number = NULL;
        int r;

        if (EVP_PKEY_get_bn_param(rsa->key, names[part], &bn) != 1) {
                ERR_clear_error();
                return -ENOENT;
        }
        r = tk_secret_new((size_t)BN_num_bytes(bn), &number);
        if (r < 0)
                return r;
        BN_bn2bin(bn, tk_secret_bytes_mutable(number));
        *ret_number = TK_TAKE(number);
        return 0;
}
