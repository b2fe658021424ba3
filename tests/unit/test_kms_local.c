/* SPDX-License-Identifier: Apache-2.0 */

/* The local keystore: making, opening, every defect, and the provider's answers. */

#include "base/fdio.h"
#include "crypto/mac.h"
#include "kms/keystore.h"
#include "kms/local.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <time.h>

#define ID "00112233445566778899aabbccddeeff"
#define KEY1 "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE" /* 32 bytes of 1 */
#define KEY2 "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI" /* 32 bytes of 2 */
#define HEAD "[keystore]\nformat = 1\nid = " ID "\nprotection = none\n"
#define VERSION(n, state, key)                                                                     \
        "[version " n "]\ncreated = 1700000000\nstate = " state "\nkey = " key "\n"
#define GOOD HEAD VERSION("1", "enabled", KEY1)

/* Made by python3-cryptography and hashlib from docs/format.md: passphrase "correct horse". */
#define PROTECTED_HEAD                                                                             \
        "[keystore]\nformat = 1\nid = " ID "\nprotection = passphrase\n"                           \
        "scrypt_n = 1024\nscrypt_r = 8\nscrypt_p = 1\nsalt = EBESExQVFhcYGRobHB0eHw\n"
#define SEALED1 "QEFCQ0RFRkdISUpLocraDBNcqdzQQNp2lZ5SZVgMjJonjWbYYKm8nk1K2MYDXzyR2VPSHw8BaN7pO4vd"
#define SEALED2 "UFFSU1RVVldYWVpbTH3zYnrrwuZ4zqc66BD3rvHlKxP3Tv_28kwHYRJLdJoh2VxqImY6NYBigG0PXRmh"
/* 32 bytes of 0x33, wrapped by version 1, which is KEY1 in both. */
#define BLOB "YGFiY2RlZmdoaWpr5ZfUcdyFye8el1M7YLpuNYXaPVUdQKyMpK4iXcLDSk3M2jt0f3GfxuOG_xA5TNSc"

static void put_file(const char *text, size_t len)
{
        TK_AUTOCLOSE int fd = open("ks", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(fchmod(fd, 0600), 0);
        assert_int_equal(tk_fdio_pwrite(fd, text, len, 0), 0);
}

/* The keystore file of that text and its checksum. */
static void put_keystore(const char *body)
{
        uint8_t digest[TK_MAC_LEN];
        char digits[2 * TK_MAC_LEN + 1];
        char text[8192];
        int len;

        assert_int_equal(tk_mac_sha256(body, strlen(body), digest), 0);
        tk_hex_encode(digest, sizeof(digest), digits);
        len = snprintf(text, sizeof(text), "%s[checksum]\nsha256 = %s\n", body, digits);
        assert_in_range(len, 1, sizeof(text) - 1);
        put_file(text, (size_t)len);
}

static int open_with(const char *passphrase, struct tk_kms **ret_kms, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep)
        struct tk_secret *secret =
                passphrase ? tk_test_secret(passphrase, strlen(passphrase)) : NULL;
        struct tk_kms_local_options options = {.keystore = "ks", .passphrase = secret};

        *fault = (struct tk_fault){0};
        *ret_kms = NULL;
        return tk_kms_local_open(&options, ret_kms, fault);
}

static struct tk_kms *opened(const char *passphrase)
{
        struct tk_fault fault;
        struct tk_kms *kms;

        if (open_with(passphrase, &kms, &fault) < 0)
                fail_msg("%s", fault.text);
        assert_int_equal(fault.kind, TK_FAULT_NONE);
        return kms;
}

/* Opening "ks" fails so; the fault names the path and says @words. */
static void assert_refused(const char *passphrase, int r, enum tk_fault_kind kind,
                           const char *words)
{
        struct tk_fault fault;
        struct tk_kms *kms;

        assert_int_equal(open_with(passphrase, &kms, &fault), r);
        assert_null(kms);
        if (fault.kind != kind || !strstr(fault.text, words) || !strstr(fault.text, "ks"))
                fail_msg("wanted kind %d and \"%s\", got %d: %s", kind, words, fault.kind,
                         fault.text);
        if (strstr(fault.text, KEY1) || strstr(fault.text, KEY2))
                fail_msg("the fault tells a key");
}

static int create(const char *path, const char *passphrase, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep)
        struct tk_secret *secret =
                passphrase ? tk_test_secret(passphrase, strlen(passphrase)) : NULL;
        struct tk_kms_local_options options = {.keystore = path, .passphrase = secret};

        *fault = (struct tk_fault){0};
        return tk_kms_local_create(&options, fault);
}

static void assert_not_created(const char *path, const char *passphrase, int r,
                               enum tk_fault_kind kind)
{
        struct tk_fault fault;

        assert_int_equal(create(path, passphrase, &fault), r);
        if (fault.kind != kind || !strstr(fault.text, path))
                fail_msg("wanted kind %d, got %d: %s", kind, fault.kind, fault.text);
}

static size_t files_like(const char *pattern)
{
        glob_t found;
        size_t count;

        if (glob(pattern, 0, NULL, &found) != 0)
                return 0;
        count = found.gl_pathc;
        globfree(&found);
        return count;
}

/* A key wrapped by the current version and unwrapped again is itself. */
static void assert_works(struct tk_kms *kms)
{
        static const uint8_t bytes[TK_KEY_LEN] = "a KEK of thirty-two bytes......";
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret(bytes, sizeof(bytes));
        TK_CLEANUP(tk_secret_freep) struct tk_secret *back = NULL;
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault = {0};
        struct tk_kms_wrap wrap;

        assert_int_equal(tk_kms_current(kms, version, &fault), 0);
        assert_int_equal(tk_kms_wrap(kms, version, key, &wrap, &fault), 0);
        assert_string_equal(wrap.version, version);
        assert_int_equal(tk_kms_probe(kms, &wrap, &fault), 0);
        assert_int_equal(tk_kms_unwrap(kms, &wrap, &back, &fault), 0);
        assert_true(tk_secret_equal(key, back));
        assert_int_equal(fault.kind, TK_FAULT_NONE);
}

static void assert_mode(const char *path, mode_t mode)
{
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, mode);
}

/* Making */

static void test_create__file_and_parents(void **state)
{
        mode_t mask = umask(0);
        struct tk_fault fault;

        assert_int_equal(create("a/b//c/ks", NULL, &fault), 0);
        assert_mode("a", 0700);
        assert_mode("a/b", 0700);
        assert_mode("a/b/c", 0700);
        assert_mode("a/b/c/ks", 0600);
        assert_int_equal(files_like("a/b/c/*"), 1);

        umask(0777);
        assert_int_equal(create("ks", NULL, &fault), 0);
        umask(mask);
        assert_mode("ks", 0600);
        assert_int_equal(files_like("*"), 2);
}

static void test_create__absolute_path(void **state)
{
        struct tk_fault fault;
        char path[600];

        snprintf(path, sizeof(path), "%s/x/ks", (const char *)*state);
        assert_int_equal(create(path, NULL, &fault), 0);
        assert_mode("x/ks", 0600);
}

static void test_create__new_keystore_works(void **state)
{
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault;
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;

        assert_int_equal(create("ks", NULL, &fault), 0);
        assert_int_equal(tk_kms_local_wants_passphrase("ks", &fault), 0);
        kms = opened(NULL);
        assert_string_equal(tk_kms_provider_name(kms), "local");
        assert_int_equal(tk_kms_current(kms, version, &fault), 0);
        assert_string_equal(version, "1");
        assert_works(kms);
}

static void test_create__with_passphrase(void **state)
{
        struct tk_fault fault;
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;

        assert_int_equal(create("ks", "correct horse", &fault), 0);
        assert_int_equal(tk_kms_local_wants_passphrase("ks", &fault), 1);
        kms = opened("correct horse");
        assert_works(kms);
        assert_refused(NULL, -EKEYREJECTED, TK_FAULT_PASSPHRASE, "none was given");
        assert_refused("correct hors", -EKEYREJECTED, TK_FAULT_PASSPHRASE, "does not open");
        assert_refused("correct horse ", -EKEYREJECTED, TK_FAULT_PASSPHRASE, "does not open");
        assert_not_created("other", "", -EKEYREJECTED, TK_FAULT_PASSPHRASE);
        assert_int_equal(files_like("*"), 1);
}

static void test_create__existing_stays(void **state)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len;

        put_file("precious", 8);
        assert_not_created("ks", NULL, -EEXIST, TK_FAULT_USAGE);
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "ks", 100, &text, &len), 0);
        assert_string_equal(text, "precious");
        assert_int_equal(symlink("nowhere", "link"), 0);
        assert_not_created("link", NULL, -EEXIST, TK_FAULT_USAGE);
        assert_int_equal(files_like("*new*"), 0);
}

static void test_create__impossible_paths(void **state)
{
        char name[300];

        put_file("file", 4);
        assert_not_created("ks/inside", NULL, -ENOTDIR, TK_FAULT_CONFIG);
        assert_not_created("dir/", NULL, -EISDIR, TK_FAULT_CONFIG);
        assert_not_created("", NULL, -EISDIR, TK_FAULT_CONFIG);
        memset(name, 'n', sizeof(name));
        name[sizeof(name) - 1] = '\0';
        assert_not_created(name, NULL, -ENAMETOOLONG, TK_FAULT_CONFIG);
}

/* Become an ordinary user, and again what the test runs as. */
static uid_t drop_privileges(void)
{
        uid_t uid = geteuid();

        if (uid == 0)
                assert_int_equal(seteuid(TK_TEST_NOBODY), 0);
        return uid;
}

static void regain_privileges(uid_t uid)
{
        assert_int_equal(seteuid(uid), 0);
}

static void test_create__permission_denied(void **state)
{
        uid_t uid;

        assert_int_equal(chmod(".", 0755), 0);
        assert_int_equal(mkdir("closed", 0555), 0);
        uid = drop_privileges();
        assert_not_created("closed/ks", NULL, -EACCES, TK_FAULT_PERMISSION);
        assert_not_created("closed/new/ks", NULL, -EACCES, TK_FAULT_PERMISSION);
        regain_privileges(uid);
}

static pthread_barrier_t start;

/* Returns what creating "new/ks" returned, at the same time as others do. */
static void *create_at_once(void *context)
{
        struct tk_fault fault;

        pthread_barrier_wait(&start);
        return (void *)(intptr_t)create("new/ks", NULL, &fault);
}

/* Exactly one of them wins, and what it wrote is what is there. */
static void test_create__concurrent(void **state)
{
        enum { THREADS = 8, ROUNDS = 20 };

        assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
        for (int round = 0; round < ROUNDS; round++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
                pthread_t threads[THREADS];
                int made = 0;

                for (size_t i = 0; i < THREADS; i++)
                        assert_int_equal(pthread_create(&threads[i], NULL, create_at_once, NULL),
                                         0);
                for (size_t i = 0; i < THREADS; i++) {
                        void *result;

                        assert_int_equal(pthread_join(threads[i], &result), 0);
                        assert_true((intptr_t)result == 0 || (intptr_t)result == -EEXIST);
                        made += result == NULL;
                }
                assert_int_equal(made, 1);
                assert_int_equal(files_like("new/*"), 1);
                assert_int_equal(rename("new/ks", "ks"), 0);
                kms = opened(NULL);
                assert_works(kms);
        }
        pthread_barrier_destroy(&start);
}

/* Opening: the file */

static void test_open__missing(void **state)
{
        struct tk_fault fault = {0};

        assert_refused(NULL, -ENOENT, TK_FAULT_KEYSTORE_MISSING, "does not exist");
        assert_int_equal(tk_kms_local_wants_passphrase("ks", &fault), -ENOENT);
        assert_int_equal(fault.kind, TK_FAULT_KEYSTORE_MISSING);
        assert_int_equal(symlink("nowhere", "ks"), 0);
        assert_refused(NULL, -ENOENT, TK_FAULT_KEYSTORE_MISSING, "does not exist");
}

static void test_open__not_a_regular_file(void **state)
{
        assert_int_equal(mkdir("ks", 0700), 0);
        assert_refused(NULL, -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "not a regular file");
        assert_int_equal(rmdir("ks"), 0);
        assert_int_equal(mkfifo("ks", 0600), 0); /* must not hang */
        assert_refused(NULL, -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "not a regular file");
}

static void test_open__by_symlink(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;

        put_keystore(GOOD);
        assert_int_equal(rename("ks", "real"), 0);
        assert_int_equal(symlink("real", "ks"), 0);
        kms = opened(NULL);
        assert_works(kms);
        assert_int_equal(chmod("real", 0640), 0);
        assert_refused(NULL, -EBADMSG, TK_FAULT_PERMISSION, "0640");
}

static void test_open__mode(void **state)
{
        static const mode_t closed[] = {0600, 0400, 0700};
        static const mode_t bad[] = {0640, 0620, 0610, 0604, 0602, 0601, 0666};

        put_keystore(GOOD);
        for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
                assert_int_equal(chmod("ks", closed[i]), 0);
                tk_kms_free(opened(NULL));
        }
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct tk_fault fault = {0};

                assert_int_equal(chmod("ks", bad[i]), 0);
                assert_refused(NULL, -EBADMSG, TK_FAULT_PERMISSION, "chmod 600");
                assert_int_equal(tk_kms_local_wants_passphrase("ks", &fault), -EBADMSG);
                assert_int_equal(fault.kind, TK_FAULT_PERMISSION);
        }
}

static void test_open__foreign_owner(void **state)
{
        if (geteuid() != 0)
                skip();
        put_keystore(GOOD);
        assert_int_equal(chown("ks", TK_TEST_NOBODY, 0), 0);
        assert_refused(NULL, -EBADMSG, TK_FAULT_PERMISSION, "belongs to user 65534");
}

static void test_open__unreadable(void **state)
{
        uid_t uid;

        put_keystore(GOOD);
        assert_int_equal(chmod("ks", 0000), 0);
        assert_int_equal(chmod(".", 0755), 0);
        uid = drop_privileges();
        assert_refused(NULL, -EACCES, TK_FAULT_PERMISSION, "as the user who owns it");
        regain_privileges(uid);
}

static void test_open__too_large(void **state)
{
        put_keystore(GOOD);
        assert_int_equal(truncate("ks", TK_KEYSTORE_TEXT_MAX + 1), 0);
        assert_refused(NULL, -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "larger than any keystore");
}

/* Opening: the text */

static void test_open__defects(void **state)
{
        static const struct {
                const char *body; /* gets a right checksum */
                const char *words;
        } defects[] = {
                {"", "does not begin with a format"},
                {"[keystore]\nid = " ID "\nformat = 1\nprotection = none\n", "begin with a format"},
                {"[version 1]\ncreated = 1\n" HEAD, "begin with a format"},
                {"[keystore]\nformat = 0\n", "format is not a number"},
                {"[keystore]\nformat = 01\n", "format is not a number"},
                {"[keystore]\nformat = one\n", "format is not a number"},
                {"[keystore]\nformat = 1\nprotection = none\n" VERSION("1", "enabled", KEY1),
                 "are missing"},
                {"[keystore]\nformat = 1\nid = " ID "\n" VERSION("1", "enabled", KEY1),
                 "are missing"},
                {HEAD, "holds no version"},
                {HEAD "id = " ID "\n" VERSION("1", "enabled", KEY1), "line 5: the entry is there"},
                {HEAD "  none\n" VERSION("1", "enabled", KEY1), "twice"},
                {HEAD "colour = red\n" VERSION("1", "enabled", KEY1), "entry is not known"},
                {HEAD "scrypt_n = 1024\n" VERSION("1", "enabled", KEY1), "another protection"},
                {PROTECTED_HEAD VERSION("1", "enabled", KEY1), "wrong length"},
                {HEAD VERSION("1", "enabled", SEALED1), "wrong length"},
                {"[keystore]\nformat = 1\nid = 0011\nprotection = none\n", "the id is not 32"},
                {"[keystore]\nformat = 1\nid = " ID "00\nprotection = none\n", "the id is not 32"},
                {"[keystore]\nformat = 1\nid = " ID "\nprotection = some\n", "neither none nor"},
                {GOOD "[extra]\nx = 1\n", "section is not known"},
                {GOOD "[keystore]\nformat = 1\n", "out of order"},
                {GOOD "[checksum]\nsha256 = 00\n", "checksum is not 64"},
                {GOOD "nonsense\n", "line 9: the line is no INI text"},
                {GOOD "x = " ID ID ID ID ID ID ID "\n", "line 9: the line is no INI text"},
                {GOOD VERSION("1", "enabled", KEY2), "twice"},
                {HEAD VERSION("2", "enabled", KEY2) VERSION("1", "enabled", KEY1), "ascending"},
                {HEAD VERSION("0", "enabled", KEY1), "version has no number"},
                {HEAD VERSION("-1", "enabled", KEY1), "version has no number"},
                {HEAD VERSION("01", "enabled", KEY1), "version has no number"},
                {HEAD VERSION("4294967296", "enabled", KEY1), "version has no number"},
                {HEAD VERSION("one", "enabled", KEY1), "version has no number"},
                {HEAD VERSION("1", "gone", KEY1), "neither enabled nor disabled"},
                {HEAD VERSION("1", "Enabled", KEY1), "neither enabled nor disabled"},
                {HEAD VERSION("1", "enabled", "AQ=="), "base64url"},
                {HEAD VERSION("1", "enabled", KEY1 "="), "base64url"},
                {HEAD VERSION("1", "enabled", "AQEB+QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"),
                 "base64url"},
                {HEAD VERSION("1", "enabled", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQF"),
                 "base64url"}, /* stray bits */
                {HEAD VERSION("1", "enabled", ""), "wrong length"},
                {HEAD VERSION("1", "enabled", KEY1 "A"), "wrong length"},
                {HEAD VERSION("1", "enabled", SEALED1 "AQ"), "base64url"},
                {HEAD "[version 1]\ncreated = soon\n", "time of creation"},
                {HEAD "[version 1]\ncreated = -1\n", "time of creation"},
                {HEAD "[version 1]\ncreated = 9223372036854775808\n", "time of creation"},
                {HEAD "[version 1]\ncreated = 1\nstate = enabled\n", "lacks an entry"},
                {HEAD "[version 1]\ncreated = 1\nkey = " KEY1 "\n", "lacks an entry"},
                {HEAD "[version 1]\nstate = enabled\nkey = " KEY1
                      "\n" VERSION("2", "enabled", KEY2),
                 "lacks an entry"},
                {HEAD "[version 1]\nsize = 1\n", "entry is not known"},
                {PROTECTED_HEAD "salt = AAAA\n", "twice"},
                {"[keystore]\nformat = 1\nsalt = AAAA\n", "salt is not 16"},
                {"[keystore]\nformat = 1\nscrypt_n = -1\n", "scrypt_n is not"},
                {"[keystore]\nformat = 1\nscrypt_r = 4294967296\n", "scrypt_r is not"},
                {"[keystore]\nformat = 1\nscrypt_p = 0x1\n", "scrypt_p is not"},
        };

        for (size_t i = 0; i < sizeof(defects) / sizeof(defects[0]); i++) {
                put_keystore(defects[i].body);
                assert_refused("p", -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, defects[i].words);
        }
        put_keystore(GOOD);
        tk_kms_free(opened(NULL));
}

static void test_open__checksum_defects(void **state)
{
        static const struct {
                const char *text;
                const char *words;
        } defects[] = {
                {"", "is empty"},
                {GOOD, "checksum is missing"},
                {GOOD "[checksum]\n", "checksum is missing"},
                {GOOD "[checksum]\nsha256 = " ID ID "\n", "checksum does not match"},
                {GOOD "[checksum]\nsha256 = " ID ID "\nsha256 = " ID ID "\n",
                 "follows the checksum"},
                {GOOD "[checksum]\nsha256 = " ID ID "\n[version 2]\nstate = x\n", "follows the"},
                {GOOD "[checksum]\nmd5 = " ID "\n", "entry is not known"},
                {GOOD " [checksum]\nsha256 = " ID ID "\n", "damaged"},
        };

        for (size_t i = 0; i < sizeof(defects) / sizeof(defects[0]); i++) {
                put_file(defects[i].text, strlen(defects[i].text));
                assert_refused(NULL, -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, defects[i].words);
        }
        put_file("[keystore]\0\n", 12);
        assert_refused(NULL, -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "no text");
}

/* A newer release may have changed anything but the first entry. */
static void test_open__newer_format(void **state)
{
        static const char text[] = "[keystore]\nformat = 2\nshape = round\n[seal]\nhmac = 1\n";

        put_file(text, strlen(text));
        assert_refused(NULL, -ENOTSUP, TK_FAULT_UNSUPPORTED, "format 2");
}

/* The bytes of a good keystore file, freed by the caller. */
static void read_good_text(char **ret_text, size_t *ret_len)
{
        put_keystore(HEAD VERSION("1", "enabled", KEY1) VERSION("2", "enabled", KEY2));
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "ks", 8192, ret_text, ret_len), 0);
}

/* A change in the checksum's own section may be harmless (upper case, say), no other. */
static void test_open__every_bit_counts(void **state)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t covered, len;

        read_good_text(&text, &len);
        covered = (size_t)(strstr(text, "[checksum]") - text);
        for (size_t bit = 0; bit < len * 8; bit++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
                struct tk_fault fault;
                int r;

                tk_test_flip((uint8_t *)text, bit);
                put_file(text, len);
                r = open_with(NULL, &kms, &fault);
                if (r == 0 ? bit < covered * 8
                           : fault.kind != TK_FAULT_KEYSTORE_DAMAGED &&
                                     fault.kind != TK_FAULT_UNSUPPORTED)
                        fail_msg("bit %zu: %d, kind %d: %s", bit, r, fault.kind, fault.text);
                tk_test_flip((uint8_t *)text, bit);
        }
}

static void test_open__truncated(void **state)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len;

        read_good_text(&text, &len);
        for (size_t n = 0; n < len - 1; n++) {
                put_file(text, n);
                assert_refused(NULL, -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "damaged");
        }
        put_file(text, len - 1); /* only the last newline is missing */
        tk_kms_free(opened(NULL));
}

/* Passphrases */

static void test_open__known_protected_keystore(void **state)
{
        static const uint8_t plain[TK_KEY_LEN] = {0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33,
                                                  0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33,
                                                  0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33,
                                                  0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33};
        struct tk_kms_wrap wrap = {.key_id = ID, .version = "1", .algorithm = "A256GCM"};
        static const char *const bodies[] = {
                PROTECTED_HEAD VERSION("1", "enabled", SEALED1) VERSION("2", "enabled", SEALED2),
                HEAD VERSION("1", "enabled", KEY1),
        };

        assert_int_equal(tk_base64url_decode(BLOB, wrap.blob, sizeof(wrap.blob), &wrap.blob_len),
                         0);
        for (size_t i = 0; i < 2; i++) {
                TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
                struct tk_fault fault = {0};

                put_keystore(bodies[i]);
                kms = opened("correct horse");
                assert_int_equal(tk_kms_unwrap(kms, &wrap, &key, &fault), 0);
                assert_int_equal(tk_secret_len(key), sizeof(plain));
                assert_memory_equal(tk_secret_bytes(key), plain, sizeof(plain));
        }
}

static void test_open__passphrase(void **state)
{
        struct tk_fault fault = {0};

        put_keystore(PROTECTED_HEAD VERSION("1", "enabled", SEALED1));
        assert_int_equal(tk_kms_local_wants_passphrase("ks", &fault), 1);
        assert_refused(NULL, -EKEYREJECTED, TK_FAULT_PASSPHRASE, "none was given");
        assert_refused("", -EKEYREJECTED, TK_FAULT_PASSPHRASE, "does not open");
        assert_refused("Correct horse", -EKEYREJECTED, TK_FAULT_PASSPHRASE, "does not open");
        tk_kms_free(opened("correct horse"));

        /* Version 2's sealed key in version 1's place, and the other way round. */
        put_keystore(PROTECTED_HEAD VERSION("1", "enabled", SEALED2));
        assert_refused("correct horse", -EKEYREJECTED, TK_FAULT_PASSPHRASE, "does not open");
        put_keystore(PROTECTED_HEAD VERSION("1", "enabled", SEALED1)
                             VERSION("2", "enabled", SEALED1));
        assert_refused("correct horse", -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "not version 2");
}

static double now_s(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* A file must not make the program take all memory, or run for hours. */
static void test_open__absurd_cost(void **state)
{
        static const char *const costs[][3] = {
                {"0", "8", "1"},
                {"1", "8", "1"},
                {"1000", "8", "1"},
                {"1024", "0", "1"},
                {"1024", "8", "0"},
                {"1024", "65", "1"},
                {"1024", "8", "65"},
                {"2097152", "8", "1"},
                {"2147483648", "1", "1"},
                {"1048576", "8", "8"},
                {"1024", "4294967295", "4294967295"},
        };
        double began = now_s();

        for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
                char body[1024];

                snprintf(body, sizeof(body),
                         "[keystore]\nformat = 1\nid = " ID "\nprotection = passphrase\n"
                         "scrypt_n = %s\nscrypt_r = %s\nscrypt_p = %s\n"
                         "salt = EBESExQVFhcYGRobHB0eHw\n" VERSION("1", "enabled", SEALED1),
                         costs[i][0], costs[i][1], costs[i][2]);
                put_keystore(body);
                assert_refused("correct horse", -EBADMSG, TK_FAULT_KEYSTORE_DAMAGED, "absurd");
        }
        assert_true(now_s() - began < 10);
}

/* The provider */

static struct tk_kms *opened_versions(void)
{
        put_keystore(HEAD VERSION("1", "enabled", KEY1) VERSION("3", "enabled", KEY2)
                             VERSION("7", "disabled", KEY1));
        return opened(NULL);
}

static void wrap_by(struct tk_kms *kms, const char *version, struct tk_kms_wrap *ret_wrap)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_fault fault = {0};

        assert_int_equal(tk_secret_new(TK_KEY_LEN, &key), 0);
        assert_int_equal(tk_kms_wrap(kms, version, key, ret_wrap, &fault), 0);
}

static void test_current__highest_enabled(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault = {0};

        assert_int_equal(tk_kms_current(kms, version, &fault), 0);
        assert_string_equal(version, "3");
        tk_kms_free(kms);

        put_keystore(HEAD VERSION("1", "disabled", KEY1) VERSION("2", "disabled", KEY2));
        kms = opened(NULL);
        assert_int_equal(tk_kms_current(kms, version, &fault), -EKEYREVOKED);
        assert_int_equal(fault.kind, TK_FAULT_KEY_REVOKED);
        assert_string_equal(version, "3");
}

static void test_wrap__fields(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        struct tk_kms_wrap a, b;

        wrap_by(kms, "1", &a);
        wrap_by(kms, "1", &b);
        assert_string_equal(a.key_id, ID);
        assert_string_equal(a.version, "1");
        assert_string_equal(a.algorithm, "A256GCM");
        assert_int_equal(a.blob_len, 60);
        assert_memory_not_equal(a.blob, b.blob, 12);
        assert_true(tk_bytes_are_zero(a.blob + 60, sizeof(a.blob) - 60));
}

static void test_wrap__refuses(void **state)
{
        static const struct {
                const char *version;
                int r;
                enum tk_fault_kind kind;
        } bad[] = {
                {"2", -ENOENT, TK_FAULT_WRONG_KEY},
                {"0", -ENOENT, TK_FAULT_WRONG_KEY},
                {"", -ENOENT, TK_FAULT_WRONG_KEY},
                {"01", -ENOENT, TK_FAULT_WRONG_KEY},
                {"latest", -ENOENT, TK_FAULT_WRONG_KEY},
                {"4294967297", -ENOENT, TK_FAULT_WRONG_KEY},
                {"7", -EKEYREVOKED, TK_FAULT_KEY_REVOKED},
        };
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *half = tk_test_secret("0123456789abcdef", 16);
        struct tk_kms_wrap wrap;
        struct tk_fault fault;

        assert_int_equal(tk_secret_new(TK_KEY_LEN, &key), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                fault = (struct tk_fault){0};
                assert_int_equal(tk_kms_wrap(kms, bad[i].version, key, &wrap, &fault), bad[i].r);
                assert_int_equal(fault.kind, bad[i].kind);
        }
        fault = (struct tk_fault){0};
        assert_int_equal(tk_kms_wrap(kms, "1", half, &wrap, &fault), -EINVAL);
}

static void assert_not_unwrapped(struct tk_kms *kms, const struct tk_kms_wrap *wrap, int r,
                                 enum tk_fault_kind kind)
{
        struct tk_secret *key = NULL;
        struct tk_fault fault = {0};

        assert_int_equal(tk_kms_unwrap(kms, wrap, &key, &fault), r);
        assert_null(key);
        if (fault.kind != kind || !strstr(fault.text, "keystore ks"))
                fail_msg("wanted kind %d, got %d: %s", kind, fault.kind, fault.text);
        fault = (struct tk_fault){0};
        assert_int_equal(tk_kms_probe(kms, wrap, &fault), r);
        assert_int_equal(fault.kind, kind);
}

static void test_unwrap__another_keystores_wrap(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        struct tk_kms_wrap good, wrap;
        struct tk_fault fault = {0};
        struct tk_secret *key;

        wrap_by(kms, "1", &good);
        wrap = good;
        memcpy(wrap.key_id, "10112233445566778899aabbccddeeff", 33);
        assert_not_unwrapped(kms, &wrap, -ENOENT, TK_FAULT_WRONG_KEY);
        assert_int_equal(tk_kms_unwrap(kms, &wrap, &key, &fault), -ENOENT);
        assert_non_null(strstr(fault.text, "10112233445566778899aabbccddeeff"));

        wrap.key_id[31] = '\0';
        assert_not_unwrapped(kms, &wrap, -ENOENT, TK_FAULT_WRONG_KEY);
        memset(wrap.key_id, '\x1b', sizeof(wrap.key_id)); /* no NUL, not printable */
        assert_not_unwrapped(kms, &wrap, -ENOENT, TK_FAULT_WRONG_KEY);
        fault = (struct tk_fault){0};
        assert_int_equal(tk_kms_unwrap(kms, &wrap, &key, &fault), -ENOENT);
        assert_null(strchr(fault.text, '\x1b'));
}

static void test_unwrap__version_or_algorithm(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        struct tk_kms_wrap good, wrap;

        wrap_by(kms, "1", &good);
        wrap = good;
        strcpy(wrap.version, "2");
        assert_not_unwrapped(kms, &wrap, -ENOENT, TK_FAULT_WRONG_KEY);
        strcpy(wrap.version, "7");
        assert_not_unwrapped(kms, &wrap, -EKEYREVOKED, TK_FAULT_KEY_REVOKED);
        strcpy(wrap.version, "3"); /* it exists, but did not wrap this */
        assert_not_unwrapped(kms, &wrap, -EBADMSG, TK_FAULT_VOLUME_DAMAGED);
        memset(wrap.version, '1', sizeof(wrap.version));
        assert_not_unwrapped(kms, &wrap, -ENOENT, TK_FAULT_WRONG_KEY);
        wrap = good;
        strcpy(wrap.algorithm, "A256KW");
        assert_not_unwrapped(kms, &wrap, -ENOTSUP, TK_FAULT_UNSUPPORTED);
        memset(wrap.algorithm, 'A', sizeof(wrap.algorithm));
        assert_not_unwrapped(kms, &wrap, -ENOTSUP, TK_FAULT_UNSUPPORTED);
}

static void test_unwrap__every_bit_of_the_blob_counts(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        struct tk_kms_wrap wrap;

        wrap_by(kms, "3", &wrap);
        for (size_t bit = 0; bit < wrap.blob_len * 8; bit++) {
                tk_test_flip(wrap.blob, bit);
                assert_not_unwrapped(kms, &wrap, -EBADMSG, TK_FAULT_VOLUME_DAMAGED);
                tk_test_flip(wrap.blob, bit);
        }
        for (size_t len = 0; len < 80; len++) {
                wrap.blob_len = len;
                if (len != 60)
                        assert_not_unwrapped(kms, &wrap, -EBADMSG, TK_FAULT_VOLUME_DAMAGED);
        }
        wrap.blob_len = 60;
        assert_int_equal(tk_kms_probe(kms, &wrap, NULL), 0);
}

/* Same id, other keys: a damaged or forged keystore. */
static void test_unwrap__other_keys_under_the_same_id(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        struct tk_kms_wrap wrap;

        wrap_by(kms, "1", &wrap);
        tk_kms_free(kms);
        put_keystore(HEAD VERSION("1", "enabled", KEY2));
        kms = opened(NULL);
        assert_not_unwrapped(kms, &wrap, -EBADMSG, TK_FAULT_VOLUME_DAMAGED);
}

/* Wraps and unwraps with one provider. Returns NULL if all went well. */
static void *work(void *context)
{
        struct tk_kms *kms = context;

        for (int i = 0; i < 500; i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *back = NULL;
                struct tk_kms_wrap wrap;

                if (tk_secret_new(TK_KEY_LEN, &key) < 0)
                        return context;
                memset(tk_secret_bytes_mutable(key), i, TK_KEY_LEN);
                if (tk_kms_wrap(kms, i % 2 ? "1" : "3", key, &wrap, NULL) < 0 ||
                    tk_kms_unwrap(kms, &wrap, &back, NULL) < 0 || !tk_secret_equal(key, back))
                        return context;
        }
        return NULL;
}

static void test_provider__threads(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened_versions();
        pthread_t threads[4];

        for (size_t i = 0; i < 4; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, work, kms), 0);
        for (size_t i = 0; i < 4; i++) {
                void *result;

                assert_int_equal(pthread_join(threads[i], &result), 0);
                assert_null(result);
        }
}

/* The text module */

static void test_keystore_format__keeps_everything(void **state)
{
        static const char *const bodies[] = {
                HEAD VERSION("1", "disabled", KEY1) VERSION("2", "enabled", KEY2)
                        VERSION("4294967295", "disabled", KEY1),
                PROTECTED_HEAD VERSION("1", "enabled", SEALED1) VERSION("2", "disabled", SEALED2),
        };

        for (size_t i = 0; i < 2; i++) {
                TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *out = NULL;
                TK_CLEANUP(tk_freep) char *text = NULL;
                struct tk_fault fault = {0};
                size_t len;

                put_keystore(bodies[i]);
                assert_int_equal(tk_fdio_read_file(AT_FDCWD, "ks", 8192, &text, &len), 0);
                assert_int_equal(tk_keystore_parse(text, len, "ks", &keystore, &fault), 0);
                assert_int_equal(tk_keystore_format(keystore, &out), 0);
                assert_int_equal(tk_secret_len(out), len);
                assert_memory_equal(tk_secret_bytes(out), text, len);
        }
}

static void test_keystore_format__many_versions(void **state)
{
        enum { COUNT = 2000 };
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = calloc(1, sizeof(*keystore));
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *back = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *out = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;
        struct tk_fault fault = {0};
        size_t len;

        for (uint32_t i = 0; i < COUNT; i++) {
                struct tk_keystore_version version = {.number = UINT32_MAX - COUNT + i,
                                                      .created = INT64_MAX};

                assert_int_equal(tk_secret_new(TK_KEYSTORE_SEALED_LEN, &version.stored), 0);
                assert_int_equal(tk_keystore_consume_version(keystore, &version), 0);
        }
        keystore->protected = true;
        keystore->cost = (struct tk_kdf_scrypt){UINT32_MAX, UINT32_MAX, UINT32_MAX};
        assert_int_equal(tk_keystore_format(keystore, &out), 0);
        len = tk_secret_len(out);
        assert_true(len < TK_KEYSTORE_TEXT_MAX);
        text = strndup((const char *)tk_secret_bytes(out), len);
        assert_int_equal(tk_keystore_parse(text, len, "ks", &back, &fault), 0);
        assert_int_equal(back->version_count, COUNT);
        assert_non_null(tk_keystore_find(back, UINT32_MAX - 1));
        assert_null(tk_keystore_find(back, UINT32_MAX));
}

static void test_keystore_number__range(void **state)
{
        uint64_t number = 5;

        assert_int_equal(tk_keystore_number("0", 9, &number), 0);
        assert_int_equal(number, 0);
        assert_int_equal(tk_keystore_number("18446744073709551615", UINT64_MAX, &number), 0);
        assert_true(number == UINT64_MAX);
        assert_int_equal(tk_keystore_number("18446744073709551616", UINT64_MAX, &number), -EINVAL);
        assert_int_equal(tk_keystore_number("99999999999999999999", UINT64_MAX, &number), -EINVAL);
        assert_int_equal(tk_keystore_number("4294967295", UINT32_MAX, &number), 0);
        assert_int_equal(tk_keystore_number("4294967296", UINT32_MAX, &number), -EINVAL);
        assert_int_equal(tk_keystore_number("", 9, &number), -EINVAL);
        assert_int_equal(tk_keystore_number("+1", 9, &number), -EINVAL);
        assert_int_equal(tk_keystore_number(" 1", 9, &number), -EINVAL);
        assert_int_equal(tk_keystore_number("1 ", 9, &number), -EINVAL);
        assert_int_equal(tk_keystore_number("00", 9, &number), -EINVAL);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_create__file_and_parents),
                TK_TEST_IN_DIR(test_create__absolute_path),
                TK_TEST_IN_DIR(test_create__new_keystore_works),
                TK_TEST_IN_DIR(test_create__with_passphrase),
                TK_TEST_IN_DIR(test_create__existing_stays),
                TK_TEST_IN_DIR(test_create__impossible_paths),
                TK_TEST_IN_DIR(test_create__permission_denied),
                TK_TEST_IN_DIR(test_create__concurrent),
                TK_TEST_IN_DIR(test_open__missing),
                TK_TEST_IN_DIR(test_open__not_a_regular_file),
                TK_TEST_IN_DIR(test_open__by_symlink),
                TK_TEST_IN_DIR(test_open__mode),
                TK_TEST_IN_DIR(test_open__foreign_owner),
                TK_TEST_IN_DIR(test_open__unreadable),
                TK_TEST_IN_DIR(test_open__too_large),
                TK_TEST_IN_DIR(test_open__defects),
                TK_TEST_IN_DIR(test_open__checksum_defects),
                TK_TEST_IN_DIR(test_open__newer_format),
                TK_TEST_IN_DIR(test_open__every_bit_counts),
                TK_TEST_IN_DIR(test_open__truncated),
                TK_TEST_IN_DIR(test_open__known_protected_keystore),
                TK_TEST_IN_DIR(test_open__passphrase),
                TK_TEST_IN_DIR(test_open__absurd_cost),
                TK_TEST_IN_DIR(test_current__highest_enabled),
                TK_TEST_IN_DIR(test_wrap__fields),
                TK_TEST_IN_DIR(test_wrap__refuses),
                TK_TEST_IN_DIR(test_unwrap__another_keystores_wrap),
                TK_TEST_IN_DIR(test_unwrap__version_or_algorithm),
                TK_TEST_IN_DIR(test_unwrap__every_bit_of_the_blob_counts),
                TK_TEST_IN_DIR(test_unwrap__other_keys_under_the_same_id),
                TK_TEST_IN_DIR(test_provider__threads),
                TK_TEST_IN_DIR(test_keystore_format__keeps_everything),
                TK_TEST_IN_DIR(test_keystore_format__many_versions),
                TK_TEST_IN_DIR(test_keystore_number__range),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
