/* SPDX-License-Identifier: Apache-2.0 */

/* Encrypted attributes, as the operations set, read, list and remove them. */

#include "support_fs.h"

#include "fs/backing.h"
#include "fs/keyattr.h"
#include "fs/revoke.h"
#include "fs/userattr.h"
#include <sys/xattr.h>

enum { LIST_MAX = 4096 };

static struct tk_test_fs test;

/* A file or a directory, closed, and a descriptor of its backing file. */
struct bearer {
        struct tk_inode *inode;
        int below;
};

static int enter(void **state)
{
        int r = tk_test_dir_enter(state);

        memset(&test, 0, sizeof(test));
        test.names = TK_NAMES_ENCRYPTED;
        tk_test_fs_start(&test);
        return r;
}

static int enter_kms(void **state)
{
        int r = tk_test_dir_enter(state);

        memset(&test, 0, sizeof(test));
        test.names = TK_NAMES_ENCRYPTED;
        test.dek_wrap = TK_DEK_WRAP_KMS;
        tk_test_fs_start(&test);
        return r;
}

static int leave(void **state)
{
        tk_test_fs_stop(&test);
        return tk_test_dir_leave(state);
}

static struct bearer make_file(const char *name)
{
        struct bearer bearer;
        struct tk_openfile *file = tk_test_create(&test, name, &bearer.inode);

        tk_op_release(test.fs, file, O_RDWR);
        bearer.below = tk_inode_open(test.fs->inodes, bearer.inode, O_PATH);
        assert_true(bearer.below >= 0);
        return bearer;
}

static struct bearer make_other(const char *name, mode_t mode)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 022};
        struct tk_entry entry = {0};
        struct bearer bearer;

        if (S_ISDIR(mode))
                assert_int_equal(tk_op_mkdir(test.fs, test.root, name, 0755, &caller, &entry), 0);
        else
                assert_int_equal(tk_op_mknod(test.fs, test.root, name, mode, 0, &caller, &entry),
                                 0);
        bearer.inode = entry.inode;
        bearer.below = tk_inode_open(test.fs->inodes, bearer.inode, O_PATH);
        assert_true(bearer.below >= 0);
        return bearer;
}

static void let_go(struct bearer *bearer)
{
        close(bearer->below);
        tk_inode_forget(test.fs->inodes, bearer->inode, 1);
}

static int set(const struct bearer *bearer, const char *name, const char *value)
{
        return tk_op_setxattr(test.fs, bearer->inode, name, value, strlen(value), 0);
}

static ssize_t get(const struct bearer *bearer, const char *name, void *value, size_t max)
{
        return tk_op_getxattr(test.fs, bearer->inode, name, value, max);
}

static void assert_value(const struct bearer *bearer, const char *name, const char *value)
{
        char found[256];
        size_t len = strlen(value);

        assert_int_equal(get(bearer, name, NULL, 0), len);
        assert_int_equal(get(bearer, name, found, sizeof(found)), len);
        assert_memory_equal(found, value, len);
}

/* The list is @names, which end with NULL, in any order; and of the size that is said. */
static void assert_list(const struct bearer *bearer, const char *const *names)
{
        char list[LIST_MAX];
        ssize_t len = tk_op_listxattr(test.fs, bearer->inode, list, sizeof(list));
        size_t expected = 0;

        assert_true(len >= 0);
        assert_int_equal(tk_op_listxattr(test.fs, bearer->inode, NULL, 0), len);
        for (size_t i = 0; names[i]; i++) {
                bool found = false;

                for (const char *at = list; at < list + len; at += strlen(at) + 1)
                        found |= strcmp(at, names[i]) == 0;
                assert_true(found);
                expected += strlen(names[i]) + 1;
        }
        assert_int_equal(len, expected);
}

#define ASSERT_LIST(bearer, ...) assert_list(bearer, (const char *const[]){__VA_ARGS__ NULL})

/* The name of the one encrypted attribute below. */
static void stored_name(const struct bearer *bearer, char stored[XATTR_NAME_MAX + 1])
{
        char list[LIST_MAX];
        ssize_t len = tk_backing_listxattr(bearer->below, list, sizeof(list));
        unsigned count = 0;

        for (const char *at = list; at < list + len; at += strlen(at) + 1) {
                if (!tk_userattr_is_stored(at))
                        continue;
                assert_true(strlen(at) <= XATTR_NAME_MAX);
                memcpy(stored, at, strlen(at) + 1);
                count++;
        }
        assert_int_equal(count, 1);
}

static void set_get_list_remove(const struct bearer *bearer)
{
        ASSERT_LIST(bearer, );
        assert_int_equal(get(bearer, "user.a", NULL, 0), -ENODATA);
        assert_int_equal(tk_op_removexattr(test.fs, bearer->inode, "user.a"), -ENODATA);
        assert_int_equal(set(bearer, "user.a", "first"), 0);
        assert_int_equal(set(bearer, "user.empty", ""), 0);
        assert_int_equal(set(bearer, "user.\xff/\x01", "odd"), 0);
        assert_value(bearer, "user.a", "first");
        assert_value(bearer, "user.empty", "");
        assert_value(bearer, "user.\xff/\x01", "odd");
        ASSERT_LIST(bearer, "user.a", "user.empty", "user.\xff/\x01", );
        assert_int_equal(set(bearer, "user.a", "second, longer"), 0);
        assert_value(bearer, "user.a", "second, longer");
        assert_int_equal(tk_op_removexattr(test.fs, bearer->inode, "user.empty"), 0);
        assert_int_equal(get(bearer, "user.empty", NULL, 0), -ENODATA);
        ASSERT_LIST(bearer, "user.a", "user.\xff/\x01", );
}

static void test_attributes__of_a_file(void **state)
{
        struct bearer file = make_file("f");

        set_get_list_remove(&file);
        let_go(&file);
}

static void test_attributes__of_an_open_file(void **state)
{
        struct bearer bearer = make_file("f");
        struct tk_openfile *file;

        assert_int_equal(tk_op_open(test.fs, bearer.inode, O_RDONLY, &file), 0);
        set_get_list_remove(&bearer);
        tk_op_release(test.fs, file, O_RDONLY);
        assert_value(&bearer, "user.a", "second, longer");
        let_go(&bearer);
}

static void test_attributes__of_a_directory(void **state)
{
        struct bearer dir = make_other("d", S_IFDIR);

        set_get_list_remove(&dir);
        let_go(&dir);
}

/* Without its record the DEK would be another one next time. */
static void test_attributes__a_file_or_directory_without_record_gets_one(void **state)
{
        struct bearer bearers[] = {make_file("f"), make_other("d", S_IFDIR)};

        for (int i = 0; i < 2; i++) {
                struct bearer *bearer = &bearers[i];
                struct tk_openfile *file = NULL;

                assert_int_equal(tk_backing_removexattr(bearer->below, TK_KEYATTR_NAME), 0);
                test.fs->read_only = true; /* so that the opener does not store one */
                if (i == 0)
                        assert_int_equal(tk_op_open(test.fs, bearer->inode, O_RDONLY, &file), 0);
                test.fs->read_only = false;
                assert_int_equal(tk_backing_getxattr(bearer->below, TK_KEYATTR_NAME, NULL, 0),
                                 -ENODATA);
                assert_int_equal(set(bearer, "user.a", "kept"), 0);
                assert_int_equal(tk_backing_getxattr(bearer->below, TK_KEYATTR_NAME, NULL, 0),
                                 TK_RECORD_LEN);
                if (file)
                        tk_op_release(test.fs, file, O_RDONLY);
                assert_value(bearer, "user.a", "kept");
                let_go(bearer);
        }
}

static void test_attributes__nothing_is_plain_below(void **state)
{
        struct bearer file = make_file("f");
        char stored[XATTR_NAME_MAX + 1];
        char again[XATTR_NAME_MAX + 1];
        uint8_t value[256];
        ssize_t len;

        assert_int_equal(set(&file, "user.confidential", "cleartext"), 0);
        stored_name(&file, stored);
        assert_null(strstr(stored, "confidential"));
        len = tk_backing_getxattr(file.below, stored, value, sizeof(value));
        assert_int_equal(len, 9 + TK_SEALED_OVERHEAD);
        assert_null(memmem(value, (size_t)len, "clear", 5));
        assert_int_equal(tk_op_removexattr(test.fs, file.inode, "user.confidential"), 0);
        assert_int_equal(set(&file, "user.confidential", "cleartext"), 0);
        stored_name(&file, again);
        assert_string_equal(again, stored);
        let_go(&file);
}

static void test_attributes__small_buffers(void **state)
{
        struct bearer file = make_file("f");
        char buf[8];

        assert_int_equal(set(&file, "user.a", "12345678"), 0);
        assert_int_equal(get(&file, "user.a", buf, 7), -ERANGE);
        assert_int_equal(get(&file, "user.a", buf, 8), 8);
        assert_int_equal(tk_op_listxattr(test.fs, file.inode, buf, 6), -ERANGE);
        assert_int_equal(tk_op_listxattr(test.fs, file.inode, buf, 7), 7);
        let_go(&file);
}

static void test_setxattr__create_and_replace(void **state)
{
        struct bearer file = make_file("f");

        assert_int_equal(tk_op_setxattr(test.fs, file.inode, "user.a", "1", 1, XATTR_REPLACE),
                         -ENODATA);
        assert_int_equal(tk_op_setxattr(test.fs, file.inode, "user.a", "2", 1, XATTR_CREATE), 0);
        assert_int_equal(tk_op_setxattr(test.fs, file.inode, "user.a", "3", 1, XATTR_CREATE),
                         -EEXIST);
        assert_int_equal(tk_op_setxattr(test.fs, file.inode, "user.a", "4", 1, XATTR_REPLACE), 0);
        assert_value(&file, "user.a", "4");
        let_go(&file);
}

static void test_setxattr__the_longest_name(void **state)
{
        struct bearer file = make_file("f");
        char name[TK_USERATTR_NAME_MAX + 2];

        memset(name, 'n', sizeof(name));
        memcpy(name, "user.", 5);
        name[TK_USERATTR_NAME_MAX + 1] = '\0';
        assert_int_equal(set(&file, name, "v"), -ERANGE);
        assert_int_equal(get(&file, name, NULL, 0), -ENODATA);
        name[TK_USERATTR_NAME_MAX] = '\0';
        assert_int_equal(set(&file, name, "v"), 0);
        assert_value(&file, name, "v");
        ASSERT_LIST(&file, name, );
        name[TK_USERATTR_NAME_MAX] = 'n';
        assert_int_equal(get(&file, name, NULL, 0), -ENODATA);
        assert_int_equal(tk_op_removexattr(test.fs, file.inode, name), -ENODATA);
        assert_int_equal(set(&file, "user.", "v"), -EINVAL);
        let_go(&file);
}

static void test_setxattr__the_largest_value(void **state)
{
        struct bearer file = make_file("f");
        char *value = calloc(1, 65536);

        assert_non_null(value);
        /* What Linux takes at most, with the overhead in it; a smaller one is the disk's matter. */
        assert_int_equal(tk_op_setxattr(test.fs, file.inode, "user.a", value,
                                        65536 - TK_SEALED_OVERHEAD + 1, 0),
                         -E2BIG);
        free(value);
        let_go(&file);
}

static void test_attributes__ours_are_invisible(void **state)
{
        static const char *const ours[] = {TK_KEYATTR_NAME, "user.turnkey.",
                                           "user.turnkey.AAAAAAAAAAAAAAAAAAAAAAAA"};
        struct bearer bearers[] = {make_file("f"), make_other("d", S_IFDIR)};
        char stored[XATTR_NAME_MAX + 1];

        for (int i = 0; i < 2; i++) {
                struct bearer *bearer = &bearers[i];

                for (size_t k = 0; k < sizeof(ours) / sizeof(ours[0]); k++) {
                        assert_int_equal(get(bearer, ours[k], NULL, 0), -ENODATA);
                        assert_int_equal(set(bearer, ours[k], "x"), -EPERM);
                        assert_int_equal(tk_op_removexattr(test.fs, bearer->inode, ours[k]),
                                         -ENODATA);
                }
                assert_int_equal(set(bearer, "user.turnkeys", "another"), 0);
                stored_name(bearer, stored);
                assert_int_equal(get(bearer, stored, NULL, 0), -ENODATA);
                assert_int_equal(tk_op_removexattr(test.fs, bearer->inode, stored), -ENODATA);
                ASSERT_LIST(bearer, "user.turnkeys", );
                let_go(bearer);
        }
}

static void test_attributes__others_below_are_nobodys(void **state)
{
        struct bearer file = make_file("f");

        assert_int_equal(tk_backing_setxattr(file.below, "user.backup", "x", 1, 0), 0);
        ASSERT_LIST(&file, );
        assert_int_equal(get(&file, "user.backup", NULL, 0), -ENODATA);
        assert_int_equal(test.fs->stats.attribute_failures, 0);
        let_go(&file);
}

static void test_attributes__damaged_value(void **state)
{
        struct bearer file = make_file("f");
        char stored[XATTR_NAME_MAX + 1];
        uint8_t sealed[64];
        char value[64];
        ssize_t len;

        assert_int_equal(set(&file, "user.a", "value"), 0);
        stored_name(&file, stored);
        len = tk_backing_getxattr(file.below, stored, sealed, sizeof(sealed));
        assert_int_equal(len, 5 + TK_SEALED_OVERHEAD);
        sealed[TK_AEAD_IV_LEN] ^= 1;
        assert_int_equal(tk_backing_setxattr(file.below, stored, sealed, (size_t)len, 0), 0);
        assert_int_equal(get(&file, "user.a", value, sizeof(value)), -EBADMSG);
        assert_int_equal(test.fs->stats.attribute_failures, 1);
        assert_int_equal(tk_backing_setxattr(file.below, stored, sealed, 3, 0), 0);
        assert_int_equal(get(&file, "user.a", value, sizeof(value)), -EBADMSG);
        assert_int_equal(get(&file, "user.a", NULL, 0), -EBADMSG);
        assert_int_equal(test.fs->stats.attribute_failures, 3);
        /* It has its name still: it can be replaced, and removed. */
        ASSERT_LIST(&file, "user.a", );
        assert_int_equal(set(&file, "user.a", "new"), 0);
        assert_value(&file, "user.a", "new");
        let_go(&file);
}

static void test_attributes__damaged_name_is_left_out(void **state)
{
        struct bearer file = make_file("f");

        assert_int_equal(set(&file, "user.a", "value"), 0);
        assert_int_equal(
                tk_backing_setxattr(file.below, "user.turnkey.AAAAAAAAAAAAAAAAAAAAAAAA", "x", 1, 0),
                0);
        assert_int_equal(tk_backing_setxattr(file.below, "user.turnkey.!", "x", 1, 0), 0);
        ASSERT_LIST(&file, "user.a", );
        assert_int_equal(test.fs->stats.attribute_failures, 4); /* the list was asked for twice */
        let_go(&file);
}

static void move_attribute(const struct bearer *from, const char *stored, const struct bearer *to,
                           const char *as)
{
        uint8_t value[256];
        ssize_t len = tk_backing_getxattr(from->below, stored, value, sizeof(value));

        assert_true(len > 0);
        assert_int_equal(tk_backing_setxattr(to->below, as, value, (size_t)len, 0), 0);
}

static void test_attributes__bound_to_file_and_name(void **state)
{
        struct bearer one = make_file("one");
        struct bearer two = make_file("two");
        struct bearer dir = make_other("d", S_IFDIR);
        char stored[XATTR_NAME_MAX + 1];
        char stored_two[XATTR_NAME_MAX + 1];
        char value[64];

        assert_int_equal(set(&one, "user.a", "one's"), 0);
        stored_name(&one, stored);
        move_attribute(&one, stored, &dir, stored);
        ASSERT_LIST(&dir, );
        assert_int_equal(get(&dir, "user.a", value, sizeof(value)), -ENODATA);

        assert_int_equal(set(&two, "user.a", "two's"), 0);
        stored_name(&two, stored_two);
        assert_string_not_equal(stored, stored_two);
        move_attribute(&one, stored, &two, stored_two);
        assert_int_equal(get(&two, "user.a", value, sizeof(value)), -EBADMSG);

        assert_int_equal(tk_op_removexattr(test.fs, two.inode, "user.a"), 0);
        assert_int_equal(set(&two, "user.b", "b's"), 0);
        stored_name(&two, stored);
        assert_int_equal(set(&two, "user.a", "a's"), 0);
        move_attribute(&two, stored, &two, stored_two);
        assert_int_equal(get(&two, "user.a", value, sizeof(value)), -EBADMSG);
        assert_value(&two, "user.b", "b's");
        let_go(&one);
        let_go(&two);
        let_go(&dir);
}

static void test_attributes__without_the_key_record(void **state)
{
        struct bearer dir = make_other("d", S_IFDIR);
        char list[64];

        assert_int_equal(set(&dir, "user.a", "x"), 0);
        assert_int_equal(tk_backing_removexattr(dir.below, TK_KEYATTR_NAME), 0);
        let_go(&dir);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        dir = make_other("d2", S_IFDIR);
        assert_int_equal(set(&dir, "user.a", "x"), 0);
        assert_int_equal(tk_backing_setxattr(dir.below, TK_KEYATTR_NAME, "x", 1, 0), 0);
        let_go(&dir);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        for (int i = 0; i < 2; i++) {
                struct tk_entry entry = {0};

                assert_int_equal(tk_op_lookup(test.fs, test.root, i ? "d2" : "d", &entry), 0);
                dir.inode = entry.inode;
                assert_true(get(&dir, "user.a", list, sizeof(list)) < 0);
                assert_true(tk_op_listxattr(test.fs, dir.inode, list, sizeof(list)) < 0);
                assert_true(set(&dir, "user.b", "y") < 0);
                tk_inode_forget(test.fs->inodes, entry.inode, 1);
        }
}

static void test_attributes__other_types_have_none(void **state)
{
        struct bearer fifo = make_other("p", S_IFIFO | 0600);

        assert_int_equal(get(&fifo, "user.a", NULL, 0), -ENODATA);
        assert_int_equal(set(&fifo, "user.a", "x"), -EPERM);
        assert_int_equal(tk_op_removexattr(test.fs, fifo.inode, "user.a"), -EPERM);
        ASSERT_LIST(&fifo, );
        let_go(&fifo);
}

static void test_attributes__the_kms_is_asked_only_where_there_are_any(void **state)
{
        struct bearer bare = make_file("bare");
        struct bearer bearer = make_file("bearer");
        unsigned before;

        assert_int_equal(set(&bearer, "user.a", "x"), 0);
        let_go(&bare);
        let_go(&bearer);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        for (int i = 0; i < 2; i++) {
                struct tk_entry entry = {0};

                assert_int_equal(tk_op_lookup(test.fs, test.root, i ? "bearer" : "bare", &entry),
                                 0);
                bearer.inode = entry.inode;
                before = test.fake.unwraps;
                if (i == 0) {
                        ASSERT_LIST(&bearer, );
                        assert_int_equal(get(&bearer, "user.a", NULL, 0), -ENODATA);
                        assert_int_equal(get(&bearer, "security.selinux", NULL, 0), -ENODATA);
                        assert_int_equal(test.fake.unwraps, before);
                } else {
                        ASSERT_LIST(&bearer, "user.a", );
                        assert_value(&bearer, "user.a", "x");
                        assert_int_equal(test.fake.unwraps, before + 1); /* then it is kept */
                }
                tk_inode_forget(test.fs->inodes, entry.inode, 1);
        }
}

static void nothing(void *context, struct tk_inode *inode)
{
        (void)context;
        (void)inode;
}

static void test_attributes__gone_and_back_with_the_keys(void **state)
{
        static const struct tk_revoke_kernel kernel = {.invalidate = nothing};
        struct bearer bearers[] = {make_file("f"), make_other("d", S_IFDIR)};
        struct tk_fault fault = {0};
        char buf[64];

        for (int i = 0; i < 2; i++)
                assert_int_equal(set(&bearers[i], "user.a", "value"), 0);
        tk_revoke_close(test.fs, -EKEYREVOKED, &kernel);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(get(&bearers[i], "user.a", buf, sizeof(buf)), -EKEYREVOKED);
                assert_int_equal(set(&bearers[i], "user.a", "other"), -EKEYREVOKED);
                assert_int_equal(tk_op_listxattr(test.fs, bearers[i].inode, buf, sizeof(buf)),
                                 -EKEYREVOKED);
                assert_int_equal(tk_op_removexattr(test.fs, bearers[i].inode, "user.a"),
                                 -EKEYREVOKED);
        }
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), 0);
        for (int i = 0; i < 2; i++) {
                assert_value(&bearers[i], "user.a", "value");
                let_go(&bearers[i]);
        }
        assert_int_equal(test.fs->stats.attribute_failures, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TEST(test_attributes__of_a_file),
                TEST(test_attributes__of_an_open_file),
                TEST(test_attributes__of_a_directory),
                TEST(test_attributes__a_file_or_directory_without_record_gets_one),
                TEST(test_attributes__nothing_is_plain_below),
                TEST(test_attributes__small_buffers),
                TEST(test_setxattr__create_and_replace),
                TEST(test_setxattr__the_longest_name),
                TEST(test_setxattr__the_largest_value),
                TEST(test_attributes__ours_are_invisible),
                TEST(test_attributes__others_below_are_nobodys),
                TEST(test_attributes__damaged_value),
                TEST(test_attributes__damaged_name_is_left_out),
                TEST(test_attributes__bound_to_file_and_name),
                TEST(test_attributes__without_the_key_record),
                TEST(test_attributes__other_types_have_none),
                cmocka_unit_test_setup_teardown(
                        test_attributes__the_kms_is_asked_only_where_there_are_any, enter_kms,
                        leave),
                TEST(test_attributes__gone_and_back_with_the_keys),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
