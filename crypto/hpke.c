/* SPDX-License-Identifier: Apache-2.0 */

/*
 * HPKE's base mode over OpenSSL's X25519.
 *
 * Names are those of RFC 9180: section 4 (labels), 4.1 (encapsulation), 5.1 (key schedule).
 */

#include "crypto/hpke.h"

#include "crypto/aead.h"
#include "crypto/kdf.h"
#include "crypto/mac.h"
#include "crypto/random.h"
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

enum { SUITE_MAX = 10, LABELED_MAX = 192, SCHEDULE_LEN = 1 + 2 * TK_MAC_LEN };

/* Which part of HPKE a label is for. */
struct suite {
        uint8_t id[SUITE_MAX];
        size_t len;
};

static const struct suite kem_suite = {.id = {'K', 'E', 'M', 0x00, 0x20}, .len = 5};
static const struct suite hpke_suite = {
        .id = {'H', 'P', 'K', 'E', 0x00, 0x20, 0x00, 0x01, 0x00, 0x02}, .len = 10};

static void pkey_freep(EVP_PKEY **pkey)
{
        EVP_PKEY_free(*pkey); /* wipes it */
}

static void pkey_ctx_freep(EVP_PKEY_CTX **ctx)
{
        EVP_PKEY_CTX_free(*ctx);
}

/* @prefix, "HPKE-v1", the suite, @label and @len bytes, into @out. Returns how many, or -EINVAL. */
static ssize_t put_labeled(const struct suite *suite, const char *label, const uint8_t *bytes,
                           size_t len, uint8_t *out, size_t max)
{
        static const char version[] = "HPKE-v1";
        size_t version_len = sizeof(version) - 1;
        size_t label_len = strlen(label);

        if (version_len + suite->len + label_len + len > max)
                return -EINVAL;
        memcpy(out, version, version_len);
        memcpy(out + version_len, suite->id, suite->len);
        memcpy(out + version_len + suite->len, label, label_len);
        if (len > 0)
                memcpy(out + version_len + suite->len + label_len, bytes, len);
        return (ssize_t)(version_len + suite->len + label_len + len);
}

/* LabeledExtract; without @salt (NULL) an empty one. @ikm may be a secret. */
static int labeled_extract(const struct suite *suite, const struct tk_secret *salt,
                           const char *label, const uint8_t *ikm, size_t ikm_len,
                           uint8_t ret_prk[TK_MAC_LEN])
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *labeled = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *empty = NULL;
        ssize_t len;
        int r;

        r = tk_secret_new(LABELED_MAX, &labeled);
        if (r == 0 && !salt)
                r = tk_secret_new(TK_MAC_LEN, &empty); /* HMAC pads an empty key with zeros */
        if (r < 0)
                return r;
        len = put_labeled(suite, label, ikm, ikm_len, tk_secret_bytes_mutable(labeled),
                          LABELED_MAX);
        if (len < 0)
                return (int)len;
        return tk_mac_hmac(salt ? salt : empty, tk_secret_bytes(labeled), (size_t)len, ret_prk);
}

/* LabeledExpand: fills @out. */
static int labeled_expand(const struct suite *suite, const struct tk_secret *prk, const char *label,
                          const uint8_t *info, size_t info_len, struct tk_secret *out)
{
        uint8_t labeled[LABELED_MAX];
        ssize_t len;

        labeled[0] = 0;
        labeled[1] = (uint8_t)tk_secret_len(out);
        len = put_labeled(suite, label, info, info_len, labeled + 2, sizeof(labeled) - 2);
        if (len < 0)
                return (int)len;
        return tk_kdf_expand(prk, "", labeled, (size_t)len + 2, out);
}

/* The shared secret of @private_key and @public_key. */
static int diffie_hellman(const struct tk_secret *private_key,
                          const uint8_t public_key[TK_HPKE_PUBLIC_LEN], struct tk_secret **ret_dh)
{
        TK_CLEANUP(pkey_freep)
        EVP_PKEY *own = EVP_PKEY_new_raw_private_key(
                EVP_PKEY_X25519, NULL, tk_secret_bytes(private_key), tk_secret_len(private_key));
        TK_CLEANUP(pkey_freep)
        EVP_PKEY *peer =
                EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, public_key, TK_HPKE_PUBLIC_LEN);
        TK_CLEANUP(pkey_ctx_freep) EVP_PKEY_CTX *ctx = own ? EVP_PKEY_CTX_new(own, NULL) : NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dh = NULL;
        size_t len = TK_KEY_LEN;
        int r;

        if (!peer || !ctx || EVP_PKEY_derive_init(ctx) <= 0 ||
            EVP_PKEY_derive_set_peer(ctx, peer) <= 0)
                return -EIO;
        r = tk_secret_new(TK_KEY_LEN, &dh);
        if (r < 0)
                return r;
        /* Refused by OpenSSL: a result of zeros, that of points of small order. */
        if (EVP_PKEY_derive(ctx, tk_secret_bytes_mutable(dh), &len) <= 0 || len != TK_KEY_LEN)
                return -EBADMSG;
        *ret_dh = TK_TAKE(dh);
        return 0;
}

int tk_hpke_public(const struct tk_secret *private_key, uint8_t ret_public[TK_HPKE_PUBLIC_LEN])
{
        TK_CLEANUP(pkey_freep) EVP_PKEY *pkey = NULL;
        size_t len = TK_HPKE_PUBLIC_LEN;

        if (tk_secret_len(private_key) != TK_KEY_LEN)
                return -EINVAL;
        pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, tk_secret_bytes(private_key),
                                            TK_KEY_LEN);
        if (!pkey || EVP_PKEY_get_raw_public_key(pkey, ret_public, &len) <= 0 ||
            len != TK_HPKE_PUBLIC_LEN)
                return -EIO;
        return 0;
}

/* A secret with the @len bytes of @bytes, which are wiped. */
static int into_secret(uint8_t *bytes, size_t len, struct tk_secret **ret_secret)
{
        int r = tk_secret_dup_bytes(bytes, len, ret_secret);

        tk_wipe(bytes, len);
        return r;
}

/* The KEM's shared secret from the Diffie-Hellman result. */
static int extract_and_expand(const struct tk_secret *dh, const uint8_t enc[TK_HPKE_PUBLIC_LEN],
                              const uint8_t public_key[TK_HPKE_PUBLIC_LEN],
                              struct tk_secret **ret_shared)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *shared = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *prk = NULL;
        uint8_t context[2 * TK_HPKE_PUBLIC_LEN];
        uint8_t bytes[TK_MAC_LEN];
        int r;

        r = labeled_extract(&kem_suite, NULL, "eae_prk", tk_secret_bytes(dh), tk_secret_len(dh),
                            bytes);
        if (r == 0)
                r = into_secret(bytes, sizeof(bytes), &prk);
        if (r == 0)
                r = tk_secret_new(TK_KEY_LEN, &shared);
        if (r < 0)
                return r;
        memcpy(context, enc, TK_HPKE_PUBLIC_LEN);
        memcpy(context + TK_HPKE_PUBLIC_LEN, public_key, TK_HPKE_PUBLIC_LEN);
        r = labeled_expand(&kem_suite, prk, "shared_secret", context, sizeof(context), shared);
        if (r < 0)
                return r;
        *ret_shared = TK_TAKE(shared);
        return 0;
}

/* Key and IV of the one message. */
struct schedule {
        struct tk_secret *key;
        struct tk_secret *iv;
};

static void schedule_done(struct schedule *schedule)
{
        tk_secret_free(schedule->key);
        tk_secret_free(schedule->iv);
}

static int run_schedule(const struct tk_secret *shared, const struct tk_hpke_context *context,
                        struct schedule *ret_schedule)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        uint8_t hashes[SCHEDULE_LEN] = {0}; /* the mode is 0 */
        uint8_t bytes[TK_MAC_LEN];
        int r;

        if (context->info_len > TK_HPKE_INFO_MAX)
                return -EINVAL;
        r = labeled_extract(&hpke_suite, NULL, "psk_id_hash", NULL, 0, hashes + 1);
        if (r == 0)
                r = labeled_extract(&hpke_suite, NULL, "info_hash", context->info,
                                    context->info_len, hashes + 1 + TK_MAC_LEN);
        if (r == 0)
                r = labeled_extract(&hpke_suite, shared, "secret", NULL, 0, bytes);
        if (r == 0)
                r = into_secret(bytes, sizeof(bytes), &secret);
        if (r == 0)
                r = tk_secret_new(TK_KEY_LEN, &ret_schedule->key);
        if (r == 0)
                r = tk_secret_new(TK_AEAD_IV_LEN, &ret_schedule->iv);
        if (r == 0)
                r = labeled_expand(&hpke_suite, secret, "key", hashes, sizeof(hashes),
                                   ret_schedule->key);
        if (r == 0)
                r = labeled_expand(&hpke_suite, secret, "base_nonce", hashes, sizeof(hashes),
                                   ret_schedule->iv);
        return r;
}

/* From the Diffie-Hellman of one private key and one public key to a context with the key set. */
static int start(const struct tk_secret *private_key, const uint8_t peer[TK_HPKE_PUBLIC_LEN],
                 const uint8_t enc[TK_HPKE_PUBLIC_LEN],
                 const uint8_t public_key[TK_HPKE_PUBLIC_LEN],
                 const struct tk_hpke_context *context, struct schedule *ret_schedule,
                 struct tk_aead **ret_aead)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dh = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *shared = NULL;
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        int r;

        r = diffie_hellman(private_key, peer, &dh);
        if (r == 0)
                r = extract_and_expand(dh, enc, public_key, &shared);
        if (r == 0)
                r = run_schedule(shared, context, ret_schedule);
        if (r == 0)
                r = tk_aead_new(&aead);
        if (r == 0)
                r = tk_aead_set_key(aead, ret_schedule->key);
        if (r < 0)
                return r;
        *ret_aead = TK_TAKE(aead);
        return 0;
}

int tk_hpke_seal(const uint8_t public_key[TK_HPKE_PUBLIC_LEN],
                 const struct tk_hpke_context *context, const struct tk_secret *message,
                 uint8_t *ret_sealed)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *ephemeral = NULL;
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        TK_CLEANUP(schedule_done) struct schedule schedule = {0};
        size_t len = tk_secret_len(message);
        int r;

        r = tk_random_secret(TK_KEY_LEN, &ephemeral);
        if (r == 0)
                r = tk_hpke_public(ephemeral, ret_sealed);
        if (r == 0)
                r = start(ephemeral, public_key, ret_sealed, public_key, context, &schedule, &aead);
        if (r < 0)
                return r;
        return tk_aead_seal(aead,
                            &(struct tk_aead_msg){.iv = tk_secret_bytes(schedule.iv),
                                                  .aad = context->aad,
                                                  .aad_len = context->aad_len,
                                                  .in = tk_secret_bytes(message),
                                                  .out = ret_sealed + TK_HPKE_PUBLIC_LEN,
                                                  .len = len},
                            ret_sealed + TK_HPKE_PUBLIC_LEN + len);
}

int tk_hpke_open(const struct tk_secret *private_key, const struct tk_hpke_context *context,
                 const uint8_t *sealed, size_t sealed_len, struct tk_secret **ret_message)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *message = NULL;
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        TK_CLEANUP(schedule_done) struct schedule schedule = {0};
        uint8_t own[TK_HPKE_PUBLIC_LEN];
        int r;

        if (sealed_len <= TK_HPKE_OVERHEAD)
                return -EBADMSG;
        r = tk_hpke_public(private_key, own);
        if (r == 0)
                r = start(private_key, sealed, sealed, own, context, &schedule, &aead);
        if (r == 0)
                r = tk_secret_new(sealed_len - TK_HPKE_OVERHEAD, &message);
        if (r < 0)
                return r;
        r = tk_aead_open(aead,
                         &(struct tk_aead_msg){.iv = tk_secret_bytes(schedule.iv),
                                               .aad = context->aad,
                                               .aad_len = context->aad_len,
                                               .in = sealed + TK_HPKE_PUBLIC_LEN,
                                               .out = tk_secret_bytes_mutable(message),
                                               .len = tk_secret_len(message)},
                         sealed + sealed_len - TK_AEAD_TAG_LEN);
        if (r < 0)
                return r;
        *ret_message = TK_TAKE(message);
        return 0;
}
