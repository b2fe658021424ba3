/* SPDX-License-Identifier: Apache-2.0 */

/* The pkcs11 provider with SoftHSM, behind a module that fails as it is told. */

#include "tests/unit/support.h"

#include "crypto/random.h"
#include "fs/lease.h"
#include "kms/kms_admin.h"
#include "kms/pkcs11.h"
#include "tests/tools/faulty_pkcs11.h"
#include <dlfcn.h>
#include <errno.h>
#include <p11-kit/pkcs11.h>
#include <sys/wait.h>

#define URI "pkcs11:token=unit;object=root"
#define PIN "4711-unit"

static const char *softhsm; /* path; NULL: not installed */
static void *module;
static tk_faulty_set_fn *set_rules;
static tk_faulty_count_fn *count_calls;

static const char *find_softhsm(void)
{
        static const char *const paths[] = {"/usr/lib/softhsm/libsofthsm2.so",
                                            "/usr/lib64/pkcs11/libsofthsm2.so",
                                            "/usr/lib64/softhsm/libsofthsm2.so"};

        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
                if (access(paths[i], R_OK) == 0)
                        return paths[i];
        return NULL;
}

static int group_enter(void **state)
{
        softhsm = find_softhsm();
        if (!softhsm)
                return 0;
        /* It cuts its files and writes them anew, which a disk that others sync stops for seconds.
         */
        if (access("/dev/shm", W_OK) == 0)
                setenv("TMPDIR", "/dev/shm", 1);
        setenv("TK_FAULTY_MODULE", softhsm, 1);
        module = dlopen(TK_FAULTY_PKCS11, RTLD_NOW | RTLD_LOCAL);
        if (!module)
                return -1;
        *(void **)&set_rules = dlsym(module, "tk_faulty_set");
        *(void **)&count_calls = dlsym(module, "tk_faulty_count");
        return set_rules && count_calls ? 0 : -1;
}

/* set_rules, of a text as printf's. */
TK_PRINTF(1, 2)
static void set_rules_of(const char *format, ...)
{
        char rules[96];
        va_list args;

        va_start(args, format);
        assert_in_range(vsnprintf(rules, sizeof(rules), format, args), 1, sizeof(rules) - 1);
        va_end(args);
        set_rules(rules);
}

static int new_token(void)
{
        /* NOLINTNEXTLINE(cert-env33-c): a fixed command line */
        return system("rm -rf tokens && mkdir tokens && softhsm2-util --init-token --free --label "
                      "unit --so-pin 12345678 --pin " PIN " >softhsm.log 2>&1");
}

/* A directory with a new token in it. */
static int enter(void **state)
{
        char conf[600];
        FILE *file;

        if (tk_test_dir_enter(state) < 0)
                return -1;
        if (!softhsm)
                return 0;
        snprintf(conf, sizeof(conf), "%s/softhsm2.conf", (char *)*state);
        setenv("SOFTHSM2_CONF", conf, 1);
        file = fopen(conf, "we");
        if (!file)
                return -1;
        fprintf(file, "directories.tokendir = %s/tokens\nobjectstore.backend = file\n",
                (char *)*state);
        fclose(file);
        set_rules("");
        return new_token();
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, tk_test_dir_leave)
#define NEEDS_SOFTHSM()                                                                            \
        do {                                                                                       \
                if (!softhsm)                                                                      \
                        skip();                                                                    \
        } while (0)

/* What @options leave out is that of the tests, but for the PIN, which is always @pin. */
static struct tk_kms *open_as(struct tk_kms_pkcs11_options options, const char *pin)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = tk_test_secret(pin, strlen(pin));
        struct tk_kms *kms = NULL;

        if (!options.module)
                options.module = TK_FAULTY_PKCS11;
        if (!options.uri)
                options.uri = URI;
        options.pin = secret;
        assert_int_equal(tk_kms_pkcs11_open(&options, &kms, NULL), 0);
        return kms;
}

static struct tk_kms *open_with(const char *uri, const char *pin, unsigned deadline_ms)
{
        return open_as((struct tk_kms_pkcs11_options){.uri = uri, .deadline_ms = deadline_ms}, pin);
}

static struct tk_kms *open_token(void)
{
        return open_with(URI, PIN, 0);
}

static void create(struct tk_kms *kms, const char *type, unsigned bits)
{
        struct tk_kms_key_spec spec = {.bits = bits};
        struct tk_fault fault = {0};

        snprintf(spec.type, sizeof(spec.type), "%s", type);
        if (tk_kms_admin_create(kms, &spec, &fault) < 0)
                fail_msg("%s", fault.text);
}

static struct tk_secret *random_key(void)
{
        struct tk_secret *key = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &key), 0);
        return key;
}

static void wrap(struct tk_kms *kms, const struct tk_secret *key, struct tk_kms_wrap *ret_wrap)
{
        struct tk_fault fault = {0};
        char version[TK_KMS_VERSION_MAX] = "";

        if (tk_kms_current(kms, version, &fault) < 0 ||
            tk_kms_wrap(kms, version, key, ret_wrap, &fault) < 0)
                fail_msg("%s", fault.text);
        assert_string_equal(ret_wrap->version, version);
}

static void check_unwrap(struct tk_kms *kms, const struct tk_kms_wrap *wrap,
                         const struct tk_secret *key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_fault fault = {0};

        if (tk_kms_unwrap(kms, wrap, &again, &fault) < 0)
                fail_msg("%s", fault.text);
        assert_true(tk_secret_equal(again, key));
}

/* Ways of wrapping --------------------------------------------------------- */

static void check_way(const char *rules, const char *type, unsigned bits, const char *algorithm,
                      size_t len)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = open_token();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = random_key();
        struct tk_kms_wrap wrapped = {0};

        set_rules(rules);
        create(kms, type, bits);
        wrap(kms, key, &wrapped);
        assert_string_equal(wrapped.algorithm, algorithm);
        assert_int_equal(wrapped.blob_len, len);
        check_unwrap(kms, &wrapped, key);
        assert_int_equal(tk_kms_probe(kms, &wrapped, NULL), 0);
}

static void test_wrap__aes_gcm(void **state)
{
        NEEDS_SOFTHSM();
        check_way("", "", 0, "AES-256-GCM", 60);
}

static void test_wrap__aes_key_wrap_where_there_is_no_gcm(void **state)
{
        NEEDS_SOFTHSM();
        check_way("* hide 0x1087\n", "", 0, "AES-WRAP-PAD-OBJECT", 40);
}

static void test_wrap__rsa_with_the_best_hash_that_the_token_has(void **state)
{
        NEEDS_SOFTHSM();
        check_way("", "RSA", 2048, "RSA-OAEP", 256);
}

static void test_wrap__rsa_where_there_is_no_aes(void **state)
{
        NEEDS_SOFTHSM();
        check_way("* hide 0x1087\n* hide 0x210a\n", "", 2048, "RSA-OAEP", 256);
}

static void test_create__what_a_token_can_t_make(void **state)
{
        static const struct tk_kms_key_spec bad[] = {
                {.type = "oct-HSM"},
                {.type = "AES", .bits = 128},
                {.type = "RSA", .bits = 1024},
                {.type = "AES", .expires = 1},
        };
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct tk_fault fault = {0};

                assert_int_equal(tk_kms_admin_create(kms, &bad[i], &fault), -EINVAL);
                assert_int_equal(fault.kind, TK_FAULT_USAGE);
        }
        tk_kms_free(kms);
}

/* What a volume file could say -------------------------------------------- */

static void test_unwrap__damage_is_told_from_trouble(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        for (size_t bit = 0; bit < 8 * wrapped.blob_len; bit += 37) {
                struct tk_secret *again = NULL;
                struct tk_kms_wrap damaged = wrapped;
                struct tk_fault fault = {0};

                tk_test_flip(damaged.blob, bit);
                assert_int_equal(tk_kms_unwrap(kms, &damaged, &again, &fault), -EBADMSG);
                assert_int_equal(fault.kind, TK_FAULT_VOLUME_DAMAGED);
                assert_null(again);
        }
        tk_secret_free(key);
        tk_kms_free(kms);
}

static void expect_refused(struct tk_kms *kms, const struct tk_kms_wrap *wrapped, int r)
{
        struct tk_secret *key = NULL;
        struct tk_fault fault = {0};

        set_rules("");
        assert_int_equal(tk_kms_unwrap(kms, wrapped, &key, &fault), r);
        assert_int_not_equal(fault.kind, TK_FAULT_NONE);
        assert_null(key);
        assert_int_equal(count_calls("C_DecryptInit"), 0);
}

static void test_unwrap__strict_about_what_is_recorded(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_kms_wrap bad;
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        bad = wrapped;
        bad.blob_len--;
        expect_refused(kms, &bad, -EBADMSG);
        bad.blob_len = 0;
        expect_refused(kms, &bad, -EBADMSG);
        bad = wrapped;
        bad.algorithm[0] = 'a';
        expect_refused(kms, &bad, -ENOTSUP);
        memset(bad.algorithm, 'A', sizeof(bad.algorithm));
        expect_refused(kms, &bad, -ENOTSUP);
        bad = wrapped;
        snprintf(bad.algorithm, sizeof(bad.algorithm), "RSA-OAEP-256");
        expect_refused(kms, &bad, -EBADMSG);
        bad = wrapped;
        snprintf(bad.key_id, sizeof(bad.key_id), "pkcs11:token=unit;object=other");
        expect_refused(kms, &bad, -ENOENT);
        memset(bad.key_id, 'x', sizeof(bad.key_id));
        expect_refused(kms, &bad, -ENOENT);
        bad = wrapped;
        memset(bad.version, '1', sizeof(bad.version));
        expect_refused(kms, &bad, -ENOENT);
        bad = wrapped;
        snprintf(bad.version, sizeof(bad.version), "not hexadecimal");
        expect_refused(kms, &bad, -EKEYREVOKED);
        snprintf(bad.version, sizeof(bad.version), "0102");
        expect_refused(kms, &bad, -EKEYREVOKED);
        tk_secret_free(key);
        tk_kms_free(kms);
}

/* Versions ------------------------------------------------------------------ */

static void test_versions__from_the_first_to_the_last(void **state)
{
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_kms_wrap old = {0};
        struct tk_kms_wrap new = {0};
        char version[TK_KMS_VERSION_MAX] = "";
        struct tk_fault fault = {0};
        struct tk_kms *kms;
        size_t count;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        assert_int_equal(tk_kms_current(kms, version, &fault), -EKEYREVOKED);
        create(kms, "", 0);
        assert_int_equal(tk_kms_admin_create(kms, &(struct tk_kms_key_spec){0}, &fault), -EEXIST);
        wrap(kms, key, &old);
        for (int i = 0; i < 5; i++) { /* in one second: each is newer than the one before */
                assert_int_equal(tk_kms_admin_rotate(kms, version, NULL), 0);
                wrap(kms, key, &new);
                assert_string_equal(new.version, version);
                assert_true(strcmp(new.version, old.version) > 0);
        }
        check_unwrap(kms, &old, key);
        assert_int_equal(tk_kms_admin_list(kms, &versions, &count, NULL), 0);
        assert_int_equal(count, 6);
        assert_true(versions[5].current && versions[5].enabled && !versions[0].current);
        assert_string_equal(versions[0].version, old.version);
        assert_string_equal(versions[0].type, "AES 256");

        assert_int_equal(tk_kms_admin_set_enabled(kms, old.version, false, NULL), 0);
        assert_int_equal(tk_kms_probe(kms, &old, NULL), -EKEYREVOKED);
        check_unwrap(kms, &new, key);
        assert_int_equal(tk_kms_admin_set_enabled(kms, old.version, true, NULL), 0);
        check_unwrap(kms, &old, key);
        assert_int_equal(tk_kms_admin_set_enabled(kms, "0102", true, &fault), -ENOENT);

        assert_int_equal(tk_kms_admin_set_enabled(kms, old.version, false, NULL), 0);
        assert_int_equal(tk_kms_admin_delete(kms, NULL), 0);
        assert_int_equal(tk_kms_probe(kms, &new, NULL), -EKEYREVOKED);
        assert_int_equal(tk_kms_admin_delete(kms, NULL), -EKEYREVOKED);
        assert_int_equal(tk_kms_admin_recover(kms, NULL), 0);
        assert_int_equal(tk_kms_admin_recover(kms, NULL), -ENOENT);
        check_unwrap(kms, &new, key);
        assert_int_equal(tk_kms_probe(kms, &old, NULL), -EKEYREVOKED); /* as it was */
        tk_kms_free(kms);
}

/* A token that lets attributes be, but not labels: TPMs, for example. */
static void test_disable__by_the_label_where_rights_can_t_be_changed(void **state)
{
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_kms_wrap wrapped = {0};
        size_t count;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "RSA", 2048);
        wrap(kms, key, &wrapped);
        set_rules("C_SetAttributeValue rv 0x10 1 1\n");
        assert_int_equal(tk_kms_admin_set_enabled(kms, wrapped.version, false, NULL), 0);
        assert_int_equal(tk_kms_probe(kms, &wrapped, NULL), -EKEYREVOKED);
        assert_int_equal(tk_kms_admin_list(kms, &versions, &count, NULL), 0);
        assert_int_equal(count, 1);
        assert_false(versions[0].enabled);
        assert_int_equal(tk_kms_admin_set_enabled(kms, wrapped.version, true, NULL), 0);
        check_unwrap(kms, &wrapped, key);
        set_rules("C_SetAttributeValue rv 0x10\n");
        assert_int_equal(tk_kms_admin_set_enabled(kms, wrapped.version, false, NULL), -ENOTSUP);
        assert_int_equal(tk_kms_admin_delete(kms, NULL), -ENOTSUP);
        check_unwrap(kms, &wrapped, key);
        tk_kms_free(kms);
}

static void test_import__a_key_of_one_s_own(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *aes = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *bad = NULL;
        struct tk_kms_wrap wrapped = {0};
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        aes = random_key();
        key = random_key();
        bad = tk_test_secret("no key", 6);
        assert_int_equal(tk_kms_admin_import(kms, bad, false, NULL), -EINVAL);
        assert_int_equal(tk_kms_admin_import(kms, aes, true, NULL), -EINVAL);
        assert_int_equal(tk_kms_admin_import(kms, aes, false, NULL), 0);
        wrap(kms, key, &wrapped);
        check_unwrap(kms, &wrapped, key);
        tk_kms_free(kms);
}

/* Trouble ------------------------------------------------------------------- */

/* Every call on the way fails, from the Nth on or only once. */
static void fail_every_call(struct tk_kms *kms, const struct tk_kms_wrap *wrapped,
                            const struct tk_secret *key, CK_RV rv, bool once)
{
        unsigned calls = 1;

        for (unsigned n = 1; n <= calls; n++) {
                struct tk_secret *again = NULL;
                struct tk_fault fault = {0};
                int r;

                set_rules_of("* rv %#lx %u %u\n", rv, n, once ? n : ~0U);
                r = tk_kms_unwrap(kms, wrapped, &again, &fault);
                calls = set_rules("");
                if (r == 0)
                        assert_true(tk_secret_equal(again, key));
                else
                        assert_null(again);
                /* It is never taken for a refusal of the key, nor for damage. */
                assert_true(r == 0 || tk_lease_answer_of(r) == TK_LEASE_UNREACHABLE);
                assert_true(r == 0 || fault.kind == TK_FAULT_KMS_UNREACHABLE);
                if (once)
                        assert_int_equal(r, 0);
                tk_secret_free(again);
                check_unwrap(kms, wrapped, key);
        }
        assert_true(calls > 5);
}

static void check_outages(const CK_RV *values, size_t count, bool once)
{
        struct tk_kms *kms = open_token();
        struct tk_secret *key = random_key();
        struct tk_kms_wrap wrapped = {0};

        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        for (size_t i = 0; i < count; i++)
                fail_every_call(kms, &wrapped, key, values[i], once);
        tk_secret_free(key);
        tk_kms_free(kms);
}

static void test_unwrap__no_outage_is_taken_for_a_revocation(void **state)
{
        static const CK_RV values[] = {CKR_TOKEN_NOT_PRESENT, CKR_SESSION_HANDLE_INVALID,
                                       CKR_USER_NOT_LOGGED_IN, CKR_CRYPTOKI_NOT_INITIALIZED,
                                       CKR_VENDOR_DEFINED | 1};

        NEEDS_SOFTHSM();
        check_outages(values, sizeof(values) / sizeof(values[0]), false);
}

static void test_unwrap__one_failing_call_is_got_over(void **state)
{
        static const CK_RV values[] = {CKR_DEVICE_ERROR, CKR_SESSION_CLOSED,
                                       CKR_USER_NOT_LOGGED_IN};

        NEEDS_SOFTHSM();
        check_outages(values, sizeof(values) / sizeof(values[0]), true);
}

/* @function says @number; @rules hold all the time. */
static void check_length(const char *rules, const char *function, const char *number,
                         const struct tk_kms_wrap *wrapped, const struct tk_secret *key)
{
        struct tk_kms *kms = open_token();
        struct tk_secret *again = NULL;
        struct tk_kms_wrap other = {0};
        struct tk_fault fault = {0};
        char all_rules[128];
        int r;

        snprintf(all_rules, sizeof(all_rules), "%s%s says %s\n", rules, function, number);
        set_rules(all_rules);
        r = tk_kms_unwrap(kms, wrapped, &again, &fault);
        if (r == 0)
                assert_true(tk_secret_equal(again, key));
        else
                assert_true(fault.kind != TK_FAULT_NONE && fault.text[0]);
        tk_secret_free(again);
        fault = (struct tk_fault){0};
        r = tk_kms_wrap(kms, wrapped->version, key, &other, &fault);
        assert_true(r == 0 || (fault.kind != TK_FAULT_NONE && fault.text[0]));
        set_rules(rules);
        if (r == 0)
                check_unwrap(kms, &other, key);
        check_unwrap(kms, wrapped, key);
        tk_kms_free(kms);
}

/* A module that says to have put out what there is no room for, or less than it should have. */
static void check_lengths(const char *rules, const char *type, unsigned bits)
{
        static const char *const functions[] = {"C_GetSlotList",       "C_FindObjects",
                                                "C_GetAttributeValue", "C_Encrypt",
                                                "C_Decrypt",           "C_WrapKey"};
        static const char *const numbers[] = {"0", "1", "33", "513", "0x7fffffff", "-1"};
        struct tk_kms *kms = open_token();
        struct tk_secret *key = random_key();
        struct tk_kms_wrap wrapped = {0};

        set_rules(rules);
        create(kms, type, bits);
        wrap(kms, key, &wrapped);
        tk_kms_free(kms);
        for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++)
                for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
                        check_length(rules, functions[f], numbers[i], &wrapped, key);
        tk_secret_free(key);
}

static void test_lengths__that_can_t_be_with_aes_gcm(void **state)
{
        NEEDS_SOFTHSM();
        check_lengths("", "", 0);
}

static void test_lengths__that_can_t_be_with_key_objects(void **state)
{
        NEEDS_SOFTHSM();
        check_lengths("* hide 0x1087\n", "", 0);
}

static void test_lengths__that_can_t_be_with_rsa(void **state)
{
        NEEDS_SOFTHSM();
        check_lengths("", "RSA", 2048);
}

/* Making a version fails at any call: there is one more afterwards, or none, and no half one. */
static void test_rotate__fails_at_any_call(void **state)
{
        struct tk_kms *kms;
        size_t before = 1;
        unsigned calls = 1;

        NEEDS_SOFTHSM();
        kms = open_token();
        create(kms, "", 0);
        for (unsigned n = 1; n <= calls; n++) {
                TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
                char version[TK_KMS_VERSION_MAX] = "";
                size_t count;
                int r;

                set_rules_of("* rv %#lx %u\n", CKR_DEVICE_ERROR, n);
                r = tk_kms_admin_rotate(kms, version, NULL);
                calls = set_rules("");
                assert_true(r == 0 || r == -ENOKEY);
                assert_int_equal(tk_kms_admin_list(kms, &versions, &count, NULL), 0);
                assert_int_equal(count, before + (r == 0));
                before = count;
        }
        assert_true(calls > 10);
        tk_kms_free(kms);
}

static int make_or_import(struct tk_kms *kms, const struct tk_secret *key)
{
        return key ? tk_kms_admin_import(kms, key, false, NULL)
                   : tk_kms_admin_create(kms, &(struct tk_kms_key_spec){0}, NULL);
}

/* The same for a first version: @key is imported, or (NULL) one is made. */
static void begin_failing(const char *name, const struct tk_secret *key)
{
        unsigned calls = 1;

        for (unsigned n = 1; n <= calls; n++) {
                TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
                TK_CLEANUP(tk_secret_freep) struct tk_secret *plain = random_key();
                struct tk_kms_wrap wrapped = {0};
                char text[64];
                struct tk_kms *kms;
                size_t count;
                int r;

                snprintf(text, sizeof(text), "pkcs11:token=unit;object=%s%u", name, n);
                kms = open_with(text, PIN, 0);
                snprintf(text, sizeof(text), "* rv %#lx %u\n", CKR_DEVICE_ERROR, n);
                set_rules(text);
                r = make_or_import(kms, key);
                calls = set_rules("");
                assert_true(r == 0 || r == -ENOKEY);
                if (r < 0)
                        assert_int_equal(make_or_import(kms, key), 0);
                assert_int_equal(tk_kms_admin_list(kms, &versions, &count, NULL), 0);
                assert_int_equal(count, 1);
                wrap(kms, plain, &wrapped);
                check_unwrap(kms, &wrapped, plain);
                tk_kms_free(kms);
        }
        assert_true(calls > 10);
}

static void test_create__fails_at_any_call(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;

        NEEDS_SOFTHSM();
        key = random_key();
        begin_failing("made", NULL);
        begin_failing("imported", key);
}

static int disable(struct tk_kms *kms, const char *version)
{
        return tk_kms_admin_set_enabled(kms, version, false, NULL);
}

static int enable(struct tk_kms *kms, const char *version)
{
        return tk_kms_admin_set_enabled(kms, version, true, NULL);
}

static int delete_all(struct tk_kms *kms, const char *version)
{
        (void)version;
        return tk_kms_admin_delete(kms, NULL);
}

static int recover_all(struct tk_kms *kms, const char *version)
{
        (void)version;
        return tk_kms_admin_recover(kms, NULL);
}

/* What fails at any call can be done again, and undone, and all versions are there. */
static void test_change__fails_at_any_call(void **state)
{
        static const struct {
                int (*prepare)(struct tk_kms *kms, const char *version);
                int (*change)(struct tk_kms *kms, const char *version);
                int (*undo)(struct tk_kms *kms, const char *version);
                int again; /* where it was done already */
        } rows[] = {
                {NULL, disable, enable, 0},
                {disable, enable, NULL, 0},
                {NULL, delete_all, recover_all, -EKEYREVOKED},
                {delete_all, recover_all, NULL, -ENOENT},
        };
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_kms_wrap wrapped[2] = {0};
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped[0]);
        assert_int_equal(tk_kms_admin_rotate(kms, wrapped[1].version, NULL), 0);
        wrap(kms, key, &wrapped[1]);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                const char *version = wrapped[0].version;
                unsigned calls = 1;

                for (unsigned n = 1; n <= calls; n++) {
                        int r;

                        if (rows[i].prepare)
                                assert_int_equal(rows[i].prepare(kms, version), 0);
                        set_rules_of("* rv %#lx %u\n", CKR_DEVICE_ERROR, n);
                        r = rows[i].change(kms, version);
                        calls = set_rules("");
                        assert_true(r == 0 || r == -ENOKEY);
                        if (r < 0) {
                                r = rows[i].change(kms, version);
                                assert_true(r == 0 || r == rows[i].again);
                        }
                        if (rows[i].undo)
                                assert_int_equal(rows[i].undo(kms, version), 0);
                        check_unwrap(kms, &wrapped[0], key);
                        check_unwrap(kms, &wrapped[1], key);
                }
                assert_true(calls > 5);
        }
        tk_kms_free(kms);
}

/* Nor is what a module does not do, whatever it is. */
static void test_unwrap__what_a_module_lacks_is_no_revocation(void **state)
{
        static const char *const functions[] = {
                "C_Initialize",       "C_GetSlotList",    "C_GetTokenInfo",
                "C_OpenSession",      "C_GetSessionInfo", "C_Login",
                "C_FindObjectsInit",  "C_FindObjects",    "C_GetAttributeValue",
                "C_FindObjectsFinal", "C_DecryptInit",    "C_Decrypt",
                "C_GetMechanismInfo"};
        static const CK_RV values[] = {CKR_FUNCTION_NOT_SUPPORTED, CKR_ARGUMENTS_BAD};
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        tk_kms_free(kms);
        for (size_t i = 0; i < 2 * sizeof(functions) / sizeof(functions[0]); i++) {
                char version[TK_KMS_VERSION_MAX] = "";
                struct tk_fault fault = {0};
                int r;

                set_rules_of("%s rv %#lx\n", functions[i / 2], values[i % 2]);
                kms = open_token();
                r = tk_kms_probe(kms, &wrapped, &fault);
                assert_true(r == 0 || (r != -EBADMSG && fault.text[0]));
                assert_int_not_equal(tk_lease_answer_of(r), TK_LEASE_REFUSED);
                r = tk_kms_current(kms, version, &fault);
                assert_int_not_equal(tk_lease_answer_of(r), TK_LEASE_REFUSED);
                set_rules("");
                tk_kms_free(kms);
        }
        tk_secret_free(key);
}

/* The token keeps no key that passed through it. */
static void test_wrap__a_key_object_that_stays_goes_with_its_session(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        set_rules("* hide 0x1087\n");
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        set_rules("* hide 0x1087\n");
        check_unwrap(kms, &wrapped, key);
        assert_int_equal(count_calls("C_CloseSession"), 0);
        set_rules("* hide 0x1087\nC_DestroyObject rv 0x30\n");
        check_unwrap(kms, &wrapped, key);
        assert_int_equal(count_calls("C_CloseSession"), 1);
        tk_secret_free(key);
        tk_kms_free(kms);
}

/* Keys with the ids @first to @last, past our code. */
static void add_keys(uint16_t first, uint16_t last)
{
        CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR list);
        CK_OBJECT_CLASS class = CKO_SECRET_KEY;
        CK_KEY_TYPE type = CKK_AES;
        CK_BBOOL yes = CK_TRUE;
        char label[] = "root";
        uint8_t bytes[TK_KEY_LEN] = {0};
        CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)},
                                   {CKA_KEY_TYPE, &type, sizeof(type)},
                                   {CKA_TOKEN, &yes, sizeof(yes)},
                                   {CKA_LABEL, label, 4},
                                   {CKA_ID, bytes, 2},
                                   {CKA_VALUE, bytes, sizeof(bytes)}};
        CK_FLAGS flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        CK_SESSION_HANDLE session;
        CK_OBJECT_HANDLE object;
        CK_FUNCTION_LIST *f;
        CK_SLOT_ID slots[8];
        CK_ULONG count = 8;

        *(void **)&get = dlsym(module, "C_GetFunctionList");
        assert_int_equal(get(&f), CKR_OK);
        assert_int_equal(f->C_GetSlotList(CK_TRUE, slots, &count), CKR_OK);
        assert_int_equal(f->C_OpenSession(slots[0], flags, NULL, NULL, &session), CKR_OK);
        for (unsigned i = first; i <= last; i++) {
                tk_put_be16(bytes, (uint16_t)i);
                assert_int_equal(f->C_CreateObject(session, template, 6, &object), CKR_OK);
        }
        assert_int_equal(f->C_CloseSession(session), CKR_OK);
}

/* The module is initialised then, as add_keys wants it. */
static struct tk_kms *open_empty_token(void)
{
        char version[TK_KMS_VERSION_MAX] = "";
        struct tk_kms *kms = open_token();

        assert_int_equal(tk_kms_current(kms, version, NULL), -EKEYREVOKED);
        return kms;
}

static void test_current__more_versions_than_are_looked_at(void **state)
{
        char version[TK_KMS_VERSION_MAX] = "";
        struct tk_fault fault = {0};
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_empty_token();
        add_keys(1, 256);
        assert_int_equal(tk_kms_current(kms, version, NULL), 0);
        assert_string_equal(version, "0100");
        add_keys(257, 257);
        assert_int_equal(tk_kms_current(kms, version, &fault), -ENOTSUP);
        assert_non_null(strstr(fault.text, "more than 256 versions"));
        tk_kms_free(kms);
}

static void test_delete__leaves_no_version_whatever_their_number(void **state)
{
        char version[TK_KMS_VERSION_MAX] = "";
        struct tk_fault fault = {0};
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_empty_token();
        add_keys(1, 260);
        assert_int_equal(tk_kms_admin_delete(kms, &fault), 0);
        assert_int_equal(tk_kms_current(kms, version, NULL), -EKEYREVOKED);
        assert_int_equal(tk_kms_admin_delete(kms, NULL), -EKEYREVOKED);
        assert_int_equal(tk_kms_admin_recover(kms, NULL), 0);
        assert_int_equal(tk_kms_admin_recover(kms, NULL), -ENOENT);
        tk_kms_free(kms);
}

/* One that says yes and does nothing is no reason to go on for ever, nor for saying yes. */
static void test_delete__a_label_that_does_not_change_is_said(void **state)
{
        char version[TK_KMS_VERSION_MAX] = "";
        struct tk_fault fault = {0};
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        create(kms, "", 0);
        set_rules("C_SetAttributeValue rv 0\n");
        assert_int_equal(tk_kms_admin_delete(kms, &fault), -ENOTSUP);
        assert_int_equal(fault.kind, TK_FAULT_UNSUPPORTED);
        set_rules("");
        assert_int_equal(tk_kms_current(kms, version, NULL), 0);
        tk_kms_free(kms);
}

/* The login ---------------------------------------------------------------- */

static void test_login__a_wrong_pin_is_tried_once(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        tk_kms_free(kms);

        set_rules("");
        kms = open_with(URI, "wrong", 0);
        for (int i = 0; i < 5; i++) {
                struct tk_fault fault = {0};

                assert_int_equal(tk_kms_probe(kms, &wrapped, &fault), -EACCES);
                assert_int_equal(fault.kind, TK_FAULT_PASSPHRASE);
                assert_null(strstr(fault.text, "wrong\""));
        }
        assert_int_equal(count_calls("C_Login"), 1);
        tk_kms_free(kms);

        /* Another process, or the next start of the service: the token tells of the first. */
        set_rules("");
        kms = open_with(URI, "wrong as well", 0);
        assert_int_equal(tk_kms_probe(kms, &wrapped, NULL), -EACCES);
        assert_int_equal(count_calls("C_Login"), 0);
        tk_kms_free(kms);
        tk_secret_free(key);
}

/* What the first login in a token that is otherwise well may be answered with, and mean anything.
 */
static const CK_RV unclear[] = {CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_ARGUMENTS_BAD,
                                CKR_VENDOR_DEFINED | 7};

enum { UNCLEAR = sizeof(unclear) / sizeof(unclear[0]), SHORT_MS = 1000 };

/* Ask until the answer is another one than "perhaps later". */
static int ask_for_long(struct tk_kms *kms, struct tk_fault *fault)
{
        char version[TK_KMS_VERSION_MAX] = "";
        int r = -ENOKEY;

        for (int i = 0; i < 1000 && r == -ENOKEY; i++) {
                usleep(10000);
                *fault = (struct tk_fault){0};
                r = tk_kms_current(kms, version, fault);
        }
        return r;
}

static void test_login__an_unclear_answer_is_asked_for_once_more(void **state)
{
        NEEDS_SOFTHSM();
        for (size_t i = 0; i < UNCLEAR; i++) {
                struct tk_kms *kms = open_with(URI, PIN, SHORT_MS);
                char version[TK_KMS_VERSION_MAX] = "";
                struct tk_fault fault = {0};

                set_rules_of("C_Login rv %#lx 1 1\n", unclear[i]);
                assert_int_equal(tk_kms_current(kms, version, &fault), -ENOKEY);
                assert_int_equal(fault.kind, TK_FAULT_PASSPHRASE); /* no service is to repeat it */
                assert_int_equal(count_calls("C_Login"), 1);
                assert_int_equal(ask_for_long(kms, &fault), -EKEYREVOKED); /* it has no key yet */
                assert_true(count_calls("C_Login") >= 2);
                tk_kms_free(kms);
        }
}

/* There are tokens that say so of a wrong PIN, and tell by no flag that it was counted. */
static void test_login__unclear_answers_lock_no_token(void **state)
{
        NEEDS_SOFTHSM();
        for (size_t i = 0; i < UNCLEAR; i++) {
                struct tk_kms *kms = open_with(URI, PIN, SHORT_MS);
                struct tk_fault fault = {0};

                set_rules_of("C_Login rv %#lx\n", unclear[i]);
                for (int attempt = 0; attempt < 3; attempt++) {
                        assert_int_equal(ask_for_long(kms, &fault), -EACCES);
                        assert_int_equal(fault.kind, TK_FAULT_PASSPHRASE);
                        assert_null(strstr(fault.text, "was refused"));
                }
                assert_int_equal(count_calls("C_Login"), 2);
                set_rules("");
                tk_kms_free(kms);
        }
}

static void test_login__flags_tell_of_a_wrong_pin_that_the_answer_does_not(void **state)
{
        static const CK_RV values[] = {CKR_GENERAL_ERROR, CKR_DEVICE_ERROR};

        NEEDS_SOFTHSM();
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
                struct tk_kms *kms = open_with(URI, "wrong", 0);
                char version[TK_KMS_VERSION_MAX] = "";

                assert_int_equal(new_token(), 0);
                set_rules_of("C_Login masks %#lx\n", values[i]);
                for (int attempt = 0; attempt < 3; attempt++) {
                        struct tk_fault fault = {0};

                        assert_int_equal(tk_kms_current(kms, version, &fault), -EACCES);
                        assert_int_equal(fault.kind, TK_FAULT_PASSPHRASE);
                }
                assert_int_equal(count_calls("C_Login"), 1);
                tk_kms_free(kms);
        }
}

/* The token can't do what needs no login either: it is not the PIN, and it takes no try. */
static void test_login__a_token_that_is_ill_is_waited_for(void **state)
{
        NEEDS_SOFTHSM();
        for (size_t i = 0; i < UNCLEAR; i++) {
                struct tk_kms *kms = open_token();
                char version[TK_KMS_VERSION_MAX] = "";

                set_rules_of("C_Login rv %#lx\nC_GenerateRandom rv 0x30\n", unclear[i]);
                for (int attempt = 0; attempt < 5; attempt++) {
                        struct tk_fault fault = {0};

                        assert_int_equal(tk_kms_current(kms, version, &fault), -ENOKEY);
                        assert_int_equal(fault.kind, TK_FAULT_KMS_UNREACHABLE);
                }
                assert_int_equal(count_calls("C_Login"), 1);
                set_rules("");
                assert_int_equal(tk_kms_current(kms, version, NULL), -EKEYREVOKED); /* none yet */
                tk_kms_free(kms);
        }
}

/* A PIN that was right before is no wrong one. */
static void test_login__a_pin_that_worked_is_tried_until_the_token_is_well(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        for (size_t i = 0; i < UNCLEAR; i++) {
                set_rules_of("C_DecryptInit rv 0xb3 1 1\nC_Login rv %#lx\n", unclear[i]);
                for (int attempt = 0; attempt < 5; attempt++) {
                        struct tk_fault fault = {0};
                        int r = tk_kms_probe(kms, &wrapped, &fault);

                        assert_int_equal(tk_lease_answer_of(r), TK_LEASE_UNREACHABLE);
                        assert_int_not_equal(fault.kind, TK_FAULT_PASSPHRASE);
                }
                set_rules("");
                check_unwrap(kms, &wrapped, key);
        }
        tk_secret_free(key);
        tk_kms_free(kms);
}

static int read_file_pin(void *context, struct tk_secret **ret_pin)
{
        const char *pin = *(const char **)context;

        *ret_pin = tk_test_secret(pin, strlen(pin));
        return 0;
}

/* As above it is given up. But the key was given out before: nobody has taken it back. */
static void test_login__unclear_answers_to_a_changed_pin_are_an_outage(void **state)
{
        const char *source = PIN;
        struct tk_kms_wrap wrapped = {0};
        struct tk_fault fault = {0};
        struct tk_kms *kms;
        struct tk_secret *key;

        NEEDS_SOFTHSM();
        kms = open_as((struct tk_kms_pkcs11_options){.deadline_ms = SHORT_MS,
                                                     .reread = read_file_pin,
                                                     .reread_context = &source},
                      PIN);
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        source = "changed";
        set_rules("C_DecryptInit rv 0xb3 1 1\nC_Login rv 0x5\n");
        for (int attempt = 0; attempt < 1000 && !strstr(fault.text, "twice"); attempt++) {
                fault = (struct tk_fault){0};
                assert_int_equal(tk_lease_answer_of(tk_kms_probe(kms, &wrapped, &fault)),
                                 TK_LEASE_UNREACHABLE);
                assert_int_equal(fault.kind, TK_FAULT_PASSPHRASE);
                usleep(10000);
        }
        assert_int_equal(tk_lease_answer_of(tk_kms_probe(kms, &wrapped, NULL)),
                         TK_LEASE_UNREACHABLE);
        assert_int_equal(count_calls("C_Login"), 2);
        set_rules("");
        source = PIN;
        check_unwrap(kms, &wrapped, key);
        tk_secret_free(key);
        tk_kms_free(kms);
}

static void test_login__a_pin_with_a_line_break_uses_up_no_try(void **state)
{
        static const char *const pins[] = {PIN "\r", PIN "\n", "\n"};

        NEEDS_SOFTHSM();
        for (size_t i = 0; i < sizeof(pins) / sizeof(pins[0]); i++) {
                struct tk_kms *kms = open_with(URI, pins[i], 0);
                char version[TK_KMS_VERSION_MAX] = "";
                struct tk_fault fault = {0};

                set_rules("");
                assert_int_equal(tk_kms_current(kms, version, &fault), -EACCES);
                assert_int_equal(fault.kind, TK_FAULT_PASSPHRASE);
                assert_non_null(strstr(fault.text, "line break"));
                assert_int_equal(count_calls("C_Login"), 0);
                tk_kms_free(kms);
        }
}

static void test_login__a_pin_that_was_corrected_is_tried(void **state)
{
        const char *source = "wrong";
        char version[TK_KMS_VERSION_MAX] = "";
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_as(
                (struct tk_kms_pkcs11_options){.reread = read_file_pin, .reread_context = &source},
                "wrong");
        for (int i = 0; i < 3; i++)
                assert_int_equal(tk_kms_current(kms, version, NULL), -EACCES);
        assert_int_equal(count_calls("C_Login"), 1);
        source = PIN;
        assert_int_equal(tk_kms_current(kms, version, NULL), -EKEYREVOKED); /* it has no key yet */
        assert_true(count_calls("C_Login") >= 2);
        tk_kms_free(kms);
}

/* Hanging modules ---------------------------------------------------------- */

static void test_job__a_module_that_hangs_holds_nobody_up(void **state)
{
        struct tk_fault fault = {0};
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *patient;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        patient = open_token();
        key = random_key();
        create(patient, "", 0);
        wrap(patient, key, &wrapped);
        kms = open_with(URI, PIN, 700);
        check_unwrap(kms, &wrapped, key); /* the first call may take longer */
        set_rules("C_Decrypt hang\n");
        for (int i = 0; i < 8; i++) { /* more than there may be at a time */
                assert_int_equal(tk_kms_probe(kms, &wrapped, &fault), -ENOKEY);
                assert_int_equal(fault.kind, TK_FAULT_KMS_UNREACHABLE);
        }
        assert_in_range(count_calls("C_Decrypt"), 1, 4);
        set_rules("");
        for (int i = 0; i < 500 && tk_kms_probe(kms, &wrapped, NULL) < 0; i++)
                usleep(20000);
        assert_int_equal(tk_kms_probe(kms, &wrapped, NULL), 0);
        check_unwrap(patient, &wrapped, key);
        tk_secret_free(key);
        tk_kms_free(kms);
        tk_kms_free(patient);
}

/* One session is lost for ever, and the token wants all of them back before it recovers. */
static void test_job__a_session_that_hangs_is_gone_without(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        kms = open_with(URI, PIN, 2000);
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        set_rules("C_Decrypt hang 0 1 1\nC_Decrypt rv 0x30 2 2\n");
        assert_int_equal(tk_kms_probe(kms, &wrapped, NULL), -ENOKEY);
        for (int i = 0; i < 20 && tk_kms_probe(kms, &wrapped, NULL) < 0; i++)
                usleep(100000);
        check_unwrap(kms, &wrapped, key);
        set_rules("");
        tk_secret_free(key);
        tk_kms_free(kms);
}

static void test_free__a_module_that_hangs_holds_nobody_up(void **state)
{
        static const char *const rules[] = {"C_CloseSession hang\n", "C_Finalize hang\n",
                                            "* hang\n"};

        NEEDS_SOFTHSM();
        for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
                int status;
                pid_t child = fork();

                if (child == 0) {
                        struct tk_kms *kms = open_with(URI, PIN, 300);
                        char version[TK_KMS_VERSION_MAX];

                        if (tk_kms_current(kms, version, NULL) != -EKEYREVOKED)
                                _exit(1); /* there is none */
                        set_rules(rules[i]);
                        if (i == 2) /* one that is late already */
                                (void)!tk_kms_current(kms, version, NULL);
                        tk_kms_free(kms);
                        exit(7); /* NOLINT(concurrency-mt-unsafe): what is tested */
                }
                assert_int_equal(waitpid(child, &status, 0), child);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), 7);
        }
}

/* Two leave one that hangs, as a token is away; a root key may be moved to another one then. */
static void test_session__a_module_that_hangs_holds_up_no_other_module(void **state)
{
        static const char *const rules[] = {"C_Finalize hang\n", "C_CloseSession hang 0 2 2\n"};

        NEEDS_SOFTHSM();
        for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
                struct tk_kms *kms[] = {open_with(URI, PIN, 300), open_with(URI, PIN, 300)};
                char version[TK_KMS_VERSION_MAX];
                struct tk_kms *other;

                for (unsigned k = 0; k < 2; k++)
                        assert_int_equal(tk_kms_current(kms[k], version, NULL), -EKEYREVOKED);
                set_rules(rules[i]);
                assert_int_equal(tk_kms_current(kms[0], version, NULL), -ENOKEY);
                other = open_as((struct tk_kms_pkcs11_options){.module = softhsm}, PIN);
                assert_int_equal(tk_kms_current(other, version, NULL), -EKEYREVOKED);
                /* Under both modules is one SoftHSM: not finalised while those that hung use it. */
                tk_kms_free(other);
                set_rules("");
                tk_kms_free(kms[0]);
                tk_kms_free(kms[1]);
        }
}

/* Others in the process, and forks ------------------------------------------ */

static void test_session__somebody_else_has_initialised_the_module(void **state)
{
        CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR list);
        CK_FUNCTION_LIST *functions;
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        *(void **)&get = dlsym(module, "C_GetFunctionList");
        assert_int_equal(get(&functions), CKR_OK);
        assert_int_equal(functions->C_Initialize(NULL), CKR_OK);
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        check_unwrap(kms, &wrapped, key);
        tk_kms_free(kms);
        /* It is still theirs. */
        assert_int_equal(functions->C_Finalize(NULL), CKR_OK);
        tk_secret_free(key);
}

static void test_session__two_at_once_and_one_is_closed(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;
        struct tk_kms *other;

        NEEDS_SOFTHSM();
        kms = open_token();
        other = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        check_unwrap(other, &wrapped, key);
        tk_kms_free(kms);
        check_unwrap(other, &wrapped, key);
        tk_kms_free(other);
        tk_secret_free(key);
}

/* @asked: how many of the two providers ask while the token is away. */
static void pull_out_and_plug_in(unsigned asked)
{
        struct tk_kms *kms[] = {open_token(), open_token()};
        struct tk_secret *key = random_key();
        struct tk_kms_wrap wrapped = {0};

        create(kms[0], "", 0);
        wrap(kms[0], key, &wrapped);
        check_unwrap(kms[1], &wrapped, key);
        assert_int_equal(rename("tokens", "unplugged"), 0);
        assert_int_equal(mkdir("tokens", 0700), 0);
        for (unsigned i = 0; i < asked; i++)
                assert_int_equal(tk_kms_probe(kms[i], &wrapped, NULL), -ENOKEY);
        assert_int_equal(rmdir("tokens"), 0);
        assert_int_equal(rename("unplugged", "tokens"), 0);
        for (unsigned i = 0; i < 2; i++) {
                check_unwrap(kms[i], &wrapped, key);
                check_unwrap(kms[1 - i], &wrapped, key);
        }
        tk_kms_free(kms[0]);
        tk_kms_free(kms[1]);
        tk_secret_free(key);
}

/* SoftHSM looks for its tokens only when it is initialised. */
static void test_session__a_token_of_two_that_comes_back_is_seen(void **state)
{
        NEEDS_SOFTHSM();
        pull_out_and_plug_in(1);
        assert_int_equal(new_token(), 0);
        pull_out_and_plug_in(2);
}

static void test_session__works_on_after_a_fork(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;
        int status;
        pid_t child;

        NEEDS_SOFTHSM();
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        wrap(kms, key, &wrapped);
        child = fork();
        if (child == 0)
                _exit(tk_kms_probe(kms, &wrapped, NULL) == 0 ? 0 : 1);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        check_unwrap(kms, &wrapped, key);
        tk_kms_free(kms);
        tk_secret_free(key);
}

/* With children of the module's own, also of calls while others work. */
static void test_session__a_module_that_forks(void **state)
{
        struct tk_kms_wrap wrapped = {0};
        struct tk_secret *key;
        struct tk_kms *kms;

        NEEDS_SOFTHSM();
        set_rules("* forks 0 1 12\n");
        kms = open_token();
        key = random_key();
        create(kms, "", 0);
        set_rules("C_Decrypt forks 1\n");
        wrap(kms, key, &wrapped);
        check_unwrap(kms, &wrapped, key);
        tk_kms_free(kms);
        tk_secret_free(key);
}

static void test_open__a_module_that_lacks_something(void **state)
{
        static const struct {
                const char *rules;
                const char *said;
        } lists[] = {
                {"C_GetFunctionList rv 0x5\n", "cannot load the PKCS#11 module"},
                {"C_GetFunctionList lacks\n", "no list of functions"},
                {"C_GetFunctionList says 1\n", "PKCS#11 1.0"},
                {"C_Initialize lacks\n", "C_Initialize"},
                {"C_UnwrapKey lacks\n", "C_UnwrapKey"},
        };

        NEEDS_SOFTHSM();
        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
                struct tk_kms *kms = open_token();
                char version[TK_KMS_VERSION_MAX] = "";
                struct tk_fault fault = {0};

                set_rules(lists[i].rules);
                assert_int_equal(tk_kms_current(kms, version, &fault), -ENOKEY);
                assert_int_equal(fault.kind, TK_FAULT_KMS_UNREACHABLE);
                assert_non_null(strstr(fault.text, lists[i].said));
                set_rules("");
                assert_int_equal(tk_kms_current(kms, version, NULL), -EKEYREVOKED); /* none */
                tk_kms_free(kms);
        }
}

static void test_open__modules_that_are_none(void **state)
{
        static const char *const paths[] = {"/does/not/exist.so", "/etc/passwd",
                                            "/lib/x86_64-linux-gnu/libc.so.6"};

        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
                struct tk_fault fault = {0};
                struct tk_kms *kms = NULL;
                char version[TK_KMS_VERSION_MAX] = "";

                assert_int_equal(
                        tk_kms_pkcs11_open(
                                &(struct tk_kms_pkcs11_options){.module = paths[i], .uri = URI},
                                &kms, &fault),
                        0);
                assert_int_equal(tk_kms_current(kms, version, &fault), -ENOKEY);
                assert_non_null(strstr(fault.text, paths[i]));
                tk_kms_free(kms);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_wrap__aes_gcm),
                TEST(test_wrap__aes_key_wrap_where_there_is_no_gcm),
                TEST(test_wrap__rsa_with_the_best_hash_that_the_token_has),
                TEST(test_wrap__rsa_where_there_is_no_aes),
                TEST(test_create__what_a_token_can_t_make),
                TEST(test_unwrap__damage_is_told_from_trouble),
                TEST(test_unwrap__strict_about_what_is_recorded),
                TEST(test_versions__from_the_first_to_the_last),
                TEST(test_disable__by_the_label_where_rights_can_t_be_changed),
                TEST(test_import__a_key_of_one_s_own),
                TEST(test_unwrap__no_outage_is_taken_for_a_revocation),
                TEST(test_unwrap__one_failing_call_is_got_over),
                TEST(test_lengths__that_can_t_be_with_aes_gcm),
                TEST(test_lengths__that_can_t_be_with_key_objects),
                TEST(test_lengths__that_can_t_be_with_rsa),
                TEST(test_rotate__fails_at_any_call),
                TEST(test_create__fails_at_any_call),
                TEST(test_change__fails_at_any_call),
                TEST(test_unwrap__what_a_module_lacks_is_no_revocation),
                TEST(test_wrap__a_key_object_that_stays_goes_with_its_session),
                TEST(test_current__more_versions_than_are_looked_at),
                TEST(test_delete__leaves_no_version_whatever_their_number),
                TEST(test_delete__a_label_that_does_not_change_is_said),
                TEST(test_login__a_wrong_pin_is_tried_once),
                TEST(test_login__an_unclear_answer_is_asked_for_once_more),
                TEST(test_login__unclear_answers_lock_no_token),
                TEST(test_login__flags_tell_of_a_wrong_pin_that_the_answer_does_not),
                TEST(test_login__a_token_that_is_ill_is_waited_for),
                TEST(test_login__a_pin_that_worked_is_tried_until_the_token_is_well),
                TEST(test_login__unclear_answers_to_a_changed_pin_are_an_outage),
                TEST(test_login__a_pin_with_a_line_break_uses_up_no_try),
                TEST(test_login__a_pin_that_was_corrected_is_tried),
                TEST(test_job__a_module_that_hangs_holds_nobody_up),
                TEST(test_job__a_session_that_hangs_is_gone_without),
                TEST(test_free__a_module_that_hangs_holds_nobody_up),
                TEST(test_session__a_module_that_hangs_holds_up_no_other_module),
                TEST(test_session__somebody_else_has_initialised_the_module),
                TEST(test_session__two_at_once_and_one_is_closed),
                TEST(test_session__a_token_of_two_that_comes_back_is_seen),
                TEST(test_session__works_on_after_a_fork),
                TEST(test_session__a_module_that_forks),
                TEST(test_open__a_module_that_lacks_something),
                TK_TEST(test_open__modules_that_are_none),
        };

        return cmocka_run_group_tests(tests, group_enter, NULL);
}
