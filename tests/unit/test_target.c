/* SPDX-License-Identifier: Apache-2.0 */

/* Symlink targets: lengths, the longest, and that nothing else opens them. */

#include "support.h"

#include "crypto/random.h"
#include "fs/target.h"
#include <errno.h>

static struct tk_secret *new_key(void)
{
        struct tk_secret *key = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &key), 0);
        return key;
}

static void test_target__every_length(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        char stored[TK_TARGET_STORED_MAX + 1];
        char target[TK_TARGET_MAX + 1];
        char found[TK_TARGET_MAX + 1];

        for (size_t len = 1; len <= TK_TARGET_MAX; len++) {
                memset(target, 'a' + (int)(len % 26), len);
                target[len] = '\0';
                assert_int_equal(tk_target_seal(key, target, stored), 0);
                assert_int_equal(tk_target_len(strlen(stored)), len);
                assert_int_equal(tk_target_open(key, stored, found, len + 1), 0);
                assert_string_equal(found, target);
                assert_int_equal(tk_target_open(key, stored, found, len), -ENAMETOOLONG);
        }
        assert_true(strlen(stored) <= TK_TARGET_STORED_MAX);
}

static void test_target_seal__too_long(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        char stored[TK_TARGET_STORED_MAX + 1];
        char target[TK_TARGET_MAX + 2];

        memset(target, 'a', TK_TARGET_MAX + 1);
        target[TK_TARGET_MAX + 1] = '\0';
        assert_int_equal(tk_target_seal(key, target, stored), -ENAMETOOLONG);
}

static void test_target_seal__not_twice_the_same(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        char one[TK_TARGET_STORED_MAX + 1];
        char two[TK_TARGET_STORED_MAX + 1];

        assert_int_equal(tk_target_seal(key, "../lib", one), 0);
        assert_int_equal(tk_target_seal(key, "../lib", two), 0);
        assert_string_not_equal(one, two);
}

static void test_target_open__damaged(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = new_key();
        TK_CLEANUP(tk_secret_freep) struct tk_secret *other = new_key();
        char stored[TK_TARGET_STORED_MAX + 1];
        char found[64];
        size_t len;

        assert_int_equal(tk_target_seal(key, "../lib/x", stored), 0);
        len = strlen(stored);
        assert_int_equal(tk_target_open(other, stored, found, sizeof(found)), -EBADMSG);
        for (size_t i = 0; i < len; i++) {
                char was = stored[i];

                stored[i] = was == 'A' ? 'B' : 'A';
                assert_int_equal(tk_target_open(key, stored, found, sizeof(found)), -EBADMSG);
                stored[i] = '/';
                assert_int_equal(tk_target_open(key, stored, found, sizeof(found)), -EBADMSG);
                stored[i] = '\0';
                assert_int_equal(tk_target_open(key, stored, found, sizeof(found)), -EBADMSG);
                stored[i] = was;
        }
        assert_int_equal(tk_target_open(key, stored, found, sizeof(found)), 0);
        assert_string_equal(found, "../lib/x");
}

static void test_target_len__not_ours(void **state)
{
        assert_int_equal(tk_target_len(0), 0);
        assert_int_equal(tk_target_len(5), 0);
        assert_int_equal(tk_target_len(38), 0);
        assert_int_equal(tk_target_len(39), 1);
        assert_int_equal(tk_target_len(TK_TARGET_STORED_MAX), TK_TARGET_MAX);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_target__every_length),
                TK_TEST(test_target_seal__too_long),
                TK_TEST(test_target_seal__not_twice_the_same),
                TK_TEST(test_target_open__damaged),
                TK_TEST(test_target_len__not_ours),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
