/* SPDX-License-Identifier: Apache-2.0 */

/* Messages of Entra ID and of the managed identity services. */

#include "kms/azure_auth.h"

#include "base/bytes.h"
#include "kms/azure_json.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
        TOKEN_MAX = 32 * 1024,
        LIFETIME_MAX_S = 28 * 3600, /* the longest that Entra ID gives */
        ASSERTION_LIFETIME_S = 600,
        VALUE_MAX = 4096,
};

static const char arc_directory[] = "/var/opt/azcmagent/tokens/";

/* Challenges */

/* The next name="value" behind @text; NULL at the end or for what is none. */
static const char *next_pair(const char *text, char *name, size_t name_max, char *value,
                             size_t value_max)
{
        size_t len;

        text += strspn(text, " \t,");
        len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-");
        if (len == 0 || len >= name_max || text[len] != '=' || text[len + 1] != '"')
                return NULL;
        memcpy(name, text, len);
        name[len] = '\0';
        text += len + 2;
        len = strcspn(text, "\"");
        if (text[len] != '"' || len >= value_max)
                return NULL;
        memcpy(value, text, len);
        value[len] = '\0';
        return text + len + 1;
}

/* The tenant is the first part of the authority's path. The host is never used. */
static void take_tenant(const char *authority, struct tk_azure_challenge *challenge)
{
        const char *path =
                strncasecmp(authority, "https://", 8) == 0 ? strchr(authority + 8, '/') : NULL;
        char tenant[TK_AZURE_TENANT_MAX];
        size_t len;

        if (!path)
                return;
        len = strcspn(path + 1, "/");
        if (len >= sizeof(tenant))
                return;
        memcpy(tenant, path + 1, len);
        tenant[len] = '\0';
        if (tk_azure_is_label(tenant))
                memcpy(challenge->tenant, tenant, len + 1);
}

static void take_resource(const char *value, struct tk_azure_challenge *challenge)
{
        static const char suffix[] = "/.default";
        size_t len = strlen(value);
        size_t suffix_len = sizeof(suffix) - 1;
        char origin[sizeof(challenge->resource)];

        if (len > suffix_len && strcmp(value + len - suffix_len, suffix) == 0)
                len -= suffix_len;
        if (len >= sizeof(origin))
                return;
        memcpy(origin, value, len);
        origin[len] = '\0';
        if (!tk_azure_is_origin(origin))
                return;
        if (origin[len - 1] == '/')
                origin[len - 1] = '\0';
        memcpy(challenge->resource, origin, sizeof(origin));
}

/* base64 of either alphabet, with or without padding, of a JSON object. */
static void take_claims(const char *value, struct tk_azure_challenge *challenge)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        char text[VALUE_MAX];
        uint8_t bytes[sizeof(challenge->claims)];
        size_t len = strcspn(value, "=");

        memcpy(text, value, len);
        text[len] = '\0';
        for (char *at = text; *at; at++)
                *at = (char)(*at == '+' ? '-' : *at == '/' ? '_' : *at);
        if (tk_base64url_decode(text, bytes, sizeof(bytes) - 1, &len) < 0 ||
            tk_azure_json_parse((const char *)bytes, len, &root) < 0)
                return;
        memcpy(challenge->claims, bytes, len);
        challenge->claims[len] = '\0';
}

int tk_azure_auth_parse_challenge(const char *header, struct tk_azure_challenge *ret_challenge)
{
        char name[32];
        char value[VALUE_MAX];
        const char *at = header + strspn(header, " ");

        if (strncasecmp(at, "Bearer ", 7) != 0)
                return -EBADMSG;
        memset(ret_challenge, 0, sizeof(*ret_challenge));
        at += 7;
        while ((at = next_pair(at, name, sizeof(name), value, sizeof(value)))) {
                if (strcasecmp(name, "authorization") == 0 ||
                    strcasecmp(name, "authorization_uri") == 0 ||
                    strcasecmp(name, "authorization_url") == 0)
                        take_tenant(value, ret_challenge);
                else if (strcasecmp(name, "resource") == 0 || strcasecmp(name, "scope") == 0)
                        take_resource(value, ret_challenge);
                else if (strcasecmp(name, "error") == 0)
                        ret_challenge->wants_claims = strcmp(value, "insufficient_claims") == 0;
                else if (strcasecmp(name, "claims") == 0)
                        take_claims(value, ret_challenge);
        }
        return 0;
}

int tk_azure_auth_parse_arc_challenge(const char *header, char *ret_path, size_t max)
{
        static const char prefix[] = "Basic realm=";
        size_t directory_len = sizeof(arc_directory) - 1;
        const char *path = header + sizeof(prefix) - 1;
        const char *file;
        size_t len;

        if (strncasecmp(header, prefix, sizeof(prefix) - 1) != 0)
                return -EBADMSG;
        if (*path == '"')
                path++;
        len = strcspn(path, "\"");
        if (len >= max || len < directory_len + 5 ||
            strncmp(path, arc_directory, directory_len) != 0 ||
            strncmp(path + len - 4, ".key", 4) != 0)
                return -EBADMSG;
        file = path + directory_len;
        if (*file == '.' || memchr(file, '/', len - directory_len))
                return -EBADMSG;
        memcpy(ret_path, path, len);
        ret_path[len] = '\0';
        return 0;
}

/* Tokens */

/* A token that may stand in a header (RFC 6750). */
static int take_token(const json_t *root, const char *name, struct tk_secret **ret_token)
{
        static const char alphabet[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=";
        const char *token;
        size_t len;

        if (tk_azure_json_string(root, name, &token) != 0)
                return -EBADMSG;
        len = strlen(token);
        if (len == 0 || len > TOKEN_MAX || strspn(token, alphabet) != len)
                return -EBADMSG;
        return tk_secret_dup_bytes(token, len + 1, ret_token);
}

static int bound_lifetime(int64_t lifetime, int64_t *ret_lifetime_s)
{
        if (lifetime <= 0)
                return -EBADMSG;
        *ret_lifetime_s = lifetime < LIFETIME_MAX_S ? lifetime : LIFETIME_MAX_S;
        return 0;
}

/* From expires_in, which does not depend on our clock; expires_on if there is nothing else. */
static int take_lifetime(const json_t *root, int64_t unix_now, int64_t *ret_lifetime_s)
{
        int64_t lifetime = 0;
        int64_t expires_on = 0;
        int r = tk_azure_json_digits(root, "expires_in", &lifetime);

        if (r == 1) {
                r = tk_azure_json_digits(root, "expires_on", &expires_on);
                lifetime = expires_on - unix_now;
        }
        return r == 0 ? bound_lifetime(lifetime, ret_lifetime_s) : -EBADMSG;
}

static bool is_bearer(const json_t *root, const char *name)
{
        const char *type;
        int r = tk_azure_json_string(root, name, &type);

        return r == 1 || (r == 0 && strcasecmp(type, "Bearer") == 0);
}

int tk_azure_auth_parse_token(const char *text, size_t len, int64_t unix_now,
                              struct tk_secret **ret_token, int64_t *ret_lifetime_s)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        int64_t lifetime;
        int r;

        r = tk_azure_json_parse(text, len, &root);
        if (r < 0)
                return r;
        if (!is_bearer(root, "token_type") || take_lifetime(root, unix_now, &lifetime) < 0)
                return -EBADMSG;
        r = take_token(root, "access_token", ret_token);
        if (r == 0)
                *ret_lifetime_s = lifetime;
        return r;
}

int tk_azure_auth_parse_cli(const char *text, size_t len, int64_t unix_now,
                            struct tk_secret **ret_token, int64_t *ret_lifetime_s)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        int64_t expires_on;
        int64_t lifetime;
        int r;

        r = tk_azure_json_parse(text, len, &root);
        if (r < 0)
                return r;
        if (!is_bearer(root, "tokenType") ||
            tk_azure_json_digits(root, "expires_on", &expires_on) != 0 ||
            bound_lifetime(expires_on - unix_now, &lifetime) < 0)
                return -EBADMSG;
        r = take_token(root, "accessToken", ret_token);
        if (r == 0)
                *ret_lifetime_s = lifetime;
        return r;
}

void tk_azure_auth_parse_error(const char *text, size_t len, struct tk_azure_auth_error *ret_error)
{
        TK_CLEANUP(tk_azure_json_freep) json_t *root = NULL;
        const json_t *codes;

        *ret_error = (struct tk_azure_auth_error){0};
        if (tk_azure_json_parse(text, len, &root) < 0)
                return;
        tk_azure_json_printable(root, "error", ret_error->error, sizeof(ret_error->error));
        tk_azure_json_printable(root, "error_description", ret_error->description,
                                sizeof(ret_error->description));
        tk_azure_json_printable(root, "trace_id", ret_error->trace_id, sizeof(ret_error->trace_id));
        if (tk_azure_json_array(root, "error_codes", &codes) == 0)
                ret_error->number = json_integer_value(json_array_get(codes, 0));
        if (ret_error->number == 0 && strncmp(ret_error->description, "AADSTS", 6) == 0)
                ret_error->number = strtol(ret_error->description + 6, NULL, 10);
}

int tk_azure_auth_build_form(const struct tk_azure_token_form *form, struct tk_secret **ret_body)
{
        static const char type[] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        struct tk_text text = {0};
        char scope[TK_AZURE_URL_MAX];
        size_t audience_len = strlen(form->audience);

        while (audience_len > 0 && form->audience[audience_len - 1] == '/')
                audience_len--;
        snprintf(scope, sizeof(scope), "%.*s/.default", (int)audience_len, form->audience);
        tk_text_add_field(&text, "client_id", form->client_id, strlen(form->client_id));
        tk_text_add_field(&text, "scope", scope, strlen(scope));
        tk_text_add(&text, "&grant_type=client_credentials");
        if (form->claims)
                tk_text_add_field(&text, "claims", form->claims, strlen(form->claims));
        if (form->secret) {
                tk_text_add_field(&text, "client_secret", tk_secret_bytes(form->secret),
                                  tk_secret_len(form->secret));
        } else {
                tk_text_add_field(&text, "client_assertion_type", type, sizeof(type) - 1);
                tk_text_add_field(&text, "client_assertion", tk_secret_bytes(form->assertion),
                                  tk_text_len(form->assertion));
        }
        return tk_text_take(&text, ret_body);
}

/* Assertions */

static void format_guid(const uint8_t id[16], char out[37])
{
        uint8_t guid[16];
        char hex[33];

        memcpy(guid, id, sizeof(guid));
        guid[6] = (uint8_t)((guid[6] & 0x0f) | 0x40);
        guid[8] = (uint8_t)((guid[8] & 0x3f) | 0x80);
        tk_hex_encode(guid, sizeof(guid), hex);
        snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

/* {"alg":"PS256",...}: current documentation; with RS256 the older x5t, as older clients send. */
static int build_header(const struct tk_azure_assertion *assertion, struct tk_secret **ret_header)
{
        const struct tk_rsa_certificate *certificate = assertion->certificate;
        struct tk_text text = {0};

        if (assertion->scheme == TK_RSA_PS256) {
                tk_text_add(&text, "{\"alg\":\"PS256\",\"typ\":\"JWT\",\"x5t#S256\":\"");
                tk_text_add_base64url(&text, certificate->sha256, sizeof(certificate->sha256));
        } else {
                tk_text_add(&text, "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"x5t\":\"");
                tk_text_add_base64url(&text, certificate->sha1, sizeof(certificate->sha1));
        }
        tk_text_add(&text, "\"}");
        return tk_text_take(&text, ret_header);
}

static int build_claims(const struct tk_azure_assertion *assertion, struct tk_secret **ret_claims)
{
        struct tk_text text = {0};
        char guid[37];

        format_guid(assertion->id, guid);
        tk_text_add(&text, "{\"aud\":");
        tk_text_add_json(&text, assertion->endpoint);
        tk_text_add(&text, ",\"iss\":");
        tk_text_add_json(&text, assertion->client_id);
        tk_text_add(&text, ",\"sub\":");
        tk_text_add_json(&text, assertion->client_id);
        tk_text_add(&text, ",\"jti\":");
        tk_text_add_json(&text, guid);
        tk_text_add(&text, ",\"nbf\":");
        tk_text_add_number(&text, assertion->now);
        tk_text_add(&text, ",\"iat\":");
        tk_text_add_number(&text, assertion->now);
        tk_text_add(&text, ",\"exp\":");
        tk_text_add_number(&text, assertion->now + ASSERTION_LIFETIME_S);
        tk_text_add(&text, "}");
        return tk_text_take(&text, ret_claims);
}

int tk_azure_auth_build_assertion(const struct tk_azure_assertion *assertion,
                                  struct tk_secret **ret_jwt)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *header = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *claims = NULL;
        struct tk_text text = {0};
        uint8_t signature[TK_RSA_BYTES_MAX];
        size_t signature_len = 0;
        int r;

        r = build_header(assertion, &header);
        if (r == 0)
                r = build_claims(assertion, &claims);
        if (r < 0)
                return r;
        tk_text_add_base64url(&text, tk_secret_bytes(header), tk_text_len(header));
        tk_text_add(&text, ".");
        tk_text_add_base64url(&text, tk_secret_bytes(claims), tk_text_len(claims));
        r = text.error
                    ? text.error
                    : tk_rsa_sign(assertion->key, assertion->scheme, tk_secret_bytes(text.secret),
                                  text.len, signature, &signature_len);
        if (r < 0) {
                tk_text_done(&text);
                return r;
        }
        tk_text_add(&text, ".");
        tk_text_add_base64url(&text, signature, signature_len);
        return tk_text_take(&text, ret_jwt);
}
