/* SPDX-License-Identifier: Apache-2.0 */

/*
 * PKCS#11 URIs, by p11-kit. Only what names a token and a key is accepted: where the
 * module is and where the PIN comes from are options of their own, so that they can't
 * contradict each other.
 */

#include "kms/pkcs11_uri.h"

#include "base/bytes.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Without its query, which may hold a PIN by mistake. */
static int bad(const char *text, struct tk_fault *fault, const char *why)
{
        return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                            "%.*s is no URI of a root key: %s; it is to be like "
                            "pkcs11:token=TOKEN;object=LABEL (RFC 7512)",
                            (int)strcspn(text, "?"), text, why);
}

static void uri_freep(P11KitUri **uri)
{
        p11_kit_uri_free(*uri);
}

/* What must not stand in it. NULL: nothing does. */
static const char *find_fault(P11KitUri *uri)
{
        const CK_TOKEN_INFO *token = p11_kit_uri_get_token_info(uri);
        const CK_ATTRIBUTE *label = p11_kit_uri_get_attribute(uri, CKA_LABEL);

        if (p11_kit_uri_any_unrecognized(uri))
                return "it holds something unknown";
        if (p11_kit_uri_get_pin_value(uri))
                return "it holds a PIN, which belongs where [pkcs11] pin says";
        if (p11_kit_uri_get_pin_source(uri))
                return "where the PIN comes from is said by [pkcs11] pin";
        if (p11_kit_uri_get_module_path(uri) || p11_kit_uri_get_module_name(uri))
                return "the module is named by [pkcs11] module";
        if (!token->label[0] || p11_kit_space_strlen(token->label, sizeof(token->label)) == 0)
                return "it names no token";
        if (!label || label->ulValueLen == 0)
                return "it names no object";
        if (label->ulValueLen >= TK_P11_LABEL_MAX || memchr(label->pValue, '\0', label->ulValueLen))
                return "the object's label is longer than 95 bytes";
        return NULL;
}

/* The canonical form: token and label, nothing else. */
static int format_key_id(P11KitUri *from, char key_id[TK_KMS_KEY_ID_MAX])
{
        TK_CLEANUP(uri_freep) P11KitUri *uri = p11_kit_uri_new();
        TK_CLEANUP(tk_freep) char *text = NULL;

        if (!uri)
                return -ENOMEM;
        memcpy(p11_kit_uri_get_token_info(uri)->label, p11_kit_uri_get_token_info(from)->label,
               sizeof(p11_kit_uri_get_token_info(uri)->label));
        if (p11_kit_uri_set_attribute(uri, p11_kit_uri_get_attribute(from, CKA_LABEL)) !=
                    P11_KIT_URI_OK ||
            p11_kit_uri_format(uri, P11_KIT_URI_FOR_OBJECT_ON_TOKEN, &text) != P11_KIT_URI_OK)
                return -ENOMEM;
        if (strlen(text) >= TK_KMS_KEY_ID_MAX)
                return -EINVAL;
        snprintf(key_id, TK_KMS_KEY_ID_MAX, "%s", text);
        return 0;
}

static bool take_class(P11KitUri *from, struct tk_p11_uri *uri)
{
        const CK_ATTRIBUTE *attribute = p11_kit_uri_get_attribute(from, CKA_CLASS);
        CK_OBJECT_CLASS class;

        if (!attribute)
                return true;
        if (attribute->ulValueLen != sizeof(class))
                return false;
        memcpy(&class, attribute->pValue, sizeof(class));
        uri->only_secret = class == CKO_SECRET_KEY;
        uri->only_private = class == CKO_PRIVATE_KEY;
        return uri->only_secret || uri->only_private;
}

static bool take_id(P11KitUri *from, struct tk_p11_uri *uri)
{
        const CK_ATTRIBUTE *attribute = p11_kit_uri_get_attribute(from, CKA_ID);

        if (!attribute)
                return true;
        if (attribute->ulValueLen == 0 || attribute->ulValueLen > TK_P11_ID_MAX)
                return false;
        tk_hex_encode(attribute->pValue, attribute->ulValueLen, uri->pinned);
        return true;
}

int tk_p11_uri_parse(const char *text, struct tk_p11_uri *ret_uri, struct tk_fault *fault)
{
        const CK_ATTRIBUTE *label;
        const char *why;
        int r;

        *ret_uri = (struct tk_p11_uri){.token = p11_kit_uri_new()};
        if (!ret_uri->token)
                return -ENOMEM;
        r = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, ret_uri->token);
        if (r != P11_KIT_URI_OK)
                return bad(text, fault, p11_kit_uri_message(r));
        why = find_fault(ret_uri->token);
        if (!why && !take_class(ret_uri->token, ret_uri))
                why = "its type is neither secret-key nor private";
        if (!why && !take_id(ret_uri->token, ret_uri))
                why = "its id has not 1 to 31 bytes";
        if (why)
                return bad(text, fault, why);
        label = p11_kit_uri_get_attribute(ret_uri->token, CKA_LABEL);
        memcpy(ret_uri->label, label->pValue, label->ulValueLen);
        r = format_key_id(ret_uri->token, ret_uri->key_id);
        return r == -EINVAL ? bad(text, fault, "token and label together are too long") : r;
}

void tk_p11_uri_done(struct tk_p11_uri *uri)
{
        p11_kit_uri_free(uri->token);
        uri->token = NULL;
}

bool tk_p11_uri_same_key(const struct tk_p11_uri *uri, const char *key_id)
{
        struct tk_p11_uri other;
        bool same = tk_p11_uri_parse(key_id, &other, NULL) == 0 &&
                    strcmp(other.key_id, uri->key_id) == 0;

        tk_p11_uri_done(&other);
        return same;
}
