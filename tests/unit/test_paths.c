/* SPDX-License-Identifier: Apache-2.0 */

/* Paths that may not exist yet: resolved, and inside a directory or not. */

#include "cli/paths.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <fcntl.h>

/* @path resolves to @want below the test's directory. */
static void assert_resolves(void **state, const char *path, const char *want)
{
        TK_CLEANUP(tk_freep) char *base = realpath(*state, NULL);
        TK_CLEANUP(tk_freep) char *resolved = NULL;
        char expected[4096];

        snprintf(expected, sizeof(expected), "%s%s", base, want);
        assert_int_equal(tk_path_resolve(path, &resolved), 0);
        assert_string_equal(resolved, expected);
}

static void make_tree(void)
{
        assert_int_equal(mkdir("dir", 0700), 0);
        assert_int_equal(mkdir("dir/sub", 0700), 0);
        assert_int_equal(symlink("dir/sub", "link"), 0);
        assert_int_equal(symlink("dir/none", "dangling"), 0);
}

static void test_path_resolve__existing(void **state)
{
        make_tree();
        assert_resolves(state, "dir", "/dir");
        assert_resolves(state, "./dir//sub/", "/dir/sub");
        assert_resolves(state, "link/..", "/dir");
        assert_resolves(state, "link", "/dir/sub");
}

static void test_path_resolve__missing_tail(void **state)
{
        make_tree();
        assert_resolves(state, "new", "/new");
        assert_resolves(state, "new/", "/new");
        assert_resolves(state, "link/new/./file", "/dir/sub/new/file");
}

static void test_path_resolve__refused(void **state)
{
        char *resolved;

        make_tree();
        assert_int_equal(tk_path_resolve("new/../dir", &resolved), -EINVAL);
        assert_int_equal(tk_path_resolve("dangling", &resolved), -ELOOP);
        assert_int_equal(tk_path_resolve("dangling/x", &resolved), -ELOOP);
        assert_int_equal(tk_path_resolve("/dev/null/x", &resolved), -ENOTDIR);
}

static void test_path_resolve__root(void **state)
{
        TK_CLEANUP(tk_freep) char *resolved = NULL;

        assert_int_equal(tk_path_resolve("/", &resolved), 0);
        assert_string_equal(resolved, "/");
        free(resolved);
        assert_int_equal(tk_path_resolve("/tk-nonexistent", &resolved), 0);
        assert_string_equal(resolved, "/tk-nonexistent");
}

static void test_path_is_inside__by_name(void **state)
{
        assert_true(tk_path_is_inside("/x/y", "/x"));
        assert_true(tk_path_is_inside("/x", "/x"));
        assert_true(tk_path_is_inside("/x", "/"));
        assert_false(tk_path_is_inside("/xy", "/x"));
        assert_false(tk_path_is_inside("/x", "/x/y"));
}

/* The same directory under another name: a link stands for a bind mount here. */
static void test_path_is_inside__by_inode(void **state)
{
        char path[4096];
        char dir[4096];

        make_tree();
        snprintf(path, sizeof(path), "%s/link/new/file", (const char *)*state);
        snprintf(dir, sizeof(dir), "%s/dir/sub", (const char *)*state);
        assert_true(tk_path_is_inside(path, dir));
        snprintf(path, sizeof(path), "%s/dir/other", (const char *)*state);
        assert_false(tk_path_is_inside(path, dir));
}

static void test_path_first_entry__cases(void **state)
{
        char name[NAME_MAX + 1];

        assert_int_equal(tk_path_first_entry(".", name), 0);
        assert_int_equal(mkdir("lost+found", 0700), 0);
        assert_int_equal(tk_path_first_entry(".", name), 0);
        assert_int_equal(mkdir("something", 0700), 0);
        assert_int_equal(tk_path_first_entry(".", name), 1);
        assert_string_equal(name, "something");
        assert_int_equal(tk_path_first_entry("none", name), -ENOENT);
}

static void assert_mountpoint(const char *path, const char *want)
{
        TK_CLEANUP(tk_freep) char *expected = realpath(want, NULL);
        TK_CLEANUP(tk_freep) char *resolved = NULL;

        assert_int_equal(tk_path_resolve_mountpoint(path, &resolved), 0);
        assert_string_equal(resolved, expected);
}

static void test_path_resolve_mountpoint__existing(void **state)
{
        make_tree();
        assert_int_equal(mkdir("dir/dotted.", 0700), 0);
        assert_mountpoint("/", "/");
        assert_mountpoint("//.//.", "/");
        assert_mountpoint(".", ".");
        assert_mountpoint("././/", ".");
        assert_mountpoint("..", "..");
        assert_mountpoint("dir/..", ".");
        assert_mountpoint("dir/", "dir");
        assert_mountpoint("link", "dir/sub");
        assert_mountpoint("link//./", "dir/sub");
        assert_mountpoint("link/../", "dir");
        assert_mountpoint("dir/dotted./", "dir/dotted.");
}

static void test_path_resolve_mountpoint__missing_is_an_error(void **state)
{
        char *path = NULL;

        assert_int_equal(tk_path_resolve_mountpoint("none", &path), -ENOENT);
        assert_int_equal(tk_path_resolve_mountpoint("", &path), -ENOENT);
}

static void test_path_absolute__keeps_links(void **state)
{
        TK_CLEANUP(tk_freep) char *base = getcwd(NULL, 0);
        TK_CLEANUP(tk_freep) char *given = NULL;
        TK_CLEANUP(tk_freep) char *path = NULL;
        char expected[4096];

        make_tree();
        assert_int_equal(tk_path_absolute("link/conf", &path), 0);
        snprintf(expected, sizeof(expected), "%s/link/conf", base);
        assert_string_equal(path, expected);
        assert_int_equal(tk_path_absolute("/link/../conf", &given), 0);
        assert_string_equal(given, "/link/../conf");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_path_resolve__existing),
                TK_TEST_IN_DIR(test_path_resolve__missing_tail),
                TK_TEST_IN_DIR(test_path_resolve__refused),
                TK_TEST_IN_DIR(test_path_resolve__root),
                TK_TEST_IN_DIR(test_path_is_inside__by_name),
                TK_TEST_IN_DIR(test_path_is_inside__by_inode),
                TK_TEST_IN_DIR(test_path_first_entry__cases),
                TK_TEST_IN_DIR(test_path_resolve_mountpoint__existing),
                TK_TEST_IN_DIR(test_path_resolve_mountpoint__missing_is_an_error),
                TK_TEST_IN_DIR(test_path_absolute__keeps_links),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
