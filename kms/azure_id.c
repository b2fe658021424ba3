/* SPDX-License-Identifier: Apache-2.0 */

/* Names in Azure: key identifiers, hosts, clouds. */

#include "kms/azure_id.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char scheme[] = "https://";
static const char digits[] = "0123456789";
static const char letters_and_digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

static const struct tk_azure_cloud clouds[] = {
        {".vault.azure.net", "https://vault.azure.net", "login.microsoftonline.com", false},
        {".managedhsm.azure.net", "https://managedhsm.azure.net", "login.microsoftonline.com",
         true},
        {".vault.azure.cn", "https://vault.azure.cn", "login.chinacloudapi.cn", false},
        {".managedhsm.azure.cn", "https://managedhsm.azure.cn", "login.chinacloudapi.cn", true},
        {".vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net", "login.microsoftonline.us",
         false},
        {".managedhsm.usgovcloudapi.net", "https://managedhsm.usgovcloudapi.net",
         "login.microsoftonline.us", true},
};

static bool is_host_char(char c)
{
        return c && (strchr(letters_and_digits, c) || c == '-' || c == '.');
}

/* HOST or HOST:PORT in the first @len characters; the result in lower case, without port 443. */
static int parse_host(const char *text, size_t len, char ret_host[TK_AZURE_HOST_MAX])
{
        size_t host_len = 0;
        size_t port_len;
        unsigned long port;

        while (host_len < len && is_host_char(text[host_len]))
                host_len++;
        if (host_len == 0 || len >= TK_AZURE_HOST_MAX || text[0] == '.' || text[0] == '-' ||
            text[host_len - 1] == '.')
                return -EINVAL;
        for (size_t i = 0; i < len; i++)
                ret_host[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]);
        ret_host[len] = '\0';
        if (strstr(ret_host, ".."))
                return -EINVAL;
        if (host_len == len)
                return 0;

        port_len = len - host_len - 1;
        if (text[host_len] != ':' || port_len == 0 || port_len > 5 ||
            strspn(text + host_len + 1, digits) < port_len || text[host_len + 1] == '0')
                return -EINVAL;
        port = strtoul(ret_host + host_len + 1, NULL, 10);
        if (port > 65535)
                return -EINVAL;
        if (port == 443)
                ret_host[host_len] = '\0';
        return 0;
}

/* The next part of a path, of characters in @alphabet: what is left of the text behind it. */
static const char *take_part(const char *text, const char *alphabet, char *part, size_t max)
{
        size_t len = strspn(text, alphabet);

        if (len == 0 || len >= max || (text[len] != '\0' && text[len] != '/'))
                return NULL;
        memcpy(part, text, len);
        part[len] = '\0';
        return text + len;
}

static int parse(const char *text, const char *collection, struct tk_azure_id *ret_id)
{
        static const char name_chars[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";
        struct tk_azure_id id = {0};
        size_t host_len;
        size_t collection_len = strlen(collection);

        if (strncasecmp(text, scheme, strlen(scheme)) != 0)
                return -EINVAL;
        text += strlen(scheme);
        host_len = strcspn(text, "/");
        if (parse_host(text, host_len, id.host) < 0)
                return -EINVAL;
        text += host_len;
        if (strncasecmp(text, collection, collection_len) != 0)
                return -EINVAL;
        text = take_part(text + collection_len, name_chars, id.name, sizeof(id.name));
        if (text && *text == '/')
                text = take_part(text + 1, letters_and_digits, id.version, sizeof(id.version));
        if (!text || *text)
                return -EINVAL;
        *ret_id = id;
        return 0;
}

int tk_azure_id_parse(const char *text, struct tk_azure_id *ret_id)
{
        return parse(text, "/keys/", ret_id);
}

int tk_azure_id_parse_deleted(const char *text, struct tk_azure_id *ret_id)
{
        return parse(text, "/deletedkeys/", ret_id);
}

void tk_azure_id_base(const struct tk_azure_id *id, char ret_text[TK_AZURE_URL_MAX])
{
        snprintf(ret_text, TK_AZURE_URL_MAX, "%s%s/keys/%s", scheme, id->host, id->name);
}

bool tk_azure_id_same_key(const struct tk_azure_id *a, const struct tk_azure_id *b)
{
        return strcasecmp(a->host, b->host) == 0 && strcasecmp(a->name, b->name) == 0;
}

bool tk_azure_same_version(const char *a, const char *b)
{
        return strcasecmp(a, b) == 0;
}

void tk_azure_vault_name(const char *host, char ret_name[TK_AZURE_HOST_MAX])
{
        size_t len = strcspn(host, ".:");

        assert(len < TK_AZURE_HOST_MAX);
        memcpy(ret_name, host, len);
        ret_name[len] = '\0';
}

bool tk_azure_url_is_on(const char *url, const char *host)
{
        char found[TK_AZURE_HOST_MAX];

        if (strncasecmp(url, scheme, strlen(scheme)) != 0)
                return false;
        url += strlen(scheme);
        return parse_host(url, strcspn(url, "/?#"), found) == 0 && strcasecmp(found, host) == 0;
}

bool tk_azure_is_version(const char *text)
{
        size_t len = strnlen(text, TK_KMS_VERSION_MAX);

        return len > 0 && len < TK_KMS_VERSION_MAX && strspn(text, letters_and_digits) == len;
}

bool tk_azure_is_label(const char *text)
{
        size_t len = strnlen(text, TK_AZURE_TENANT_MAX);

        if (len == 0 || len >= TK_AZURE_TENANT_MAX || text[0] == '.')
                return false;
        for (size_t i = 0; i < len; i++)
                if (!is_host_char(text[i]))
                        return false;
        return true;
}

/* @host without its port ends in @suffix and has something before it. */
static bool ends_in(const char *host, size_t host_len, const char *suffix, size_t suffix_len)
{
        return host_len > suffix_len &&
               strncasecmp(host + host_len - suffix_len, suffix, suffix_len) == 0;
}

const struct tk_azure_cloud *tk_azure_cloud_of(const char *host)
{
        size_t len = strcspn(host, ":");

        for (size_t i = 0; i < sizeof(clouds) / sizeof(clouds[0]); i++)
                if (ends_in(host, len, clouds[i].suffix, strlen(clouds[i].suffix)))
                        return &clouds[i];
        return NULL;
}

/* The host of an origin, with its port; -EINVAL if @text is none. */
static int origin_host(const char *text, char ret_host[TK_AZURE_HOST_MAX])
{
        size_t len;

        if (strncasecmp(text, scheme, strlen(scheme)) != 0)
                return -EINVAL;
        text += strlen(scheme);
        len = strcspn(text, "/");
        if (text[len] == '/' && text[len + 1] != '\0')
                return -EINVAL;
        return parse_host(text, len, ret_host);
}

bool tk_azure_is_origin(const char *text)
{
        char host[TK_AZURE_HOST_MAX];

        return origin_host(text, host) == 0;
}

bool tk_azure_audience_fits(const char *audience, const char *host)
{
        char parent[TK_AZURE_HOST_MAX + 1] = ".";
        size_t len = strcspn(host, ":");

        if (origin_host(audience, parent + 1) < 0)
                return false;
        parent[strcspn(parent, ":")] = '\0';
        /* A top-level name alone, such as "net", is nobody's domain. */
        return strchr(parent + 1, '.') && ends_in(host, len, parent, strlen(parent));
}
