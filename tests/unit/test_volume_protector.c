/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Several protectors: each opens the volume, each follows the rotations of the others, and
 * nothing is added, taken or believed without a root key that opens it now.
 */

#include "support_fs.h"

#include "base/fdio.h"
#include "base/thread.h"
#include "crypto/mac.h"
#include "fs/protector.h"
#include "fs/volume_key.h"
#include "fs/volume_text.h"

enum { KEYS = 3 };

/* A volume "v" and some root keys, of which the first has made it. */
static struct {
        struct tk_fake_kms fakes[KEYS];
        struct tk_kms *kms[KEYS];
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_volume *volume; /* locked, and unlocked by one of them */
} test;

static int enter(void **state)
{
        int r = tk_test_dir_enter(state);

        memset(&test, 0, sizeof(test));
        for (int i = 0; i < KEYS; i++) {
                memset(test.fakes[i].root_key, i + 1, TK_KEY_LEN);
                snprintf(test.fakes[i].key_id, sizeof(test.fakes[i].key_id), "key-%d", i);
                test.kms[i] = tk_fake_open(&test.fakes[i]);
        }
        return r;
}

static int leave(void **state)
{
        tk_volume_free(test.volume);
        for (int i = 0; i < KEYS; i++)
                tk_kms_free(test.kms[i]);
        return tk_test_dir_leave(state);
}

static void make(enum tk_dek_wrap dek_wrap)
{
        struct tk_volume_options options = {.dek_wrap = dek_wrap, .journal_len = 1 << 20};
        struct tk_fault fault = {0};

        memcpy(options.id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        assert_int_equal(tk_volume_create("v", &options, test.kms[0], test.fingerprint, &fault), 0);
}

static int try_open(struct tk_kms *kms, struct tk_volume **ret_volume, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        int r;

        r = tk_volume_open("v", &volume, fault);
        if (r == 0)
                r = tk_volume_unlock(volume, kms, &(struct tk_volume_unlock){.lease_ms = 1000},
                                     fault);
        if (r == 0)
                *ret_volume = TK_TAKE(volume);
        return r;
}

static int try_unlock(int key)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        struct tk_fault fault = {0};
        int r = try_open(test.kms[key], &volume, &fault);

        if (r == 0)
                assert_string_equal(tk_volume_fingerprint(volume), test.fingerprint);
        return r;
}

/* Go on with the volume unlocked by @key. */
static void use(int key)
{
        struct tk_fault fault = {0};

        tk_volume_free(test.volume);
        test.volume = NULL;
        assert_int_equal(tk_volume_open("v", &test.volume, &fault), 0);
        assert_int_equal(tk_volume_lock(test.volume, "tested", &fault), 0);
        assert_int_equal(tk_volume_unlock(test.volume, test.kms[key],
                                          &(struct tk_volume_unlock){.lease_ms = 1000}, &fault),
                         0);
}

static int add_to(struct tk_volume *volume, int key, unsigned *ret_number, struct tk_fault *fault)
{
        struct tk_volume_wrap envelope = {0};
        int r;

        *fault = (struct tk_fault){0};
        r = tk_protector_make(tk_volume_id(volume), test.fingerprint, test.kms[key], NULL,
                              &envelope, NULL, fault);
        return r < 0 ? r : tk_volume_add_protector(volume, &envelope, ret_number, fault);
}

static void add(int key, unsigned expected)
{
        struct tk_fault fault = {0};
        unsigned number = 0;

        assert_int_equal(add_to(test.volume, key, &number, &fault), 0);
        assert_int_equal(number, expected);
}

static void rotate(int key)
{
        struct tk_fault fault = {0};

        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms[key], true, &fault), 0);
}

static void retire(void)
{
        struct tk_fault fault = {0};

        assert_int_equal(tk_volume_retire_below(test.volume,
                                                (uint16_t)tk_volume_kek_count(test.volume), &fault),
                         0);
}

static char *read_file(size_t *ret_len)
{
        char *text = NULL;

        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "v/turnkeyfs.volume", TK_VOLUME_TEXT_MAX,
                                           &text, ret_len),
                         0);
        return text;
}

static void write_file(const char *text, size_t len)
{
        TK_AUTOCLOSE int fd = open("v/turnkeyfs.volume", O_WRONLY | O_TRUNC | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(tk_fdio_pwrite(fd, text, len, 0), 0);
}

static void check_same_file(const char *before)
{
        TK_CLEANUP(tk_freep) char *now = NULL;
        size_t len;

        now = read_file(&len);
        assert_string_equal(now, before);
}

/* Whatever one wraps, the other unwraps: the keys are the same ones. */
static void check_same_keys(int one, int other)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *a = NULL;
        TK_CLEANUP(tk_volume_freep) struct tk_volume *b = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_fault fault = {0};
        struct tk_record record;

        assert_int_equal(try_open(test.kms[one], &a, &fault), 0);
        assert_int_equal(try_open(test.kms[other], &b, &fault), 0);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &dek), 0);
        assert_int_equal(tk_keyring_wrap(tk_volume_keyring(a), dek, &record), 0);
        assert_int_equal(tk_keyring_unwrap(tk_volume_keyring(b), &record, &again), 0);
        assert_true(tk_secret_equal(dek, again));
}

static void test_add__each_opens(void **state)
{
        make(TK_DEK_WRAP_KEK);
        use(0);
        assert_false(tk_volume_is_shared(test.volume));
        assert_int_equal(tk_volume_format(test.volume), 1);
        assert_int_equal(try_unlock(1), -ENOENT);
        add(1, 2);
        assert_true(tk_volume_is_shared(test.volume));
        add(2, 3);
        for (int key = 0; key < KEYS; key++) {
                assert_int_equal(try_unlock(key), 0);
                check_same_keys(key, (key + 1) % KEYS);
                use(key);
                assert_int_equal(tk_volume_format(test.volume), 2);
                assert_int_equal(tk_volume_own_protector(test.volume), key + 1);
                assert_int_equal(tk_volume_kek_at(test.volume, 0).protectors, KEYS);
        }
}

/* Whoever rotates, the others need not be there, and open all KEK versions in use. */
static void test_rotate__who_is_not_there_follows(void **state)
{
        struct tk_fault fault = {0};

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        add(2, 3);
        for (int round = 0; round < 12; round++) {
                int key = round % KEYS;

                use(key);
                for (int other = 0; other < KEYS; other++)
                        if (other != key)
                                test.fakes[other].refuse = -ENOKEY;
                test.fakes[key].newer++;
                assert_int_equal(tk_volume_has_new_root(test.volume, &fault), 1);
                assert_int_equal(tk_volume_renew_kek(test.volume, test.kms[key], false, &fault), 0);
                assert_int_equal(tk_volume_has_new_root(test.volume, &fault), 0);
                for (int other = 0; other < KEYS; other++)
                        test.fakes[other].refuse = 0;
                for (int other = 0; other < KEYS; other++)
                        check_same_keys(other, key); /* in the middle of it */
                if (round % 2)
                        retire();
                for (int other = 0; other < KEYS; other++)
                        check_same_keys(other, key);
        }
}

/* The root key that the mount lives on decides alone; another one opens it only if it is asked. */
static void test_probe__asks_only_the_own_one(void **state)
{
        struct tk_fault fault = {0};

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        use(0);
        test.fakes[1].refuse = -EKEYREVOKED;
        test.fakes[1].unwraps = 0;
        assert_int_equal(tk_volume_probe(test.volume, &fault), 0);
        tk_volume_close_keys(test.volume, -EKEYREVOKED);
        assert_int_equal(tk_volume_reopen_keys(test.volume, &fault), 0);
        assert_int_equal(test.fakes[1].unwraps, 0);

        test.fakes[1].refuse = 0;
        test.fakes[0].refuse = -EKEYREVOKED;
        assert_int_equal(tk_volume_probe(test.volume, &fault), -EKEYREVOKED);
        tk_volume_close_keys(test.volume, -EKEYREVOKED);
        assert_int_equal(tk_volume_reopen_keys(test.volume, &fault), -EKEYREVOKED);
        assert_int_equal(test.fakes[1].unwraps, 0);
        assert_int_equal(try_unlock(0), -EKEYREVOKED);
        assert_int_equal(try_unlock(1), 0);
}

/* What is revoked, or can't be asked, can't be left behind for another key. */
static void test_change__wants_the_own_one_now(void **state)
{
        static const int answers[] = {-EKEYREVOKED, -ENOENT, -ENOKEY, -EACCES, -EKEYEXPIRED};
        TK_CLEANUP(tk_freep) char *before = NULL;
        struct tk_fault fault = {0};
        unsigned number;
        size_t len;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        before = read_file(&len);
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
                test.fakes[0].refuse = answers[i];
                assert_int_equal(add_to(test.volume, 2, &number, &fault), answers[i]);
                assert_int_not_equal(fault.kind, TK_FAULT_NONE);
                fault = (struct tk_fault){0};
                assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), answers[i]);
                assert_int_not_equal(fault.kind, TK_FAULT_NONE);
                check_same_file(before);
        }
        test.fakes[0].refuse = 0;
        tk_volume_close_keys(test.volume, -EKEYREVOKED);
        assert_int_equal(add_to(test.volume, 2, &number, &fault), -EKEYREVOKED);
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), -EKEYREVOKED);
        check_same_file(before);
        assert_int_equal(tk_volume_reopen_keys(test.volume, &fault), 0);
        add(2, 3);
}

/* Whichever call to one of the two fails: the file is as it was, and the next attempt succeeds. */
static void test_add__any_call_fails(void **state)
{
        for (int key = 0; key < 2; key++) {
                TK_CLEANUP(tk_freep) char *before = NULL;
                struct tk_fault fault = {0};
                unsigned number;
                size_t len;
                unsigned at;

                if (key > 0)
                        tk_test_remove("v");
                make(TK_DEK_WRAP_KEK);
                use(0);
                before = read_file(&len);
                for (at = 1; at < 20; at++) {
                        test.fakes[key].calls = 0;
                        test.fakes[key].fail_at = at;
                        test.fakes[key].fail_with = -ENOKEY;
                        if (add_to(test.volume, 1, &number, &fault) == 0)
                                break;
                        check_same_file(before);
                        test.fakes[key].fail_at = 0;
                        assert_int_equal(try_unlock(0), 0);
                        assert_int_equal(try_unlock(1), -ENOENT);
                }
                /* ours: unwrap, wrap, unwrap; the new one's: current, wrap, unwrap */
                assert_int_equal(at, 4);
                test.fakes[key].fail_at = 0;
                assert_int_equal(try_unlock(0), 0);
                assert_int_equal(try_unlock(1), 0);
        }
}

static void test_add__a_wrap_that_does_not_come_back(void **state)
{
        TK_CLEANUP(tk_freep) char *before = NULL;
        struct tk_fault fault = {0};
        unsigned number;
        size_t len;

        make(TK_DEK_WRAP_KEK);
        use(0);
        before = read_file(&len);
        test.fakes[1].lie = true;
        assert_int_equal(add_to(test.volume, 1, &number, &fault), -EIO);
        test.fakes[1].lie = false;
        test.fakes[0].lie = true; /* our own envelope */
        assert_int_equal(add_to(test.volume, 1, &number, &fault), -EIO);
        check_same_file(before);
}

static void test_add__twice(void **state)
{
        struct tk_fault fault = {0};
        unsigned number;

        make(TK_DEK_WRAP_KEK);
        use(0);
        assert_int_equal(add_to(test.volume, 0, &number, &fault), -EEXIST);
        assert_int_equal(fault.kind, TK_FAULT_USAGE);
        add(1, 2);
        assert_int_equal(add_to(test.volume, 1, &number, &fault), -EEXIST);
        assert_int_equal(add_to(test.volume, 0, &number, &fault), -EEXIST);
}

static void test_add__not_with_dek_wrap_kms(void **state)
{
        TK_CLEANUP(tk_freep) char *before = NULL;
        struct tk_fault fault = {0};
        unsigned number;
        size_t len;

        make(TK_DEK_WRAP_KMS);
        use(0);
        before = read_file(&len);
        assert_int_equal(add_to(test.volume, 1, &number, &fault), -ENOTSUP);
        assert_int_equal(fault.kind, TK_FAULT_UNSUPPORTED);
        assert_non_null(strstr(fault.text, "dek_wrap"));
        fault = (struct tk_fault){0};
        assert_int_equal(tk_volume_remove_protector(test.volume, 1, &fault), -EINVAL);
        check_same_file(before);
}

/* The only one is given its envelope under the version that it is under: one at a time. */
static void test_add__not_in_the_middle_of_the_first_rotation(void **state)
{
        struct tk_fault fault = {0};
        unsigned number;

        make(TK_DEK_WRAP_KEK);
        use(0);
        test.fakes[0].newer = 1;
        rotate(0);
        assert_int_equal(add_to(test.volume, 1, &number, &fault), -EBUSY);
        assert_int_equal(fault.kind, TK_FAULT_IN_USE);
        retire();
        test.fakes[0].newer = 2; /* which is for a rotation to take up, not for this */
        add(1, 2);
        assert_int_equal(tk_volume_has_new_root(test.volume, &fault), 1);
        rotate(0);
        add(2, 3); /* from then on it does not matter */
        for (int key = 0; key < KEYS; key++)
                check_same_keys(key, 0);
}

static void test_add__as_many_as_there_may_be(void **state)
{
        struct tk_fault fault = {0};
        unsigned number;
        char name[16];

        make(TK_DEK_WRAP_KEK);
        use(0);
        for (unsigned i = 2; i <= TK_PROTECTORS_MAX + 1; i++) {
                struct tk_fake_kms fake = {0};
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
                struct tk_volume_wrap envelope = {0};

                snprintf(name, sizeof(name), "more-%u", i);
                memcpy(fake.key_id, name, sizeof(name));
                kms = tk_fake_open(&fake);
                assert_int_equal(tk_protector_make(tk_volume_id(test.volume), test.fingerprint, kms,
                                                   NULL, &envelope, NULL, &fault),
                                 0);
                assert_int_equal(tk_volume_add_protector(test.volume, &envelope, &number, &fault),
                                 i <= TK_PROTECTORS_MAX ? 0 : -ENOSPC);
        }
        assert_int_equal(fault.kind, TK_FAULT_UNSUPPORTED);
        rotate(0);
        retire();
        assert_int_equal(tk_volume_kek_at(test.volume, 1).protectors, TK_PROTECTORS_MAX);
        use(0);
}

/* A name that would break out of its line gets nowhere. */
static void test_add__what_does_not_fit_a_line(void **state)
{
        static const char *const names[] = {
                "key\n[mounts]\nlast = 7", " key", "key ", "k ; y", "", "key\r", "key\t"};
        TK_CLEANUP(tk_freep) char *before = NULL;
        size_t len;

        make(TK_DEK_WRAP_KEK);
        use(0);
        before = read_file(&len);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                struct tk_volume_wrap envelope = {0};
                struct tk_fault fault = {0};
                unsigned number;

                assert_int_equal(tk_protector_make(tk_volume_id(test.volume), test.fingerprint,
                                                   test.kms[1], NULL, &envelope, NULL, &fault),
                                 0);
                snprintf(envelope.wrap.key_id, sizeof(envelope.wrap.key_id), "%s", names[i]);
                assert_int_equal(tk_volume_add_protector(test.volume, &envelope, &number, &fault),
                                 -EINVAL);
                assert_int_equal(fault.kind, TK_FAULT_USAGE);
                check_same_file(before);
        }
        add(1, 2); /* nothing of it stayed in memory, either */
        assert_int_equal(try_unlock(0), 0);
}

static void test_remove__not_the_own_one_nor_the_last(void **state)
{
        struct tk_fault fault = {0};

        make(TK_DEK_WRAP_KEK);
        use(0);
        assert_int_equal(tk_volume_remove_protector(test.volume, 1, &fault), -EINVAL);
        assert_int_equal(fault.kind, TK_FAULT_USAGE);
        fault = (struct tk_fault){0};
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), -ENOENT);
        assert_int_equal(tk_volume_remove_protector(test.volume, 0, &fault), -ENOENT);
        add(1, 2);
        assert_int_equal(tk_volume_remove_protector(test.volume, 1, &fault), -EINVAL);
        use(1);
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), -EINVAL);
        assert_int_equal(tk_volume_remove_protector(test.volume, 1, &fault), 0);
        assert_int_equal(try_unlock(0), -ENOENT);
        assert_int_equal(try_unlock(1), 0);
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), -EINVAL);
        rotate(1);
        retire();
        assert_int_equal(try_unlock(1), 0);
}

/* Taken out and brought back, in the middle of rotations and between them. */
static void test_remove__and_add_again(void **state)
{
        struct tk_fault fault = {0};

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        rotate(0);
        retire();
        rotate(0);
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), 0);
        assert_int_equal(try_unlock(1), -ENOENT);
        for (size_t i = 0; i < tk_volume_wrap_count(test.volume); i++)
                assert_int_not_equal(tk_volume_wrap_at(test.volume, i).protector, 2);
        rotate(0);
        test.fakes[1].newer = 5;
        add(1, 2);
        check_same_keys(0, 1);
        retire();
        check_same_keys(0, 1);
        add(2, 3);
        use(2);
        assert_int_equal(tk_volume_remove_protector(test.volume, 1, &fault), 0);
        assert_int_equal(try_unlock(0), -ENOENT);
        add(0, 1);
        for (int key = 0; key < KEYS; key++)
                assert_int_equal(try_unlock(key), 0);
}

static void test_move__not_when_shared(void **state)
{
        TK_CLEANUP(tk_freep) char *before = NULL;
        struct tk_fault fault = {0};
        size_t len;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        before = read_file(&len);
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms[2], true, &fault), -ENOTSUP);
        assert_int_equal(fault.kind, TK_FAULT_UNSUPPORTED);
        check_same_file(before);
}

/* A retired KEK version that comes back opens for those who are protectors now, and for no other.
 */
static void test_readmit__for_the_present_protectors(void **state)
{
        struct tk_fault fault = {0};

        make(TK_DEK_WRAP_KEK);
        use(0);
        rotate(0); /* version 1 has no envelope, and never had one */
        retire();
        add(1, 2);
        rotate(0); /* version 2 is sealed to the second, who goes */
        retire();
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), 0);
        add(2, 2);
        for (uint16_t version = 1; version <= 2; version++) {
                use(0);
                assert_int_equal(tk_volume_readmit(test.volume, version, test.kms[0], NULL, &fault),
                                 0);
                assert_int_equal(tk_volume_active_count(test.volume), version + 1);
                check_same_keys(0, 2);
                check_same_keys(2, 0);
                assert_int_equal(try_unlock(1), -ENOENT);
        }
        use(2);
        rotate(2);
        retire();
        check_same_keys(0, 2);
        /* Whoever came later has no wrap of it: that takes who was there. */
        assert_int_equal(tk_volume_readmit(test.volume, 1, test.kms[2], NULL, &fault), 0);
        check_same_keys(0, 2);
}

static void test_find__whose_key_it_is(void **state)
{
        struct tk_fault fault = {0};
        unsigned number = 0;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        assert_int_equal(tk_volume_find_protector(test.volume, test.kms[0], &number, &fault), 0);
        assert_int_equal(number, 1);
}

/* Damage ------------------------------------------------------------------- */

/* No byte of the file can be changed unseen, whoever opens it. */
static void test_unlock__every_byte_of_the_file(void **state)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len = 0;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        text = read_file(&len);
        for (size_t i = 0; i < len; i++) {
                text[i] = (char)(text[i] ^ 1 << i % 7);
                write_file(text, len);
                assert_true(try_unlock((int)(i / 7 % 2)) < 0);
                text[i] = (char)(text[i] ^ 1 << i % 7);
        }
        write_file(text, len);
        assert_int_equal(try_unlock(1), 0);
}

/* Somebody who may write the file, but has no root key: @text is stored with a MAC of theirs. */
static void store_forged(const struct tk_volume_text *text, const struct tk_secret *volume_key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *mac_key = NULL;
        TK_CLEANUP(tk_freep) char *signed_text = NULL;
        TK_CLEANUP(tk_freep) char *whole = NULL;
        uint8_t mac[TK_MAC_LEN];

        assert_int_equal(tk_volume_text_format(text, &signed_text), 0);
        assert_int_equal(tk_volume_key_derive_mac(volume_key, &mac_key), 0);
        assert_int_equal(tk_mac_hmac(mac_key, signed_text, strlen(signed_text), mac), 0);
        assert_int_equal(tk_volume_text_append_mac(signed_text, mac, &whole), 0);
        write_file(whole, strlen(whole));
}

static void parse_file(struct tk_volume_text *ret_text)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        struct tk_fault fault = {0};
        size_t len;

        text = read_file(&len);
        assert_int_equal(tk_volume_text_parse(text, "v", ret_text, &fault), 0);
}

/*
 * The public halves are for everybody to read: sealed to them, a KEK and a volume key of one's
 * own make a volume file whose MAC holds. No root key opens it.
 */
static void test_unlock__a_volume_of_public_halves(void **state)
{
        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        for (int keep = 0; keep < 2; keep++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
                struct tk_volume_text text;

                parse_file(&text);
                assert_int_equal(tk_random_secret(TK_KEY_LEN, &volume_key), 0);
                assert_int_equal(tk_random_secret(TK_KEY_LEN, &kek), 0);
                for (size_t i = 0; i < text.wrap_count; i++)
                        assert_int_equal(tk_protector_seal(text.id, kek, &text.wraps[i]), 0);
                assert_int_equal(
                        tk_volume_key_seal(text.id, 1, kek, volume_key, text.keks[0].volume_key),
                        0);
                if (!keep) /* the pair is another one then */
                        assert_int_equal(tk_volume_key_fingerprint(volume_key, text.fingerprint),
                                         0);
                store_forged(&text, volume_key);
                tk_volume_text_done(&text);
                for (int key = 0; key < 2; key++)
                        assert_int_equal(try_unlock(key), -EBADMSG);
        }
}

static void check_moved(struct tk_volume_wrap *wrap, const struct tk_secret *secret)
{
        struct tk_secret *kek = NULL;

        assert_int_equal(
                tk_protector_open(tk_volume_id(test.volume), test.fingerprint, wrap, secret, &kek),
                -EBADMSG);
}

/* A sealed KEK is for one volume, volume key, KEK version and protector. */
static void test_protector__what_is_moved_does_not_open(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_volume_wrap wrap = {0};
        struct tk_fault fault = {0};

        make(TK_DEK_WRAP_KEK);
        use(0);
        assert_int_equal(tk_protector_make(tk_volume_id(test.volume), test.fingerprint, test.kms[1],
                                           NULL, &wrap, &secret, &fault),
                         0);
        wrap.kek_version = 7;
        wrap.protector = 2;
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &kek), 0);
        assert_int_equal(tk_protector_seal(tk_volume_id(test.volume), kek, &wrap), 0);
        assert_int_equal(tk_protector_open(tk_volume_id(test.volume), test.fingerprint, &wrap,
                                           secret, &again),
                         0);
        assert_true(tk_secret_equal(kek, again));
        wrap.kek_version = 8;
        check_moved(&wrap, secret);
        wrap.kek_version = 7;
        wrap.protector = 1;
        check_moved(&wrap, secret);
        wrap.protector = 2;
        check_moved(&wrap, kek);
        test.fingerprint[0] = test.fingerprint[0] == '0' ? '1' : '0';
        check_moved(&wrap, secret);
}

/* A wrap taken out, put in again from an older file, or under another number: the MAC says so. */
static void test_unlock__wraps_taken_or_put_back(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *stranger = NULL;
        struct tk_fault fault = {0};
        struct tk_volume_text text;
        struct tk_volume_wrap removed;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        parse_file(&text);
        removed = text.wraps[1];
        tk_volume_text_done(&text);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &stranger), 0);

        parse_file(&text);
        text.wrap_count = 1;
        store_forged(&text, stranger);
        tk_volume_text_done(&text);
        assert_int_equal(try_unlock(0), -EBADMSG);

        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), 0);
        parse_file(&text);
        assert_int_equal(tk_volume_text_add_wrap(&text, &removed), 0);
        store_forged(&text, stranger);
        tk_volume_text_done(&text);
        assert_int_equal(try_unlock(0), -EBADMSG);
        assert_int_equal(try_unlock(1), -EBADMSG);
}

/* What somebody knows who has opened the volume by @wrap of @text, with root key @key. */
static void learn_volume_key(int key, const struct tk_volume_text *text,
                             const struct tk_volume_wrap *wrap, struct tk_secret **ret_volume_key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_fault fault = {0};

        assert_int_equal(tk_kms_unwrap(test.kms[key], &wrap->wrap, &secret, &fault), 0);
        assert_int_equal(tk_protector_open(text->id, test.fingerprint, wrap, secret, &kek), 0);
        assert_int_equal(tk_volume_key_unseal(text->id, wrap->kek_version, kek,
                                              text->keks[wrap->kek_version - 1].volume_key,
                                              ret_volume_key),
                         0);
}

/*
 * Not found, as docs/threat-model.md says: the volume key never changes, so who had it once can
 * make a file that the others believe, with a KEK version of their own.
 */
static void test_unlock__a_removed_protector_that_may_write_the_file(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_fault fault = {0};
        struct tk_volume_wrap removed;
        struct tk_volume_text text;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        parse_file(&text);
        removed = text.wraps[1];
        learn_volume_key(1, &text, &removed, &volume_key);
        tk_volume_text_done(&text);
        assert_int_equal(tk_volume_remove_protector(test.volume, 2, &fault), 0);
        assert_int_equal(try_unlock(1), -ENOENT);

        parse_file(&text);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &kek), 0);
        assert_int_equal(tk_volume_key_seal(text.id, 1, kek, volume_key, text.keks[0].volume_key),
                         0);
        assert_int_equal(tk_protector_seal(text.id, kek, &text.wraps[0]), 0);
        assert_int_equal(tk_protector_seal(text.id, kek, &removed), 0);
        assert_int_equal(tk_volume_text_add_wrap(&text, &removed), 0);
        store_forged(&text, volume_key);
        tk_volume_text_done(&text);
        assert_int_equal(try_unlock(0), 0);
        assert_int_equal(try_unlock(1), 0);
        check_same_keys(0, 1);
}

/* At the same time ----------------------------------------------------------- */

static atomic_bool rotating;
static atomic_int failure; /* of the other thread, which must not assert */

static int rotate_once(bool and_retire)
{
        struct tk_keyring *keyring = tk_volume_keyring(test.volume);
        struct tk_fault fault = {0};
        int r;

        r = tk_volume_renew_kek(test.volume, test.kms[0], true, &fault);
        if (r == 0 && and_retire)
                r = tk_volume_retire_below(test.volume, tk_keyring_current(keyring), &fault);
        return r == 0 ? tk_volume_probe(test.volume, &fault) : r;
}

static void *rotate_on(void *context)
{
        (void)context;
        for (int i = 0; i < 60 && failure == 0; i++)
                failure = rotate_once(i % 3 == 0);
        rotating = false;
        return NULL;
}

/* Protectors come and go beside a rotation: who is in at the end opens, who is not does not. */
static void test_change__beside_rotations(void **state)
{
        unsigned changes = 0;
        bool in = false;
        pthread_t thread;
        int r = 0;

        make(TK_DEK_WRAP_KEK);
        use(0);
        add(1, 2);
        failure = 0;
        rotating = true;
        assert_int_equal(tk_thread_start(rotate_on, NULL, &thread), 0);
        while (rotating && (r == 0 || r == -EAGAIN)) {
                struct tk_fault fault = {0};
                unsigned number = 3;

                r = in ? tk_volume_remove_protector(test.volume, 3, &fault)
                       : add_to(test.volume, 2, &number, &fault);
                in = r == 0 ? !in : in;
                changes += r == 0;
        }
        pthread_join(thread, NULL);
        assert_true(r == 0 || r == -EAGAIN);
        assert_int_equal(failure, 0);
        assert_true(changes > 0);
        retire();
        assert_int_equal(try_unlock(0), 0);
        assert_int_equal(try_unlock(1), 0);
        assert_int_equal(try_unlock(2), in ? 0 : -ENOENT);
}

#define IN_VOLUME(name) cmocka_unit_test_setup_teardown(name, enter, leave)

int main(void)
{
        const struct CMUnitTest tests[] = {
                IN_VOLUME(test_add__each_opens),
                IN_VOLUME(test_rotate__who_is_not_there_follows),
                IN_VOLUME(test_probe__asks_only_the_own_one),
                IN_VOLUME(test_change__wants_the_own_one_now),
                IN_VOLUME(test_add__any_call_fails),
                IN_VOLUME(test_add__a_wrap_that_does_not_come_back),
                IN_VOLUME(test_add__twice),
                IN_VOLUME(test_add__not_with_dek_wrap_kms),
                IN_VOLUME(test_add__not_in_the_middle_of_the_first_rotation),
                IN_VOLUME(test_add__as_many_as_there_may_be),
                IN_VOLUME(test_add__what_does_not_fit_a_line),
                IN_VOLUME(test_remove__not_the_own_one_nor_the_last),
                IN_VOLUME(test_remove__and_add_again),
                IN_VOLUME(test_move__not_when_shared),
                IN_VOLUME(test_readmit__for_the_present_protectors),
                IN_VOLUME(test_find__whose_key_it_is),
                IN_VOLUME(test_unlock__every_byte_of_the_file),
                IN_VOLUME(test_unlock__a_volume_of_public_halves),
                IN_VOLUME(test_protector__what_is_moved_does_not_open),
                IN_VOLUME(test_unlock__wraps_taken_or_put_back),
                IN_VOLUME(test_unlock__a_removed_protector_that_may_write_the_file),
                IN_VOLUME(test_change__beside_rotations),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
