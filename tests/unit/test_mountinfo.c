/* SPDX-License-Identifier: Apache-2.0 */

/* Which of our mounts is where, from the lines of /proc/self/mountinfo. */

#include "cli/mountinfo.h"
#include "tests/unit/support.h"

static const char sample[] =
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:40 / /mnt/a\\040b rw - fuse.turnkeyfs /srv/e\\134f rw,user_id=0\n"
        "41 22 0:41 / /mnt/c rw shared:7 master:3 - fuse.turnkeyfs /srv/c rw\n"
        "42 22 0:42 / /mnt/c rw - tmpfs tmpfs rw\n"
        "43 22 0:43 / /mnt/d rw - tmpfs tmpfs rw\n"
        "44 22 0:44 / /mnt/d rw - fuse.turnkeyfs /srv/d rw\n"
        "45 22 0:45 / /mnt/sshfs rw - fuse.sshfs /srv/c rw\n"
        "torn 46 22\n"
        "47 22 0:47 / /mnt/torn rw - fuse.turnkeyfs\n";

static int search(const char *mountpoint, const char *cipherdir, struct tk_mountinfo *info)
{
        char text[sizeof(sample)];

        memcpy(text, sample, sizeof(sample));
        return tk_mountinfo_search(text, mountpoint, cipherdir, info);
}

static void assert_found(const char *mountpoint, const char *cipherdir, const char *want_mountpoint,
                         const char *want_cipherdir, unsigned want_connection)
{
        struct tk_mountinfo info;

        assert_int_equal(search(mountpoint, cipherdir, &info), 1);
        assert_string_equal(info.mountpoint, want_mountpoint);
        assert_string_equal(info.cipherdir, want_cipherdir);
        assert_int_equal(info.connection, want_connection);
        tk_mountinfo_done(&info);
}

static void assert_missing(const char *mountpoint, const char *cipherdir)
{
        struct tk_mountinfo info;

        assert_int_equal(search(mountpoint, cipherdir, &info), 0);
        assert_null(info.mountpoint);
        assert_null(info.cipherdir);
}

static void test_mountinfo_search__by_mountpoint(void **state)
{
        assert_found("/mnt/a b", NULL, "/mnt/a b", "/srv/e\\f", 40);
        assert_missing("/mnt/a", NULL);
        assert_missing("/", NULL);
        assert_missing("/mnt/sshfs", NULL);
}

static void test_mountinfo_search__topmost_counts(void **state)
{
        assert_missing("/mnt/c", NULL);
        assert_found("/mnt/d", NULL, "/mnt/d", "/srv/d", 44);
}

static void test_mountinfo_search__by_cipherdir(void **state)
{
        assert_found(NULL, "/srv/c", "/mnt/c", "/srv/c", 41);
        assert_found(NULL, "/srv/e\\f", "/mnt/a b", "/srv/e\\f", 40);
        assert_missing(NULL, "/dev/sda1");
}

static void test_mountinfo_search__torn_lines(void **state)
{
        assert_missing("/mnt/torn", NULL);
        assert_missing("22", NULL);
}

static void test_mountinfo_at__root_is_not_ours(void **state)
{
        struct tk_mountinfo info;

        assert_int_equal(tk_mountinfo_at("/", &info), 0);
}

static void test_mountinfo_doing__is_one_line(void **state)
{
        char doing[20];

        tk_mountinfo_doing("/a\nb", doing, sizeof(doing));
        assert_string_equal(doing, "mounted at /a?b");
        tk_mountinfo_doing("/longer than that", doing, sizeof(doing));
        assert_string_equal(doing, "mounted at /longer ");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_mountinfo_search__by_mountpoint),
                cmocka_unit_test(test_mountinfo_search__topmost_counts),
                cmocka_unit_test(test_mountinfo_search__by_cipherdir),
                cmocka_unit_test(test_mountinfo_search__torn_lines),
                cmocka_unit_test(test_mountinfo_at__root_is_not_ours),
                cmocka_unit_test(test_mountinfo_doing__is_one_line),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
