/* SPDX-License-Identifier: Apache-2.0 */

/* Symlinks: made, sized and read, with targets encrypted and plain. */

#include "support_fs.h"

#include "fs/backing.h"
#include "fs/op_symlink.h"
#include "fs/revoke.h"

static struct tk_test_fs test;

static int enter_plain(void **state)
{
        int r = tk_test_dir_enter(state);

        memset(&test, 0, sizeof(test));
        tk_test_fs_start(&test);
        return r;
}

static int enter(void **state)
{
        int r = tk_test_dir_enter(state);

        memset(&test, 0, sizeof(test));
        test.names = TK_NAMES_ENCRYPTED;
        tk_test_fs_start(&test);
        return r;
}

static int leave(void **state)
{
        tk_test_fs_stop(&test);
        return tk_test_dir_leave(state);
}

static int make(const char *target, const char *name, struct tk_entry *ret_entry)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid()};

        return tk_op_symlink(test.fs, target, test.root, name, &caller, ret_entry);
}

static void forget(struct tk_entry *entry)
{
        tk_inode_forget(test.fs->inodes, entry->inode, 1);
}

/* What lies below. */
static void stored_target(const struct tk_entry *entry, char stored[PATH_MAX])
{
        TK_AUTOCLOSE int fd = -1;
        ssize_t n;

        fd = tk_inode_open(test.fs->inodes, entry->inode, O_PATH | O_NOFOLLOW);
        assert_true(fd >= 0);
        n = readlinkat(fd, "", stored, PATH_MAX - 1);
        assert_true(n > 0);
        stored[n] = '\0';
}

static void assert_target(struct tk_entry *entry, const char *target)
{
        char found[PATH_MAX];
        struct stat st;

        assert_int_equal(tk_op_readlink(test.fs, entry->inode, found, sizeof(found)), 0);
        assert_string_equal(found, target);
        assert_int_equal(entry->st.st_size, strlen(target));
        assert_int_equal(tk_op_getattr(test.fs, entry->inode, &st), 0);
        assert_int_equal(st.st_size, strlen(target));
}

static void test_symlink__plain(void **state)
{
        struct tk_entry entry = {0};
        char stored[PATH_MAX];

        assert_int_equal(make("../somewhere", "l", &entry), 0);
        assert_target(&entry, "../somewhere");
        stored_target(&entry, stored);
        assert_string_equal(stored, "../somewhere");
        forget(&entry);
}

static void test_symlink__encrypted(void **state)
{
        struct tk_entry entry = {0};
        struct tk_entry again = {0};
        char stored[PATH_MAX];

        assert_int_equal(make("../somewhere", "l", &entry), 0);
        assert_target(&entry, "../somewhere");
        stored_target(&entry, stored);
        assert_null(strstr(stored, "some"));
        assert_int_equal(tk_op_lookup(test.fs, test.root, "l", &again), 0);
        assert_ptr_equal(again.inode, entry.inode);
        assert_target(&again, "../somewhere");
        forget(&again);
        forget(&entry);
}

static void test_symlink__the_longest(void **state)
{
        struct tk_entry entry = {0};
        char target[TK_TARGET_MAX + 2];

        memset(target, 'a', TK_TARGET_MAX + 1);
        target[TK_TARGET_MAX + 1] = '\0';
        assert_int_equal(make(target, "l", &entry), -ENAMETOOLONG);
        target[TK_TARGET_MAX] = '\0';
        assert_int_equal(make(target, "l", &entry), 0);
        assert_target(&entry, target);
        forget(&entry);
}

static void test_readlink__damaged(void **state)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid()};
        struct tk_entry entry = {0};
        char found[PATH_MAX];

        /* As somebody below would: a target that is no ciphertext. */
        test.fs->names_encrypted = false;
        assert_int_equal(tk_op_symlink(test.fs, "/etc/passwd", test.root, "l", &caller, &entry), 0);
        test.fs->names_encrypted = true;
        assert_int_equal(tk_op_readlink(test.fs, entry.inode, found, sizeof(found)), -EBADMSG);
        assert_int_equal(test.fs->stats.target_failures, 1);
        forget(&entry);
}

static void nothing(void *context, struct tk_inode *inode)
{
        (void)context;
        (void)inode;
}

static void test_symlink__gone_and_back_with_the_keys(void **state)
{
        static const struct tk_revoke_kernel kernel = {.invalidate = nothing};
        struct tk_entry entry = {0};
        struct tk_entry none = {0};
        struct tk_fault fault = {0};
        char found[PATH_MAX];
        size_t alive;

        assert_int_equal(make("target", "l", &entry), 0);
        tk_revoke_close(test.fs, -EKEYREVOKED, &kernel);
        tk_scratch_drop();
        alive = tk_secret_alive();
        assert_int_equal(alive, 2); /* the MAC keys of the volume file and of the journal */
        assert_int_equal(tk_op_readlink(test.fs, entry.inode, found, sizeof(found)), -EKEYREVOKED);
        assert_int_equal(make("other", "m", &none), -EKEYREVOKED);
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), 0);
        assert_target(&entry, "target");
        assert_int_equal(test.fs->stats.target_failures, 0);
        forget(&entry);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_symlink__plain, enter_plain, leave),
                TEST(test_symlink__encrypted),
                TEST(test_symlink__the_longest),
                TEST(test_readlink__damaged),
                TEST(test_symlink__gone_and_back_with_the_keys),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
