/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The volume file's text.
 *
 * The parser is strict: it reads what the formatter writes and nothing else, so
 * that a text has one meaning. Numbers of KEK versions and protectors are in the
 * section names.
 */

#include "fs/volume_text.h"

#include "base/bytes.h"
#include "base/ini.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BLOB_LINE = 128 };

/* Which keys of the one-off sections were seen. */
enum seen {
        SEEN_FORMAT = 1,
        SEEN_VOLUME = 2,
        SEEN_CREATED = 4,
        SEEN_NAMES = 8,
        SEEN_DEK_WRAP = 16,
        SEEN_LAST = 32,
        SEEN_UNCLEAN = 64,
        SEEN_MAC = 128,
        SEEN_REPLAYED = 256,
        SEEN_ALL = 511,         /* what must be there */
        SEEN_FINGERPRINT = 512, /* with envelopes only */
        SEEN_KEPT = 1024,
};

struct parse {
        struct tk_volume_text *text;
        unsigned seen;
        int format;
        const char *problem;            /* what is wrong with the line, for the fault */
        char blob[TK_KMS_BLOB_MAX * 2]; /* base64url of the wrap read last, which may span lines */
};

bool tk_volume_text_is_shared(const struct tk_volume_text *text)
{
        return text->fingerprint[0] != '\0';
}

static int bad(struct parse *parse, const char *problem)
{
        parse->problem = problem;
        return -EINVAL;
}

static int once(struct parse *parse, enum seen key)
{
        if (parse->seen & key)
                return bad(parse, "a value is given twice");
        parse->seen |= key;
        return 0;
}

/* A decimal number without sign or blanks, from @min to @max. */
static int parse_number(const char *value, int64_t min, int64_t max, int64_t *ret_number)
{
        int64_t number = 0;

        if (*value == '\0' || strlen(value) > 18)
                return -EINVAL;
        for (; *value; value++) {
                if (*value < '0' || *value > '9')
                        return -EINVAL;
                number = number * 10 + (*value - '0');
        }
        if (number < min || number > max)
                return -EINVAL;
        *ret_number = number;
        return 0;
}

/* In its one spelling: lower case. */
static int parse_fingerprint(struct parse *parse, const char *value)
{
        uint8_t bytes[TK_KEY_LEN];
        char canonical[TK_FINGERPRINT_LEN + 1];

        if (tk_hex_decode(value, bytes, sizeof(bytes)) < 0)
                return bad(parse, "fingerprint is not 64 hexadecimal digits");
        tk_hex_encode(bytes, sizeof(bytes), canonical);
        if (strcmp(canonical, value) != 0)
                return bad(parse, "fingerprint is not 64 hexadecimal digits");
        memcpy(parse->text->fingerprint, canonical, sizeof(canonical));
        return once(parse, SEEN_FINGERPRINT);
}

static int parse_head(struct parse *parse, const struct tk_ini_entry *entry)
{
        int64_t number;

        if (strcmp(entry->name, "format") == 0) {
                if (parse_number(entry->value, 1, INT16_MAX, &number) < 0)
                        return bad(parse, "format is not a number");
                if (number != TK_VOLUME_FORMAT && number != TK_VOLUME_FORMAT_SHARED) {
                        parse->problem = "the volume was made by a newer release";
                        return -ENOTSUP;
                }
                parse->format = (int)number;
                return once(parse, SEEN_FORMAT);
        }
        if (strcmp(entry->name, "volume") == 0) {
                if (tk_hex_decode(entry->value, parse->text->id, TK_VOLUME_ID_LEN) < 0)
                        return bad(parse, "volume is not an id of 32 hexadecimal digits");
                return once(parse, SEEN_VOLUME);
        }
        if (strcmp(entry->name, "created") == 0) {
                if (parse_number(entry->value, 0, INT64_MAX, &parse->text->created) < 0)
                        return bad(parse, "created is not a time");
                return once(parse, SEEN_CREATED);
        }
        if (strcmp(entry->name, "fingerprint") == 0)
                return parse_fingerprint(parse, entry->value);
        return bad(parse, "unknown key");
}

static int parse_options(struct parse *parse, const struct tk_ini_entry *entry)
{
        if (strcmp(entry->name, "names") == 0) {
                if (strcmp(entry->value, "encrypted") == 0)
                        parse->text->names = TK_NAMES_ENCRYPTED;
                else if (strcmp(entry->value, "plain") != 0)
                        return bad(parse, "names is neither 'encrypted' nor 'plain'");
                return once(parse, SEEN_NAMES);
        }
        if (strcmp(entry->name, "dek_wrap") == 0) {
                if (strcmp(entry->value, "kms") == 0)
                        parse->text->dek_wrap = TK_DEK_WRAP_KMS;
                else if (strcmp(entry->value, "kek") != 0)
                        return bad(parse, "dek_wrap is neither 'kek' nor 'kms'");
                return once(parse, SEEN_DEK_WRAP);
        }
        return bad(parse, "unknown key");
}

/* The KEK version being read: a new one when its section begins. */
static int kek_of_section(struct parse *parse, const char *section,
                          struct tk_volume_text_kek **ret_kek)
{
        struct tk_volume_text *text = parse->text;
        struct tk_volume_text_kek fresh = {0};
        int64_t version;
        int r;

        if (parse_number(section + strlen("kek "), 1, UINT16_MAX, &version) < 0)
                return bad(parse, "the section's KEK version is not a number");
        if ((size_t)version == text->kek_count + 1) {
                fresh.kek.version = (uint16_t)version;
                fresh.kek.created = -1;
                r = tk_volume_text_add_kek(text, &fresh);
                if (r < 0)
                        return r;
        }
        if ((size_t)version != text->kek_count)
                return bad(parse, "KEK versions are out of order");
        *ret_kek = &text->keks[version - 1];
        return 0;
}

static int parse_kek(struct parse *parse, const struct tk_ini_entry *entry)
{
        struct tk_volume_text_kek *kek;
        int r;

        r = kek_of_section(parse, entry->section, &kek);
        if (r < 0)
                return r;

        if (strcmp(entry->name, "state") == 0) {
                kek->kek.active = strcmp(entry->value, "active") == 0;
                if (!kek->kek.active && strcmp(entry->value, "retired") != 0)
                        return bad(parse, "state is neither 'active' nor 'retired'");
                return 0;
        }
        if (strcmp(entry->name, "created") == 0) {
                if (parse_number(entry->value, 0, INT64_MAX, &kek->kek.created) < 0)
                        return bad(parse, "created is not a time");
                return 0;
        }
        if (strcmp(entry->name, "readmitted") == 0) {
                if (parse_number(entry->value, 1, INT64_MAX, &kek->kek.readmitted) < 0)
                        return bad(parse, "readmitted is not a time");
                return 0;
        }
        if (strcmp(entry->name, "volume_key") == 0) {
                if (tk_base64url_decode(entry->value, kek->volume_key, sizeof(kek->volume_key),
                                        &kek->volume_key_len) < 0 ||
                    kek->volume_key_len != TK_SEALED_KEY_LEN)
                        return bad(parse, "volume_key is not a sealed key");
                return 0;
        }
        return bad(parse, "unknown key");
}

/* Whether a value that is written comes back: not as a comment, nor without its ends. */
static bool is_text(const char *value)
{
        size_t len = strlen(value);

        if (len == 0 || value[0] == ';' || strpbrk(value, "\r\n") ||
            isspace((unsigned char)value[0]) || isspace((unsigned char)value[len - 1]))
                return false;
        for (size_t i = 1; i < len; i++)
                if (value[i] == ';' && isspace((unsigned char)value[i - 1]))
                        return false;
        return true;
}

static int copy_text(struct parse *parse, char *to, size_t max, const char *value)
{
        size_t len = strlen(value);

        if (len >= max || !is_text(value))
                return bad(parse, "a text is empty or too long, or begins with a semicolon");
        memcpy(to, value, len + 1);
        return 0;
}

/* "wrap N.P": KEK version and protector, in their one spelling. */
static int parse_wrap_section(struct parse *parse, const char *section, uint16_t *ret_version,
                              unsigned *ret_protector)
{
        static const char problem[] = "the section does not name a KEK version and a protector";
        const char *numbers = section + strlen("wrap ");
        const char *dot = strchr(numbers, '.');
        char canonical[32];
        char word[8];
        int64_t version;
        int64_t protector;

        if (!dot || (size_t)(dot - numbers) >= sizeof(word))
                return bad(parse, problem);
        memcpy(word, numbers, (size_t)(dot - numbers));
        word[dot - numbers] = '\0';
        if (parse_number(word, 1, UINT16_MAX, &version) < 0 ||
            parse_number(dot + 1, 1, TK_PROTECTORS_MAX, &protector) < 0)
                return bad(parse, problem);
        snprintf(canonical, sizeof(canonical), "wrap %d.%d", (int)version, (int)protector);
        if (strcmp(canonical, section) != 0)
                return bad(parse, problem);
        *ret_version = (uint16_t)version;
        *ret_protector = (unsigned)protector;
        return 0;
}

/* A section that was not there yet. */
static int add_wrap(struct parse *parse, uint16_t version, unsigned protector)
{
        struct tk_volume_text *text = parse->text;
        struct tk_volume_wrap fresh = {.kek_version = version, .protector = protector};

        if (version != text->kek_count)
                return bad(parse, "a wrap stands before its KEK version");
        for (size_t i = 0; i < text->wrap_count; i++)
                if (text->wraps[i].kek_version == version && text->wraps[i].protector == protector)
                        return bad(parse, "a section is given twice");
        parse->blob[0] = '\0';
        return tk_volume_text_add_wrap(text, &fresh);
}

/* The wrap being read: a new one when its section begins. */
static int wrap_of_section(struct parse *parse, const char *section,
                           struct tk_volume_wrap **ret_wrap)
{
        struct tk_volume_text *text = parse->text;
        size_t count = text->wrap_count;
        uint16_t version = 0;
        unsigned protector = 0;
        int r;

        r = parse_wrap_section(parse, section, &version, &protector);
        if (r < 0)
                return r;
        if (count == 0 || text->wraps[count - 1].kek_version != version ||
            text->wraps[count - 1].protector != protector) {
                r = add_wrap(parse, version, protector);
                if (r < 0)
                        return r;
                count++;
        }
        *ret_wrap = &text->wraps[count - 1];
        return 0;
}

/* One line of a blob; it may go on in the next. */
static int parse_blob(struct parse *parse, struct tk_kms_wrap *wrap, const char *value)
{
        size_t have = strlen(parse->blob);
        size_t len = strlen(value);

        if (have + len >= sizeof(parse->blob))
                return bad(parse, "the blob is too long");
        memcpy(parse->blob + have, value, len + 1);
        /* An incomplete text may have a length that no whole one has: the last line counts. */
        if (tk_base64url_decode(parse->blob, wrap->blob, sizeof(wrap->blob), &wrap->blob_len) < 0)
                wrap->blob_len = 0;
        return 0;
}

/* Bytes of a fixed number, not all zero: those are what is not given. */
static int parse_bytes(struct parse *parse, const char *value, uint8_t *bytes, size_t len)
{
        size_t got = 0;

        for (size_t i = 0; i < len; i++)
                if (bytes[i])
                        return bad(parse, "a value is given twice");
        if (tk_base64url_decode(value, bytes, len, &got) < 0 || got != len)
                return bad(parse, "an envelope has the wrong size");
        return 0;
}

static int parse_wrap(struct parse *parse, const struct tk_ini_entry *entry)
{
        struct tk_volume_wrap *wrap;
        int r;

        r = wrap_of_section(parse, entry->section, &wrap);
        if (r < 0)
                return r;

        if (strcmp(entry->name, "provider") == 0)
                return copy_text(parse, wrap->provider, sizeof(wrap->provider), entry->value);
        if (strcmp(entry->name, "key") == 0)
                return copy_text(parse, wrap->wrap.key_id, sizeof(wrap->wrap.key_id), entry->value);
        if (strcmp(entry->name, "version") == 0)
                return copy_text(parse, wrap->wrap.version, sizeof(wrap->wrap.version),
                                 entry->value);
        if (strcmp(entry->name, "algorithm") == 0)
                return copy_text(parse, wrap->wrap.algorithm, sizeof(wrap->wrap.algorithm),
                                 entry->value);
        if (strcmp(entry->name, "blob") == 0)
                return parse_blob(parse, &wrap->wrap, entry->value);
        if (strcmp(entry->name, "public") == 0) {
                wrap->has_envelope = true;
                return parse_bytes(parse, entry->value, wrap->public_half,
                                   sizeof(wrap->public_half));
        }
        if (strcmp(entry->name, "sealed") == 0)
                return parse_bytes(parse, entry->value, wrap->sealed, sizeof(wrap->sealed));
        return bad(parse, "unknown key");
}

static int add_unclean(struct tk_volume_text *text, uint16_t mount)
{
        uint16_t *unclean;

        unclean = reallocarray(text->unclean, text->unclean_count + 1, sizeof(*unclean));
        if (!unclean)
                return -ENOMEM;
        text->unclean = unclean;
        text->unclean[text->unclean_count++] = mount;
        return 0;
}

/* Numbers separated by single blanks; the list may go on in the next line. */
static int parse_unclean(struct parse *parse, const char *value)
{
        char word[8];
        int64_t mount;

        parse->seen |= SEEN_UNCLEAN;
        while (*value) {
                size_t len = strcspn(value, " ");
                int r;

                if (len == 0 || len >= sizeof(word))
                        return bad(parse, "unclean is not a list of mount numbers");
                memcpy(word, value, len);
                word[len] = '\0';
                if (parse_number(word, 1, UINT16_MAX, &mount) < 0)
                        return bad(parse, "unclean is not a list of mount numbers");
                r = add_unclean(parse->text, (uint16_t)mount);
                if (r < 0)
                        return r;
                value += len + (value[len] == ' ');
        }
        return 0;
}

static int parse_mounts(struct parse *parse, const struct tk_ini_entry *entry)
{
        uint8_t kept[8];
        int64_t number;

        if (strcmp(entry->name, "last") == 0) {
                if (parse_number(entry->value, 0, UINT16_MAX, &number) < 0)
                        return bad(parse, "last is not a mount number");
                parse->text->last_mount = (uint16_t)number;
                return once(parse, SEEN_LAST);
        }
        if (strcmp(entry->name, "replayed") == 0) {
                if (parse_number(entry->value, 0, UINT16_MAX, &number) < 0)
                        return bad(parse, "replayed is not a mount number");
                parse->text->replayed_mount = (uint16_t)number;
                return once(parse, SEEN_REPLAYED);
        }
        if (strcmp(entry->name, "unclean") == 0)
                return parse_unclean(parse, entry->value);
        if (strcmp(entry->name, "kept") == 0) {
                if (tk_hex_decode(entry->value, kept, sizeof(kept)) < 0 || tk_get_be64(kept) == 0)
                        return bad(parse, "kept is not the name of kept journal entries");
                parse->text->kept = tk_get_be64(kept);
                return once(parse, SEEN_KEPT);
        }
        return bad(parse, "unknown key");
}

static int parse_mac(struct parse *parse, const struct tk_ini_entry *entry)
{
        if (strcmp(entry->name, "hmac_sha256") != 0)
                return bad(parse, "unknown key");
        if (tk_hex_decode(entry->value, parse->text->mac, TK_MAC_LEN) < 0)
                return bad(parse, "hmac_sha256 is not 64 hexadecimal digits");
        return once(parse, SEEN_MAC);
}

static int parse_entry(void *context, const struct tk_ini_entry *entry)
{
        struct parse *parse = context;

        if (parse->seen & SEEN_MAC)
                return bad(parse, "text stands behind the MAC");
        if (strcmp(entry->section, "turnkeyfs") == 0)
                return parse_head(parse, entry);
        if (strcmp(entry->section, "options") == 0)
                return parse_options(parse, entry);
        if (strncmp(entry->section, "kek ", 4) == 0)
                return parse_kek(parse, entry);
        if (strncmp(entry->section, "wrap ", 5) == 0)
                return parse_wrap(parse, entry);
        if (strcmp(entry->section, "mounts") == 0)
                return parse_mounts(parse, entry);
        if (strcmp(entry->section, "mac") == 0)
                return parse_mac(parse, entry);
        return bad(parse, "unknown section");
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
        while (len > 0 && bytes[len - 1] == 0)
                len--;
        return len == 0;
}

/* With several protectors, each KEK version in use is sealed; older ones may not be. */
static bool envelope_fits(const struct tk_volume_text *text, const struct tk_volume_wrap *wrap)
{
        bool has_public = !is_zero(wrap->public_half, sizeof(wrap->public_half));
        bool has_sealed = !is_zero(wrap->sealed, sizeof(wrap->sealed));

        if (has_public != has_sealed || has_public != wrap->has_envelope)
                return false;
        if (!tk_volume_text_is_shared(text))
                return !wrap->has_envelope;
        return wrap->has_envelope || !text->keks[wrap->kek_version - 1].kek.active;
}

/* What a single line can't show: missing keys, wraps without a blob. */
static const char *find_gap(const struct parse *parse)
{
        const struct tk_volume_text *text = parse->text;

        if ((parse->seen & SEEN_ALL) != SEEN_ALL ||
            tk_volume_text_is_shared(text) != (parse->format == TK_VOLUME_FORMAT_SHARED))
                return "a section or key is missing";
        if (tk_volume_text_is_shared(text) && text->dek_wrap == TK_DEK_WRAP_KMS)
                return "dek_wrap = kms has room for one protector only";
        if (text->kek_count == 0)
                return "there is no KEK version";
        for (size_t i = 0; i < text->kek_count; i++)
                if ((text->keks[i].volume_key_len == 0) != (text->dek_wrap == TK_DEK_WRAP_KMS) ||
                    text->keks[i].kek.created < 0)
                        return "a KEK version is incomplete";
        for (size_t i = 0; i < text->wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &text->wraps[i];

                if (!wrap->provider[0] || !wrap->wrap.key_id[0] || !wrap->wrap.version[0] ||
                    !wrap->wrap.algorithm[0] || wrap->wrap.blob_len == 0)
                        return "a wrapped KEK is incomplete";
                if (!envelope_fits(text, wrap))
                        return "an envelope is missing, incomplete or out of place";
        }
        return NULL;
}

static size_t find_signed_len(const char *text)
{
        const char *at = strstr(text, "\n[mac]\n");

        return at ? (size_t)(at + 1 - text) : 0;
}

/*
 * The MAC does not cover its own section: that is to be, byte for byte, what the
 * formatter writes. Otherwise a change of it could go unseen.
 */
static bool ends_with_mac(const struct tk_volume_text *text, const char *mac_section)
{
        TK_CLEANUP(tk_freep) char *expected = NULL;

        return tk_volume_text_append_mac("", text->mac, &expected) == 0 &&
               strcmp(mac_section, expected) == 0;
}

int tk_volume_text_parse(const char *text, const char *path, struct tk_volume_text *ret_text,
                         struct tk_fault *fault)
{
        struct parse parse = {.text = ret_text};
        int line = 0;
        int r;

        memset(ret_text, 0, sizeof(*ret_text));
        r = tk_ini_parse(text, parse_entry, &parse, &line);
        if (r == -ENOTSUP)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, r,
                                    "%s:%d: %s; use a newer turnkeyfs", path, line, parse.problem);
        if (r == -ENOMEM)
                return r;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EINVAL,
                                    "%s:%d: the volume file is damaged: %s; restore it from a "
                                    "backup",
                                    path, line, parse.problem ? parse.problem : "not an INI line");

        parse.problem = find_gap(&parse);
        ret_text->signed_len = find_signed_len(text);
        if (!parse.problem && ret_text->signed_len == 0)
                parse.problem = "there is no [mac] section";
        if (!parse.problem && !ends_with_mac(ret_text, text + ret_text->signed_len))
                parse.problem = "its [mac] section was changed";
        if (parse.problem)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EINVAL,
                                    "%s: the volume file is damaged: %s; restore it from a backup",
                                    path, parse.problem);
        return 0;
}

int tk_volume_text_add_kek(struct tk_volume_text *text, const struct tk_volume_text_kek *kek)
{
        struct tk_volume_text_kek *keks;

        keks = reallocarray(text->keks, text->kek_count + 1, sizeof(*keks));
        if (!keks)
                return -ENOMEM;
        text->keks = keks;
        text->keks[text->kek_count++] = *kek;
        return 0;
}

int tk_volume_text_add_wrap(struct tk_volume_text *text, const struct tk_volume_wrap *wrap)
{
        struct tk_volume_wrap *wraps;

        wraps = reallocarray(text->wraps, text->wrap_count + 1, sizeof(*wraps));
        if (!wraps)
                return -ENOMEM;
        text->wraps = wraps;
        text->wraps[text->wrap_count++] = *wrap;
        return 0;
}

static void write_blob(FILE *out, const uint8_t *blob, size_t blob_len)
{
        char text[TK_KMS_BLOB_MAX * 2];
        size_t len;

        tk_base64url_encode(blob, blob_len, text);
        len = strlen(text);
        for (size_t at = 0; at < len; at += BLOB_LINE)
                fprintf(out, "%s%.*s\n", at == 0 ? "blob = " : "    ", BLOB_LINE, text + at);
}

static void write_envelope(FILE *out, const struct tk_volume_wrap *wrap)
{
        char text[sizeof(wrap->sealed) * 2];

        tk_base64url_encode(wrap->public_half, sizeof(wrap->public_half), text);
        fprintf(out, "public = %s\n", text);
        tk_base64url_encode(wrap->sealed, sizeof(wrap->sealed), text);
        fprintf(out, "sealed = %s\n", text);
}

static void write_kek(FILE *out, const struct tk_volume_text *text, size_t i)
{
        const struct tk_volume_text_kek *kek = &text->keks[i];
        char sealed[TK_SEALED_KEY_LEN * 2];

        fprintf(out, "[kek %u]\nstate = %s\ncreated = %lld\n", kek->kek.version,
                kek->kek.active ? "active" : "retired", (long long)kek->kek.created);
        if (kek->kek.readmitted > 0)
                fprintf(out, "readmitted = %lld\n", (long long)kek->kek.readmitted);
        if (kek->volume_key_len > 0) {
                tk_base64url_encode(kek->volume_key, TK_SEALED_KEY_LEN, sealed);
                fprintf(out, "volume_key = %s\n", sealed);
        }
        for (size_t w = 0; w < text->wrap_count; w++) {
                const struct tk_volume_wrap *wrap = &text->wraps[w];

                if (wrap->kek_version != kek->kek.version)
                        continue;
                fprintf(out,
                        "[wrap %u.%u]\nprovider = %s\nkey = %s\nversion = %s\n"
                        "algorithm = %s\n",
                        wrap->kek_version, wrap->protector, wrap->provider, wrap->wrap.key_id,
                        wrap->wrap.version, wrap->wrap.algorithm);
                write_blob(out, wrap->wrap.blob, wrap->wrap.blob_len);
                if (wrap->has_envelope)
                        write_envelope(out, wrap);
        }
}

/* Lines of sixteen numbers stay below the limit of a line. */
static void write_mounts(FILE *out, const struct tk_volume_text *text)
{
        fprintf(out, "[mounts]\nlast = %u\nreplayed = %u\nunclean =", text->last_mount,
                text->replayed_mount);
        for (size_t i = 0; i < text->unclean_count; i++)
                fprintf(out, "%s%u", i > 0 && i % 16 == 0 ? "\n    " : " ", text->unclean[i]);
        fprintf(out, "\n");
        if (text->kept)
                fprintf(out, "kept = %016llx\n", (unsigned long long)text->kept);
}

/* Whether what comes from providers can be written. */
static bool texts_hold(const struct tk_volume_text *text)
{
        for (size_t i = 0; i < text->wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &text->wraps[i];

                if (!is_text(wrap->provider) || !is_text(wrap->wrap.key_id) ||
                    !is_text(wrap->wrap.version) || !is_text(wrap->wrap.algorithm))
                        return false;
        }
        return true;
}

int tk_volume_text_format(const struct tk_volume_text *text, char **ret_signed)
{
        char id[TK_VOLUME_ID_LEN * 2 + 1];
        char *buf = NULL;
        size_t buf_len = 0;
        FILE *out;

        if (!texts_hold(text))
                return -EINVAL;
        out = open_memstream(&buf, &buf_len);
        if (!out)
                return -ENOMEM;
        tk_hex_encode(text->id, TK_VOLUME_ID_LEN, id);
        fprintf(out, "[turnkeyfs]\nformat = %d\nvolume = %s\ncreated = %lld\n",
                tk_volume_text_is_shared(text) ? TK_VOLUME_FORMAT_SHARED : TK_VOLUME_FORMAT, id,
                (long long)text->created);
        if (tk_volume_text_is_shared(text))
                fprintf(out, "fingerprint = %s\n", text->fingerprint);
        fprintf(out, "[options]\nnames = %s\ndek_wrap = %s\n",
                text->names == TK_NAMES_ENCRYPTED ? "encrypted" : "plain",
                text->dek_wrap == TK_DEK_WRAP_KMS ? "kms" : "kek");
        for (size_t i = 0; i < text->kek_count; i++)
                write_kek(out, text, i);
        write_mounts(out, text);
        if (fclose(out) != 0) {
                free(buf);
                return -ENOMEM;
        }
        *ret_signed = buf;
        return 0;
}

int tk_volume_text_append_mac(const char *signed_text, const uint8_t mac[TK_MAC_LEN],
                              char **ret_text)
{
        char hex[TK_MAC_LEN * 2 + 1];

        tk_hex_encode(mac, TK_MAC_LEN, hex);
        if (asprintf(ret_text, "%s[mac]\nhmac_sha256 = %s\n", signed_text, hex) < 0)
                return -ENOMEM;
        return 0;
}

void tk_volume_text_done(struct tk_volume_text *text)
{
        free(text->keks);
        free(text->wraps);
        free(text->unclean);
        memset(text, 0, sizeof(*text));
}
