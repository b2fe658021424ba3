/* SPDX-License-Identifier: Apache-2.0 */

/* Keystores administered: versions, states, deletion, and what others who have them open see. */

#include "kms/kms_admin.h"
#include "kms/local.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <pthread.h>

static struct tk_kms *opened(const char *path, const char *passphrase)
{
        TK_CLEANUP(tk_secret_freep)
        struct tk_secret *secret =
                passphrase ? tk_test_secret(passphrase, strlen(passphrase)) : NULL;
        struct tk_kms_local_options options = {.keystore = path, .passphrase = secret};
        struct tk_fault fault = {0};
        struct tk_kms *kms = NULL;

        if (access(path, F_OK) < 0 && tk_kms_local_create(&options, &fault) < 0)
                fail_msg("%s", fault.text);
        if (tk_kms_local_open(&options, &kms, &fault) < 0)
                fail_msg("%s", fault.text);
        return kms;
}

/* "1+ 2- 3*": enabled, disabled, current. */
static void assert_versions(struct tk_kms *kms, const char *want)
{
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        struct tk_fault fault = {0};
        char got[256] = "";
        size_t count = 0;

        assert_int_equal(tk_kms_admin_list(kms, &versions, &count, &fault), 0);
        for (size_t i = 0; i < count; i++) {
                size_t len = strlen(got);

                assert_true(versions[i].created > 0);
                assert_string_equal(versions[i].type, "AES 256");
                snprintf(got + len, sizeof(got) - len, "%s%s%s", i > 0 ? " " : "",
                         versions[i].version,
                         versions[i].current   ? "*"
                         : versions[i].enabled ? "+"
                                               : "-");
        }
        assert_string_equal(got, want);
}

static void rotate(struct tk_kms *kms, const char *want)
{
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault = {0};

        if (tk_kms_admin_rotate(kms, version, &fault) < 0)
                fail_msg("%s", fault.text);
        assert_string_equal(version, want);
}

static void set_enabled(struct tk_kms *kms, const char *version, bool enabled)
{
        struct tk_fault fault = {0};

        if (tk_kms_admin_set_enabled(kms, version, enabled, &fault) < 0)
                fail_msg("%s", fault.text);
}

static struct tk_kms_wrap wrapped(struct tk_kms *kms, const char *version)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = tk_test_secret(&(uint8_t[32]){7}, 32);
        struct tk_fault fault = {0};
        struct tk_kms_wrap wrap;

        if (tk_kms_wrap(kms, version, key, &wrap, &fault) < 0)
                fail_msg("%s", fault.text);
        return wrap;
}

static int unwrap(struct tk_kms *kms, const struct tk_kms_wrap *wrap)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_fault fault = {0};
        int r = tk_kms_unwrap(kms, wrap, &key, &fault);

        assert_int_equal(r < 0, fault.kind != TK_FAULT_NONE);
        if (r == 0)
                assert_int_equal(tk_secret_bytes(key)[0], 7);
        return r;
}

static void check_versions(const char *passphrase)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("ks", passphrase);
        struct tk_kms_wrap old = wrapped(kms, "1");
        struct tk_kms_wrap new;

        assert_versions(kms, "1*");
        rotate(kms, "2");
        rotate(kms, "3");
        assert_versions(kms, "1+ 2+ 3*");
        set_enabled(kms, "3", false);
        set_enabled(kms, "1", false);
        assert_versions(kms, "1- 2* 3-");
        assert_int_equal(unwrap(kms, &old), -EKEYREVOKED);
        set_enabled(kms, "1", true);
        assert_int_equal(unwrap(kms, &old), 0);
        new = wrapped(kms, "2");

        tk_kms_free(kms);
        kms = opened("ks", passphrase);
        assert_versions(kms, "1+ 2* 3-");
        assert_int_equal(unwrap(kms, &old), 0);
        assert_int_equal(unwrap(kms, &new), 0);
}

static void test_admin__versions(void **state)
{
        check_versions(NULL);
}

static void test_admin__versions_under_a_passphrase(void **state)
{
        check_versions("correct horse");
}

static void rotate_due(struct tk_kms *kms, int64_t every_s, int want)
{
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault = {0};

        assert_int_equal(tk_kms_admin_rotate_due(kms, every_s, version, &fault), want);
}

static void test_admin_rotate_due__old_enough_and_enabled(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("k", NULL);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *other = opened("k", NULL);

        rotate_due(kms, 3600, 0);
        assert_versions(kms, "1*");
        rotate_due(kms, 0, 1);
        assert_versions(kms, "1+ 2*");
        /* Another program that has it open sees that version, not the one that was old. */
        rotate_due(other, 3600, 0);
        assert_versions(other, "1+ 2*");
        /* A refused version is not left behind by a new one. */
        set_enabled(kms, "2", false);
        rotate_due(kms, 0, 0);
        assert_versions(kms, "1* 2-");
        set_enabled(kms, "2", true);
        rotate_due(kms, 0, 1);
        assert_versions(kms, "1+ 2+ 3*");
}

static void test_admin__others_see_it(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("ks", NULL);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *other = opened("ks", NULL);
        struct tk_kms_wrap wrap = wrapped(other, "1");
        char version[TK_KMS_VERSION_MAX];

        rotate(kms, "2");
        assert_int_equal(tk_kms_current(other, version, NULL), 0);
        assert_string_equal(version, "2");
        rotate(other, "3");
        rotate(kms, "4");
        assert_versions(kms, "1+ 2+ 3+ 4*");
        set_enabled(kms, "1", false);
        assert_int_equal(unwrap(other, &wrap), -EKEYREVOKED);
        assert_int_equal(tk_kms_probe(other, &wrap, NULL), -EKEYREVOKED);
        set_enabled(kms, "1", true);
        assert_int_equal(unwrap(other, &wrap), 0);
}

static void test_admin__deleted_and_recovered(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("ks", NULL);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *other = opened("ks", NULL);
        struct tk_kms_wrap wrap = wrapped(other, "1");
        struct tk_fault fault = {0};

        assert_int_equal(tk_kms_admin_delete(kms, &fault), 0);
        assert_int_equal(access("ks", F_OK), -1);
        assert_int_equal(unwrap(other, &wrap), -EKEYREVOKED);
        assert_int_equal(tk_kms_local_recover("ks", &fault), 0);
        assert_int_equal(unwrap(other, &wrap), 0);
        assert_int_equal(tk_kms_local_recover("ks", &fault), -ENOENT);
        assert_int_equal(fault.kind, TK_FAULT_KEYSTORE_MISSING);
}

/* Moved away by other means, on a medium that was taken out: nothing was said about the key. */
static void test_admin__out_of_reach_is_not_deleted(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("ks", NULL);
        struct tk_kms_wrap wrap = wrapped(kms, "1");

        assert_int_equal(rename("ks", "elsewhere"), 0);
        assert_int_equal(unwrap(kms, &wrap), 0);
}

static void test_admin__another_keystore_in_its_place(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("ks", NULL);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *second = opened("second", NULL);
        struct tk_kms_wrap wrap = wrapped(kms, "1");
        struct tk_fault fault = {0};
        char version[TK_KMS_VERSION_MAX];

        assert_int_equal(rename("second", "ks"), 0);
        assert_int_equal(unwrap(kms, &wrap), -ENOENT);
        assert_int_equal(tk_kms_admin_rotate(kms, version, &fault), -ENOENT);
        assert_non_null(strstr(fault.text, "replaced by another"));
}

static void test_admin__refused(void **state)
{
        static const char *const versions[] = {"", "0", "2", "x", "1 ", "01", "99999999999"};
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = opened("ks", NULL);
        struct tk_kms_rotation_policy policy;

        for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
                struct tk_fault fault = {0};

                assert_int_equal(tk_kms_admin_set_enabled(kms, versions[i], false, &fault),
                                 -ENOENT);
                assert_int_equal(fault.kind, TK_FAULT_USAGE);
        }
        assert_versions(kms, "1*");
        assert_int_equal(tk_kms_admin_get_policy(kms, &policy, NULL), -ENOTSUP);
}

/* The keystore behind a symbolic link is replaced, not the link. */
static void test_admin__through_a_link(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        struct stat st;

        assert_int_equal(mkdir("dir", 0700), 0);
        tk_kms_free(opened("dir/ks", NULL));
        assert_int_equal(symlink("dir/ks", "link"), 0);
        kms = opened("link", NULL);
        rotate(kms, "2");
        assert_int_equal(lstat("link", &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        tk_kms_free(kms);
        kms = opened("dir/ks", NULL);
        assert_versions(kms, "1+ 2*");
}

enum { THREADS = 4, ROUNDS = 25 };

static void *rotate_often(void *context)
{
        char version[TK_KMS_VERSION_MAX];

        for (int i = 0; i < ROUNDS; i++)
                if (tk_kms_admin_rotate(context, version, NULL) < 0)
                        return context;
        return NULL;
}

static void *unwrap_often(void *context)
{
        struct tk_kms_wrap wrap = wrapped(context, "1");

        for (int i = 0; i < ROUNDS * 10; i++)
                if (unwrap(context, &wrap) < 0)
                        return context;
        return NULL;
}

/* Through two handles, as two programs have them, and several threads each. */
static void test_admin__threads(void **state)
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *a = opened("ks", NULL);
        TK_CLEANUP(tk_kms_freep) struct tk_kms *b = opened("ks", NULL);
        pthread_t threads[2 * THREADS];
        TK_CLEANUP(tk_freep) struct tk_kms_key_version *versions = NULL;
        struct tk_fault fault = {0};
        size_t count = 0;

        for (int i = 0; i < 2 * THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL,
                                                i < THREADS ? rotate_often : unwrap_often,
                                                i % 2 ? a : b),
                                 0);
        for (int i = 0; i < 2 * THREADS; i++) {
                void *failed = NULL;

                pthread_join(threads[i], &failed);
                assert_null(failed);
        }
        tk_kms_free(a);
        a = opened("ks", NULL);
        assert_int_equal(tk_kms_admin_list(a, &versions, &count, &fault), 0);
        assert_int_equal(count, 1 + THREADS * ROUNDS);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_admin__versions),
                TK_TEST_IN_DIR(test_admin__versions_under_a_passphrase),
                TK_TEST_IN_DIR(test_admin_rotate_due__old_enough_and_enabled),
                TK_TEST_IN_DIR(test_admin__others_see_it),
                TK_TEST_IN_DIR(test_admin__deleted_and_recovered),
                TK_TEST_IN_DIR(test_admin__out_of_reach_is_not_deleted),
                TK_TEST_IN_DIR(test_admin__another_keystore_in_its_place),
                TK_TEST_IN_DIR(test_admin__refused),
                TK_TEST_IN_DIR(test_admin__through_a_link),
                TK_TEST_IN_DIR(test_admin__threads),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
