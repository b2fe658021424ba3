/* SPDX-License-Identifier: Apache-2.0 */

/* Keyring: KEK versions by number, wrapping under the newest. */

#include "support.h"

#include "crypto/random.h"
#include "fs/keyring.h"
#include <errno.h>

static const uint8_t volume_id[TK_VOLUME_ID_LEN] = "sixteen byte id";

static struct tk_keyring *new_ring(void)
{
        struct tk_keyring *ring = NULL;

        assert_int_equal(tk_keyring_new(volume_id, &ring), 0);
        return ring;
}

static struct tk_secret *new_kek(void)
{
        struct tk_secret *kek = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &kek), 0);
        return kek;
}

static void test_keyring__empty(void **state)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = new_kek();
        struct tk_secret *found = NULL;
        struct tk_record record;

        assert_int_equal(tk_keyring_current(ring), 0);
        assert_int_equal(tk_keyring_wrap(ring, dek, &record), -ENOKEY);
        assert_int_equal(tk_record_wrap(dek, 1, volume_id, dek, &record), 0);
        assert_int_equal(tk_keyring_unwrap(ring, &record, &found), -EBADMSG);
        assert_null(found);
        assert_null(tk_keyring_free(NULL));
}

static void test_add__refused(void **state)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();

        /* The keyring takes the key over, also when it refuses it: the teardown counts. */
        assert_int_equal(tk_keyring_add(ring, 0, new_kek()), -EINVAL);
        assert_int_equal(tk_keyring_add(ring, 2, new_kek()), 0);
        assert_int_equal(tk_keyring_add(ring, 2, new_kek()), -EEXIST);
        assert_int_equal(tk_keyring_add(ring, 1, new_kek()), 0);
        assert_int_equal(tk_keyring_current(ring), 2);
}

static void test_keyring__every_live_version(void **state)
{
        static const uint16_t live[] = {1, 3, 65535};
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = new_kek();
        struct tk_record records[3];
        uint16_t version = 0;

        for (int i = 0; i < 3; i++) {
                assert_int_equal(tk_keyring_add(ring, live[i], new_kek()), 0);
                assert_int_equal(tk_keyring_current(ring), live[i]);
                assert_int_equal(tk_keyring_wrap(ring, dek, &records[i]), 0);
                assert_int_equal(tk_record_kek_version(records[i].bytes, TK_RECORD_LEN, &version),
                                 0);
                assert_int_equal(version, live[i]);
        }
        for (int i = 0; i < 3; i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *found = NULL;

                assert_int_equal(tk_keyring_unwrap(ring, &records[i], &found), 0);
                assert_true(tk_secret_equal(found, dek));
        }
}

static void test_unwrap__version_not_live(void **state)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = new_kek();
        struct tk_secret *found = NULL;
        struct tk_record record;

        assert_int_equal(tk_keyring_add(ring, 3, new_kek()), 0);
        for (uint16_t version = 1; version < 6; version++) {
                assert_int_equal(tk_record_wrap(kek, version, volume_id, kek, &record), 0);
                assert_int_equal(tk_keyring_unwrap(ring, &record, &found), -EBADMSG);
                assert_null(found);
        }
}

static void test_keyring_close__until_reopen(void **state)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = new_kek();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = new_kek();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *found = NULL;
        struct tk_secret *copy = NULL;
        struct tk_record record;
        size_t alive = tk_secret_alive();

        assert_int_equal(tk_secret_dup_bytes(tk_secret_bytes(kek), TK_KEY_LEN, &copy), 0);
        assert_int_equal(tk_keyring_add(ring, 1, copy), 0);
        assert_int_equal(tk_keyring_wrap(ring, dek, &record), 0);

        tk_keyring_close(ring, -EKEYREVOKED);
        assert_int_equal(tk_secret_alive(), alive); /* the KEK is gone from memory */
        assert_int_equal(tk_keyring_unwrap(ring, &record, &found), -EKEYREVOKED);
        assert_int_equal(tk_keyring_wrap(ring, dek, &record), -EKEYREVOKED);

        assert_int_equal(tk_secret_dup_bytes(tk_secret_bytes(kek), TK_KEY_LEN, &copy), 0);
        assert_int_equal(tk_keyring_add(ring, 1, copy), 0);
        assert_int_equal(tk_keyring_unwrap(ring, &record, &found), -EKEYREVOKED);
        tk_keyring_reopen(ring);
        assert_int_equal(tk_keyring_unwrap(ring, &record, &found), 0);
        assert_true(tk_secret_equal(found, dek));
}

static void test_target_key__gone_while_closed(void **state)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_kek();
        struct tk_secret *found = NULL;
        struct tk_secret *given = NULL;
        size_t alive = tk_secret_alive();

        assert_int_equal(tk_keyring_target_key(ring, &found), -ENOKEY);
        for (int round = 0; round < 2; round++) {
                assert_int_equal(tk_secret_dup_bytes(tk_secret_bytes(key), TK_KEY_LEN, &given), 0);
                tk_keyring_set_target_key(ring, given);
                tk_keyring_reopen(ring);
                assert_int_equal(tk_keyring_target_key(ring, &found), 0);
                assert_true(tk_secret_equal(found, key));
                found = tk_secret_free(found);

                tk_keyring_close(ring, -EKEYREVOKED);
                assert_int_equal(tk_secret_alive(), alive);
                assert_int_equal(tk_keyring_target_key(ring, &found), -EKEYREVOKED);
        }
}

/* A KMS whose key is the wrap itself; while it is asked, the keyring may be closed and reopened. */
struct slow_kms {
        struct tk_keyring *ring;
        bool close;
        bool reopen;
};

static void meanwhile(const struct slow_kms *slow)
{
        static const struct tk_kms_wrap root = {.key_id = "key", .version = "1"};

        if (!slow->close)
                return;
        tk_keyring_close(slow->ring, -EKEYREVOKED);
        if (!slow->reopen)
                return;
        assert_int_equal(tk_keyring_add_root(slow->ring, 1, NULL, &root), 0);
        tk_keyring_reopen(slow->ring);
}

static int slow_wrap(void *impl, const char *version, const struct tk_secret *key,
                     struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        memcpy(ret_wrap->blob, tk_secret_bytes(key), TK_KEY_LEN);
        ret_wrap->blob_len = TK_KEY_LEN;
        meanwhile(impl);
        return 0;
}

static int slow_unwrap(void *impl, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                       struct tk_fault *fault)
{
        meanwhile(impl);
        return tk_secret_dup_bytes(wrap->blob, wrap->blob_len, ret_key);
}

static void slow_free(void *impl)
{
}

/* The answer of a call that began before the revocation is neither kept nor used. */
static void test_keyring_close__while_the_kms_is_asked(void **state)
{
        static const struct tk_kms_provider provider = {
                .name = "slow", .wrap = slow_wrap, .unwrap = slow_unwrap, .free = slow_free};
        static const struct tk_kms_wrap root = {.key_id = "key", .version = "1"};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = new_kek();
        size_t alive = tk_secret_alive();

        for (int reopen = 0; reopen < 2; reopen++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
                TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
                struct slow_kms slow = {.ring = ring, .reopen = reopen};
                struct tk_secret *found = NULL;
                struct tk_record record;
                struct tk_record other;

                assert_int_equal(tk_kms_new(&provider, &slow, &kms), 0);
                assert_int_equal(tk_keyring_use_roots(ring, new_kek(), 60000), 0);
                assert_int_equal(tk_keyring_add_root(ring, 1, kms, &root), 0);
                assert_int_equal(tk_keyring_wrap(ring, dek, &record), 0);
                tk_keyring_close(ring, -ENOKEY); /* the cache is empty */
                assert_int_equal(tk_keyring_add_root(ring, 1, kms, &root), 0);
                tk_keyring_reopen(ring);

                slow.close = true;
                assert_int_equal(tk_keyring_unwrap(ring, &record, &found), -EKEYREVOKED);
                assert_null(found);
                assert_int_equal(tk_secret_alive(), alive + 1); /* the MAC key */

                tk_keyring_close(ring, -ENOKEY);
                assert_int_equal(tk_keyring_add_root(ring, 1, kms, &root), 0);
                tk_keyring_reopen(ring);
                assert_int_equal(tk_keyring_wrap(ring, dek, &other), -EKEYREVOKED);
                assert_int_equal(tk_secret_alive(), alive + 1);
        }
}

static void test_unwrap__damaged(void **state)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = new_kek();
        struct tk_secret *found = NULL;
        struct tk_record record;

        assert_int_equal(tk_keyring_add(ring, 1, new_kek()), 0);
        assert_int_equal(tk_keyring_add(ring, 2, new_kek()), 0);
        assert_int_equal(tk_keyring_wrap(ring, dek, &record), 0);
        for (size_t bit = 0; bit < (size_t)8 * TK_RECORD_LEN; bit++) {
                int r;

                tk_test_flip(record.bytes, bit);
                r = tk_keyring_unwrap(ring, &record, &found);
                assert_true(r == -EBADMSG || r == -ENOTSUP);
                assert_null(found);
                tk_test_flip(record.bytes, bit);
        }
}

static void test_unwrap__other_volume(void **state)
{
        static const uint8_t other_id[TK_VOLUME_ID_LEN] = "another volume";
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *ring = new_ring();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = new_kek();
        struct tk_secret *same = NULL;
        struct tk_secret *found = NULL;
        struct tk_record record;

        assert_int_equal(tk_secret_dup_bytes(tk_secret_bytes(kek), TK_KEY_LEN, &same), 0);
        assert_int_equal(tk_keyring_add(ring, 1, same), 0);
        assert_int_equal(tk_record_wrap(kek, 1, other_id, kek, &record), 0);
        assert_int_equal(tk_keyring_unwrap(ring, &record, &found), -EBADMSG);
        assert_null(found);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_keyring__empty),
                TK_TEST(test_add__refused),
                TK_TEST(test_keyring__every_live_version),
                TK_TEST(test_unwrap__version_not_live),
                TK_TEST(test_keyring_close__until_reopen),
                TK_TEST(test_target_key__gone_while_closed),
                TK_TEST(test_keyring_close__while_the_kms_is_asked),
                TK_TEST(test_unwrap__damaged),
                TK_TEST(test_unwrap__other_volume),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
