/* SPDX-License-Identifier: Apache-2.0 */

/* The versions of the root key: pages of them, the oldest first in the end. */

#include "kms/azure_msg_admin.h"
#include "kms/azure_provider.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
        PAGES_MAX = 100,
        TYPES_MAX = 32, /* versions whose type is asked for, one call each */
};

static const struct tk_azure_operation op_list = {.permission = "list", .manages = true};

struct versions {
        struct tk_kms_key_version *items;
        size_t count;
};

static int64_t date_or_zero(int64_t date)
{
        return date > 0 ? date : 0;
}

static int add_page(const struct tk_azure *azure, const struct tk_azure_page *page,
                    struct versions *versions)
{
        struct tk_kms_key_version *items;

        items = reallocarray(versions->items, versions->count + page->count + 1, sizeof(*items));
        if (!items)
                return -ENOMEM;
        versions->items = items;
        for (size_t i = 0; i < page->count; i++) {
                const struct tk_azure_item *from = &page->items[i];
                struct tk_kms_key_version *to = &items[versions->count];

                if (!tk_azure_id_same_key(&from->id, &azure->client->key))
                        return -EBADMSG;
                *to = (struct tk_kms_key_version){
                        .enabled = from->attributes.enabled,
                        .created = date_or_zero(from->attributes.created),
                        .not_before = date_or_zero(from->attributes.not_before),
                        .expires = date_or_zero(from->attributes.expires),
                };
                memcpy(to->version, from->id.version, sizeof(to->version));
                versions->count++;
        }
        return 0;
}

/* The page at @url, which becomes the next one's; empty behind the last. */
static int read_page(struct tk_azure *azure, char url[TK_HTTP_URL_MAX], struct versions *versions,
                     struct tk_fault *fault)
{
        TK_CLEANUP(tk_http_answer_done) struct tk_http_answer answer = {0};
        TK_CLEANUP(tk_azure_page_done) struct tk_azure_page page = {.count = 0};
        int r;

        r = tk_azure_client_call(
                azure->client,
                &(struct tk_azure_call){.operation = &op_list, .method = TK_HTTP_GET, .url = url},
                &answer, fault);
        if (r < 0)
                return r;
        r = tk_azure_msg_parse_page(tk_text_of(answer.body), tk_text_len(answer.body), &page);
        if (r == 0)
                r = add_page(azure, &page, versions);
        /* The token goes along, so the link has to lead to the vault itself. */
        if (r == 0 && page.next[0] && !tk_azure_url_is_on(page.next, azure->client->key.host))
                r = -EBADMSG;
        if (r == -EBADMSG)
                return tk_azure_client_say_nonsense(azure->client, &answer,
                                                    "it is no list of its versions", fault);
        if (r == 0)
                memcpy(url, page.next, sizeof(page.next));
        return r;
}

static int by_age(const void *a, const void *b)
{
        const struct tk_kms_key_version *x = a;
        const struct tk_kms_key_version *y = b;

        if (x->created != y->created)
                return x->created < y->created ? -1 : 1;
        /* Two of one second: the vault's word on which one is current counts. */
        return x->current - y->current;
}

static void set_type(struct tk_kms_key_version *version, const struct tk_azure_key *key)
{
        if (key->n_len > 0)
                snprintf(version->type, sizeof(version->type), "%s %u", key->type,
                         8 * (unsigned)key->n_len);
        else
                snprintf(version->type, sizeof(version->type), "%s", key->type);
}

/* Types are not in the list: they are asked for, version by version, the newest first. */
static void ask_types(struct tk_azure *azure, struct versions *versions)
{
        for (size_t i = versions->count; i-- > 0 && versions->count - i <= TYPES_MAX;) {
                struct tk_azure_key key;
                struct tk_fault said = {0};

                /* A disabled version may refuse to be read: its type stays unknown. */
                if (tk_azure_read_key(azure, versions->items[i].version, &key, &said) == 0)
                        set_type(&versions->items[i], &key);
        }
}

/* Which one is current: the pinned one, or the one that the vault calls the newest. */
static int mark_current(struct tk_azure *azure, struct versions *versions, struct tk_fault *fault)
{
        const char *current = azure->client->key.version;
        struct tk_fault said = {0};
        struct tk_azure_key key;
        int r;

        if (!current[0]) {
                r = tk_azure_read_key(azure, "", &key, &said);
                if (r == 0)
                        current = key.id.version;
                else if (r != -EKEYREVOKED || versions->count == 0) {
                        tk_fault_describe(fault, said.kind, "%s", said.text);
                        return r;
                }
        }
        for (size_t i = 0; i < versions->count; i++)
                versions->items[i].current =
                        tk_azure_same_version(versions->items[i].version, current);
        return 0;
}

int tk_azure_admin_list(void *impl, struct tk_kms_key_version **ret_versions, size_t *ret_count,
                        struct tk_fault *fault)
{
        struct tk_azure *azure = impl;
        struct versions versions = {0};
        char url[TK_HTTP_URL_MAX];
        int r = 0;

        tk_azure_client_url(azure->client, "keys", "", "versions", url);
        for (size_t pages = 0; r == 0 && url[0] && pages < PAGES_MAX; pages++)
                r = read_page(azure, url, &versions, fault);
        if (r == 0)
                r = mark_current(azure, &versions, fault);
        if (r < 0) {
                free(versions.items);
                return r;
        }
        if (versions.count > 0)
                qsort(versions.items, versions.count, sizeof(*versions.items), by_age);
        ask_types(azure, &versions);
        *ret_versions = versions.items;
        *ret_count = versions.count;
        return 0;
}
