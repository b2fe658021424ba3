/* SPDX-License-Identifier: Apache-2.0 */

/* Kept descriptors of directories: who gets which, and when they are closed. */

#include "support.h"

#include "fs/dirfds.h"
#include <errno.h>
#include <fcntl.h>

/* Inodes are only told apart by their address. */
enum { MANY = 1000 };
static char addresses[MANY];

static const struct tk_inode *inode(int i)
{
        return (const struct tk_inode *)(const void *)&addresses[i];
}

static int open_one(void)
{
        int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static bool is_open(int fd)
{
        return fcntl(fd, F_GETFD) >= 0;
}

static struct tk_dirfds *make(void)
{
        struct tk_dirfds *dirfds = NULL;

        assert_int_equal(tk_dirfds_new(&dirfds), 0);
        return dirfds;
}

static void test_get__what_was_kept(void **state)
{
        struct tk_dirfds *dirfds = make();
        int fd = open_one();

        assert_int_equal(tk_dirfds_get(dirfds, inode(0)), -ENOENT);
        assert_true(tk_dirfds_keep(dirfds, inode(0), fd));
        assert_int_equal(tk_dirfds_get(dirfds, inode(0)), fd);
        assert_int_equal(tk_dirfds_get(dirfds, inode(1)), -ENOENT);
        tk_dirfds_put(dirfds, inode(0));
        tk_dirfds_put(dirfds, inode(0));
        assert_true(is_open(fd));
        tk_dirfds_free(dirfds);
        assert_false(is_open(fd));
}

static void test_drop__closes(void **state)
{
        struct tk_dirfds *dirfds = make();
        int fd = open_one();

        assert_true(tk_dirfds_keep(dirfds, inode(0), fd));
        tk_dirfds_put(dirfds, inode(0));
        tk_dirfds_drop(dirfds, inode(1));
        assert_true(is_open(fd));
        tk_dirfds_drop(dirfds, inode(0));
        assert_false(is_open(fd));
        assert_int_equal(tk_dirfds_get(dirfds, inode(0)), -ENOENT);
        tk_dirfds_free(dirfds);
}

/* Some of many must share a place: who uses it has it, who does not, makes room. */
static void test_keep__room_for_a_few(void **state)
{
        struct tk_dirfds *dirfds = make();
        int fds[MANY];
        int kept = 0;

        for (int i = 0; i < MANY; i++) {
                fds[i] = open_one();
                if (tk_dirfds_keep(dirfds, inode(i), fds[i])) {
                        kept++;
                } else {
                        close(fds[i]);
                        fds[i] = -1;
                }
        }
        assert_in_range(kept, 1, 100);
        for (int i = 0; i < MANY; i++) {
                assert_int_equal(tk_dirfds_get(dirfds, inode(i)), fds[i] < 0 ? -ENOENT : fds[i]);
                for (int users = fds[i] < 0 ? 0 : 2; users > 0; users--)
                        tk_dirfds_put(dirfds, inode(i));
        }
        for (int i = 0; i < MANY; i++) {
                assert_true(fds[i] >= 0 || tk_dirfds_keep(dirfds, inode(i), open_one()));
                if (fds[i] < 0)
                        tk_dirfds_put(dirfds, inode(i));
        }
        tk_dirfds_free(dirfds);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_get__what_was_kept),
                TK_TEST(test_drop__closes),
                TK_TEST(test_keep__room_for_a_few),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
