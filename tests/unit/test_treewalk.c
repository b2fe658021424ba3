/* SPDX-License-Identifier: Apache-2.0 */

/* The order of a walk, and that it sees files and directories once each. */

#include "support.h"

#include "fs/treewalk.h"
#include <errno.h>
#include <fcntl.h>

static void test_compare__directories_come_before_their_siblings(void **state)
{
        static const char *const ordered[] = {"",    "a",   "a/b", "a/b/c", "a/b-", "a/\xff",
                                              "a\1", "a-b", "a.b", "ab",    "b",    "\xff"};
        size_t count = sizeof(ordered) / sizeof(ordered[0]);

        for (size_t i = 0; i < count; i++)
                for (size_t j = 0; j < count; j++) {
                        int r = tk_treewalk_compare(ordered[i], ordered[j]);

                        assert_int_equal((r > 0) - (r < 0), (i > j) - (i < j));
                }
}

static void test_is_below__whole_names_count(void **state)
{
        assert_true(tk_treewalk_is_below("a/b", "a"));
        assert_true(tk_treewalk_is_below("a", ""));
        assert_false(tk_treewalk_is_below("a", "a"));
        assert_false(tk_treewalk_is_below("ab", "a"));
        assert_false(tk_treewalk_is_below("", ""));
}

struct seen {
        char paths[512]; /* each ended by a newline */
        size_t len;
        int stop_after; /* visits; 0: never */
        int visits;
};

static int visit(void *context, const struct tk_treewalk_entry *entry)
{
        struct seen *seen = context;
        struct stat st;

        assert_int_equal(strlen(entry->path), entry->path_len);
        assert_int_equal(fstatat(entry->dirfd, entry->name, &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_int_equal(st.st_ino, entry->st.st_ino);
        seen->len += (size_t)snprintf(seen->paths + seen->len, sizeof(seen->paths) - seen->len,
                                      "%s\n", entry->path);
        return ++seen->visits == seen->stop_after ? -ECANCELED : 0;
}

static int failed(void *context, const char *path, int error)
{
        fail_msg("%s: %s", path, strerror(-error));
        return error;
}

static int run(struct seen *seen)
{
        const struct tk_treewalk_callbacks callbacks = {
                .visit = visit, .failed = failed, .context = seen};
        TK_AUTOCLOSE int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_true(fd >= 0);
        return tk_treewalk_run(fd, &callbacks);
}

static void make_file(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        close(fd);
}

static void make_tree(void)
{
        assert_int_equal(mkdir("dir", 0700), 0);
        assert_int_equal(mkdir("dir/inner", 0700), 0);
        make_file("dir/inner/file");
        make_file("dir/b");
        make_file("dir.x");
        make_file("another");
        assert_int_equal(symlink("another", "link"), 0);
        assert_int_equal(mkfifo("fifo", 0600), 0);
}

static void test_run__sees_all_in_order(void **state)
{
        struct seen seen = {0};

        make_tree();
        assert_int_equal(run(&seen), 0);
        assert_string_equal(seen.paths,
                            "\nanother\ndir\ndir/b\ndir/inner\ndir/inner/file\ndir.x\n");
}

static void test_run__stops_when_told(void **state)
{
        struct seen seen = {.stop_after = 4};

        make_tree();
        assert_int_equal(run(&seen), -ECANCELED);
        assert_int_equal(seen.visits, 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_compare__directories_come_before_their_siblings),
                TK_TEST(test_is_below__whole_names_count),
                TK_TEST_IN_DIR(test_run__sees_all_in_order),
                TK_TEST_IN_DIR(test_run__stops_when_told),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
