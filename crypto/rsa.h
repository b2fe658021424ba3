/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * RSA keys: wrapping with a public key that a KMS gave, signing a token assertion
 * with a private key from a PEM file.
 *
 * Wrapping is OAEP with an empty label, and MGF1 with the same hash: RSA-OAEP-256, or SHA-1
 * for tokens that can do no better. A key is not changed once made, so threads may share it.
 * OpenSSL keeps private keys in its own heap and wipes them when they are freed.
 */

#include "base/secret.h"
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
        TK_RSA_BYTES_MAX = 512, /* RSA-4096: modulus, ciphertext and signature */
        TK_RSA_OAEP256_OVERHEAD = 66,
        TK_RSA_SHA1_LEN = 20,
        TK_RSA_SHA256_LEN = 32,
};

struct tk_rsa; /* opaque: rsa.c */

struct tk_rsa *tk_rsa_free(struct tk_rsa *rsa);
TK_DEFINE_CLEANUP(struct tk_rsa *, tk_rsa_free)

/*
 * A public key of modulus @n and exponent @e, big-endian. -EBADMSG unless the modulus is
 * odd and has 2048, 3072 or 4096 bits, and the exponent is odd, above 2 and below 2^64.
 */
TK_MUST_USE int tk_rsa_new_public(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len,
                                  struct tk_rsa **ret_rsa);

/*
 * The private key in @pem, which may hold certificates as well. @password may be NULL.
 * -EBADMSG if there is no RSA key in it, or one of another size than above; -EKEYREJECTED if
 * the password is wrong or missing.
 */
TK_MUST_USE int tk_rsa_new_private(const struct tk_secret *pem, const struct tk_secret *password,
                                   struct tk_rsa **ret_rsa);

/* Bytes of the modulus, which are the bytes of a ciphertext and of a signature. */
size_t tk_rsa_len(const struct tk_rsa *rsa);

/*
 * Wrap @key by RSA-OAEP-256: tk_rsa_len bytes in @out, which holds TK_RSA_BYTES_MAX.
 * -EMSGSIZE if @key is longer than tk_rsa_len - TK_RSA_OAEP256_OVERHEAD.
 */
TK_MUST_USE int tk_rsa_wrap(const struct tk_rsa *rsa, const struct tk_secret *key,
                            uint8_t out[TK_RSA_BYTES_MAX], size_t *ret_len);

/* The same with a hash of one's choice. SHA-1 is not broken in OAEP, but out of favour. */
enum tk_rsa_hash { TK_RSA_SHA1, TK_RSA_SHA256 };
TK_MUST_USE int tk_rsa_wrap_with(const struct tk_rsa *rsa, enum tk_rsa_hash hash,
                                 const struct tk_secret *key, uint8_t out[TK_RSA_BYTES_MAX],
                                 size_t *ret_len);

/* As JWS names them (RFC 7518): PKCS #1 v1.5, or PSS with a salt as long as the hash. */
enum tk_rsa_scheme { TK_RSA_RS256, TK_RSA_PS256 };

TK_MUST_USE int tk_rsa_sign(const struct tk_rsa *rsa, enum tk_rsa_scheme scheme,
                            const void *message, size_t message_len, uint8_t out[TK_RSA_BYTES_MAX],
                            size_t *ret_len);

/* What names a certificate: the hashes of its DER form are x5t and x5t#S256 (RFC 7515). */
struct tk_rsa_certificate {
        uint8_t sha1[TK_RSA_SHA1_LEN];
        uint8_t sha256[TK_RSA_SHA256_LEN];
        time_t not_after;
};

/* The certificate in @pem whose key is @rsa. -ENOENT if none is; -EBADMSG if one is malformed. */
TK_MUST_USE int tk_rsa_find_certificate(const struct tk_rsa *rsa, const struct tk_secret *pem,
                                        struct tk_rsa_certificate *ret_certificate);

/* The numbers of a key, as a JSON Web Key names them. */
enum tk_rsa_part {
        TK_RSA_N,
        TK_RSA_E,
        TK_RSA_D,
        TK_RSA_P,
        TK_RSA_Q,
        TK_RSA_DP,
        TK_RSA_DQ,
        TK_RSA_QI,
};

/* One number, big-endian without leading zeros. -ENOENT if the key has only its public half. */
TK_MUST_USE int tk_rsa_part(const struct tk_rsa *rsa, enum tk_rsa_part part,
                            struct tk_secret **ret_number);
