/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as an attribute's stored name or sealed value, or as a stored symlink target:
 * only what was sealed under the key opens, and a name has one stored form.
 *
 * The first byte of the input chooses; the rest is tried as it is, or changes a good one.
 */

#include "base/bytes.h"
#include "fs/target.h"
#include "fs/userattr.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { VALUE_LEN = 20, SEALED_LEN = VALUE_LEN + TK_SEALED_OVERHEAD };

static const char name[] = "user.mime_type";
static const char target[] = "../somewhere/else";

static struct {
        struct tk_secret *key;
        struct tk_userattr *attr;
        char stored[TK_USERATTR_STORED_MAX + 1];
        char stored_target[TK_TARGET_STORED_MAX + 1];
        uint8_t value[VALUE_LEN];
        uint8_t sealed[SEALED_LEN];
} good;

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void make_good(void)
{
        if (good.key)
                return;
        require(tk_secret_new(TK_KEY_LEN, &good.key) == 0);
        require(tk_userattr_new(good.key, &good.attr) == 0);
        memset(good.value, 'v', sizeof(good.value));
        require(tk_userattr_seal_name(good.attr, name, good.stored) == 0);
        require(tk_userattr_seal_value(good.attr, name, good.value, VALUE_LEN, good.sealed) == 0);
        require(tk_target_seal(good.key, target, good.stored_target) == 0);
}

static void try_name(const char *stored)
{
        char found[TK_USERATTR_NAME_MAX + 1];
        char again[TK_USERATTR_STORED_MAX + 1];
        int r = tk_userattr_open_name(good.attr, stored, found);

        require(r == 0 || r == -EBADMSG);
        if (r == 0)
                require(tk_userattr_seal_name(good.attr, found, again) == 0 &&
                        strcmp(again, stored) == 0);
        if (strcmp(stored, good.stored) == 0)
                require(r == 0 && strcmp(found, name) == 0);
}

static void try_value(const char *of, const uint8_t *sealed, size_t len)
{
        size_t value_len = len < TK_SEALED_OVERHEAD ? 0 : len - TK_SEALED_OVERHEAD;
        uint8_t *value = malloc(value_len + 1);
        bool same =
                strcmp(of, name) == 0 && len == SEALED_LEN && memcmp(sealed, good.sealed, len) == 0;
        int r;

        require(value);
        r = tk_userattr_open_value(good.attr, of, sealed, len, value);
        require(r == (same ? 0 : -EBADMSG));
        require(!same || memcmp(value, good.value, VALUE_LEN) == 0);
        free(value);
}

static void try_target(const char *stored, size_t max)
{
        char *found = malloc(max + 1);
        int r;

        require(found);
        r = tk_target_open(good.key, stored, found, max);
        if (strcmp(stored, good.stored_target) == 0 && max > strlen(target))
                require(r == 0 && strcmp(found, target) == 0);
        else
                require(r == -EBADMSG || r == -ENAMETOOLONG);
        free(found);
}

/* The good text with the input over it, which may also make it shorter. */
static void change_text(char *text, const uint8_t *bytes, size_t len)
{
        for (size_t i = 0; i < len && text[i]; i++)
                text[i] = (char)(text[i] ^ bytes[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        uint8_t sealed[SEALED_LEN];
        char text[TK_TARGET_STORED_MAX + 1];
        char *copy;

        make_good();
        if (len < 1)
                return 0;
        copy = strndup((const char *)bytes + 1, len - 1);
        require(copy);
        switch (bytes[0] % 6) {
        case 0:
                try_name(copy);
                break;
        case 1:
                snprintf(text, sizeof(text), "%s", good.stored);
                change_text(text, bytes + 1, len - 1);
                try_name(text);
                break;
        case 2:
                try_value(name, bytes + 1, len - 1);
                break;
        case 3:
                memcpy(sealed, good.sealed, sizeof(sealed));
                for (size_t i = 0; i < sizeof(sealed) && i < len - 1; i++)
                        sealed[i] ^= bytes[i + 1];
                try_value(bytes[0] & 128 ? "user.other" : name, sealed, sizeof(sealed));
                break;
        case 4:
                try_target(copy, TK_TARGET_MAX + 1);
                break;
        default:
                snprintf(text, sizeof(text), "%s", good.stored_target);
                change_text(text, bytes + 1, len - 1);
                try_target(text, bytes[0]);
                break;
        }
        free(copy);
        return 0;
}
