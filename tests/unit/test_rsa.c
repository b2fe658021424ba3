/* SPDX-License-Identifier: Apache-2.0 */

/* RSA: what it makes is checked by OpenSSL's own calls, with keys made for the test. */

#include "crypto/rsa.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static EVP_PKEY *made; /* 2048 bits, for all tests */

static int make_key(void **state)
{
        made = EVP_RSA_gen(2048);
        return made ? 0 : -1;
}

static int drop_key(void **state)
{
        EVP_PKEY_free(made);
        return tk_secret_alive() == 0 ? 0 : -1;
}

static size_t number_of(const char *name, uint8_t *bytes)
{
        BIGNUM *bn = NULL;
        int len;

        assert_int_equal(EVP_PKEY_get_bn_param(made, name, &bn), 1);
        len = BN_bn2bin(bn, bytes);
        BN_clear_free(bn);
        return (size_t)len;
}

static struct tk_rsa *public_half(void)
{
        uint8_t n[TK_RSA_BYTES_MAX];
        uint8_t e[8];
        struct tk_rsa *rsa = NULL;
        size_t n_len = number_of(OSSL_PKEY_PARAM_RSA_N, n);
        size_t e_len = number_of(OSSL_PKEY_PARAM_RSA_E, e);

        assert_int_equal(tk_rsa_new_public(n, n_len, e, e_len, &rsa), 0);
        return rsa;
}

/* The key, and a certificate for it or for another, in one PEM text. */
static struct tk_secret *pem_of(EVP_PKEY *key, const char *password, EVP_PKEY *certified)
{
        BIO *bio = BIO_new(BIO_s_mem());
        struct tk_secret *pem;
        char *text;
        long len;

        assert_int_equal(PEM_write_bio_PrivateKey(bio, key, password ? EVP_aes_256_cbc() : NULL,
                                                  NULL, 0, NULL, (void *)(uintptr_t)password),
                         1);
        if (certified) {
                X509 *certificate = X509_new();

                X509_set_pubkey(certificate, certified);
                X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
                X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
                assert_true(X509_sign(certificate, certified, EVP_sha256()) > 0);
                assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
                X509_free(certificate);
        }
        len = BIO_get_mem_data(bio, &text);
        pem = tk_test_secret(text, (size_t)len);
        BIO_free(bio);
        return pem;
}

static struct tk_rsa *private_of(EVP_PKEY *key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pem = pem_of(key, NULL, NULL);
        struct tk_rsa *rsa = NULL;

        assert_int_equal(tk_rsa_new_private(pem, NULL, &rsa), 0);
        return rsa;
}

static int decrypt(const EVP_MD *hash, const EVP_MD *mgf1, const uint8_t *in, size_t in_len,
                   uint8_t *out, size_t *out_len)
{
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, made, NULL);
        int r;

        assert_int_equal(EVP_PKEY_decrypt_init(ctx), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, hash), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, mgf1), 1);
        r = EVP_PKEY_decrypt(ctx, out, out_len, in, in_len);
        EVP_PKEY_CTX_free(ctx);
        return r;
}

static void test_tk_rsa_wrap__opens_with_sha256_for_both(void **state)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = public_half();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret("0123456789abcdef", 16);
        uint8_t blob[TK_RSA_BYTES_MAX];
        uint8_t again[TK_RSA_BYTES_MAX];
        uint8_t plain[TK_RSA_BYTES_MAX];
        size_t len;
        size_t plain_len = sizeof(plain);

        assert_int_equal(tk_rsa_wrap(rsa, key, blob, &len), 0);
        assert_int_equal(len, 256);
        assert_int_equal(decrypt(EVP_sha256(), EVP_sha256(), blob, len, plain, &plain_len), 1);
        assert_int_equal(plain_len, 16);
        assert_memory_equal(plain, "0123456789abcdef", 16);

        plain_len = sizeof(plain);
        assert_int_not_equal(decrypt(EVP_sha1(), EVP_sha1(), blob, len, plain, &plain_len), 1);
        plain_len = sizeof(plain);
        assert_int_not_equal(decrypt(EVP_sha256(), EVP_sha1(), blob, len, plain, &plain_len), 1);
        assert_int_equal(tk_rsa_wrap(rsa, key, again, &len), 0);
        assert_memory_not_equal(blob, again, len);
}

static void test_tk_rsa_wrap__too_long(void **state)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = public_half();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        uint8_t blob[TK_RSA_BYTES_MAX];
        size_t len;

        assert_int_equal(tk_secret_new(191, &key), 0);
        assert_int_equal(tk_rsa_wrap(rsa, key, blob, &len), -EMSGSIZE);
        tk_secret_truncate(key, 190);
        assert_int_equal(tk_rsa_wrap(rsa, key, blob, &len), 0);
}

static void test_tk_rsa_new_public__refused(void **state)
{
        uint8_t n[TK_RSA_BYTES_MAX + 2] = {0};
        uint8_t e[] = {1, 0, 1};
        uint8_t small[] = {1};
        uint8_t even[] = {1, 0, 0};
        struct tk_rsa *rsa = NULL;
        size_t len = number_of(OSSL_PKEY_PARAM_RSA_N, n);

        assert_int_equal(tk_rsa_new_public(n, len - 1, e, 3, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_public(n, len, small, 1, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_public(n, len, even, 3, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_public(n, len, n, len, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_public(n, 0, e, 3, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_public(n, sizeof(n), e, 3, &rsa), -EBADMSG);
        n[len - 1] &= 0xfe;
        assert_int_equal(tk_rsa_new_public(n, len, e, 3, &rsa), -EBADMSG);
        assert_null(rsa);
}

static void test_tk_rsa_new_public__leading_zero(void **state)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        uint8_t n[TK_RSA_BYTES_MAX + 1] = {0};
        uint8_t e[] = {1, 0, 1};
        size_t len = number_of(OSSL_PKEY_PARAM_RSA_N, n + 1);

        assert_int_equal(tk_rsa_new_public(n, len + 1, e, 3, &rsa), 0);
        assert_int_equal(tk_rsa_len(rsa), 256);
}

static void check_signature(enum tk_rsa_scheme scheme, int padding)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = private_of(made);
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        EVP_PKEY_CTX *key_ctx = NULL;
        uint8_t signature[TK_RSA_BYTES_MAX];
        size_t len;

        assert_int_equal(tk_rsa_sign(rsa, scheme, "message", 7, signature, &len), 0);
        assert_int_equal(len, 256);
        assert_int_equal(EVP_DigestVerifyInit(ctx, &key_ctx, EVP_sha256(), NULL, made), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(key_ctx, padding), 1);
        if (padding == RSA_PKCS1_PSS_PADDING) {
                assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md(key_ctx, EVP_sha256()), 1);
                assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(key_ctx, 32), 1);
        }
        assert_int_equal(EVP_DigestVerify(ctx, signature, len, (const uint8_t *)"message", 7), 1);
        assert_int_not_equal(EVP_DigestVerify(ctx, signature, len, (const uint8_t *)"massage", 7),
                             1);
        EVP_MD_CTX_free(ctx);
}

static void test_tk_rsa_sign__rs256(void **state)
{
        check_signature(TK_RSA_RS256, RSA_PKCS1_PADDING);
}

static void test_tk_rsa_sign__ps256(void **state)
{
        check_signature(TK_RSA_PS256, RSA_PKCS1_PSS_PADDING);
}

static void test_tk_rsa_new_private__password(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pem = pem_of(made, "open sesame", NULL);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *right = tk_test_secret("open sesame", 11);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *wrong = tk_test_secret("open barley", 11);
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;

        assert_int_equal(tk_rsa_new_private(pem, NULL, &rsa), -EKEYREJECTED);
        assert_int_equal(tk_rsa_new_private(pem, wrong, &rsa), -EKEYREJECTED);
        assert_int_equal(tk_rsa_new_private(pem, right, &rsa), 0);
}

static void test_tk_rsa_new_private__no_key(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *none = tk_test_secret("hello\n", 6);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *cut = pem_of(made, NULL, NULL);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *ec = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *small = NULL;
        EVP_PKEY *ec_key = EVP_EC_gen("P-256");
        EVP_PKEY *small_key = EVP_RSA_gen(1024);
        struct tk_rsa *rsa = NULL;

        ec = pem_of(ec_key, NULL, NULL);
        small = pem_of(small_key, NULL, NULL);
        tk_secret_truncate(cut, tk_secret_len(cut) / 2);
        assert_int_equal(tk_rsa_new_private(none, NULL, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_private(cut, NULL, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_private(ec, NULL, &rsa), -EBADMSG);
        assert_int_equal(tk_rsa_new_private(small, NULL, &rsa), -EBADMSG);
        EVP_PKEY_free(ec_key);
        EVP_PKEY_free(small_key);
}

static void test_tk_rsa_find_certificate__digests(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pem = pem_of(made, NULL, made);
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        struct tk_rsa_certificate found;
        uint8_t digest[32];
        BIO *bio = BIO_new_mem_buf(tk_secret_bytes(pem), (int)tk_secret_len(pem));
        X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);

        assert_int_equal(tk_rsa_new_private(pem, NULL, &rsa), 0);
        assert_int_equal(tk_rsa_find_certificate(rsa, pem, &found), 0);
        assert_int_equal(X509_digest(certificate, EVP_sha256(), digest, NULL), 1);
        assert_memory_equal(found.sha256, digest, 32);
        assert_int_equal(X509_digest(certificate, EVP_sha1(), digest, NULL), 1);
        assert_memory_equal(found.sha1, digest, 20);
        assert_in_range(found.not_after - time(NULL), 3500, 3600);
        X509_free(certificate);
        BIO_free(bio);
}

static void test_tk_rsa_find_certificate__none_of_this_key(void **state)
{
        EVP_PKEY *other = EVP_RSA_gen(2048);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *wrong = pem_of(made, NULL, other);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *none = pem_of(made, NULL, NULL);
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = private_of(made);
        struct tk_rsa_certificate found;

        assert_int_equal(tk_rsa_find_certificate(rsa, wrong, &found), -ENOENT);
        assert_int_equal(tk_rsa_find_certificate(rsa, none, &found), -ENOENT);
        EVP_PKEY_free(other);
}

static void test_tk_rsa_part__as_openssl_has_them(void **state)
{
        static const struct {
                enum tk_rsa_part part;
                const char *name;
        } parts[] = {
                {TK_RSA_N, OSSL_PKEY_PARAM_RSA_N},
                {TK_RSA_E, OSSL_PKEY_PARAM_RSA_E},
                {TK_RSA_D, OSSL_PKEY_PARAM_RSA_D},
                {TK_RSA_P, OSSL_PKEY_PARAM_RSA_FACTOR1},
                {TK_RSA_Q, OSSL_PKEY_PARAM_RSA_FACTOR2},
                {TK_RSA_DP, OSSL_PKEY_PARAM_RSA_EXPONENT1},
                {TK_RSA_DQ, OSSL_PKEY_PARAM_RSA_EXPONENT2},
                {TK_RSA_QI, OSSL_PKEY_PARAM_RSA_COEFFICIENT1},
        };
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = private_of(made);
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *half = public_half();
        struct tk_secret *number = NULL;

        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
                uint8_t bytes[TK_RSA_BYTES_MAX];
                size_t len = number_of(parts[i].name, bytes);

                assert_int_equal(tk_rsa_part(rsa, parts[i].part, &number), 0);
                assert_int_equal(tk_secret_len(number), len);
                assert_memory_equal(tk_secret_bytes(number), bytes, len);
                number = tk_secret_free(number);
        }
        assert_int_equal(tk_rsa_part(half, TK_RSA_D, &number), -ENOENT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_tk_rsa_wrap__opens_with_sha256_for_both),
                TK_TEST(test_tk_rsa_wrap__too_long),
                TK_TEST(test_tk_rsa_new_public__refused),
                TK_TEST(test_tk_rsa_new_public__leading_zero),
                TK_TEST(test_tk_rsa_sign__rs256),
                TK_TEST(test_tk_rsa_sign__ps256),
                TK_TEST(test_tk_rsa_new_private__password),
                TK_TEST(test_tk_rsa_new_private__no_key),
                TK_TEST(test_tk_rsa_find_certificate__digests),
                TK_TEST(test_tk_rsa_find_certificate__none_of_this_key),
                TK_TEST(test_tk_rsa_part__as_openssl_has_them),
        };

        return cmocka_run_group_tests(tests, make_key, drop_key);
}
