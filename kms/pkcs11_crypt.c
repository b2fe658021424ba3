/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ways of wrapping a key of 32 bytes: docs/kms-pkcs11.md.
 *
 * The first one that the token really does is taken, in both directions, and its name
 * goes into the volume: what was wrapped in one way is unwrapped in that way only. The
 * bytes are encrypted as data where the token lets us; only tokens that do key wrapping by
 * C_WrapKey alone get them as a session object.
 */

#include "crypto/random.h"
#include "crypto/rsa.h"
#include "kms/pkcs11_internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Newer than the header of p11-kit 0.24. */
#ifndef CKM_AES_KEY_WRAP_KWP
#define CKM_AES_KEY_WRAP_KWP 0x210bUL
#endif

enum {
        GCM_IV_LEN = 12,
        GCM_TAG_LEN = 16,
        GCM_BLOB_LEN = GCM_IV_LEN + TK_KEY_LEN + GCM_TAG_LEN,
        KWP_BLOB_LEN = TK_KEY_LEN + 8,
        PAD_BLOB_LEN = TK_KEY_LEN + 16, /* where a whole block of padding is added */
        OUT_MAX = 512,
        EXPONENT_MAX = 16,
};

/* Bound into every AES-GCM wrap, so that it can't be taken for something else. */
static const char gcm_aad[] = "turnkeyfs root wrap 1";

enum kind { KIND_GCM, KIND_CIPHER, KIND_OBJECT, KIND_RSA };

static const struct way {
        const char *algorithm; /* in the volume file */
        CK_MECHANISM_TYPE mechanism;
        CK_FLAGS flags; /* that the token must have for it */
        enum kind kind;
        enum tk_rsa_hash hash;
} ways[] = {
        {"AES-256-GCM", CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT, KIND_GCM, 0},
        {"AES-KWP", CKM_AES_KEY_WRAP_KWP, CKF_ENCRYPT | CKF_DECRYPT, KIND_CIPHER, 0},
        {"AES-WRAP-PAD", CKM_AES_KEY_WRAP_PAD, CKF_ENCRYPT | CKF_DECRYPT, KIND_CIPHER, 0},
        {"AES-KWP-OBJECT", CKM_AES_KEY_WRAP_KWP, CKF_WRAP | CKF_UNWRAP, KIND_OBJECT, 0},
        {"AES-WRAP-PAD-OBJECT", CKM_AES_KEY_WRAP_PAD, CKF_WRAP | CKF_UNWRAP, KIND_OBJECT, 0},
        {"RSA-OAEP-256", CKM_RSA_PKCS_OAEP, CKF_DECRYPT, KIND_RSA, TK_RSA_SHA256},
        {"RSA-OAEP", CKM_RSA_PKCS_OAEP, CKF_DECRYPT, KIND_RSA, TK_RSA_SHA1},
};

enum { WAY_COUNT = sizeof(ways) / sizeof(ways[0]) };

bool tk_p11_has_mechanism(struct tk_p11_use *use, CK_MECHANISM_TYPE mechanism, CK_FLAGS flags)
{
        CK_MECHANISM_INFO info;
        CK_RV rv = use->f->C_GetMechanismInfo(use->p11->slot, mechanism, &info);

        if (tk_p11_judge(rv) == TK_P11_AWAY || tk_p11_judge(rv) == TK_P11_LOST)
                (void)!tk_p11_fail(use, rv, "say what its token can do");
        return rv == CKR_OK && (info.flags & flags) == flags;
}

enum tk_p11_usage tk_p11_aes_usage(struct tk_p11_use *use)
{
        for (int i = 0; i < WAY_COUNT; i++)
                if (ways[i].kind != KIND_RSA &&
                    tk_p11_has_mechanism(use, ways[i].mechanism, ways[i].flags))
                        return ways[i].kind == KIND_OBJECT ? TK_P11_BY_WRAP : TK_P11_BY_ENCRYPT;
        return TK_P11_NO_AES;
}

static bool key_allows(const struct tk_p11_version *version, enum kind kind)
{
        bool secret = version->class == CKO_SECRET_KEY;

        switch (kind) {
        case KIND_RSA:
                return !secret && version->decrypt;
        case KIND_OBJECT:
                return secret && version->wrap && version->unwrap;
        default:
                return secret && version->encrypt && version->decrypt;
        }
}

/* AES ----------------------------------------------------------------------- */

/* A token may put an IV of its own into @iv. */
/* NOLINTNEXTLINE(readability-non-const-parameter) */
static CK_MECHANISM mechanism_of(const struct way *way, CK_GCM_PARAMS *gcm, uint8_t *iv)
{
        if (way->kind != KIND_GCM)
                return (CK_MECHANISM){way->mechanism, NULL, 0};
        *gcm = (CK_GCM_PARAMS){.pIv = iv,
                               .ulIvLen = GCM_IV_LEN,
                               .ulIvBits = 8UL * GCM_IV_LEN,
                               .pAAD = (CK_BYTE *)(uintptr_t)gcm_aad,
                               .ulAADLen = sizeof(gcm_aad) - 1,
                               .ulTagBits = 8UL * GCM_TAG_LEN};
        return (CK_MECHANISM){way->mechanism, gcm, sizeof(*gcm)};
}

/* The module doesn't change what it is given, whatever its type says. */
static CK_BYTE *bytes_of(const struct tk_secret *secret)
{
        return (CK_BYTE *)(uintptr_t)tk_secret_bytes(secret);
}

static int encrypt(struct tk_p11_use *use, const struct way *way, CK_OBJECT_HANDLE key,
                   const struct tk_secret *plain, struct tk_kms_wrap *wrap)
{
        size_t prefix = way->kind == KIND_GCM ? GCM_IV_LEN : 0;
        uint8_t iv[GCM_IV_LEN];
        CK_GCM_PARAMS gcm;
        CK_MECHANISM mechanism = mechanism_of(way, &gcm, iv);
        CK_ULONG len = OUT_MAX;
        CK_RV rv;
        int r;

        r = tk_random_bytes(iv, sizeof(iv));
        if (r < 0)
                return r;
        rv = use->f->C_EncryptInit(use->session, &mechanism, key);
        if (rv == CKR_OK)
                rv = use->f->C_Encrypt(use->session, bytes_of(plain), tk_secret_len(plain),
                                       wrap->blob + prefix, &len);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "wrap a key");
        memcpy(wrap->blob, iv, prefix); /* a token may have put its own there */
        wrap->blob_len = prefix + len;
        return 0;
}

/* @out has room for OUT_MAX bytes, and is shortened. */
static int decrypt(struct tk_p11_use *use, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key,
                   const uint8_t *blob, size_t len, struct tk_secret *out)
{
        uint8_t copy[TK_KMS_BLOB_MAX];
        CK_ULONG out_len = tk_secret_len(out);
        CK_RV rv;

        memcpy(copy, blob, len);
        rv = use->f->C_DecryptInit(use->session, mechanism, key);
        if (rv == CKR_OK)
                rv = use->f->C_Decrypt(use->session, copy, len, tk_secret_bytes_mutable(out),
                                       &out_len);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "unwrap a key");
        if (out_len > tk_secret_len(out))
                return tk_p11_fail(use, CKR_GENERAL_ERROR, "unwrap a key");
        tk_secret_truncate(out, out_len);
        return 0;
}

/* Key wrapping by C_WrapKey: the bytes are an object of this session for the moment. */

enum { PASSING_COUNT = 5 }; /* attributes; the value may follow */

struct passing_key {
        CK_OBJECT_CLASS class;
        CK_KEY_TYPE type;
        CK_BBOOL yes;
        CK_BBOOL no;
        CK_ATTRIBUTE template[PASSING_COUNT + 1];
};

static void describe(struct passing_key *key)
{
        *key = (struct passing_key){.class = CKO_SECRET_KEY,
                                    .type = CKK_GENERIC_SECRET,
                                    .yes = CK_TRUE,
                                    .no = CK_FALSE,
                                    .template = {{CKA_CLASS, &key->class, sizeof(key->class)},
                                                 {CKA_KEY_TYPE, &key->type, sizeof(key->type)},
                                                 {CKA_TOKEN, &key->no, sizeof(key->no)},
                                                 {CKA_SENSITIVE, &key->no, sizeof(key->no)},
                                                 {CKA_EXTRACTABLE, &key->yes, sizeof(key->yes)}}};
}

/* It goes with its session at the latest. */
static void destroy(struct tk_p11_use *use, CK_OBJECT_HANDLE object)
{
        if (use->f->C_DestroyObject(use->session, object) != CKR_OK)
                use->spoiled = true;
}

static int wrap_object(struct tk_p11_use *use, const struct way *way, CK_OBJECT_HANDLE key,
                       const struct tk_secret *plain, struct tk_kms_wrap *wrap)
{
        struct passing_key passing;
        CK_MECHANISM mechanism = {way->mechanism, NULL, 0};
        CK_OBJECT_HANDLE object;
        CK_ULONG len = OUT_MAX;
        CK_RV rv;

        describe(&passing);
        passing.template[PASSING_COUNT] =
                (CK_ATTRIBUTE){CKA_VALUE, bytes_of(plain), tk_secret_len(plain)};
        rv = use->f->C_CreateObject(use->session, passing.template, PASSING_COUNT + 1, &object);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "take a key to wrap");
        rv = use->f->C_WrapKey(use->session, &mechanism, key, object, wrap->blob, &len);
        destroy(use, object);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "wrap a key");
        wrap->blob_len = len;
        return 0;
}

static int unwrap_object(struct tk_p11_use *use, const struct way *way, CK_OBJECT_HANDLE key,
                         const struct tk_kms_wrap *wrap, struct tk_secret *out)
{
        struct passing_key passing;
        CK_ATTRIBUTE value = {CKA_VALUE, tk_secret_bytes_mutable(out), tk_secret_len(out)};
        CK_MECHANISM mechanism = {way->mechanism, NULL, 0};
        uint8_t blob[TK_KMS_BLOB_MAX];
        CK_OBJECT_HANDLE object;
        CK_RV rv;

        memcpy(blob, wrap->blob, wrap->blob_len);
        describe(&passing);
        rv = use->f->C_UnwrapKey(use->session, &mechanism, key, blob, wrap->blob_len,
                                 passing.template, PASSING_COUNT, &object);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "unwrap a key");
        rv = use->f->C_GetAttributeValue(use->session, object, &value, 1);
        destroy(use, object);
        if (rv == CKR_OK && value.ulValueLen > tk_secret_len(out))
                rv = CKR_GENERAL_ERROR;
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "hand an unwrapped key out");
        tk_secret_truncate(out, value.ulValueLen);
        return 0;
}

/* RSA ----------------------------------------------------------------------- */

/* Its public half: the private key has it, or else the public key beside it. */
static int public_half(struct tk_p11_use *use, const struct tk_p11_version *version,
                       struct tk_rsa **ret_rsa)
{
        CK_OBJECT_HANDLE object = version->handle;
        uint8_t n[TK_RSA_BYTES_MAX + 1] = {0};
        uint8_t e[EXPONENT_MAX] = {0};
        size_t n_len = tk_p11_attribute(use, object, CKA_MODULUS, n, sizeof(n));
        size_t e_len = tk_p11_attribute(use, object, CKA_PUBLIC_EXPONENT, e, sizeof(e));
        size_t count = 0;
        int r = 0;

        if (n_len == 0 || e_len == 0) {
                r = tk_p11_find_objects(use, CKO_PUBLIC_KEY, "", version->id, version->id_len,
                                        &object, 1, &count);
                if (r < 0)
                        return r;
                if (count > 0) {
                        n_len = tk_p11_attribute(use, object, CKA_MODULUS, n, sizeof(n));
                        e_len = tk_p11_attribute(use, object, CKA_PUBLIC_EXPONENT, e, sizeof(e));
                }
        }
        r = tk_rsa_new_public(n, n_len, e, e_len, ret_rsa);
        if (r == -EBADMSG)
                return tk_fault_set(&use->job->fault, TK_FAULT_CONFIG, -ENOTSUP,
                                    "a version of the root key %s is no RSA key of 2048, 3072 or "
                                    "4096 bits whose public half can be read",
                                    use->p11->uri.key_id);
        return r;
}

static int wrap_rsa(struct tk_p11_use *use, const struct way *way,
                    const struct tk_p11_version *version, const struct tk_secret *plain,
                    struct tk_kms_wrap *wrap)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        int r = public_half(use, version, &rsa);

        return r < 0 ? r : tk_rsa_wrap_with(rsa, way->hash, plain, wrap->blob, &wrap->blob_len);
}

static CK_MECHANISM oaep_of(const struct way *way, CK_RSA_PKCS_OAEP_PARAMS *params)
{
        bool sha256 = way->hash == TK_RSA_SHA256;

        *params = (CK_RSA_PKCS_OAEP_PARAMS){.hashAlg = sha256 ? CKM_SHA256 : CKM_SHA_1,
                                            .mgf = sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1,
                                            .source = CKZ_DATA_SPECIFIED};
        return (CK_MECHANISM){way->mechanism, params, sizeof(*params)};
}

/* One way, there and back ------------------------------------------------ */

static int unwrap_in(struct tk_p11_use *use, const struct way *way, CK_OBJECT_HANDLE key,
                     const struct tk_kms_wrap *wrap, struct tk_secret **ret_plain)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *plain = NULL;
        size_t prefix = way->kind == KIND_GCM ? GCM_IV_LEN : 0;
        CK_RSA_PKCS_OAEP_PARAMS oaep;
        CK_GCM_PARAMS gcm;
        uint8_t iv[GCM_IV_LEN] = {0};
        CK_MECHANISM mechanism;
        int r;

        r = tk_secret_new(OUT_MAX, &plain);
        if (r < 0)
                return r;
        memcpy(iv, wrap->blob, prefix);
        if (way->kind == KIND_OBJECT) {
                r = unwrap_object(use, way, key, wrap, plain);
        } else {
                mechanism =
                        way->kind == KIND_RSA ? oaep_of(way, &oaep) : mechanism_of(way, &gcm, iv);
                r = decrypt(use, &mechanism, key, wrap->blob + prefix, wrap->blob_len - prefix,
                            plain);
        }
        if (r < 0)
                return r;
        if (tk_secret_len(plain) != TK_KEY_LEN) {
                use->verdict = TK_P11_DAMAGED;
                return tk_fault_set(&use->job->fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                                    "what is wrapped by the root key %s is no key of this program",
                                    use->p11->uri.key_id);
        }
        *ret_plain = TK_TAKE(plain);
        return 0;
}

static int wrap_in(struct tk_p11_use *use, const struct way *way,
                   const struct tk_p11_version *version, const struct tk_secret *plain,
                   struct tk_kms_wrap *wrap)
{
        snprintf(wrap->algorithm, sizeof(wrap->algorithm), "%s", way->algorithm);
        switch (way->kind) {
        case KIND_RSA:
                return wrap_rsa(use, way, version, plain, wrap);
        case KIND_OBJECT:
                return wrap_object(use, way, version->handle, plain, wrap);
        default:
                return encrypt(use, way, version->handle, plain, wrap);
        }
}

static bool has_length(const struct way *way, size_t len)
{
        switch (way->kind) {
        case KIND_GCM:
                return len == GCM_BLOB_LEN;
        case KIND_RSA:
                return len == 256 || len == 384 || len == 512;
        default:
                return len == KWP_BLOB_LEN ||
                       (way->mechanism == CKM_AES_KEY_WRAP_PAD && len == PAD_BLOB_LEN);
        }
}

/* Wrap in this way, and see that it comes back; not again once that has worked. */
static int try_way(struct tk_p11_use *use, const struct way *way,
                   const struct tk_p11_version *version, const struct tk_secret *plain,
                   struct tk_kms_wrap *wrap)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        char proof[sizeof(use->p11->proven)];
        char text[TK_KMS_VERSION_MAX];
        bool proven;
        int r;

        tk_p11_version_text(version, text);
        snprintf(proof, sizeof(proof), "%s %s", text, way->algorithm);
        r = wrap_in(use, way, version, plain, wrap);
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&use->p11->connection_lock);
                proven = strcmp(use->p11->proven, proof) == 0;
        }
        if (!has_length(way, wrap->blob_len))
                return tk_p11_fail(use, CKR_DATA_LEN_RANGE, "wrap a key into the right length");
        if (proven)
                return 0;
        r = unwrap_in(use, way, version->handle, wrap, &again);
        if (r < 0)
                return r;
        if (!tk_secret_equal(again, plain))
                return tk_p11_fail(use, CKR_DATA_INVALID, "give a key back as it was");
        TK_LOCK_SCOPE(&use->p11->connection_lock);
        memcpy(use->p11->proven, proof, sizeof(proof));
        return 0;
}

static int check_version(struct tk_p11_use *use, const struct tk_p11_version *version)
{
        if (version->always_authenticate)
                return tk_fault_set(&use->job->fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                                    "the root key %s wants a PIN for each single use "
                                    "(CKA_ALWAYS_AUTHENTICATE), so that nobody could be served "
                                    "unattended; take another key",
                                    use->p11->uri.key_id);
        if (version->class == CKO_SECRET_KEY && version->bits && version->bits != 256)
                return tk_fault_set(&use->job->fault, TK_FAULT_CONFIG, -ENOTSUP,
                                    "the root key %s has a version that is an AES key of %u bits; "
                                    "256 are needed",
                                    use->p11->uri.key_id, version->bits);
        return 0;
}

int tk_p11_wrap_by(struct tk_p11_use *use, const struct tk_p11_version *version,
                   const struct tk_secret *plain, struct tk_kms_wrap *wrap)
{
        struct tk_fault said = {0};
        int r = check_version(use, version);

        if (r < 0)
                return r;
        for (int i = 0; i < WAY_COUNT; i++) {
                bool offered;

                if (!key_allows(version, ways[i].kind))
                        continue;
                use->verdict = TK_P11_GOOD;
                use->job->fault = (struct tk_fault){0};
                offered = tk_p11_has_mechanism(use, ways[i].mechanism, ways[i].flags);
                if (use->verdict != TK_P11_GOOD)
                        return tk_p11_errno(use->verdict);
                if (!offered)
                        continue;
                r = try_way(use, &ways[i], version, plain, wrap);
                if (r == 0 || use->verdict == TK_P11_LOST || use->verdict == TK_P11_AWAY ||
                    use->verdict == TK_P11_GONE || use->verdict == TK_P11_LOGIN)
                        return r;
                said = use->job->fault;
        }
        if (r < 0) {
                use->job->fault = said;
                return r;
        }
        return tk_fault_set(&use->job->fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "the token has no way to wrap by the root key %s: an AES key needs "
                            "CKM_AES_GCM, CKM_AES_KEY_WRAP_KWP or CKM_AES_KEY_WRAP_PAD, an RSA key "
                            "CKM_RSA_PKCS_OAEP, and the key the right to encrypt and decrypt",
                            use->p11->uri.key_id);
}

/* Unwrapping ---------------------------------------------------------------- */

static const struct way *find_way(const struct tk_kms_wrap *wrap)
{
        for (int i = 0; i < WAY_COUNT; i++)
                if (strncmp(wrap->algorithm, ways[i].algorithm, sizeof(wrap->algorithm)) == 0)
                        return &ways[i];
        return NULL;
}

int tk_p11_check_blob(const struct tk_p11 *p11, const struct tk_kms_wrap *wrap,
                      struct tk_fault *fault)
{
        const struct way *way = find_way(wrap);

        if (!way)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                                    "a key is wrapped by %s with an algorithm that this release "
                                    "does not know; use the release that made the volume, or a "
                                    "newer one",
                                    p11->uri.key_id);
        if (!has_length(way, wrap->blob_len))
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                                    "a key wrapped by %s has %zu bytes, which %s never makes: the "
                                    "volume file is damaged; restore it from a backup",
                                    p11->uri.key_id, wrap->blob_len, way->algorithm);
        return 0;
}

/* Whether a test key goes there and back in this way. */
static bool works(struct tk_p11_use *use, const struct way *way,
                  const struct tk_p11_version *version)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *plain = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_p11_job scratch = {.p11 = use->p11};
        struct tk_p11_use test = *use;
        struct tk_kms_wrap wrap = {0};
        bool same;

        test.job = &scratch;
        same = tk_random_secret(TK_KEY_LEN, &plain) == 0 &&
               wrap_in(&test, way, version, plain, &wrap) == 0 && has_length(way, wrap.blob_len) &&
               unwrap_in(&test, way, version->handle, &wrap, &again) == 0 &&
               tk_secret_equal(plain, again);
        use->spoiled = test.spoiled;
        return same;
}

/*
 * Some modules answer a bad ciphertext as they answer a broken token. What fails before and
 * after a test key came through is damaged.
 */
static int try_again(struct tk_p11_use *use, const struct way *way,
                     const struct tk_p11_version *version, const struct tk_kms_wrap *wrap, int r,
                     struct tk_secret **ret_plain)
{
        if ((use->verdict != TK_P11_AWAY && use->verdict != TK_P11_NOT_OFFERED) ||
            !works(use, way, version))
                return r;
        use->verdict = TK_P11_GOOD;
        use->job->fault = (struct tk_fault){0};
        r = unwrap_in(use, way, version->handle, wrap, ret_plain);
        if (r == 0 || (use->verdict != TK_P11_AWAY && use->verdict != TK_P11_NOT_OFFERED))
                return r;
        use->verdict = TK_P11_DAMAGED;
        use->job->fault = (struct tk_fault){0};
        return tk_fault_set(&use->job->fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                            "a key wrapped by %s does not open, although the root key works: it is "
                            "damaged, or another key of that id wrapped it; restore it from a "
                            "backup",
                            use->p11->uri.key_id);
}

int tk_p11_unwrap_by(struct tk_p11_use *use, const struct tk_kms_wrap *wrap,
                     struct tk_secret **ret_plain)
{
        const struct way *way = find_way(wrap);
        struct tk_p11_version version;
        int r;

        r = tk_p11_find_one(use, wrap->version, &version);
        if (r < 0)
                return r;
        r = unwrap_in(use, way, version.handle, wrap, ret_plain);
        return r < 0 ? try_again(use, way, &version, wrap, r, ret_plain) : r;
}
