/* SPDX-License-Identifier: Apache-2.0 */

/*
 * New versions: generated in the token, or brought along.
 *
 * CKA_ID is the time in UTC, digit by digit, and a random byte: it sorts by age, also
 * behind what other tools made by the same rule. Where that would not be the newest, it is
 * the successor of the newest one's. A version gets a CKA_START_DATE only if another has
 * one: a key without a date is older than any with one.
 */

#include "kms/pkcs11_make.h"

#include "base/bytes.h"
#include "crypto/random.h"
#include "crypto/rsa.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
        STAMP_LEN = 8,
        ATTRIBUTES_MAX = 24,
        DEFAULT_RSA_BITS = 3072,
};

/* The version's name and date. */
struct identity {
        uint8_t id[TK_P11_ID_MAX];
        size_t id_len;
        bool dated;
        CK_DATE start;
};

/* One more, as a big-endian number; one byte longer if that overflows. */
static void succeed(struct identity *identity)
{
        for (size_t i = identity->id_len; i > 0; i--)
                if (++identity->id[i - 1])
                        return;
        if (identity->id_len < TK_P11_ID_MAX)
                identity->id_len++;
        memset(identity->id, 0xff, identity->id_len - 1);
        identity->id[identity->id_len - 1] = 0;
}

static int stamp(struct identity *identity, const struct tm *now)
{
        char text[2 * STAMP_LEN + 1];
        uint8_t random;
        int r = tk_random_bytes(&random, 1);

        if (r < 0)
                return r;
        strftime(text, sizeof(text), "%Y%m%d%H%M%S", now);
        tk_hex_encode(&random, 1, text + 2L * (STAMP_LEN - 1));
        identity->id_len = STAMP_LEN;
        return tk_hex_decode(text, identity->id, STAMP_LEN);
}

static bool is_newer(const struct identity *identity, const struct tk_p11_version *version)
{
        struct tk_p11_version ours = {.id_len = identity->id_len, .start = version->start};

        memcpy(ours.id, identity->id, identity->id_len);
        return tk_p11_compare(&ours, version) > 0;
}

static int identify(const struct tk_p11_versions *versions, struct identity *identity)
{
        time_t clock = time(NULL);
        char date[9];
        struct tm now;
        int r;

        *identity = (struct identity){0};
        gmtime_r(&clock, &now);
        r = stamp(identity, &now);
        for (size_t i = 0; r == 0 && i < versions->count; i++) {
                const struct tk_p11_version *version = &versions->list[i];

                identity->dated |= version->start != 0;
                if (is_newer(identity, version))
                        continue;
                memcpy(identity->id, version->id, version->id_len);
                identity->id_len = version->id_len;
                succeed(identity);
        }
        strftime(date, sizeof(date), "%Y%m%d", &now);
        memcpy(&identity->start, date, sizeof(identity->start));
        return r;
}

/* Templates: the values are borrowed. */
struct template
{
        CK_ATTRIBUTE list[ATTRIBUTES_MAX];
        CK_ULONG count;
};

static CK_BBOOL yes = CK_TRUE;
static CK_BBOOL no = CK_FALSE;

static void add(struct template *template, CK_ATTRIBUTE_TYPE type, void *value, size_t len)
{
        assert(template->count < ATTRIBUTES_MAX);
        template->list[template->count++] = (CK_ATTRIBUTE){type, value, len};
}

static void add_bool(struct template *template, CK_ATTRIBUTE_TYPE type, bool value)
{
        add(template, type, value ? &yes : &no, sizeof(yes));
}

static void add_identity(struct template *template, const struct tk_p11 *p11,
                         struct identity *identity)
{
        add_bool(template, CKA_TOKEN, true);
        add(template, CKA_LABEL, (void *)(uintptr_t)p11->uri.label, strlen(p11->uri.label));
        add(template, CKA_ID, identity->id, identity->id_len);
        if (identity->dated)
                add(template, CKA_START_DATE, &identity->start, sizeof(identity->start));
}

/* What keeps a key in the token. */
static void add_protection(struct template *template)
{
        add_bool(template, CKA_PRIVATE, true);
        add_bool(template, CKA_SENSITIVE, true);
        add_bool(template, CKA_EXTRACTABLE, false);
}

static void add_aes_usage(struct template *template, enum tk_p11_usage usage)
{
        add_bool(template, CKA_ENCRYPT, usage == TK_P11_BY_ENCRYPT);
        add_bool(template, CKA_DECRYPT, usage == TK_P11_BY_ENCRYPT);
        add_bool(template, CKA_WRAP, usage == TK_P11_BY_WRAP);
        add_bool(template, CKA_UNWRAP, usage == TK_P11_BY_WRAP);
}

static void say_version(struct tk_p11_use *use, const struct identity *identity)
{
        tk_hex_encode(identity->id, identity->id_len, use->job->version);
}

/* Generating ---------------------------------------------------------------- */

static int generate_aes(struct tk_p11_use *use, struct identity *identity)
{
        enum tk_p11_usage usage = tk_p11_aes_usage(use);
        struct template template = {0};
        CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
        CK_ULONG len = TK_KEY_LEN;
        CK_OBJECT_HANDLE key;
        CK_RV rv;

        if (use->verdict != TK_P11_GOOD)
                return tk_p11_errno(use->verdict);
        add_identity(&template, use->p11, identity);
        add_protection(&template);
        add_aes_usage(&template, usage);
        add(&template, CKA_VALUE_LEN, &len, sizeof(len));
        use->changed = true;
        rv = use->f->C_GenerateKey(use->session, &mechanism, template.list, template.count, &key);
        return rv == CKR_OK ? 0 : tk_p11_fail(use, rv, "generate an AES key");
}

static int generate_rsa(struct tk_p11_use *use, unsigned bits, struct identity *identity)
{
        struct template public = {0};
        struct template private = {0};
        CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
        uint8_t exponent[] = {1, 0, 1};
        CK_ULONG modulus_bits = bits;
        CK_OBJECT_HANDLE public_key;
        CK_OBJECT_HANDLE private_key;
        CK_RV rv;

        add_identity(&public, use->p11, identity);
        add_bool(&public, CKA_ENCRYPT, true);
        add(&public, CKA_MODULUS_BITS, &modulus_bits, sizeof(modulus_bits));
        add(&public, CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent));
        add_identity(&private, use->p11, identity);
        add_protection(&private);
        add_bool(&private, CKA_DECRYPT, true);
        use->changed = true;
        rv = use->f->C_GenerateKeyPair(use->session, &mechanism, public.list, public.count,
                                       private.list, private.count, &public_key, &private_key);
        return rv == CKR_OK ? 0 : tk_p11_fail(use, rv, "generate an RSA key");
}

/* "AES" or "RSA", and the bits. */
static int check_spec(struct tk_p11_use *use, const struct tk_kms_key_spec *given, bool *ret_rsa,
                      unsigned *ret_bits)
{
        bool has_aes = tk_p11_aes_usage(use) != TK_P11_NO_AES &&
                       tk_p11_has_mechanism(use, CKM_AES_KEY_GEN, CKF_GENERATE);
        bool rsa = strcasecmp(given->type, "RSA") == 0;

        if (use->verdict != TK_P11_GOOD)
                return tk_p11_errno(use->verdict);
        if (given->type[0] && !rsa && strcasecmp(given->type, "AES") != 0)
                return tk_fault_set(&use->job->fault, TK_FAULT_USAGE, -EINVAL,
                                    "a root key in a token is of type AES or RSA, not %s",
                                    given->type);
        if (given->not_before || given->expires)
                return tk_fault_set(&use->job->fault, TK_FAULT_USAGE, -EINVAL,
                                    "dates of a key in a token are set with the token's own tools");
        *ret_rsa = given->type[0] ? rsa : !has_aes;
        if (!*ret_rsa && !has_aes)
                return tk_fault_set(&use->job->fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                                    "this token makes no AES keys that could wrap others; take "
                                    "--type RSA");
        *ret_bits = given->bits ? given->bits : *ret_rsa ? DEFAULT_RSA_BITS : 8 * TK_KEY_LEN;
        if (!*ret_rsa && *ret_bits != 8 * TK_KEY_LEN)
                return tk_fault_set(&use->job->fault, TK_FAULT_USAGE, -EINVAL,
                                    "an AES root key has 256 bits");
        if (*ret_rsa && *ret_bits != 2048 && *ret_bits != 3072 && *ret_bits != 4096)
                return tk_fault_set(&use->job->fault, TK_FAULT_USAGE, -EINVAL,
                                    "an RSA root key has 2048, 3072 or 4096 bits");
        return 0;
}

int tk_p11_make(struct tk_p11_use *use, const struct tk_kms_key_spec *spec,
                const struct tk_p11_versions *versions)
{
        struct identity identity;
        unsigned bits = 0;
        bool rsa = false;
        int r;

        r = check_spec(use, spec, &rsa, &bits);
        if (r == 0)
                r = identify(versions, &identity);
        if (r == 0)
                r = rsa ? generate_rsa(use, bits, &identity) : generate_aes(use, &identity);
        if (r == 0)
                say_version(use, &identity);
        return r;
}

/* Importing --------------------------------------------------------------- */

int tk_p11_check_import(const struct tk_secret *key, struct tk_fault *fault)
{
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        int r;

        if (tk_secret_len(key) == TK_KEY_LEN)
                return 0;
        r = tk_rsa_new_private(key, NULL, &rsa);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "what is to be imported is neither an RSA private key of 2048, "
                                    "3072 or 4096 bits in PEM form, nor 32 bytes for an AES key");
        if (r == -EKEYREJECTED)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "the private key is encrypted; decrypt it first, by: openssl "
                                    "pkey -in KEY.pem");
        return r;
}

static int import_aes(struct tk_p11_use *use, const struct tk_secret *key,
                      struct identity *identity)
{
        enum tk_p11_usage usage = tk_p11_aes_usage(use);
        struct template template = {0};
        CK_OBJECT_CLASS class = CKO_SECRET_KEY;
        CK_KEY_TYPE type = CKK_AES;
        CK_OBJECT_HANDLE object;
        CK_RV rv;

        if (use->verdict != TK_P11_GOOD)
                return tk_p11_errno(use->verdict);
        add(&template, CKA_CLASS, &class, sizeof(class));
        add(&template, CKA_KEY_TYPE, &type, sizeof(type));
        add_identity(&template, use->p11, identity);
        add_protection(&template);
        add_aes_usage(&template, usage);
        add(&template, CKA_VALUE, (void *)(uintptr_t)tk_secret_bytes(key), tk_secret_len(key));
        use->changed = true;
        rv = use->f->C_CreateObject(use->session, template.list, template.count, &object);
        return rv == CKR_OK ? 0 : tk_p11_fail(use, rv, "take an AES key");
}

static const struct {
        CK_ATTRIBUTE_TYPE type;
        enum tk_rsa_part part;
} parts[] = {
        {CKA_MODULUS, TK_RSA_N},          {CKA_PUBLIC_EXPONENT, TK_RSA_E},
        {CKA_PRIVATE_EXPONENT, TK_RSA_D}, {CKA_PRIME_1, TK_RSA_P},
        {CKA_PRIME_2, TK_RSA_Q},          {CKA_EXPONENT_1, TK_RSA_DP},
        {CKA_EXPONENT_2, TK_RSA_DQ},      {CKA_COEFFICIENT, TK_RSA_QI},
};

enum { PART_COUNT = sizeof(parts) / sizeof(parts[0]), PUBLIC_PARTS = 2 };

struct numbers {
        struct tk_secret *list[PART_COUNT];
};

static void numbers_done(struct numbers *numbers)
{
        for (int i = 0; i < PART_COUNT; i++)
                tk_secret_free(numbers->list[i]);
}

static void add_numbers(struct template *template, const struct numbers *numbers, int count)
{
        for (int i = 0; i < count; i++)
                add(template, parts[i].type, tk_secret_bytes_mutable(numbers->list[i]),
                    tk_secret_len(numbers->list[i]));
}

static CK_RV create_half(struct tk_p11_use *use, const struct numbers *numbers, bool private,
                         struct identity *identity)
{
        struct template template = {0};
        CK_OBJECT_CLASS class = private ? CKO_PRIVATE_KEY : CKO_PUBLIC_KEY;
        CK_KEY_TYPE type = CKK_RSA;
        CK_OBJECT_HANDLE object;

        add(&template, CKA_CLASS, &class, sizeof(class));
        add(&template, CKA_KEY_TYPE, &type, sizeof(type));
        add_identity(&template, use->p11, identity);
        add_bool(&template, private ? CKA_DECRYPT : CKA_ENCRYPT, true);
        if (private)
                add_protection(&template);
        add_numbers(&template, numbers, private ? PART_COUNT : PUBLIC_PARTS);
        use->changed = true;
        return use->f->C_CreateObject(use->session, template.list, template.count, &object);
}

static int import_rsa(struct tk_p11_use *use, const struct tk_secret *key,
                      struct identity *identity)
{
        TK_CLEANUP(numbers_done) struct numbers numbers = {0};
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        CK_RV rv;
        int r;

        r = tk_rsa_new_private(key, NULL, &rsa);
        for (int i = 0; r == 0 && i < PART_COUNT; i++)
                r = tk_rsa_part(rsa, parts[i].part, &numbers.list[i]);
        if (r < 0)
                return r;
        rv = create_half(use, &numbers, true, identity);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "take an RSA key");
        /* For other tools; we do without it. */
        (void)create_half(use, &numbers, false, identity);
        return 0;
}

int tk_p11_import(struct tk_p11_use *use, const struct tk_secret *key,
                  const struct tk_p11_versions *versions)
{
        struct identity identity;
        int r = identify(versions, &identity);

        if (r < 0)
                return r;
        r = tk_secret_len(key) == TK_KEY_LEN ? import_aes(use, key, &identity)
                                             : import_rsa(use, key, &identity);
        if (r == 0)
                say_version(use, &identity);
        return r;
}
