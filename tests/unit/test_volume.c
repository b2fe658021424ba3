/* SPDX-License-Identifier: Apache-2.0 */

/* The volume: made, opened, locked, unlocked, its mounts counted; and every way that fails. */

#include "support_fs.h"

#include "base/fdio.h"
#include "fs/volume_key.h"
#include "fs/volume_text.h"

static const struct tk_volume_unlock not_pinned = {.lease_ms = 1000};

static struct tk_volume_options options_of(enum tk_dek_wrap dek_wrap)
{
        struct tk_volume_options options = {.dek_wrap = dek_wrap, .journal_len = 1 << 20};

        memcpy(options.id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        return options;
}

static int create(const char *path, struct tk_kms *kms, enum tk_dek_wrap dek_wrap,
                  char *ret_fingerprint, struct tk_fault *fault)
{
        struct tk_volume_options options = options_of(dek_wrap);

        return tk_volume_create(path, &options, kms, ret_fingerprint, fault);
}

/* Open and unlock the volume "v"; 0 only if both succeed. */
static int try_unlock(struct tk_kms *kms, const char *fingerprint, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        int r;

        memset(fault, 0, sizeof(*fault));
        r = tk_volume_open("v", &volume, fault);
        if (r < 0)
                return r;
        r = tk_volume_unlock(
                volume, kms,
                &(struct tk_volume_unlock){.fingerprint = fingerprint, .lease_ms = 1000}, fault);
        if (r < 0)
                assert_null(tk_volume_keyring(volume));
        return r;
}

static char *read_volume_file(size_t *ret_len)
{
        char *text = NULL;

        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "v/turnkeyfs.volume", TK_VOLUME_TEXT_MAX,
                                           &text, ret_len),
                         0);
        return text;
}

static void write_volume_file(const char *text, size_t len)
{
        TK_AUTOCLOSE int fd = open("v/turnkeyfs.volume", O_WRONLY | O_TRUNC | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(tk_fdio_pwrite(fd, text, len, 0), 0);
}

static void test_create__opens_again(void **state)
{
        static const enum tk_dek_wrap wraps[] = {TK_DEK_WRAP_KEK, TK_DEK_WRAP_KMS};

        for (int i = 0; i < 2; i++) {
                struct tk_fake_kms fake = {0};
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
                TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
                char fingerprint[TK_FINGERPRINT_LEN + 1] = "";
                const char *path = i == 0 ? "kek" : "kms";
                struct tk_fault fault = {0};
                struct stat st;

                assert_int_equal(create(path, kms, wraps[i], fingerprint, &fault), 0);
                assert_int_equal(strlen(fingerprint), TK_FINGERPRINT_LEN);
                assert_int_equal(tk_volume_open(path, &volume, &fault), 0);
                assert_null(tk_volume_keyring(volume));
                assert_null(tk_volume_fingerprint(volume));
                fake.unwraps = 0;
                assert_int_equal(tk_volume_unlock(volume, kms, &not_pinned, &fault), 0);
                assert_int_equal(fake.unwraps, 1);
                assert_string_equal(tk_volume_fingerprint(volume), fingerprint);
                assert_non_null(tk_volume_keyring(volume));
                assert_int_equal(tk_volume_dek_wrap(volume), wraps[i]);
                assert_int_equal(tk_volume_kek_count(volume), 1);
                assert_int_equal(tk_volume_kek_at(volume, 0).version, 1);
                assert_int_equal(tk_volume_kek_at(volume, 0).protectors, 1);
                assert_true(tk_volume_kek_at(volume, 0).active);
                assert_int_equal(tk_volume_wrap_count(volume), 1);
                assert_string_equal(tk_volume_wrap_at(volume, 0).provider, "fake");
                assert_memory_equal(tk_volume_id(volume), "sixteen bytes id", TK_VOLUME_ID_LEN);
                assert_int_equal(tk_volume_unclean_count(volume), 0);
                assert_int_equal(fault.kind, TK_FAULT_NONE);
                assert_int_equal(fstatat(tk_volume_dirfd(volume), "turnkeyfs.volume", &st, 0), 0);
                assert_int_equal(st.st_mode & 07777, 0600);
                assert_int_equal(fstat(tk_volume_dirfd(volume), &st), 0);
                assert_int_equal(st.st_mode & 07777, 0700);
        }
}

static unsigned count_entries(const char *path)
{
        DIR *dir = opendir(path);
        unsigned count = 0;

        assert_non_null(dir);
        while (readdir(dir))
                count++;
        closedir(dir);
        return count - 2;
}

/* Whichever call to the KMS fails, nothing of a volume is left and the next attempt succeeds. */
static void test_create__kms_fails_at_any_call(void **state)
{
        for (int dek_wrap = 0; dek_wrap < 2; dek_wrap++) {
                unsigned at;

                for (at = 1; at < 20; at++) {
                        struct tk_fake_kms fake = {.fail_at = at, .fail_with = -EKEYREVOKED};
                        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
                        char fingerprint[TK_FINGERPRINT_LEN + 1];
                        struct tk_fault fault = {0};
                        int r = create("v", kms, (enum tk_dek_wrap)dek_wrap, fingerprint, &fault);

                        if (r == 0)
                                break;
                        assert_int_equal(r, -EKEYREVOKED);
                        assert_int_not_equal(fault.kind, TK_FAULT_NONE);
                        assert_int_equal(count_entries("v"), 0);
                }
                assert_int_equal(at, 4); /* current, wrap, unwrap */
                tk_test_remove("v");
        }
}

/* A provider whose wrap does not come back as it went: found out before anything is stored. */
static void test_create__wrap_is_tested(void **state)
{
        struct tk_fake_kms fake = {.lie = true};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), -EIO);
        assert_int_equal(count_entries("v"), 0);
}

static void test_create__not_empty(void **state)
{
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(mkdir("v", 0755), 0);
        assert_int_equal(mkdir("v/lost+found", 0700), 0);
        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), -EEXIST);
        assert_int_equal(fault.kind, TK_FAULT_NOT_A_VOLUME);
        assert_int_equal(mkdir("w", 0755), 0);
        assert_int_equal(mkdir("w/mine", 0755), 0);
        memset(&fault, 0, sizeof(fault));
        assert_int_equal(create("w", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), -ENOTEMPTY);
        assert_non_null(strstr(fault.text, "mine"));
        assert_int_equal(count_entries("w"), 1);
        memset(&fault, 0, sizeof(fault));
        assert_int_equal(create("absent/v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), -ENOENT);
}

static void test_open__no_volume(void **state)
{
        struct tk_volume *volume = NULL;
        struct tk_fault fault = {0};

        assert_int_equal(tk_volume_open("absent", &volume, &fault), -ENOENT);
        assert_int_equal(fault.kind, TK_FAULT_NOT_A_VOLUME);
        assert_int_equal(mkdir("v", 0700), 0);
        memset(&fault, 0, sizeof(fault));
        assert_int_equal(tk_volume_open("v", &volume, &fault), -ENOENT);
        assert_int_equal(fault.kind, TK_FAULT_NOT_A_VOLUME);
        assert_null(volume);
}

static void test_open__nul_or_too_large(void **state)
{
        TK_CLEANUP(tk_freep) char *large = malloc(TK_VOLUME_TEXT_MAX + 1);
        TK_CLEANUP(tk_freep) char *text = NULL;
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};
        size_t len = 0;

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        text = read_volume_file(&len);
        write_volume_file(text, len + 1); /* with its NUL */
        assert_int_equal(try_unlock(kms, NULL, &fault), -EINVAL);
        assert_int_equal(fault.kind, TK_FAULT_VOLUME_DAMAGED);
        memset(large, '\n', TK_VOLUME_TEXT_MAX + 1);
        write_volume_file(large, TK_VOLUME_TEXT_MAX + 1);
        assert_int_equal(try_unlock(kms, NULL, &fault), -EFBIG);
        assert_int_equal(fault.kind, TK_FAULT_VOLUME_DAMAGED);
}

static void test_unlock__what_the_kms_says(void **state)
{
        static const int answers[] = {-ENOKEY, -EKEYREVOKED, -EKEYEXPIRED, -EBADMSG, -ENOENT};
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
                fake.refuse = answers[i];
                assert_int_equal(try_unlock(kms, NULL, &fault), answers[i]);
                assert_int_not_equal(fault.kind, TK_FAULT_NONE);
        }
        fake.refuse = 0;
        assert_int_equal(try_unlock(kms, NULL, &fault), 0);
}

static void test_unlock__wrong_key(void **state)
{
        struct tk_fake_kms fake = {0};
        struct tk_fake_kms other = {.key_id = "key-two"};
        struct tk_fake_kms impostor = {.root_key = {1}};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *other_kms = tk_fake_open(&other);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *impostor_kms = tk_fake_open(&impostor);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        assert_int_equal(try_unlock(other_kms, NULL, &fault), -ENOENT);
        assert_int_equal(fault.kind, TK_FAULT_WRONG_KEY);
        assert_int_equal(try_unlock(impostor_kms, NULL, &fault), -EBADMSG);
}

static void test_unlock__fingerprint(void **state)
{
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        char other[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        assert_int_equal(create("w", kms, TK_DEK_WRAP_KEK, other, &fault), 0);
        assert_string_not_equal(fingerprint, other);
        assert_int_equal(try_unlock(kms, fingerprint, &fault), 0);
        assert_int_equal(try_unlock(kms, other, &fault), -EKEYREJECTED);
        assert_int_equal(fault.kind, TK_FAULT_WRONG_KEY);
        assert_non_null(strstr(fault.text, fingerprint));
        assert_int_equal(try_unlock(kms, "", &fault), -EKEYREJECTED);
        /* The volume file of another volume of the same owner: the pin finds it out. */
        assert_int_equal(rename("w/turnkeyfs.volume", "v/turnkeyfs.volume"), 0);
        assert_int_equal(try_unlock(kms, NULL, &fault), 0);
        assert_int_equal(try_unlock(kms, fingerprint, &fault), -EKEYREJECTED);
}

/* No bit of the volume file can be flipped unseen. */
static void test_unlock__every_bit_of_the_file(void **state)
{
        for (int dek_wrap = 0; dek_wrap < 2; dek_wrap++) {
                struct tk_fake_kms fake = {0};
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
                TK_CLEANUP(tk_freep) char *text = NULL;
                char fingerprint[TK_FINGERPRINT_LEN + 1];
                struct tk_fault fault = {0};
                size_t len = 0;

                assert_int_equal(create("v", kms, (enum tk_dek_wrap)dek_wrap, fingerprint, &fault),
                                 0);
                text = read_volume_file(&len);
                for (size_t bit = 0; bit < len * 8; bit++) {
                        tk_test_flip((uint8_t *)text, bit);
                        write_volume_file(text, len);
                        assert_true(try_unlock(kms, NULL, &fault) < 0);
                        tk_test_flip((uint8_t *)text, bit);
                }
                write_volume_file(text, len);
                assert_int_equal(try_unlock(kms, NULL, &fault), 0);
                tk_test_remove("v");
        }
}

static void test_lock__second_is_refused(void **state)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *first = NULL;
        TK_CLEANUP(tk_volume_freep) struct tk_volume *second = NULL;
        struct tk_volume_holder holder = {0};
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        char doing[2000];
        struct tk_fault fault = {0};

        memset(doing, 'x', sizeof(doing) - 1);
        doing[sizeof(doing) - 1] = '\0';
        memcpy(doing, "mounted at /some/where ", 23);
        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        assert_int_equal(tk_volume_open("v", &first, &fault), 0);
        assert_int_equal(tk_volume_open("v", &second, &fault), 0);
        assert_int_equal(tk_volume_holder(second, &holder), 0);
        assert_int_equal(tk_volume_lock(first, doing, &fault), 0);
        assert_int_equal(tk_volume_holder(second, &holder), 1);
        assert_int_equal(holder.pid, getpid());
        assert_memory_equal(holder.doing, doing, sizeof(holder.doing) - 1);
        assert_int_equal(tk_volume_lock(second, "verified", &fault), -EBUSY);
        assert_int_equal(fault.kind, TK_FAULT_IN_USE);
        assert_non_null(strstr(fault.text, "mounted at /some/where"));

        first = tk_volume_free(first);
        assert_int_equal(tk_volume_holder(second, &holder), 0);
        memset(&fault, 0, sizeof(fault));
        assert_int_equal(tk_volume_lock(second, "verified", &fault), 0);
        assert_int_equal(fault.kind, TK_FAULT_NONE);
}

/* Whoever waits for the lock must not write back what it read before. */
static void test_lock__reads_again(void **state)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *first = NULL;
        TK_CLEANUP(tk_volume_freep) struct tk_volume *second = NULL;
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        assert_int_equal(tk_volume_open("v", &second, &fault), 0);
        assert_int_equal(tk_volume_open("v", &first, &fault), 0);
        assert_int_equal(tk_volume_lock(first, "mounted", &fault), 0);
        assert_int_equal(tk_volume_unlock(first, kms, &not_pinned, &fault), 0);
        assert_int_equal(tk_volume_mount_begin(first, &fault), 0);
        first = tk_volume_free(first); /* as if killed */

        assert_int_equal(tk_volume_unclean_count(second), 0);
        assert_int_equal(tk_volume_lock(second, "mounted", &fault), 0);
        assert_int_equal(tk_volume_unclean_count(second), 1);
        assert_int_equal(tk_volume_unlock(second, kms, &not_pinned, &fault), 0);
        assert_int_equal(tk_volume_mount_begin(second, &fault), 0);
        assert_int_equal(tk_volume_mount_number(second), 2);
        assert_int_equal(tk_volume_mount_end(second, &fault), 0);
        assert_int_equal(tk_volume_unclean_count(second), 1);
}

/* Open, unlock and begin a mount of "v"; the caller frees the volume. */
static struct tk_volume *begin_mount(struct tk_kms *kms)
{
        struct tk_volume *volume = NULL;
        struct tk_fault fault = {0};

        assert_int_equal(tk_volume_open("v", &volume, &fault), 0);
        assert_int_equal(tk_volume_lock(volume, "mounted", &fault), 0);
        assert_int_equal(tk_volume_unlock(volume, kms, &not_pinned, &fault), 0);
        assert_int_equal(tk_volume_mount_begin(volume, &fault), 0);
        return volume;
}

static void test_mount__numbers(void **state)
{
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        for (unsigned i = 1; i < 60; i++) {
                struct tk_volume *volume = begin_mount(kms);

                assert_int_equal(tk_volume_mount_number(volume), i);
                /* Every third ends cleanly. */
                if (i % 3 == 0)
                        assert_int_equal(tk_volume_mount_end(volume, &fault), 0);
                assert_int_equal(tk_volume_unclean_count(volume), i - i / 3);
                tk_volume_free(volume);
        }
}

/* The journal of a mount awaits replay from its crash until a later mount has replayed it. */
static void test_mount__awaits_replay(void **state)
{
        struct tk_fake_kms fake = {0};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};
        struct tk_volume *volume;

        assert_int_equal(create("v", kms, TK_DEK_WRAP_KEK, fingerprint, &fault), 0);
        for (int i = 1; i <= 2; i++) { /* both crash, the second before its replay */
                volume = begin_mount(kms);
                assert_false(tk_volume_awaits_replay(volume, (uint16_t)i));
                tk_volume_free(volume);
        }
        volume = begin_mount(kms);
        assert_true(tk_volume_awaits_replay(volume, 1));
        assert_true(tk_volume_awaits_replay(volume, 2));
        assert_false(tk_volume_awaits_replay(volume, 3));
        assert_false(tk_volume_awaits_replay(volume, 4));
        assert_int_equal(tk_volume_note_replay(volume, 0, &fault), 0);
        assert_false(tk_volume_any_awaits_replay(volume));
        tk_volume_free(volume); /* a crash, too */

        volume = begin_mount(kms);
        assert_false(tk_volume_awaits_replay(volume, 1));
        assert_false(tk_volume_awaits_replay(volume, 2));
        assert_true(tk_volume_awaits_replay(volume, 3));
        assert_int_equal(tk_volume_note_replay(volume, 0, &fault), 0);
        assert_int_equal(tk_volume_mount_end(volume, &fault), 0);
        tk_volume_free(volume);

        volume = begin_mount(kms);
        assert_false(tk_volume_any_awaits_replay(volume));
        assert_int_equal(tk_volume_mount_end(volume, &fault), 0);
        tk_volume_free(volume);
}

/* A volume with several protectors and mounts, as other releases may leave one. */
struct built {
        struct tk_volume_text text;
        struct tk_secret *volume_key;
        struct tk_secret *kek;
};

static void build_volume(struct built *built)
{
        memset(built, 0, sizeof(*built));
        built->text.created = 1;
        memcpy(built->text.id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &built->volume_key), 0);
        assert_int_equal(tk_random_secret(TK_KEY_LEN, &built->kek), 0);
        struct tk_volume_text_kek entry = {.kek = {.version = 1, .active = true, .created = 1},
                                           .volume_key_len = TK_SEALED_KEY_LEN};
        assert_int_equal(tk_volume_key_seal(built->text.id, 1, built->kek, built->volume_key,
                                            entry.volume_key),
                         0);
        assert_int_equal(tk_volume_text_add_kek(&built->text, &entry), 0);
}

static void build_protector(struct built *built, struct tk_fake_kms *fake)
{
        struct tk_volume_wrap wrap = {.kek_version = 1,
                                      .protector = (unsigned)built->text.wrap_count + 1,
                                      .provider = "fake"};

        assert_int_equal(tk_fake_wrap(fake, "1", built->kek, &wrap.wrap, NULL), 0);
        assert_int_equal(tk_volume_text_add_wrap(&built->text, &wrap), 0);
}

static void store_built(struct built *built)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *mac_key = NULL;
        TK_CLEANUP(tk_freep) char *signed_text = NULL;
        TK_CLEANUP(tk_freep) char *whole = NULL;
        uint8_t mac[TK_MAC_LEN];

        assert_int_equal(tk_volume_text_format(&built->text, &signed_text), 0);
        assert_int_equal(tk_volume_key_derive_mac(built->volume_key, &mac_key), 0);
        assert_int_equal(tk_mac_hmac(mac_key, signed_text, strlen(signed_text), mac), 0);
        assert_int_equal(tk_volume_text_append_mac(signed_text, mac, &whole), 0);
        assert_true(mkdir("v", 0700) == 0 || errno == EEXIST);
        assert_int_equal(
                tk_fdio_replace(AT_FDCWD, "v/turnkeyfs.volume", whole, strlen(whole), 0600),
                -EBADF); /* the fsync of no directory; the file is there */
        tk_volume_text_done(&built->text);
        tk_secret_free(built->volume_key);
        tk_secret_free(built->kek);
}

/* Each protector of a KEK version opens the volume by itself, whatever its place. */
static void test_unlock__any_protector(void **state)
{
        struct tk_fake_kms fakes[3] = {{.root_key = {1}, .key_id = "key-one"},
                                       {.root_key = {2}, .key_id = "key-two"},
                                       {.root_key = {3}, .key_id = "key-three"}};
        struct tk_fake_kms stranger = {.key_id = "key-four"};
        struct built built;
        struct tk_fault fault = {0};

        build_volume(&built);
        for (int i = 0; i < 3; i++)
                build_protector(&built, &fakes[i]);
        store_built(&built);
        for (int i = 0; i < 4; i++) {
                TK_CLEANUP(tk_kms_freep)
                struct tk_kms *kms = tk_fake_open(i < 3 ? &fakes[i] : &stranger);

                assert_int_equal(try_unlock(kms, NULL, &fault), i < 3 ? 0 : -ENOENT);
                assert_int_equal(fault.kind, i < 3 ? TK_FAULT_NONE : TK_FAULT_WRONG_KEY);
                if (i < 3) {
                        /* What our own key says counts, not what others would have. */
                        fakes[i].refuse = -EKEYREVOKED;
                        assert_int_equal(try_unlock(kms, NULL, &fault), -EKEYREVOKED);
                }
        }
}

/* Numbers begin again after 65535, but never at one that still stands for an unclean mount. */
static void test_mount__numbers_wrap(void **state)
{
        static const uint16_t unclean[] = {65535, 1, 2, 4};
        static const uint16_t expected[] = {3, 5, 6};
        struct tk_fake_kms fake = {.key_id = "key-one"};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        struct tk_fault fault = {0};
        struct built built;

        build_volume(&built);
        build_protector(&built, &fake);
        built.text.last_mount = 65535;
        built.text.unclean = malloc(sizeof(unclean));
        memcpy(built.text.unclean, unclean, sizeof(unclean));
        built.text.unclean_count = 4;
        store_built(&built);
        for (int i = 0; i < 3; i++) {
                struct tk_volume *volume = begin_mount(kms);

                assert_int_equal(tk_volume_mount_number(volume), expected[i]);
                assert_int_equal(tk_volume_unclean_count(volume), 5);
                assert_int_equal(tk_volume_mount_end(volume, &fault), 0);
                assert_int_equal(tk_volume_unclean_count(volume), 4);
                tk_volume_free(volume);
        }
}

/* Numbers that began again come behind those before. */
static void test_mount__awaits_replay_wraps(void **state)
{
        static const uint16_t unclean[] = {65533, 65535, 1, 5};
        struct tk_fake_kms fake = {.key_id = "key-one"};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        struct built built;
        struct tk_volume *volume;

        build_volume(&built);
        build_protector(&built, &fake);
        built.text.last_mount = 2;
        built.text.replayed_mount = 65534;
        built.text.unclean = malloc(sizeof(unclean));
        memcpy(built.text.unclean, unclean, sizeof(unclean));
        built.text.unclean_count = 4;
        store_built(&built);
        volume = begin_mount(kms);
        assert_int_equal(tk_volume_mount_number(volume), 3);
        assert_false(tk_volume_awaits_replay(volume, 65533));
        assert_true(tk_volume_awaits_replay(volume, 65535));
        assert_true(tk_volume_awaits_replay(volume, 1));
        assert_false(tk_volume_awaits_replay(volume, 2)); /* it ended cleanly */
        assert_false(tk_volume_awaits_replay(volume, 3));
        assert_false(tk_volume_awaits_replay(volume, 5));
        tk_volume_free(volume);
}

static void test_mount__no_number_left(void **state)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        struct tk_fake_kms fake = {.key_id = "key-one"};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = tk_fake_open(&fake);
        struct tk_fault fault = {0};
        struct built built;

        build_volume(&built);
        build_protector(&built, &fake);
        built.text.last_mount = 17;
        built.text.unclean = malloc(65535 * sizeof(uint16_t));
        for (unsigned i = 0; i < 65535; i++)
                built.text.unclean[i] = (uint16_t)(i + 1);
        built.text.unclean_count = 65535;
        store_built(&built);
        assert_int_equal(tk_volume_open("v", &volume, &fault), 0);
        assert_int_equal(tk_volume_lock(volume, "mounted", &fault), 0);
        assert_int_equal(tk_volume_unlock(volume, kms, &not_pinned, &fault), 0);
        assert_int_equal(tk_volume_mount_begin(volume, &fault), -EOVERFLOW);
        assert_int_not_equal(fault.kind, TK_FAULT_NONE);
        assert_int_equal(tk_volume_unclean_count(volume), 65535);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_create__opens_again),
                TK_TEST_IN_DIR(test_create__kms_fails_at_any_call),
                TK_TEST_IN_DIR(test_create__wrap_is_tested),
                TK_TEST_IN_DIR(test_create__not_empty),
                TK_TEST_IN_DIR(test_open__no_volume),
                TK_TEST_IN_DIR(test_open__nul_or_too_large),
                TK_TEST_IN_DIR(test_unlock__what_the_kms_says),
                TK_TEST_IN_DIR(test_unlock__wrong_key),
                TK_TEST_IN_DIR(test_unlock__fingerprint),
                TK_TEST_IN_DIR(test_unlock__every_bit_of_the_file),
                TK_TEST_IN_DIR(test_unlock__any_protector),
                TK_TEST_IN_DIR(test_lock__second_is_refused),
                TK_TEST_IN_DIR(test_lock__reads_again),
                TK_TEST_IN_DIR(test_mount__numbers),
                TK_TEST_IN_DIR(test_mount__awaits_replay),
                TK_TEST_IN_DIR(test_mount__awaits_replay_wraps),
                TK_TEST_IN_DIR(test_mount__numbers_wrap),
                TK_TEST_IN_DIR(test_mount__no_number_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
