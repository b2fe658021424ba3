/* SPDX-License-Identifier: Apache-2.0 */

/* Identity per thread: owner, group and umask of what is made; capabilities that stay or go. */

#include "support_fs.h"

#include "fs/backing.h"
#include "fs/creds.h"
#include <linux/capability.h>
#include <pthread.h>
#include <sys/syscall.h>

enum { USER_A = 12345, USER_B = 23456, GROUP_A = 34567, GROUP_B = 45678 };

static bool has_capability(unsigned capability)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];

        TK_CHILD_REQUIRE(syscall(SYS_capget, &header, data) == 0);
        return data[capability / 32].effective >> capability % 32 & 1;
}

static struct stat made(int dirfd, const char *name, mode_t mode)
{
        int fd = tk_backing_create(dirfd, name, mode);
        struct stat st;

        TK_CHILD_REQUIRE(fd >= 0);
        TK_CHILD_REQUIRE(fstat(fd, &st) == 0);
        close(fd);
        return st;
}

/* An ordinary user stays who they are; only the umask follows the caller. */
static void without_privilege(void)
{
        const struct tk_caller caller = {.uid = USER_A, .gid = GROUP_A, .umask = 027};
        struct stat st;
        int dirfd;

        if (geteuid() == 0)
                TK_CHILD_REQUIRE(setresgid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0 &&
                                 setresuid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0);
        TK_CHILD_REQUIRE(tk_creds_init() == 0);
        dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        tk_creds_become(&caller);
        st = made(dirfd, "f", 0666);
        TK_CHILD_REQUIRE(st.st_uid == geteuid());
        TK_CHILD_REQUIRE((st.st_mode & 07777) == 0640);
        tk_creds_charge(USER_B);
        st = made(dirfd, "g", 0666);
        TK_CHILD_REQUIRE(st.st_uid == geteuid());
        close(dirfd);
}

static void test_creds__without_privilege(void **state)
{
        assert_int_equal(chmod(".", 0777), 0);
        tk_test_in_child(without_privilege);
}

static void as_root(void)
{
        struct tk_caller caller = {.uid = USER_A, .gid = GROUP_A, .umask = 077};
        int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat st;

        TK_CHILD_REQUIRE(tk_creds_init() == 0);
        TK_CHILD_REQUIRE(!has_capability(CAP_SYS_RESOURCE));
        TK_CHILD_REQUIRE(mkdirat(dirfd, "closed", 0700) == 0);
        TK_CHILD_REQUIRE(mkdirat(dirfd, "setgid", 0755) == 0);
        TK_CHILD_REQUIRE(fchownat(dirfd, "setgid", 0, GROUP_B, 0) == 0);
        TK_CHILD_REQUIRE(fchmodat(dirfd, "setgid", 02755, 0) == 0);

        tk_creds_become(&caller);
        st = made(dirfd, "a", 0666);
        TK_CHILD_REQUIRE(st.st_uid == USER_A && st.st_gid == GROUP_A);
        TK_CHILD_REQUIRE((st.st_mode & 07777) == 0600);
        /* The kernel has judged: a directory that is closed to the caller is not closed to us. */
        st = made(dirfd, "closed/a", 0666);
        TK_CHILD_REQUIRE(st.st_uid == USER_A);
        st = made(dirfd, "setgid/a", 0666);
        TK_CHILD_REQUIRE(st.st_uid == USER_A && st.st_gid == GROUP_B);
        TK_CHILD_REQUIRE(has_capability(CAP_DAC_OVERRIDE) && has_capability(CAP_CHOWN));
        TK_CHILD_REQUIRE(!has_capability(CAP_SYS_RESOURCE));

        /* Space is charged to an owner: the group stays, new files would be theirs. */
        tk_creds_charge(USER_B);
        st = made(dirfd, "b", 0666);
        TK_CHILD_REQUIRE(st.st_uid == USER_B && st.st_gid == GROUP_A);

        caller = (struct tk_caller){.umask = 0};
        tk_creds_become(&caller);
        st = made(dirfd, "c", 0666);
        TK_CHILD_REQUIRE(st.st_uid == 0 && st.st_gid == 0 && (st.st_mode & 07777) == 0666);
        TK_CHILD_REQUIRE(geteuid() == 0 && getuid() == 0);
        close(dirfd);
}

static void test_creds__as_root(void **state)
{
        if (geteuid() != 0)
                skip();
        tk_test_in_child(as_root);
}

/* Every thread is somebody else at once, umask included. */
enum { THREADS = 6, ROUNDS = 200 };

static void *be_somebody(void *context)
{
        unsigned number = (unsigned)(uintptr_t)context;
        int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char name[32];

        for (unsigned i = 0; i < ROUNDS; i++) {
                struct tk_caller caller = {.uid = 1000 + number + i % 3,
                                           .gid = 2000 + number + i % 5,
                                           .umask = (number + i) % 8};
                struct stat st;

                snprintf(name, sizeof(name), "%u-%u", number, i);
                tk_creds_become(&caller);
                st = made(dirfd, name, 0666);
                TK_CHILD_REQUIRE(st.st_uid == caller.uid && st.st_gid == caller.gid);
                TK_CHILD_REQUIRE((st.st_mode & 0777) == (0666 & ~caller.umask));
        }
        close(dirfd);
        return NULL;
}

static void many_threads(void)
{
        pthread_t threads[THREADS];
        struct stat st;
        int dirfd;

        TK_CHILD_REQUIRE(tk_creds_init() == 0);
        umask(022);
        for (uintptr_t i = 0; i < THREADS; i++)
                TK_CHILD_REQUIRE(pthread_create(&threads[i], NULL, be_somebody, (void *)(i * 10)) ==
                                 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        /* A thread that became nobody is as it was. */
        dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        st = made(dirfd, "mine", 0666);
        TK_CHILD_REQUIRE(st.st_uid == 0 && (st.st_mode & 0777) == 0644);
        close(dirfd);
}

static void test_creds__threads(void **state)
{
        if (geteuid() != 0)
                skip();
        tk_test_in_child(many_threads);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_creds__without_privilege),
                TK_TEST_IN_DIR(test_creds__as_root),
                TK_TEST_IN_DIR(test_creds__threads),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
