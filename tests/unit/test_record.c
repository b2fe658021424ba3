/* SPDX-License-Identifier: Apache-2.0 */

/* Key record: layout, wrap and unwrap, and every one of its 512 bits. */

#include "crypto/record.h"
#include "tests/unit/support.h"
#include <errno.h>

static const uint8_t volume_id[] = "sixteen bytes id";

struct keys {
        struct tk_secret *kek, *dek;
};

static int setup(void **state)
{
        static struct keys keys;
        uint8_t bytes[TK_KEY_LEN];

        memset(bytes, 0x11, sizeof(bytes));
        keys.kek = tk_test_secret(bytes, sizeof(bytes));
        memset(bytes, 0x22, sizeof(bytes));
        keys.dek = tk_test_secret(bytes, sizeof(bytes));
        *state = &keys;
        return 0;
}

static int teardown(void **state)
{
        struct keys *keys = *state;

        tk_secret_free(keys->kek);
        tk_secret_free(keys->dek);
        return tk_test_no_secrets(state);
}

static struct tk_record wrapped(const struct keys *keys, uint16_t version)
{
        struct tk_record record = {0};

        assert_int_equal(tk_record_wrap(keys->kek, version, volume_id, keys->dek, &record), 0);
        return record;
}

static void test_record__round_trip(void **state)
{
        static const uint16_t versions[] = {1, 2, 255, 256, 65535};
        const struct keys *keys = *state;

        for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
                struct tk_record record = wrapped(keys, versions[i]);
                uint16_t version = 0;

                assert_int_equal(tk_record_kek_version(&record, TK_RECORD_LEN, &version), 0);
                assert_int_equal(version, versions[i]);
                assert_int_equal(tk_record_unwrap(&record, keys->kek, volume_id, &dek), 0);
                assert_true(tk_secret_equal(dek, keys->dek));
        }
}

/* The layout of docs/format.md, opened by hand. */
static void test_record_wrap__layout(void **state)
{
        const struct keys *keys = *state;
        struct tk_record record = wrapped(keys, 0x0102);
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        uint8_t aad[20 + TK_VOLUME_ID_LEN + 4];
        uint8_t dek[TK_KEY_LEN];

        assert_int_equal(tk_record_len(&record), 64);
        assert_memory_equal(record.bytes, "\x01\x00\x01\x02", 4);
        memcpy(aad, "turnkeyfs key record", 20);
        memcpy(aad + 20, volume_id, TK_VOLUME_ID_LEN);
        memcpy(aad + 36, record.bytes, 4);
        assert_int_equal(tk_aead_new(&aead), 0);
        assert_int_equal(tk_aead_set_key(aead, keys->kek), 0);
        assert_int_equal(tk_aead_open(aead,
                                      &(struct tk_aead_msg){.iv = record.bytes + 4,
                                                            .aad = aad,
                                                            .aad_len = sizeof(aad),
                                                            .in = record.bytes + 16,
                                                            .out = dek,
                                                            .len = sizeof(dek)},
                                      record.bytes + 48),
                         0);
        assert_memory_equal(dek, tk_secret_bytes(keys->dek), sizeof(dek));
}

/* Made by python3-cryptography from docs/format.md. */
static void test_record_unwrap__known_record(void **state)
{
        static const char hex[] =
                "01000003a0a1a2a3a4a5a6a7a8a9aaab4196526f6236a1b11a3d91795d671fce"
                "80d5e4102bafa38936f6cccc7af41448218f5c8b01e53b4cf846d312dccaa172";
        const struct keys *keys = *state;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_record record;

        assert_int_equal(tk_test_unhex(hex, record.bytes, TK_RECORD_LEN), TK_RECORD_LEN);
        assert_int_equal(tk_record_unwrap(&record, keys->kek, volume_id, &dek), 0);
        assert_true(tk_secret_equal(dek, keys->dek));
}

static void test_record_wrap__new_iv_each_time(void **state)
{
        struct tk_record a = wrapped(*state, 1);
        struct tk_record b = wrapped(*state, 1);

        assert_memory_not_equal(a.bytes + 4, b.bytes + 4, TK_AEAD_IV_LEN);
        assert_memory_not_equal(a.bytes + 16, b.bytes + 16, TK_KEY_LEN);
}

static void test_record_unwrap__every_bit_counts(void **state)
{
        const struct keys *keys = *state;
        struct tk_record record = wrapped(keys, 7);

        for (size_t bit = 0; bit < (size_t)TK_RECORD_LEN * 8; bit++) {
                struct tk_secret *dek = NULL;
                int r;

                tk_test_flip(record.bytes, bit);
                r = tk_record_unwrap(&record, keys->kek, volume_id, &dek);
                /* Bit 0 makes the record's version 0, the other bits of byte 0 a newer one. */
                assert_int_equal(r, bit > 0 && bit < 8 ? -ENOTSUP : -EBADMSG);
                assert_null(dek);
                tk_test_flip(record.bytes, bit);
        }
}

static void test_record_unwrap__other_volume_or_kek(void **state)
{
        const struct keys *keys = *state;
        struct tk_record record = wrapped(keys, 7);
        struct tk_secret *dek = NULL;
        uint8_t id[TK_VOLUME_ID_LEN];

        memcpy(id, volume_id, sizeof(id));
        for (size_t bit = 0; bit < sizeof(id) * 8; bit++) {
                tk_test_flip(id, bit);
                assert_int_equal(tk_record_unwrap(&record, keys->kek, id, &dek), -EBADMSG);
                tk_test_flip(id, bit);
        }
        assert_int_equal(tk_record_unwrap(&record, keys->dek, volume_id, &dek), -EBADMSG);
        assert_null(dek);
}

static void test_record_kek_version__malformed(void **state)
{
        struct tk_record record = wrapped(*state, 7);
        uint8_t longer[TK_RECORD_LEN + 1] = {0};
        uint16_t version = 99;

        for (size_t len = 0; len < TK_RECORD_LEN; len++)
                assert_int_equal(tk_record_kek_version(&record, len, &version), -EBADMSG);
        memcpy(longer, record.bytes, TK_RECORD_LEN);
        assert_int_equal(tk_record_kek_version(longer, sizeof(longer), &version), -EBADMSG);
        longer[0] = 3; /* a newer release may have longer records */
        assert_int_equal(tk_record_kek_version(longer, sizeof(longer), &version), -ENOTSUP);
        record.bytes[2] = record.bytes[3] = 0;
        assert_int_equal(tk_record_kek_version(&record, TK_RECORD_LEN, &version), -EBADMSG);
        assert_int_equal(version, 99);
}

static void test_record_enclose__every_bit_counts(void **state)
{
        const struct keys *keys = *state;
        uint8_t blob[256];
        struct tk_record record;
        struct tk_record changed;
        const uint8_t *found = NULL;
        size_t found_len = 0;

        memset(blob, 0xab, sizeof(blob));
        assert_int_equal(tk_record_enclose(keys->kek, 5, volume_id, blob, sizeof(blob), &record),
                         0);
        assert_int_equal(tk_record_len(&record), 6 + 256 + 32);
        assert_int_equal(tk_record_disclose(&record, keys->kek, volume_id, &found, &found_len), 0);
        assert_int_equal(found_len, sizeof(blob));
        assert_memory_equal(found, blob, sizeof(blob));
        for (size_t bit = 0; bit < tk_record_len(&record) * 8; bit++) {
                changed = record;
                changed.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
                assert_int_not_equal(
                        tk_record_disclose(&changed, keys->kek, volume_id, &found, &found_len), 0);
        }
        assert_int_equal(tk_record_disclose(&record, keys->dek, volume_id, &found, &found_len),
                         -EBADMSG);
}

static void test_record_enclose__refuses(void **state)
{
        const struct keys *keys = *state;
        uint8_t blob[TK_RECORD_BLOB_MAX + 1] = {0};
        struct tk_record record;

        assert_int_equal(tk_record_enclose(keys->kek, 0, volume_id, blob, 16, &record), -EINVAL);
        assert_int_equal(tk_record_enclose(keys->kek, 1, volume_id, blob, 0, &record), -EINVAL);
        assert_int_equal(tk_record_enclose(keys->kek, 1, volume_id, blob, sizeof(blob), &record),
                         -EINVAL);
        assert_int_equal(
                tk_record_enclose(keys->kek, 1, volume_id, blob, TK_RECORD_BLOB_MAX, &record), 0);
        assert_int_equal(tk_record_len(&record), TK_RECORD_MAX);
}

static void test_record_wrap__refuses(void **state)
{
        const struct keys *keys = *state;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *half = tk_test_secret("0123456789abcdef", 16);
        struct tk_record record;

        assert_int_equal(tk_record_wrap(keys->kek, 0, volume_id, keys->dek, &record), -EINVAL);
        assert_int_equal(tk_record_wrap(keys->kek, 1, volume_id, half, &record), -EINVAL);
        assert_int_equal(tk_record_wrap(half, 1, volume_id, keys->dek, &record), -EINVAL);
}

#define RECORD_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                RECORD_TEST(test_record__round_trip),
                RECORD_TEST(test_record_wrap__layout),
                RECORD_TEST(test_record_unwrap__known_record),
                RECORD_TEST(test_record_wrap__new_iv_each_time),
                RECORD_TEST(test_record_unwrap__every_bit_counts),
                RECORD_TEST(test_record_unwrap__other_volume_or_kek),
                RECORD_TEST(test_record_kek_version__malformed),
                RECORD_TEST(test_record_wrap__refuses),
                RECORD_TEST(test_record_enclose__every_bit_counts),
                RECORD_TEST(test_record_enclose__refuses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
