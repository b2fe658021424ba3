/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a challenge, and as an answer of a token service. */

#include "kms/azure_auth.h"
#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void try_challenge(const char *header)
{
        struct tk_azure_challenge challenge;
        char path[128];

        if (tk_azure_auth_parse_challenge(header, &challenge) == 0) {
                require(!challenge.tenant[0] || tk_azure_is_label(challenge.tenant));
                require(!challenge.resource[0] || tk_azure_is_origin(challenge.resource));
        }
        if (tk_azure_auth_parse_arc_challenge(header, path, sizeof(path)) == 0) {
                require(strncmp(path, "/var/opt/azcmagent/tokens/", 26) == 0);
                require(!strchr(path + 26, '/') && path[26] != '.');
        }
}

static void check_grant(int r, const struct tk_secret *token, int64_t lifetime)
{
        require(r == 0 || r == -EBADMSG);
        require((r == 0) == (token != NULL));
        if (r < 0)
                return;
        require(lifetime > 0 && lifetime <= 28 * 3600);
        require(strlen(tk_text_of(token)) == tk_text_len(token) && tk_text_len(token) > 0);
        require(!strpbrk(tk_text_of(token), "\r\n \t:"));
}

static void try_tokens(const char *text, size_t len)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *token = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *cli = NULL;
        struct tk_azure_auth_error error;
        int64_t lifetime = 0;

        check_grant(tk_azure_auth_parse_token(text, len, 1700000000, &token, &lifetime), token,
                    lifetime);
        check_grant(tk_azure_auth_parse_cli(text, len, 1700000000, &cli, &lifetime), cli, lifetime);
        tk_azure_auth_parse_error(text, len, &error);
        for (const char *at = error.description; *at; at++)
                require(*at >= ' ' && *at <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        TK_CLEANUP(tk_freep) char *text = malloc(len + 1);

        require(text);
        if (len > 0)
                memcpy(text, bytes, len);
        text[len] = '\0';
        try_challenge(text);
        try_tokens(text, len);
        require(tk_secret_alive() == 0);
        return 0;
}
