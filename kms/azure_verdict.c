/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What an answer of the vault means: by HTTP status, then by the codes in the body,
 * never by the message.
 */

#include "kms/azure_json.h"
#include "kms/azure_msg.h"
#include <string.h>
#include <strings.h>

/* The codes of a 403. */
static const struct {
        const char *code;
        enum tk_azure_verdict verdict;
} refusals[] = {
        {"KeyDisabled", TK_AZURE_KEY_DISABLED},
        {"KeyOperationForbidden", TK_AZURE_KEY_FORBIDS},
        {"KeyExpired", TK_AZURE_KEY_EXPIRED},
        {"KeyNotYetValid", TK_AZURE_KEY_EXPIRED},
        {"ForbiddenByRbac", TK_AZURE_DENIED_ROLE},
        {"ForbiddenByPolicy", TK_AZURE_DENIED_POLICY},
        {"AccessDenied", TK_AZURE_DENIED_POLICY},
        {"ForbiddenByFirewall", TK_AZURE_FIREWALL},
        {"ForbiddenByConnection", TK_AZURE_PRIVATE_ONLY},
        {"ForbiddenByPurgeProtection", TK_AZURE_PURGE_PROTECTED},
        {"KeyNotFound", TK_AZURE_KEY_GONE},
};

static enum tk_azure_verdict refusal_of(const char *code)
{
        for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
                if (strcasecmp(code, refusals[i].code) == 0)
                        return refusals[i].verdict;
        return TK_AZURE_DENIED;
}

void tk_azure_msg_parse_error(const char *text, size_t len, struct tk_azure_error *ret_error)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        const json_t *error;
        const json_t *inner;

        *ret_error = (struct tk_azure_error){0};
        if (tk_azure_json_parse(text, len, &root) < 0 ||
            tk_azure_json_object(root, "error", &error) != 0)
                return;
        tk_azure_json_printable(error, "code", ret_error->code, sizeof(ret_error->code));
        tk_azure_json_printable(error, "message", ret_error->message, sizeof(ret_error->message));

        for (inner = error; tk_azure_json_object(inner, "innererror", &inner) == 0;) {
                char code[sizeof(ret_error->inner)] = "";

                tk_azure_json_printable(inner, "code", code, sizeof(code));
                if (!ret_error->inner[0] || refusal_of(code) != TK_AZURE_DENIED)
                        memcpy(ret_error->inner, code, sizeof(code));
                if (refusal_of(code) != TK_AZURE_DENIED)
                        return;
        }
}

enum tk_azure_verdict tk_azure_msg_judge(int status, const struct tk_azure_error *error)
{
        switch (status) {
        case 200:
        case 204:
                return TK_AZURE_GOOD;
        case 400:
                return TK_AZURE_BAD_REQUEST;
        case 401:
                return TK_AZURE_NOT_ACCEPTED;
        case 403:
                return refusal_of(error->inner[0] ? error->inner : error->code);
        case 404:
                return TK_AZURE_KEY_GONE;
        case 409:
                return TK_AZURE_CONFLICT;
        case 408:
        case 429:
                return TK_AZURE_BUSY;
        default:
                return status >= 500 && status <= 599 ? TK_AZURE_BUSY : TK_AZURE_STRANGE;
        }
}
