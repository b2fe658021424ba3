/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The text of a local keystore.
 *
 * Only this program writes keystores, so the parser takes nothing it does not
 * know: each entry of each section exactly once. The format number comes first
 * and is looked at first; a newer release may change all the rest.
 */

#include "kms/keystore.h"

#include "base/bytes.h"
#include "base/ini.h"
#include "crypto/mac.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Entries seen, one bit each, in the order of the field tables below. */
enum {
        SEEN_FORMAT = 1,
        SEEN_HEAD_PLAIN = 0x07,
        SEEN_HEAD_PASSPHRASE = 0x7f,
        SEEN_VERSION = 0x07,
        SEEN_CHECKSUM = 0x01,
};

struct parse {
        struct tk_keystore *keystore;
        unsigned head_seen;
        unsigned version_seen; /* of the last version */
        unsigned checksum_seen;
        uint8_t checksum[TK_MAC_LEN];
        uint64_t format;
        const char *why; /* what -EBADMSG stands for */
};

struct field {
        const char *name;
        int (*set)(struct parse *parse, const char *value);
};

static const char checksum_line[] = "[checksum]\n";

struct tk_keystore *tk_keystore_free(struct tk_keystore *keystore)
{
        if (!keystore)
                return NULL;
        for (size_t i = 0; i < keystore->version_count; i++) {
                tk_secret_free(keystore->versions[i].stored);
                tk_secret_free(keystore->versions[i].key);
        }
        free(keystore->versions);
        free(keystore);
        return NULL;
}

int tk_keystore_consume_version(struct tk_keystore *keystore,
                                const struct tk_keystore_version *version)
{
        struct tk_keystore_version *versions;
        size_t count = keystore->version_count;

        assert(count == 0 || keystore->versions[count - 1].number < version->number);
        versions = reallocarray(keystore->versions, count + 1, sizeof(*versions));
        if (!versions) {
                tk_secret_free(version->stored);
                tk_secret_free(version->key);
                return -ENOMEM;
        }
        versions[count] = *version;
        keystore->versions = versions;
        keystore->version_count++;
        return 0;
}

const struct tk_keystore_version *tk_keystore_find(const struct tk_keystore *keystore,
                                                   uint32_t number)
{
        for (size_t i = 0; i < keystore->version_count; i++)
                if (keystore->versions[i].number == number)
                        return &keystore->versions[i];
        return NULL;
}

int tk_keystore_number(const char *text, uint64_t max, uint64_t *ret_number)
{
        uint64_t number = 0;

        if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
                return -EINVAL;
        for (const char *at = text; *at; at++) {
                uint64_t digit = (uint64_t)*at - '0';

                if (*at < '0' || *at > '9' || number > (max - digit) / 10)
                        return -EINVAL;
                number = number * 10 + digit;
        }
        *ret_number = number;
        return 0;
}

static int bad(struct parse *parse, const char *why)
{
        parse->why = why;
        return -EBADMSG;
}

static int set_format(struct parse *parse, const char *value)
{
        if (tk_keystore_number(value, UINT32_MAX, &parse->format) < 0 || parse->format == 0)
                return bad(parse, "the format is not a number");
        return parse->format == TK_KEYSTORE_FORMAT ? 0 : -ENOTSUP;
}

static int set_id(struct parse *parse, const char *value)
{
        if (tk_hex_decode(value, parse->keystore->id, TK_KEYSTORE_ID_LEN) < 0)
                return bad(parse, "the id is not 32 hexadecimal digits");
        return 0;
}

static int set_protection(struct parse *parse, const char *value)
{
        parse->keystore->protected = strcmp(value, "passphrase") == 0;
        if (!parse->keystore->protected && strcmp(value, "none") != 0)
                return bad(parse, "the protection is neither none nor passphrase");
        return 0;
}

static int set_scrypt_n(struct parse *parse, const char *value)
{
        if (tk_keystore_number(value, UINT32_MAX, &parse->keystore->cost.n) < 0)
                return bad(parse, "scrypt_n is not a number in range");
        return 0;
}

static int set_scrypt_r(struct parse *parse, const char *value)
{
        uint64_t number;

        if (tk_keystore_number(value, UINT32_MAX, &number) < 0)
                return bad(parse, "scrypt_r is not a number in range");
        parse->keystore->cost.r = (uint32_t)number;
        return 0;
}

static int set_scrypt_p(struct parse *parse, const char *value)
{
        uint64_t number;

        if (tk_keystore_number(value, UINT32_MAX, &number) < 0)
                return bad(parse, "scrypt_p is not a number in range");
        parse->keystore->cost.p = (uint32_t)number;
        return 0;
}

static int set_salt(struct parse *parse, const char *value)
{
        size_t len;

        if (tk_base64url_decode(value, parse->keystore->salt, TK_KEYSTORE_SALT_LEN, &len) < 0 ||
            len != TK_KEYSTORE_SALT_LEN)
                return bad(parse, "the salt is not 16 bytes in base64url");
        return 0;
}

static struct tk_keystore_version *last_version(struct parse *parse)
{
        return &parse->keystore->versions[parse->keystore->version_count - 1];
}

static int set_created(struct parse *parse, const char *value)
{
        if (tk_keystore_number(value, INT64_MAX, &last_version(parse)->created) < 0)
                return bad(parse, "the time of creation is not a number");
        return 0;
}

static int set_state(struct parse *parse, const char *value)
{
        last_version(parse)->enabled = strcmp(value, "enabled") == 0;
        if (!last_version(parse)->enabled && strcmp(value, "disabled") != 0)
                return bad(parse, "the state is neither enabled nor disabled");
        return 0;
}

/* Decoded straight into locked memory; its length is checked once the protection is known. */
static int set_key(struct parse *parse, const char *value)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *stored = NULL;
        size_t len;
        int r;

        r = tk_secret_new(TK_KEYSTORE_SEALED_LEN, &stored);
        if (r < 0)
                return r;
        if (tk_base64url_decode(value, tk_secret_bytes_mutable(stored), TK_KEYSTORE_SEALED_LEN,
                                &len) < 0)
                return bad(parse, "the key is not base64url of the right length");
        tk_secret_truncate(stored, len);
        last_version(parse)->stored = TK_TAKE(stored);
        return 0;
}

static int set_sha256(struct parse *parse, const char *value)
{
        if (tk_hex_decode(value, parse->checksum, TK_MAC_LEN) < 0)
                return bad(parse, "the checksum is not 64 hexadecimal digits");
        return 0;
}

static const struct field head_fields[] = {
        {"format", set_format},
        {"id", set_id},
        {"protection", set_protection},
        {"scrypt_n", set_scrypt_n},
        {"scrypt_r", set_scrypt_r},
        {"scrypt_p", set_scrypt_p},
        {"salt", set_salt},
        {NULL, NULL},
};

static const struct field version_fields[] = {
        {"created", set_created},
        {"state", set_state},
        {"key", set_key},
        {NULL, NULL},
};

static const struct field checksum_fields[] = {{"sha256", set_sha256}, {NULL, NULL}};

/* Hand @entry to its field, once. */
static int set_field(struct parse *parse, const struct field *fields, unsigned *seen,
                     const struct tk_ini_entry *entry)
{
        for (unsigned i = 0; fields[i].name; i++) {
                if (strcmp(entry->name, fields[i].name) != 0)
                        continue;
                if (*seen & 1U << i)
                        return bad(parse, "the entry is there twice");
                *seen |= 1U << i;
                return fields[i].set(parse, entry->value);
        }
        return bad(parse, "the entry is not known");
}

/* Whether the sections read so far have all their entries. */
static int check_complete(struct parse *parse)
{
        unsigned wanted = parse->keystore->protected ? SEEN_HEAD_PASSPHRASE : SEEN_HEAD_PLAIN;

        if (parse->head_seen != wanted)
                return bad(parse,
                           "entries of [keystore] are missing, or go with another protection");
        if (parse->keystore->version_count > 0 && parse->version_seen != SEEN_VERSION)
                return bad(parse, "a [version] lacks an entry");
        return 0;
}

/* Go to version @number, a new one if it is not the last. */
static int enter_version(struct parse *parse, uint32_t number)
{
        size_t count = parse->keystore->version_count;
        int r;

        if (count > 0 && last_version(parse)->number == number)
                return 0;
        r = check_complete(parse);
        if (r < 0)
                return r;
        if (count > 0 && last_version(parse)->number > number)
                return bad(parse, "the versions are not in ascending order");
        parse->version_seen = 0;
        return tk_keystore_consume_version(parse->keystore,
                                           &(struct tk_keystore_version){.number = number});
}

static int on_version_entry(struct parse *parse, const struct tk_ini_entry *entry)
{
        uint64_t number;
        int r;

        if (tk_keystore_number(entry->section + strlen("version "), UINT32_MAX, &number) < 0 ||
            number == 0)
                return bad(parse, "the version has no number");
        r = enter_version(parse, (uint32_t)number);
        if (r < 0)
                return r;
        return set_field(parse, version_fields, &parse->version_seen, entry);
}

static int on_entry(void *context, const struct tk_ini_entry *entry)
{
        struct parse *parse = context;

        if (parse->checksum_seen)
                return bad(parse, "something follows the checksum");
        if (strcmp(entry->section, "keystore") == 0) {
                if (parse->head_seen == 0 && strcmp(entry->name, "format") != 0)
                        return bad(parse, "it does not begin with a format number");
                if (parse->keystore->version_count > 0)
                        return bad(parse, "the sections are out of order");
                return set_field(parse, head_fields, &parse->head_seen, entry);
        }
        if (!(parse->head_seen & SEEN_FORMAT))
                return bad(parse, "it does not begin with a format number");
        if (strncmp(entry->section, "version ", strlen("version ")) == 0)
                return on_version_entry(parse, entry);
        if (strcmp(entry->section, "checksum") == 0)
                return set_field(parse, checksum_fields, &parse->checksum_seen, entry);
        return bad(parse, "the section is not known");
}

/* Bytes of @text before its last checksum line. */
static int find_checksum(struct parse *parse, const char *text, size_t *ret_len)
{
        const char *found = NULL;

        for (const char *at = text; (at = strstr(at, checksum_line)); at++)
                if (at > text && at[-1] == '\n')
                        found = at;
        if (!found || parse->checksum_seen != SEEN_CHECKSUM)
                return bad(parse, "its end with the checksum is missing");
        *ret_len = (size_t)(found - text);
        return 0;
}

static int check_checksum(struct parse *parse, const char *text)
{
        uint8_t digest[TK_MAC_LEN];
        size_t len;
        int r;

        r = find_checksum(parse, text, &len);
        if (r < 0)
                return r;
        r = tk_mac_sha256(text, len, digest);
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(digest, parse->checksum, sizeof(digest)))
                return bad(parse,
                           "its checksum does not match: it was changed after it was written");
        return 0;
}

static int check_versions(struct parse *parse)
{
        struct tk_keystore *keystore = parse->keystore;
        size_t wanted = keystore->protected ? TK_KEYSTORE_SEALED_LEN : TK_KEY_LEN;

        if (keystore->version_count == 0)
                return bad(parse, "it holds no version of the root key");
        for (size_t i = 0; i < keystore->version_count; i++)
                if (tk_secret_len(keystore->versions[i].stored) != wanted)
                        return bad(parse, "a key has the wrong length");
        return 0;
}

/*
 * inih keeps the line it works on in its stack frame: overwrite what the parse
 * left below this one.
 */
__attribute__((noinline)) static void scrub_stack(void)
{
        uint8_t stack[4096];

        tk_wipe(stack, sizeof(stack));
}

/* @ret_line stays 0 for what no line stands for. */
static int parse_text(struct parse *parse, const char *text, int *ret_line)
{
        int r;

        r = tk_ini_parse(text, on_entry, parse, ret_line);
        scrub_stack();
        if (r == -EINVAL || r == -EMSGSIZE)
                return bad(parse, "the line is no INI text");
        if (r < 0)
                return r;
        r = check_complete(parse);
        if (r < 0)
                return r;
        r = check_checksum(parse, text);
        if (r < 0)
                return r;
        return check_versions(parse);
}

static int say_damaged(const char *path, const char *why, int line, struct tk_fault *fault)
{
        char place[32] = "";

        if (line > 0)
                snprintf(place, sizeof(place), "line %d: ", line);
        return tk_fault_set(fault, TK_FAULT_KEYSTORE_DAMAGED, -EBADMSG,
                            "the keystore %s is damaged: %s%s; restore it from a backup, the "
                            "volumes that it protects can't be opened without it",
                            path, place, why);
}

int tk_keystore_parse(const char *text, size_t len, const char *path,
                      struct tk_keystore **ret_keystore, struct tk_fault *fault)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
        struct parse parse = {0};
        int line = 0;
        int r;

        if (len == 0)
                return say_damaged(path, "it is empty", 0, fault);
        if (strlen(text) != len)
                return say_damaged(path, "it holds bytes that are no text", 0, fault);
        keystore = calloc(1, sizeof(*keystore));
        if (!keystore)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -ENOMEM,
                                    "can't read the keystore %s: out of memory", path);
        parse.keystore = keystore;
        r = parse_text(&parse, text, &line);
        if (r == -ENOTSUP)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, r,
                                    "the keystore %s has format %" PRIu64 ", this release reads "
                                    "format %d; use the release that wrote it, or a newer one",
                                    path, parse.format, TK_KEYSTORE_FORMAT);
        if (r == -EBADMSG)
                return say_damaged(path, parse.why, line, fault);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "can't read the keystore %s: %s",
                                    path,
                                    r == -EPERM ? "the memory for its keys can't be locked; raise "
                                                  "the limit of locked memory (ulimit -l)"
                                                : strerror(-r));
        *ret_keystore = TK_TAKE(keystore);
        return 0;
}

/* Text under construction, in locked memory. */
struct out {
        char *at;
        size_t room; /* with the NUL */
};

TK_PRINTF(2, 3) static void put(struct out *out, const char *fmt, ...)
{
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(out->at, out->room, fmt, ap);
        va_end(ap);
        assert(n >= 0 && (size_t)n < out->room);
        out->at += n;
        out->room -= (size_t)n;
}

/* Encoded in place, so that no other buffer sees a key. */
static void put_base64url(struct out *out, const char *name, const uint8_t *bytes, size_t len)
{
        put(out, "%s = ", name);
        assert(tk_base64url_len(len) < out->room);
        tk_base64url_encode(bytes, len, out->at);
        out->at += tk_base64url_len(len);
        out->room -= tk_base64url_len(len);
        put(out, "\n");
}

static void put_head(struct out *out, const struct tk_keystore *keystore)
{
        char id[2 * TK_KEYSTORE_ID_LEN + 1];

        tk_hex_encode(keystore->id, TK_KEYSTORE_ID_LEN, id);
        put(out, "[keystore]\nformat = %d\nid = %s\n", TK_KEYSTORE_FORMAT, id);
        put(out, "protection = %s\n", keystore->protected ? "passphrase" : "none");
        if (!keystore->protected)
                return;
        put(out, "scrypt_n = %" PRIu64 "\nscrypt_r = %" PRIu32 "\nscrypt_p = %" PRIu32 "\n",
            keystore->cost.n, keystore->cost.r, keystore->cost.p);
        put_base64url(out, "salt", keystore->salt, TK_KEYSTORE_SALT_LEN);
}

static void put_version(struct out *out, const struct tk_keystore_version *version)
{
        put(out, "[version %" PRIu32 "]\ncreated = %" PRIu64 "\nstate = %s\n", version->number,
            version->created, version->enabled ? "enabled" : "disabled");
        put_base64url(out, "key", tk_secret_bytes(version->stored), tk_secret_len(version->stored));
}

int tk_keystore_format(const struct tk_keystore *keystore, struct tk_secret **ret_text)
{
        enum { HEAD_MAX = 320, VERSION_MAX = 200, CHECKSUM_MAX = 96 };
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        size_t room = HEAD_MAX + keystore->version_count * VERSION_MAX + CHECKSUM_MAX;
        char digits[2 * TK_MAC_LEN + 1];
        uint8_t digest[TK_MAC_LEN];
        struct out out;
        int r;

        r = tk_secret_new(room, &text);
        if (r < 0)
                return r;
        out = (struct out){.at = (char *)tk_secret_bytes_mutable(text), .room = room};
        put_head(&out, keystore);
        for (size_t i = 0; i < keystore->version_count; i++)
                put_version(&out, &keystore->versions[i]);

        r = tk_mac_sha256(tk_secret_bytes(text), room - out.room, digest);
        if (r < 0)
                return r;
        tk_hex_encode(digest, sizeof(digest), digits);
        put(&out, "%ssha256 = %s\n", checksum_line, digits);
        tk_secret_truncate(text, room - out.room);
        *ret_text = TK_TAKE(text);
        return 0;
}
