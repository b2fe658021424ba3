/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The versions of the root key in the token: AES keys and RSA private keys of one label,
 * told apart by CKA_ID.
 *
 * Attributes are read one by one: modules differ in what they do with the rest of a
 * template when they don't know one of it.
 */

#include "base/bytes.h"
#include "kms/pkcs11_internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DAY_S = 24 * 60 * 60, LABEL_ROOM = TK_P11_LABEL_MAX + 16, MODULUS_MAX = 1024 };

/* Attributes ------------------------------------------------------------- */

size_t tk_p11_attribute(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                        void *value, size_t max)
{
        CK_ATTRIBUTE attribute = {type, value, max};
        CK_RV rv = use->f->C_GetAttributeValue(use->session, object, &attribute, 1);

        if (rv != CKR_OK) {
                if (use->verdict == TK_P11_GOOD)
                        use->said = rv;
                if (tk_p11_judge(rv) == TK_P11_LOST || tk_p11_judge(rv) == TK_P11_AWAY ||
                    tk_p11_judge(rv) == TK_P11_GONE)
                        use->verdict = tk_p11_judge(rv);
                return 0;
        }
        return attribute.ulValueLen <= max ? attribute.ulValueLen : 0;
}

/* An absent one is @absent. */
static bool read_bool(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                      bool absent)
{
        CK_BBOOL value = CK_FALSE;

        return tk_p11_attribute(use, object, type, &value, sizeof(value)) == sizeof(value)
                       ? value != CK_FALSE
                       : absent;
}

/* The beginning of that day, in UTC; 0: no date. */
static int64_t read_date(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
        CK_DATE date = {0};
        char text[sizeof(date) + 1] = "";
        struct tm tm = {0};
        int64_t seconds;
        int number;

        if (tk_p11_attribute(use, object, type, &date, sizeof(date)) != sizeof(date))
                return 0;
        memcpy(text, &date, sizeof(date));
        if (strspn(text, "0123456789") != sizeof(date))
                return 0;
        number = (int)strtol(text, NULL, 10);
        tm.tm_year = number / 10000 - 1900;
        tm.tm_mon = number / 100 % 100 - 1;
        tm.tm_mday = number % 100;
        seconds = (int64_t)timegm(&tm);
        return seconds > 0 ? seconds : 0;
}

static unsigned read_bits(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_OBJECT_CLASS class)
{
        uint8_t modulus[MODULUS_MAX] = {0};
        CK_ULONG len = 0;
        size_t size;

        if (class == CKO_SECRET_KEY)
                return tk_p11_attribute(use, object, CKA_VALUE_LEN, &len, sizeof(len)) ==
                                       sizeof(len)
                               ? (unsigned)len * 8
                               : 0;
        size = tk_p11_attribute(use, object, CKA_MODULUS, modulus, sizeof(modulus));
        for (size_t i = 0; i < size; i++)
                if (modulus[i])
                        return (unsigned)(size - i) * 8;
        return 0;
}

/* Whether it says something about the attribute, not about the call. */
static bool is_answer(CK_RV rv)
{
        return rv == CKR_OK || rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ||
               rv == CKR_BUFFER_TOO_SMALL;
}

/* False: it has no CKA_ID that could be a version. */
static bool read_version(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_OBJECT_CLASS class,
                         struct tk_p11_version *version)
{
        bool secret = class == CKO_SECRET_KEY;

        use->said = CKR_OK;
        *version = (struct tk_p11_version){.handle = object, .class = class};
        version->id_len = tk_p11_attribute(use, object, CKA_ID, version->id, sizeof(version->id));
        if (version->id_len == 0) {
                if (use->verdict == TK_P11_GOOD && !is_answer(use->said))
                        (void)!tk_p11_fail(use, use->said, "describe its keys");
                return false;
        }
        version->bits = read_bits(use, object, class);
        version->encrypt = secret && read_bool(use, object, CKA_ENCRYPT, false);
        /* Where the token doesn't say, it shows when it is asked to decrypt. */
        version->decrypt = read_bool(use, object, CKA_DECRYPT, true);
        version->wrap = secret && read_bool(use, object, CKA_WRAP, false);
        version->unwrap = read_bool(use, object, CKA_UNWRAP, false);
        version->sensitive = read_bool(use, object, CKA_SENSITIVE, false);
        version->extractable = read_bool(use, object, CKA_EXTRACTABLE, true);
        version->always_authenticate = read_bool(use, object, CKA_ALWAYS_AUTHENTICATE, false);
        version->start = read_date(use, object, CKA_START_DATE);
        version->end = read_date(use, object, CKA_END_DATE);
        if (version->end)
                version->end += DAY_S; /* the last day counts */
        return true;
}

/* Finding ----------------------------------------------------------------- */

static CK_RV collect(struct tk_p11_use *use, CK_OBJECT_HANDLE *handles, size_t max, size_t *count)
{
        CK_RV rv = CKR_OK;

        *count = 0;
        while (*count < max) {
                CK_ULONG found = 0;

                rv = use->f->C_FindObjects(use->session, handles + *count, max - *count, &found);
                if (rv != CKR_OK || found == 0)
                        break;
                if (found > max - *count)
                        return CKR_GENERAL_ERROR; /* more than it had room for */
                *count += found;
        }
        return rv;
}

int tk_p11_find_objects(struct tk_p11_use *use, CK_OBJECT_CLASS class, const char *suffix,
                        const uint8_t *id, size_t id_len, CK_OBJECT_HANDLE *ret_handles, size_t max,
                        size_t *ret_count)
{
        CK_KEY_TYPE type = class == CKO_SECRET_KEY ? CKK_AES : CKK_RSA;
        CK_BBOOL yes = CK_TRUE;
        char label[LABEL_ROOM];
        CK_ATTRIBUTE template[5] = {
                {CKA_CLASS, &class, sizeof(class)},
                {CKA_KEY_TYPE, &type, sizeof(type)},
                {CKA_TOKEN, &yes, sizeof(yes)},
                {CKA_LABEL, label, 0},
        };
        uint8_t wanted[TK_P11_ID_MAX];
        CK_ULONG count = 4;
        CK_RV rv_end;
        CK_RV rv;

        snprintf(label, sizeof(label), "%s%s", use->p11->uri.label, suffix);
        template[3].ulValueLen = strlen(label);
        if (id) {
                memcpy(wanted, id, id_len);
                template[count++] = (CK_ATTRIBUTE){CKA_ID, wanted, id_len};
        }
        rv = use->f->C_FindObjectsInit(use->session, template, count);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "look for keys");
        rv = collect(use, ret_handles, max, ret_count);
        rv_end = use->f->C_FindObjectsFinal(use->session);
        if (rv == CKR_OK)
                rv = rv_end;
        return rv == CKR_OK ? 0 : tk_p11_fail(use, rv, "look for keys");
}

/*
 * Objects that are private are not seen without a login, and the objects of a token that was
 * pulled out are not, either: what is not found is gone only if both still hold.
 */
static int check_still_there(struct tk_p11_use *use)
{
        CK_SESSION_INFO session;
        CK_TOKEN_INFO info;
        CK_RV rv;

        rv = use->f->C_GetSessionInfo(use->session, &session);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "say what a session may do");
        rv = use->f->C_GetTokenInfo(session.slotID, &info);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "describe its token");
        if (!p11_kit_uri_match_token_info(use->p11->uri.token, &info))
                return tk_p11_fail(use, CKR_TOKEN_NOT_PRESENT, "find its token any more");
        if ((info.flags & CKF_LOGIN_REQUIRED) && session.state != CKS_RO_USER_FUNCTIONS &&
            session.state != CKS_RW_USER_FUNCTIONS)
                return tk_p11_fail(use, CKR_USER_NOT_LOGGED_IN, "see its keys");
        return 0;
}

static bool is_wanted(const struct tk_p11_use *use, CK_OBJECT_CLASS class)
{
        const struct tk_p11_uri *uri = &use->p11->uri;

        return !(class == CKO_SECRET_KEY ? uri->only_private : uri->only_secret);
}

/* The newest may be among those that were not looked at. */
static int say_too_many(struct tk_p11_use *use)
{
        return tk_fault_set(&use->job->fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "the token has more than %d versions of the root key %s; delete those "
                            "that 'turnkeyfs status' says are no longer needed, with the token's "
                            "own tools",
                            TK_P11_VERSIONS_MAX, use->p11->uri.key_id);
}

static int add_found(struct tk_p11_use *use, CK_OBJECT_CLASS class, const char *suffix,
                     struct tk_p11_versions *versions)
{
        CK_OBJECT_HANDLE handles[TK_P11_VERSIONS_MAX + 1];
        size_t count;
        int r;

        if (!is_wanted(use, class))
                return 0;
        r = tk_p11_find_objects(use, class, suffix, NULL, 0, handles, TK_P11_VERSIONS_MAX + 1,
                                &count);
        if (r < 0)
                return r;
        if (versions->count + count > TK_P11_VERSIONS_MAX)
                return say_too_many(use);
        for (size_t i = 0; i < count; i++) {
                struct tk_p11_version *version = &versions->list[versions->count];

                use->verdict = TK_P11_GOOD;
                if (read_version(use, handles[i], class, version)) {
                        version->renamed = suffix[0];
                        versions->count++;
                } else if (use->verdict == TK_P11_GOOD) {
                        versions->unnamed++;
                }
                /* One that went while we looked is not there; anything else ends the look. */
                if (use->verdict != TK_P11_GOOD && use->verdict != TK_P11_GONE)
                        return tk_p11_fail(use, use->said, "describe its keys");
        }
        use->verdict = TK_P11_GOOD;
        return 0;
}

static int compare(const void *a, const void *b)
{
        return tk_p11_compare(a, b);
}

int tk_p11_find_all(struct tk_p11_use *use, struct tk_p11_versions *ret_versions)
{
        struct tk_p11_versions found = {0};
        int r;

        found.list = calloc(TK_P11_VERSIONS_MAX, sizeof(*found.list));
        if (!found.list)
                return -ENOMEM;
        r = add_found(use, CKO_SECRET_KEY, "", &found);
        if (r == 0)
                r = add_found(use, CKO_PRIVATE_KEY, "", &found);
        if (r == 0)
                r = add_found(use, CKO_SECRET_KEY, TK_P11_DISABLED, &found);
        if (r == 0)
                r = add_found(use, CKO_PRIVATE_KEY, TK_P11_DISABLED, &found);
        if (r == 0 && found.count == 0)
                r = check_still_there(use);
        if (r < 0) {
                tk_p11_versions_done(&found);
                return r;
        }
        qsort(found.list, found.count, sizeof(*found.list), compare);
        tk_p11_versions_done(ret_versions);
        *ret_versions = found;
        return 0;
}

void tk_p11_versions_done(struct tk_p11_versions *versions)
{
        free(versions->list);
        *versions = (struct tk_p11_versions){0};
}

static int say_gone(struct tk_p11_use *use, const char *text)
{
        use->verdict = TK_P11_GONE;
        return tk_fault_set(&use->job->fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "the token has no version %s of the root key %s: it was deleted, or "
                            "its label or CKA_ID was changed; its owner brings it back",
                            text, use->p11->uri.key_id);
}

static int say_disabled(struct tk_p11_use *use, const char *text)
{
        use->verdict = TK_P11_REFUSED;
        return tk_fault_set(&use->job->fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "version %s of the root key %s is disabled; its owner enables it by: "
                            "turnkeyfs key enable %s",
                            text, use->p11->uri.key_id, text);
}

/* How many of @class there are with that id; the first one's handle. */
static int look_for(struct tk_p11_use *use, CK_OBJECT_CLASS class, const char *suffix,
                    const uint8_t *id, size_t id_len, struct tk_p11_version *version, size_t *count)
{
        CK_OBJECT_HANDLE handles[2];
        size_t found = 0;
        int r;

        if (!is_wanted(use, class))
                return 0;
        r = tk_p11_find_objects(use, class, suffix, id, id_len, handles, 2, &found);
        if (r < 0)
                return r;
        if (found > 0 && *count == 0) {
                use->verdict = TK_P11_GOOD;
                (void)!read_version(use, handles[0], class, version);
                if (use->verdict != TK_P11_GOOD)
                        return tk_p11_fail(use, use->said, "describe its keys");
                version->renamed = suffix[0];
        }
        *count += found;
        return 0;
}

int tk_p11_find_any(struct tk_p11_use *use, const char *text, struct tk_p11_version *ret_version)
{
        uint8_t id[TK_P11_ID_MAX];
        size_t id_len = strlen(text) / 2;
        size_t count = 0;
        int r;

        if (id_len == 0 || id_len > sizeof(id) || tk_hex_decode(text, id, id_len) < 0)
                return say_gone(use, text);
        r = look_for(use, CKO_SECRET_KEY, "", id, id_len, ret_version, &count);
        if (r == 0)
                r = look_for(use, CKO_PRIVATE_KEY, "", id, id_len, ret_version, &count);
        if (r == 0 && count == 0)
                r = look_for(use, CKO_SECRET_KEY, TK_P11_DISABLED, id, id_len, ret_version, &count);
        if (r == 0 && count == 0)
                r = look_for(use, CKO_PRIVATE_KEY, TK_P11_DISABLED, id, id_len, ret_version,
                             &count);
        if (r == 0 && count == 0)
                r = check_still_there(use);
        if (r < 0)
                return r;
        if (count > 1)
                return tk_fault_set(&use->job->fault, TK_FAULT_CONFIG, -ENOTUNIQ,
                                    "several keys of the token have the label of the root key %s "
                                    "and the id %s: delete or rename all but the right one",
                                    use->p11->uri.key_id, text);
        return count == 0 ? say_gone(use, text) : 0;
}

int tk_p11_find_one(struct tk_p11_use *use, const char *text, struct tk_p11_version *ret_version)
{
        int r = tk_p11_find_any(use, text, ret_version);

        return r < 0 || tk_p11_is_enabled(ret_version) ? r : say_disabled(use, text);
}

/* Judging ---------------------------------------------------------------- */

void tk_p11_version_text(const struct tk_p11_version *version, char text[TK_KMS_VERSION_MAX])
{
        tk_hex_encode(version->id, version->id_len, text);
}

bool tk_p11_is_enabled(const struct tk_p11_version *version)
{
        return !version->renamed && (version->decrypt || version->unwrap);
}

bool tk_p11_is_within_dates(const struct tk_p11_version *version, int64_t now)
{
        return version->start <= now && (version->end == 0 || now < version->end);
}

int tk_p11_compare(const struct tk_p11_version *a, const struct tk_p11_version *b)
{
        size_t len = a->id_len < b->id_len ? a->id_len : b->id_len;
        int order;

        if (a->start != b->start)
                return a->start < b->start ? -1 : 1;
        order = memcmp(a->id, b->id, len); /* not secret */
        if (order == 0 && a->id_len != b->id_len)
                order = a->id_len < b->id_len ? -1 : 1;
        return order;
}

const struct tk_p11_version *tk_p11_newest(const struct tk_p11_versions *versions, int64_t now)
{
        for (size_t i = versions->count; i > 0; i--)
                if (tk_p11_is_enabled(&versions->list[i - 1]) &&
                    tk_p11_is_within_dates(&versions->list[i - 1], now))
                        return &versions->list[i - 1];
        return NULL;
}
