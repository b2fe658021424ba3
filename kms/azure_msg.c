/* SPDX-License-Identifier: Apache-2.0 */

/* Messages of Key Vault and Managed HSM: keys and what they wrap. */

#include "kms/azure_msg.h"

#include "base/bytes.h"
#include "kms/azure_json.h"
#include "kms/azure_msg_internal.h"
#include <errno.h>
#include <string.h>
#include <strings.h>

enum { VALUE_TEXT_MAX = 4096, DATE_MAX_BITS = 40 };

static const struct {
        const char *name;
        enum tk_azure_key_op op;
} key_ops[] = {
        {"encrypt", TK_AZURE_OP_ENCRYPT}, {"decrypt", TK_AZURE_OP_DECRYPT},
        {"sign", TK_AZURE_OP_SIGN},       {"verify", TK_AZURE_OP_VERIFY},
        {"wrapKey", TK_AZURE_OP_WRAP},    {"unwrapKey", TK_AZURE_OP_UNWRAP},
        {"import", TK_AZURE_OP_IMPORT},   {"export", TK_AZURE_OP_EXPORT},
};

/* A date stays -1 if it is absent; 40 bits reach beyond the year 30000. */
static int parse_date(const json_t *object, const char *name, int64_t *ret_date)
{
        int64_t date = -1;
        int r = tk_azure_json_number(object, name, &date);

        if (r < 0 || (r == 0 && (date < 0 || date >> DATE_MAX_BITS != 0)))
                return -EBADMSG;
        *ret_date = date;
        return 0;
}

int tk_azure_msg_take_attributes(const json_t *object, struct tk_azure_attributes *ret)
{
        struct tk_azure_attributes attributes = {.recoverable_days = -1};
        const json_t *from;

        /* Without them nobody can say that the key is enabled. */
        if (tk_azure_json_object(object, "attributes", &from) != 0 ||
            tk_azure_json_bool(from, "enabled", &attributes.enabled) != 0)
                return -EBADMSG;
        if (parse_date(from, "nbf", &attributes.not_before) < 0 ||
            parse_date(from, "exp", &attributes.expires) < 0 ||
            parse_date(from, "created", &attributes.created) < 0 ||
            parse_date(from, "updated", &attributes.updated) < 0)
                return -EBADMSG;
        if (tk_azure_json_number(from, "recoverableDays", &attributes.recoverable_days) < 0 ||
            tk_azure_json_copy(from, "recoveryLevel", attributes.recovery_level,
                               sizeof(attributes.recovery_level)) < 0 ||
            tk_azure_json_copy(from, "hsmPlatform", attributes.hsm_platform,
                               sizeof(attributes.hsm_platform)) < 0)
                return -EBADMSG;
        *ret = attributes;
        return 0;
}

/* Operations that this release does not know are passed over. */
static int parse_ops(const json_t *key, unsigned *ret_ops)
{
        const json_t *array;
        int r = tk_azure_json_array(key, "key_ops", &array);
        unsigned ops = 0;

        if (r != 0)
                return r < 0 ? r : 0;
        for (size_t i = 0; i < json_array_size(array); i++) {
                const char *name = json_string_value(json_array_get(array, i));

                if (!name)
                        return -EBADMSG;
                for (size_t j = 0; j < sizeof(key_ops) / sizeof(key_ops[0]); j++)
                        if (strcasecmp(name, key_ops[j].name) == 0)
                                ops |= key_ops[j].op;
        }
        *ret_ops = ops;
        return 0;
}

/* A big number in base64url; absent is 0 bytes. */
static int parse_number(const json_t *key, const char *name, uint8_t *bytes, size_t max,
                        size_t *ret_len)
{
        const char *text;
        int r = tk_azure_json_string(key, name, &text);

        if (r != 0)
                return r < 0 ? r : 0;
        return tk_base64url_decode(text, bytes, max, ret_len) < 0 ? -EBADMSG : 0;
}

int tk_azure_msg_take_kid(const json_t *object, bool want_version, struct tk_azure_id *ret_id)
{
        struct tk_azure_id id;
        const char *text;

        if (tk_azure_json_string(object, "kid", &text) != 0 || tk_azure_id_parse(text, &id) < 0 ||
            (want_version && !id.version[0]))
                return -EBADMSG;
        *ret_id = id;
        return 0;
}

int tk_azure_msg_take_key(const json_t *root, struct tk_azure_key *ret_key)
{
        const json_t *jwk;
        bool rsa;

        if (tk_azure_json_object(root, "key", &jwk) != 0 ||
            tk_azure_msg_take_kid(jwk, true, &ret_key->id) < 0 ||
            tk_azure_json_copy(jwk, "kty", ret_key->type, sizeof(ret_key->type)) != 0 ||
            tk_azure_msg_take_attributes(root, &ret_key->attributes) < 0 ||
            parse_ops(jwk, &ret_key->ops) < 0)
                return -EBADMSG;
        rsa = strcasecmp(ret_key->type, "RSA") == 0 || strcasecmp(ret_key->type, "RSA-HSM") == 0;
        if (!rsa)
                return 0;
        if (parse_number(jwk, "n", ret_key->n, sizeof(ret_key->n), &ret_key->n_len) < 0 ||
            parse_number(jwk, "e", ret_key->e, sizeof(ret_key->e), &ret_key->e_len) < 0 ||
            (ret_key->n_len == 0) != (ret_key->e_len == 0))
                return -EBADMSG;
        return 0;
}

int tk_azure_msg_parse_key(const char *text, size_t len, struct tk_azure_key *ret_key)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        struct tk_azure_key key = {0};
        int r;

        r = tk_azure_json_parse(text, len, &root);
        if (r == 0)
                r = tk_azure_msg_take_key(root, &key);
        if (r == 0)
                *ret_key = key;
        return r;
}

const char *tk_azure_msg_algorithm(const char *type)
{
        if (strcasecmp(type, "RSA") == 0 || strcasecmp(type, "RSA-HSM") == 0)
                return TK_AZURE_RSA_OAEP_256;
        if (strcasecmp(type, "oct-HSM") == 0)
                return TK_AZURE_A256KW;
        return NULL;
}

bool tk_azure_msg_purge_protected(const struct tk_azure_attributes *attributes)
{
        return attributes->recovery_level[0] &&
               !strcasestr(attributes->recovery_level, "Purgeable");
}

int tk_azure_msg_build_crypto(const char *algorithm, const void *value, size_t len,
                              struct tk_secret **ret_body)
{
        struct tk_text text = {0};

        tk_text_add(&text, "{\"alg\":");
        tk_text_add_json(&text, algorithm);
        tk_text_add(&text, ",\"value\":\"");
        tk_text_add_base64url(&text, value, len);
        tk_text_add(&text, "\"}");
        return tk_text_take(&text, ret_body);
}

/* The bytes of the member "value", which may be a key. */
static int take_value(const json_t *root, struct tk_secret **ret_value)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *value = NULL;
        const char *text;
        size_t len;
        int r;

        if (tk_azure_json_string(root, "value", &text) != 0)
                return -EBADMSG;
        len = strlen(text);
        if (len == 0 || len > VALUE_TEXT_MAX)
                return -EBADMSG;
        r = tk_secret_new(len, &value);
        if (r < 0)
                return r;
        if (tk_base64url_decode(text, tk_secret_bytes_mutable(value), len, &len) < 0 || len == 0)
                return -EBADMSG;
        tk_secret_truncate(value, len);
        *ret_value = TK_TAKE(value);
        return 0;
}

int tk_azure_msg_parse_crypto(const char *text, size_t len, struct tk_azure_id *ret_id,
                              struct tk_secret **ret_value)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        struct tk_azure_id id;
        int r;

        r = tk_azure_json_parse(text, len, &root);
        if (r < 0)
                return r;
        r = tk_azure_msg_take_kid(root, true, &id);
        if (r < 0)
                return r;
        r = take_value(root, ret_value);
        if (r == 0)
                *ret_id = id;
        return r;
}
