/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as an answer of Key Vault: refused without a trace, or it holds what it claims. */

#include "kms/azure_msg_admin.h"
#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void try_key(const char *text, size_t len)
{
        struct tk_azure_key key;
        int r = tk_azure_msg_parse_key(text, len, &key);

        require(r == 0 || r == -EBADMSG);
        if (r < 0)
                return;
        require(key.id.host[0] && key.id.name[0] && key.id.version[0]);
        require(key.n_len <= sizeof(key.n) && key.e_len <= sizeof(key.e));
        require((key.n_len == 0) == (key.e_len == 0));
        require(key.attributes.expires >= -1 && key.attributes.not_before >= -1);
        (void)tk_azure_msg_purge_protected(&key.attributes);
        if (key.n_len > 0) {
                struct tk_rsa *rsa = NULL;

                if (tk_rsa_new_public(key.n, key.n_len, key.e, key.e_len, &rsa) == 0)
                        require(tk_rsa_len(rsa) >= 256 && tk_rsa_len(rsa) <= TK_RSA_BYTES_MAX);
                tk_rsa_free(rsa);
        }
}

static void try_crypto(const char *text, size_t len)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *value = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_azure_id id;
        int r = tk_azure_msg_parse_crypto(text, len, &id, &value);

        require(r == 0 || r == -EBADMSG);
        require((r == 0) == (value != NULL));
        if (r < 0)
                return;
        require(tk_secret_len(value) > 0 && id.version[0]);
        require(tk_azure_msg_build_crypto("RSA-OAEP-256", tk_secret_bytes(value),
                                          tk_secret_len(value), &body) == 0);
}

static void try_error(const char *text, size_t len)
{
        struct tk_azure_error error;

        tk_azure_msg_parse_error(text, len, &error);
        for (const char *at = error.message; *at; at++)
                require(*at >= ' ' && *at <= '~');
        require(tk_azure_msg_judge(200, &error) == TK_AZURE_GOOD);
        require(tk_azure_msg_judge(403, &error) != TK_AZURE_GOOD);
        require(tk_azure_msg_judge(500, &error) == TK_AZURE_BUSY);
}

static void try_page(const char *text, size_t len)
{
        struct tk_azure_page page = {.items = NULL};
        int r = tk_azure_msg_parse_page(text, len, &page);

        require(r == 0 || r == -EBADMSG);
        require((r == 0) == (page.items != NULL));
        for (size_t i = 0; i < page.count; i++)
                require(page.items[i].id.version[0]);
        tk_azure_page_done(&page);
}

static void try_policy(const char *text, size_t len)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_kms_rotation_policy policy;
        int r = tk_azure_msg_parse_policy(text, len, &policy);

        require(r == 0 || r == -EBADMSG);
        if (r == 0 && tk_azure_msg_build_policy(&policy, &body) == 0)
                require(tk_azure_msg_parse_policy(tk_text_of(body), tk_text_len(body), &policy) ==
                        0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        const char *text = (const char *)bytes;

        try_key(text, len);
        try_crypto(text, len);
        try_error(text, len);
        try_page(text, len);
        try_policy(text, len);
        require(tk_secret_alive() == 0);
        return 0;
}
