/* SPDX-License-Identifier: Apache-2.0 */

/* The volume file's text: what is written is read, and any change is refused or breaks the MAC. */

#include "support.h"

#include "base/fault.h"
#include "fs/volume_text.h"
#include <errno.h>

/* A text with @keks KEK versions of @protectors wraps each, and @unclean mounts. */
static void fill(struct tk_volume_text *text, unsigned keks, unsigned protectors, unsigned unclean,
                 size_t blob_len)
{
        memset(text, 0, sizeof(*text));
        memcpy(text->id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        text->created = 1700000000;
        for (unsigned v = 1; v <= keks; v++) {
                struct tk_volume_text_kek kek = {.kek = {.version = (uint16_t)v,
                                                         .active = v == keks,
                                                         .created = v,
                                                         .readmitted = v == 1 ? 1700000001 : 0},
                                                 .volume_key_len = TK_SEALED_KEY_LEN};

                memset(kek.volume_key, (int)v, TK_SEALED_KEY_LEN);
                assert_int_equal(tk_volume_text_add_kek(text, &kek), 0);
                for (unsigned p = 1; p <= protectors; p++) {
                        struct tk_volume_wrap wrap = {.kek_version = (uint16_t)v, .protector = p};

                        snprintf(wrap.provider, sizeof(wrap.provider), "provider-%u", p);
                        snprintf(wrap.wrap.key_id, TK_KMS_KEY_ID_MAX, "https://v%u.example/keys/k",
                                 p);
                        snprintf(wrap.wrap.version, TK_KMS_VERSION_MAX, "version-%u", v);
                        snprintf(wrap.wrap.algorithm, TK_KMS_ALGORITHM_MAX, "RSA-OAEP-256");
                        wrap.wrap.blob_len = blob_len;
                        for (size_t i = 0; i < blob_len; i++)
                                wrap.wrap.blob[i] = (uint8_t)(i * 31 + (size_t)v * 7 + p);
                        assert_int_equal(tk_volume_text_add_wrap(text, &wrap), 0);
                }
        }
        text->unclean = calloc(unclean + 1, sizeof(uint16_t));
        assert_non_null(text->unclean);
        for (unsigned i = 0; i < unclean; i++)
                text->unclean[i] = (uint16_t)(65535 - i);
        text->unclean_count = unclean;
        text->last_mount = 65535;
        text->replayed_mount = 65534;
        for (size_t i = 0; i < TK_MAC_LEN; i++)
                text->mac[i] = (uint8_t)(0xA0 + i);
}

static char *whole_text(const struct tk_volume_text *text)
{
        TK_CLEANUP(tk_freep) char *signed_text = NULL;
        char *whole = NULL;

        assert_int_equal(tk_volume_text_format(text, &signed_text), 0);
        assert_int_equal(tk_volume_text_append_mac(signed_text, text->mac, &whole), 0);
        return whole;
}

static void check_same(const struct tk_volume_text *a, const struct tk_volume_text *b)
{
        assert_memory_equal(a->id, b->id, TK_VOLUME_ID_LEN);
        assert_int_equal(a->created, b->created);
        assert_int_equal(a->dek_wrap, b->dek_wrap);
        assert_int_equal(a->names, b->names);
        assert_string_equal(a->fingerprint, b->fingerprint);
        assert_int_equal(a->last_mount, b->last_mount);
        assert_int_equal(a->replayed_mount, b->replayed_mount);
        assert_memory_equal(a->mac, b->mac, TK_MAC_LEN);
        assert_int_equal(a->kek_count, b->kek_count);
        for (size_t i = 0; i < a->kek_count; i++) {
                assert_int_equal(a->keks[i].kek.version, b->keks[i].kek.version);
                assert_int_equal(a->keks[i].kek.active, b->keks[i].kek.active);
                assert_int_equal(a->keks[i].kek.created, b->keks[i].kek.created);
                assert_int_equal(a->keks[i].kek.readmitted, b->keks[i].kek.readmitted);
                assert_int_equal(a->keks[i].volume_key_len, b->keks[i].volume_key_len);
                assert_memory_equal(a->keks[i].volume_key, b->keks[i].volume_key,
                                    a->keks[i].volume_key_len);
        }
        assert_int_equal(a->wrap_count, b->wrap_count);
        for (size_t i = 0; i < a->wrap_count; i++) {
                const struct tk_volume_wrap *x = &a->wraps[i];
                const struct tk_volume_wrap *y = &b->wraps[i];

                assert_int_equal(x->kek_version, y->kek_version);
                assert_int_equal(x->protector, y->protector);
                assert_string_equal(x->provider, y->provider);
                assert_string_equal(x->wrap.key_id, y->wrap.key_id);
                assert_string_equal(x->wrap.version, y->wrap.version);
                assert_string_equal(x->wrap.algorithm, y->wrap.algorithm);
                assert_int_equal(x->wrap.blob_len, y->wrap.blob_len);
                assert_memory_equal(x->wrap.blob, y->wrap.blob, x->wrap.blob_len);
                assert_int_equal(x->has_envelope, y->has_envelope);
                assert_memory_equal(x->public_half, y->public_half, sizeof(x->public_half));
                assert_memory_equal(x->sealed, y->sealed, sizeof(x->sealed));
        }
        assert_int_equal(a->unclean_count, b->unclean_count);
        if (a->unclean_count > 0)
                assert_memory_equal(a->unclean, b->unclean, a->unclean_count * sizeof(*a->unclean));
}

static void check_round_trip(struct tk_volume_text *text)
{
        TK_CLEANUP(tk_freep) char *whole = whole_text(text);
        TK_CLEANUP(tk_freep) char *again = NULL;
        struct tk_volume_text parsed;
        struct tk_fault fault = {0};

        assert_int_equal(tk_volume_text_parse(whole, "v", &parsed, &fault), 0);
        assert_int_equal(fault.kind, TK_FAULT_NONE);
        check_same(text, &parsed);
        assert_memory_equal(whole + parsed.signed_len, "[mac]\n", 6);
        again = whole_text(&parsed);
        assert_string_equal(whole, again);
        tk_volume_text_done(&parsed);
        tk_volume_text_done(text);
}

static void test_round_trip__sizes(void **state)
{
        static const unsigned unclean[] = {0, 1, 15, 16, 17, 32, 1000, 65535};
        static const size_t blobs[] = {1, 2, 3, 60, 95, 96, 97, 256, 512, 1023, TK_KMS_BLOB_MAX};
        struct tk_volume_text text;

        for (size_t i = 0; i < sizeof(unclean) / sizeof(unclean[0]); i++) {
                fill(&text, 1, 1, unclean[i], 60);
                check_round_trip(&text);
        }
        for (size_t i = 0; i < sizeof(blobs) / sizeof(blobs[0]); i++) {
                fill(&text, 2, 3, 2, blobs[i]);
                check_round_trip(&text);
        }
        fill(&text, 40, 16, 3, 256);
        check_round_trip(&text);
}

static void test_round_trip__dek_wrap_kms(void **state)
{
        struct tk_volume_text text;

        fill(&text, 2, 2, 0, 256);
        text.dek_wrap = TK_DEK_WRAP_KMS;
        for (size_t i = 0; i < text.kek_count; i++)
                text.keks[i].volume_key_len = 0;
        check_round_trip(&text);
}

static void test_round_trip__names_encrypted(void **state)
{
        struct tk_volume_text text;

        fill(&text, 1, 1, 0, 60);
        text.names = TK_NAMES_ENCRYPTED;
        check_round_trip(&text);
}

/* The longest texts still fit a line. */
static void test_round_trip__longest_texts(void **state)
{
        struct tk_volume_text text;

        fill(&text, 1, 1, 0, TK_KMS_BLOB_MAX);
        memset(text.wraps[0].provider, 'p', sizeof(text.wraps[0].provider) - 1);
        memset(text.wraps[0].wrap.key_id, 'k', TK_KMS_KEY_ID_MAX - 1);
        memset(text.wraps[0].wrap.version, 'v', TK_KMS_VERSION_MAX - 1);
        memset(text.wraps[0].wrap.algorithm, 'a', TK_KMS_ALGORITHM_MAX - 1);
        check_round_trip(&text);
}

/* A text that would be read as a comment, or without its ends, is not written. */
static void test_format__texts_that_would_not_come_back(void **state)
{
        static const char *const texts[] = {"", ";v", "; v", "v ;w", " v", "v ", "a\nb", "a\rb"};
        struct tk_volume_text text;
        char *formatted = NULL;

        fill(&text, 1, 1, 0, 60);
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
                snprintf(text.wraps[0].wrap.version, TK_KMS_VERSION_MAX, "%s", texts[i]);
                assert_int_equal(tk_volume_text_format(&text, &formatted), -EINVAL);
        }
        snprintf(text.wraps[0].wrap.version, TK_KMS_VERSION_MAX, "a;b=c #d [e]");
        check_round_trip(&text);
}

/* Each wrap with an envelope, as for several protectors. */
static void fill_shared(struct tk_volume_text *text)
{
        fill(text, 3, 2, 2, 256);
        memset(text->fingerprint, 'f', TK_FINGERPRINT_LEN);
        for (size_t i = 0; i < text->wrap_count; i++) {
                struct tk_volume_wrap *wrap = &text->wraps[i];

                wrap->has_envelope = wrap->kek_version > 1; /* the first is from before */
                memset(wrap->public_half, wrap->has_envelope ? (int)i + 1 : 0,
                       sizeof(wrap->public_half));
                memset(wrap->sealed, wrap->has_envelope ? (int)i + 100 : 0, sizeof(wrap->sealed));
        }
}

static void test_round_trip__shared(void **state)
{
        struct tk_volume_text text;

        fill_shared(&text);
        check_round_trip(&text);
}

static void check_refused(const char *text, int error, enum tk_fault_kind kind)
{
        struct tk_volume_text parsed;
        struct tk_fault fault = {0};

        assert_int_equal(tk_volume_text_parse(text, "some/path", &parsed, &fault), error);
        assert_int_equal(fault.kind, kind);
        assert_non_null(strstr(fault.text, "some/path"));
        tk_volume_text_done(&parsed);
}

static void check_damaged(const char *text)
{
        check_refused(text, -EINVAL, TK_FAULT_VOLUME_DAMAGED);
}

/* @text with the first @from replaced by @to. */
static char *replaced(const char *text, const char *from, const char *to)
{
        const char *at = strstr(text, from);
        char *result = NULL;

        assert_non_null(at);
        assert_true(asprintf(&result, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) >
                    0);
        return result;
}

static void test_parse__damage(void **state)
{
        static const struct {
                const char *from;
                const char *to;
        } damage[] = {
                {"format = 1\n", ""},
                {"version = version-1", "version =;version-1"},
                {"format = 1", "format = one"},
                {"format = 1", "format = 0"},
                {"format = 1\n", "format = 1\nformat = 1\n"},
                {"format = 1\n", "format = 1\nextra = 1\n"},
                {"[turnkeyfs]", "[other]"},
                {"volume = ", "volume = 00"},
                {"volume = 7", "volume = z"},
                {"created = 1700000000\n", "created = -1\n"},
                {"created = 1700000000\n", "created = 9999999999999999999\n"},
                {"created = 1700000000\n", ""},
                {"names = plain", "names = secret"},
                {"names = plain\n", ""},
                {"dek_wrap = kek", "dek_wrap = none"},
                {"dek_wrap = kek\n", ""},
                /* The KEK's own volume key has no place beside it. */
                {"dek_wrap = kek", "dek_wrap = kms"},
                {"[kek 1]", "[kek 2]"},
                {"[kek 2]", "[kek 3]"},
                {"[kek 1]", "[kek 0]"},
                {"[kek 1]", "[kek x]"},
                {"[kek 1]", "[kek 65536]"},
                {"state = retired", "state = asleep"},
                {"created = 2\n", "created = \n"},
                {"readmitted = 1700000001\n", "readmitted = 0\n"},
                {"readmitted = 1700000001\n", "readmitted = soon\n"},
                {"volume_key = AQ", "volume_key = A*"},
                {"volume_key = AQEB", "volume_key = AQ"},
                {"[wrap 1.1]", "[wrap 1.0]"},
                {"[wrap 1.1]", "[wrap 01.1]"},
                {"[wrap 1.1]", "[wrap 1.1 ]"},
                {"[wrap 1.1]", "[wrap +1.1]"},
                {"[wrap 1.1]", "[wrap 2.1]"},
                {"[wrap 1.2]", "[wrap 1.17]"},
                {"provider = provider-1", "provider ="},
                {"provider = provider-1", "provider = provider-too-long"},
                {"key = https://v1.example/keys/k\n", ""},
                {"version = version-1\n", ""},
                {"algorithm = RSA-OAEP-256\n", ""},
                {"algorithm = RSA-OAEP-256\n", "algorithm = RSA-OAEP-256\nmore = 1\n"},
                {"blob = ", "blob = ****"},
                {"[mounts]", "[amounts]"},
                {"last = 65535", "last = 65536"},
                {"last = 65535\n", ""},
                {"replayed = 65534", "replayed = 65536"},
                {"replayed = 65534", "replayed = x"},
                {"replayed = 65534\n", ""},
                {"replayed = 65534\n", "replayed = 65534\nreplayed = 65534\n"},
                {"unclean = 65535", "unclean = 65536"},
                {"unclean = 65535", "unclean = 0"},
                {"unclean = 65535", "unclean = 65535  1"},
                {"unclean = 65535", "unclean = 65535,1"},
                {"[mac]\n", ""},
                {"[mac]", "[Mac]"},
                {"hmac_sha256 = a0", "hmac_sha256 = a"},
                {"hmac_sha256", "hmac_sha1"},
        };
        TK_CLEANUP(tk_freep) char *whole = NULL;
        struct tk_volume_text text;

        fill(&text, 2, 2, 3, 100);
        whole = whole_text(&text);
        for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
                TK_CLEANUP(tk_freep)
                char *changed = replaced(whole, damage[i].from, damage[i].to);

                check_damaged(changed);
        }
        check_damaged("");
        check_damaged("\n");
        check_damaged("no INI at all");
        tk_volume_text_done(&text);
}

static void test_parse__damaged_envelopes(void **state)
{
        static const struct {
                const char *from;
                const char *to;
        } damage[] = {
                {"format = 2", "format = 1"},
                {"fingerprint = ffff", "fingerprint = FFFF"},
                {"fingerprint = ffff", "fingerprint = fff"},
                {"fingerprint = ffff", "finger = ffff"},
                {"public = AwMD", "public = AwM"},
                {"public = AwMD", "public = AwMDAwMD"},
                {"public = AwMD", "pubic = AwMD"},
                {"sealed = Zm", "sealed = "},
                {"sealed = Zm", "sealed = ZmZmZmZm"},
                {"sealed = Zm", "seal = Zm"},
                {"dek_wrap = kek", "dek_wrap = kms"},
                {"[kek 1]\nstate = retired", "[kek 1]\nstate = active"},
        };
        TK_CLEANUP(tk_freep) char *whole = NULL;
        struct tk_volume_text text;

        fill_shared(&text);
        whole = whole_text(&text);
        for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
                TK_CLEANUP(tk_freep)
                char *changed = replaced(whole, damage[i].from, damage[i].to);

                check_damaged(changed);
        }
        tk_volume_text_done(&text);

        /* Without several protectors there is no place for an envelope. */
        fill_shared(&text);
        text.fingerprint[0] = '\0';
        free(whole);
        whole = whole_text(&text);
        check_damaged(whole);
        tk_volume_text_done(&text);
}

static void test_parse__newer_format(void **state)
{
        TK_CLEANUP(tk_freep) char *whole = NULL;
        TK_CLEANUP(tk_freep) char *changed = NULL;
        struct tk_volume_text text;

        fill(&text, 1, 1, 0, 60);
        whole = whole_text(&text);
        changed = replaced(whole, "format = 1\n", "format = 3\n");
        check_refused(changed, -ENOTSUP, TK_FAULT_UNSUPPORTED);
        tk_volume_text_done(&text);
}

/* What the MAC does not cover may not say anything. */
static void test_parse__nothing_behind_the_mac(void **state)
{
        static const char *const tails[] = {
                "x = 1\n", "[mounts]\nlast = 1\n", "[more]\n", "; a remark\n", "\n",
                " ",       "hmac_sha256 = 00\n"};
        TK_CLEANUP(tk_freep) char *whole = NULL;
        struct tk_volume_text text;

        fill(&text, 1, 1, 0, 60);
        whole = whole_text(&text);
        for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
                TK_CLEANUP(tk_freep) char *longer = NULL;

                assert_true(asprintf(&longer, "%s%s", whole, tails[i]) > 0);
                check_damaged(longer);
        }
        tk_volume_text_done(&text);
}

/* A changed text is refused, or what the MAC is made over or compared with has changed. */
static void check_noticed(const char *original, const struct tk_volume_text *text,
                          const char *changed)
{
        struct tk_volume_text parsed;
        struct tk_fault fault = {0};
        int r = tk_volume_text_parse(changed, "v", &parsed, &fault);

        if (r == 0)
                assert_true(parsed.signed_len != text->signed_len ||
                            memcmp(changed, original, text->signed_len) != 0 ||
                            memcmp(parsed.mac, text->mac, TK_MAC_LEN) != 0);
        else
                assert_true(fault.kind == TK_FAULT_VOLUME_DAMAGED ||
                            fault.kind == TK_FAULT_UNSUPPORTED);
        tk_volume_text_done(&parsed);
}

static void test_parse__every_truncation(void **state)
{
        TK_CLEANUP(tk_freep) char *whole = NULL;
        struct tk_volume_text text;

        fill(&text, 2, 2, 40, 256);
        whole = whole_text(&text);
        for (size_t len = strlen(whole); len-- > 0;) {
                whole[len] = '\0';
                check_damaged(whole);
        }
        tk_volume_text_done(&text);
}

static void test_parse__every_changed_byte(void **state)
{
        TK_CLEANUP(tk_freep) char *whole = NULL;
        TK_CLEANUP(tk_freep) char *changed = NULL;
        struct tk_volume_text text;

        fill(&text, 1, 1, 3, 100);
        whole = whole_text(&text);
        text.signed_len = (size_t)(strstr(whole, "[mac]") - whole);
        changed = strdup(whole);
        for (size_t at = 0; changed[at]; at++) {
                for (int byte = 1; byte < 256; byte++) {
                        if ((char)byte == whole[at])
                                continue;
                        changed[at] = (char)byte;
                        check_noticed(whole, &text, changed);
                }
                changed[at] = whole[at];
        }
        tk_volume_text_done(&text);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_round_trip__sizes),
                TK_TEST(test_round_trip__dek_wrap_kms),
                TK_TEST(test_round_trip__names_encrypted),
                TK_TEST(test_round_trip__longest_texts),
                TK_TEST(test_format__texts_that_would_not_come_back),
                TK_TEST(test_round_trip__shared),
                TK_TEST(test_parse__damage),
                TK_TEST(test_parse__damaged_envelopes),
                TK_TEST(test_parse__newer_format),
                TK_TEST(test_parse__nothing_behind_the_mac),
                TK_TEST(test_parse__every_truncation),
                TK_TEST(test_parse__every_changed_byte),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
