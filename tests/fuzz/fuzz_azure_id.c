/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any text as a key identifier, a host, an audience: what parses is what it says, and comes
 * out of its own text again.
 */

#include "kms/azure_id.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void try_id(const char *text)
{
        struct tk_azure_id id;
        struct tk_azure_id again;
        char base[TK_AZURE_URL_MAX];
        char name[TK_AZURE_HOST_MAX];

        if (tk_azure_id_parse(text, &id) < 0)
                return;
        require(id.host[0] && id.name[0] && strlen(text) < TK_AZURE_URL_MAX);
        require(!strpbrk(id.host, "/@?#\\% ") && !strpbrk(id.name, "/@?#\\%. "));
        require(!id.version[0] || tk_azure_is_version(id.version));
        tk_azure_id_base(&id, base);
        require(tk_azure_id_parse(base, &again) == 0 && tk_azure_id_same_key(&id, &again));
        require(again.version[0] == '\0');
        tk_azure_vault_name(id.host, name);
        require(!strpbrk(name, ".:"));
        /* Tokens of no cloud may go to a host that only looks like one of its vaults. */
        if (tk_azure_cloud_of(id.host))
                require(tk_azure_audience_fits(tk_azure_cloud_of(id.host)->audience, id.host));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        TK_CLEANUP(tk_freep) char *text = malloc(len + 1);

        require(text);
        if (len > 0)
                memcpy(text, bytes, len);
        text[len] = '\0';
        try_id(text);
        if (tk_azure_audience_fits(text, "v.vault.azure.net"))
                require(tk_azure_is_origin(text));
        (void)tk_azure_is_label(text);
        (void)tk_azure_is_version(text);
        return 0;
}
