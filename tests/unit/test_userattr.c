/* SPDX-License-Identifier: Apache-2.0 */

/* User attributes: names and values as stored, and what they are bound to. */

#include "support.h"

#include "crypto/random.h"
#include "fs/userattr.h"
#include <errno.h>

static struct tk_userattr *new_attr(void)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_userattr *attr = NULL;

        assert_int_equal(tk_random_secret(TK_KEY_LEN, &dek), 0);
        assert_int_equal(tk_userattr_new(dek, &attr), 0);
        return attr;
}

static void test_seal_name__every_length(void **state)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = new_attr();
        char name[TK_USERATTR_NAME_MAX + 2] = "user.";
        char stored[TK_USERATTR_STORED_MAX + 1];
        char again[TK_USERATTR_STORED_MAX + 1];
        char found[TK_USERATTR_NAME_MAX + 1];

        assert_int_equal(tk_userattr_seal_name(attr, name, stored), -EINVAL);
        for (size_t len = 6; len <= TK_USERATTR_NAME_MAX; len++) {
                name[len - 1] = (char)(len == '/' ? '0' : len % 255 + 1);
                assert_int_equal(tk_userattr_seal_name(attr, name, stored), 0);
                assert_true(strlen(stored) <= TK_USERATTR_STORED_MAX);
                assert_true(tk_userattr_is_stored(stored));
                assert_int_equal(tk_userattr_seal_name(attr, name, again), 0);
                assert_string_equal(again, stored);
                assert_int_equal(tk_userattr_open_name(attr, stored, found), 0);
                assert_string_equal(found, name);
        }
        assert_int_equal(strlen(stored), TK_USERATTR_STORED_MAX);
        name[TK_USERATTR_NAME_MAX] = 'x';
        assert_int_equal(tk_userattr_seal_name(attr, name, stored), -ERANGE);
}

static void test_open_name__damaged(void **state)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = new_attr();
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *other = new_attr();
        char stored[TK_USERATTR_STORED_MAX + 8];
        char found[TK_USERATTR_NAME_MAX + 1];
        size_t len;

        assert_int_equal(tk_userattr_seal_name(attr, "user.mime_type", stored), 0);
        assert_int_equal(tk_userattr_open_name(other, stored, found), -EBADMSG);
        len = strlen(stored);
        for (size_t i = 0; i < len; i++) {
                char was = stored[i];

                stored[i] = was == 'A' ? 'B' : 'A';
                assert_int_equal(tk_userattr_open_name(attr, stored, found), -EBADMSG);
                stored[i] = '\0';
                assert_int_equal(tk_userattr_open_name(attr, stored, found), -EBADMSG);
                stored[i] = was;
        }
        memset(stored + len, 'A', TK_USERATTR_STORED_MAX - len);
        stored[TK_USERATTR_STORED_MAX] = '\0';
        assert_int_equal(tk_userattr_open_name(attr, stored, found), -EBADMSG);
        assert_int_equal(tk_userattr_open_name(attr, "user.mime_type", found), -EBADMSG);
}

static void test_open_value__bound_to_name_and_file(void **state)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = new_attr();
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *other = new_attr();
        uint8_t sealed[5 + TK_SEALED_OVERHEAD];
        char found[5];

        for (size_t len = 0; len <= 5; len += 5) {
                size_t sealed_len = len + TK_SEALED_OVERHEAD;

                assert_int_equal(tk_userattr_seal_value(attr, "user.a", "value", len, sealed), 0);
                assert_int_equal(tk_userattr_open_value(attr, "user.a", sealed, sealed_len, found),
                                 0);
                assert_memory_equal(found, "value", len);
                assert_int_equal(tk_userattr_open_value(attr, "user.b", sealed, sealed_len, found),
                                 -EBADMSG);
                assert_int_equal(tk_userattr_open_value(other, "user.a", sealed, sealed_len, found),
                                 -EBADMSG);
                sealed[0] ^= 1;
                assert_int_equal(tk_userattr_open_value(attr, "user.a", sealed, sealed_len, found),
                                 -EBADMSG);
        }
}

static void test_is_stored__by_the_prefix(void **state)
{
        assert_true(tk_userattr_is_stored("user.turnkey."));
        assert_true(tk_userattr_is_stored("user.turnkey.x"));
        assert_false(tk_userattr_is_stored("user.turnkey"));
        assert_false(tk_userattr_is_stored("user.turnkeys"));
        assert_false(tk_userattr_is_stored("user.a"));
        assert_false(tk_userattr_is_stored("security.selinux"));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_seal_name__every_length),
                TK_TEST(test_open_name__damaged),
                TK_TEST(test_open_value__bound_to_name_and_file),
                TK_TEST(test_is_stored__by_the_prefix),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
