/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a hardened process can't do any more, and what it still can. Each test hardens a
 * child; what fails there is said on stderr, and makes its exit code.
 */

#include "base/thread.h"
#include "cli/harden.h"
#include "tests/unit/support.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static int failures;

#define CHECK(condition)                                                                           \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition,         \
                                strerror(errno));                                                  \
                        failures++;                                                                \
                }                                                                                  \
        } while (0)

/* That the call fails, and why. */
#define CHECK_FAILS(call, error)                                                                   \
        do {                                                                                       \
                errno = 0;                                                                         \
                CHECK((call) == -1 && errno == (error));                                           \
        } while (0)

static int end_of(pid_t pid)
{
        int status;

        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static void in_child(void (*run)(void))
{
        pid_t pid = fork();

        if (pid == 0) {
                run();
                _exit(failures != 0);
        }
        assert_int_equal(end_of(pid), 0);
}

static void harden(bool programs, bool io_uring)
{
        struct tk_harden_calls allowed = {.programs = programs, .io_uring = io_uring};

        CHECK(tk_harden_capabilities() == 0);
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        CHECK(tk_harden_calls(&allowed) == 0);
}

/* System calls ---------------------------------------------------------------- */

/* With arguments that would make each of them do something, or fail otherwise. */
static void try_forbidden(void)
{
        char *const none[] = {NULL};

        harden(false, false);
#if !TK_TEST_SANITIZED
        CHECK_FAILS(syscall(SYS_ptrace, 0, 0, 0, 0), EPERM); /* PTRACE_TRACEME */
        CHECK_FAILS(syscall(SYS_personality, 0xffffffff), EPERM);
        CHECK_FAILS(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), ENOSYS);
        CHECK_FAILS(prctl(PR_SET_SECUREBITS, 0, 0, 0, 0), ENOSYS);
#endif
        CHECK_FAILS(syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0), EPERM);
        CHECK_FAILS(syscall(SYS_process_vm_writev, getpid(), NULL, 0, NULL, 0, 0), EPERM);
        CHECK_FAILS(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0), EPERM);
        CHECK_FAILS(syscall(SYS_bpf, 0, NULL, 0), EPERM);
        CHECK_FAILS(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0), EPERM);
        CHECK_FAILS(syscall(SYS_kexec_load, 0, 0, NULL, 1), EPERM);
        CHECK_FAILS(syscall(SYS_init_module, NULL, 0, ""), EPERM);
        CHECK_FAILS(syscall(SYS_finit_module, -1, "", 0), EPERM);
        CHECK_FAILS(syscall(SYS_delete_module, "", 0), EPERM);
        CHECK_FAILS(mount("none", ".", "tmpfs", 0, NULL), EPERM);
        CHECK_FAILS(umount2(".", MNT_DETACH), EPERM);
        CHECK_FAILS(syscall(SYS_fsopen, "tmpfs", 0), EPERM);
        CHECK_FAILS(syscall(SYS_open_tree, AT_FDCWD, ".", 1), EPERM);
        CHECK_FAILS(syscall(SYS_move_mount, -1, "", -1, "", 0), EPERM);
        CHECK_FAILS(syscall(SYS_pivot_root, ".", "."), EPERM);
        CHECK_FAILS(chroot("."), EPERM);
        CHECK_FAILS(setns(-1, 0), EPERM);
        CHECK_FAILS(unshare(CLONE_NEWNS), ENOSYS);
        CHECK_FAILS(unshare(CLONE_NEWUSER), ENOSYS);
        CHECK_FAILS(unshare(CLONE_FS | CLONE_NEWNS), ENOSYS);
        CHECK_FAILS(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), ENOSYS);
        CHECK_FAILS(syscall(SYS_clone3, NULL, 0), ENOSYS);
        CHECK_FAILS(syscall(SYS_userfaultfd, 0), EPERM);
        CHECK_FAILS(syscall(SYS_add_key, "user", "x", "y", 1, -2), EPERM);
        CHECK_FAILS(syscall(SYS_request_key, "user", "x", NULL, 0), EPERM);
        CHECK_FAILS(syscall(SYS_keyctl, 0, 0, 0, 0, 0), EPERM);
        CHECK_FAILS(syscall(SYS_execve, "/bin/true", none, none), EPERM);
        CHECK_FAILS(syscall(SYS_execveat, AT_FDCWD, "/bin/true", none, none, 0), EPERM);
        CHECK_FAILS(syscall(SYS_io_uring_setup, 1, NULL), EPERM);
        CHECK_FAILS(syscall(SYS_setuid, geteuid()), EPERM);
        CHECK_FAILS(syscall(SYS_setgroups, 0, NULL), EPERM);
        CHECK_FAILS(syscall(SYS_capset, NULL, NULL), EPERM);
        CHECK_FAILS(syscall(SYS_reboot, 0, 0, 0, NULL), EPERM);
        CHECK_FAILS(syscall(SYS_swapoff, ""), EPERM);
        CHECK_FAILS(syscall(SYS_sethostname, "", -1), EPERM);
        CHECK_FAILS(syscall(SYS_clock_settime, CLOCK_REALTIME, NULL), EPERM);
        CHECK_FAILS(syscall(SYS_fanotify_init, 0, 0), EPERM);
        CHECK_FAILS(socket(AF_PACKET, SOCK_RAW, 0), ENOSYS);
        CHECK_FAILS(socket(AF_ALG, SOCK_SEQPACKET, 0), ENOSYS);
}

static void test_harden_calls__forbidden_ones_fail(void **state)
{
        in_child(try_forbidden);
}

static void *in_thread(void *context)
{
        CHECK_FAILS(chroot("."), EPERM);
        return context;
}

static void try_threads(void)
{
        pthread_t thread;

        harden(false, false);
        CHECK(tk_thread_start(in_thread, NULL, &thread) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(end_of(fork() ?: (_exit(0), 0)) == 0);
        CHECK(unshare(CLONE_FS) == 0);
        CHECK(kill(getpid(), 0) == 0);
}

static void test_harden_calls__threads_and_children_can_be_made_and_inherit(void **state)
{
        in_child(try_threads);
}

static void try_files(void)
{
        TK_AUTOCLOSE int fd = -1;
        struct {
                struct file_handle handle;
                uint8_t bytes[64];
        } buf = {.handle = {.handle_bytes = 64}};
        char value[4];
        int mount_id;

        harden(false, false);
        fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHECK(fd >= 0 && pwrite(fd, "abc", 3, 0) == 3 && fsync(fd) == 0);
        CHECK(fallocate(fd, 0, 0, 4096) == 0 && ftruncate(fd, 3) == 0);
        CHECK(link("file", "other") == 0 && rename("other", "third") == 0);
        CHECK(mkdir("dir", 0700) == 0 && renameat2(AT_FDCWD, "dir", AT_FDCWD, "dir2", 0) == 0);
        CHECK(fsetxattr(fd, "user.a", "b", 1, 0) == 0);
        CHECK(fgetxattr(fd, "user.a", value, sizeof(value)) == 1);
        CHECK(mkfifo("fifo", 0600) == 0);
        CHECK(name_to_handle_at(AT_FDCWD, "file", &buf.handle, &mount_id, 0) == 0);
        if (geteuid() != 0)
                return;
        CHECK(fchown(fd, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0 && fchmod(fd, 06755) == 0);
        CHECK(mknod("node", S_IFCHR | 0600, makedev(1, 3)) == 0);
        CHECK(fsetxattr(fd, "trusted.a", "b", 1, 0) == 0);
        CHECK(fsetxattr(fd, "security.test", "b", 1, 0) == 0);
        syscall(SYS_setfsuid, TK_TEST_NOBODY);
        CHECK(syscall(SYS_setfsuid, -1) == TK_TEST_NOBODY);
}

static void test_harden_calls__files_are_served(void **state)
{
        in_child(try_files);
}

static void try_network(void)
{
        struct addrinfo *found = NULL;
        TK_AUTOCLOSE int netlink = -1;
        TK_AUTOCLOSE int inet6 = -1;
        TK_AUTOCLOSE int inet = -1;
        TK_AUTOCLOSE int local = -1;
        struct sockaddr_in address = {
                .sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {htonl(INADDR_LOOPBACK)}};

        harden(false, false);
        local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        inet6 = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
        CHECK(local >= 0 && inet >= 0 && netlink >= 0);
        CHECK(inet6 >= 0 || errno == EAFNOSUPPORT);
        CHECK(getaddrinfo("localhost", "443", NULL, &found) == 0);
        if (found)
                freeaddrinfo(found);
        CHECK_FAILS(connect(inet, (const struct sockaddr *)&address, sizeof(address)),
                    ECONNREFUSED);
}

static void test_harden_calls__the_network_is_there(void **state)
{
        in_child(try_network);
}

static void try_memory(void)
{
        void *page;

        harden(false, false);
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(page != MAP_FAILED && mlock(page, 4096) == 0);
        CHECK(madvise(page, 4096, MADV_DONTDUMP) == 0 && munmap(page, 4096) == 0);
        CHECK(prctl(PR_SET_NAME, "name", 0, 0, 0) == 0);
}

static void test_harden_calls__memory_can_be_locked(void **state)
{
        in_child(try_memory);
}

static void try_program(void)
{
        harden(true, true);
        CHECK_FAILS(syscall(SYS_io_uring_setup, 1, NULL), EFAULT);
        execl("/bin/sh", "sh", "-c", "test \"$(echo x | cat)\" = x", NULL);
        CHECK(false);
}

static void test_harden_calls__programs_and_io_uring_where_allowed(void **state)
{
        in_child(try_program);
}

/* Capabilities ------------------------------------------------------------------ */

static void try_capabilities(void)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];
        static const unsigned gone[] = {CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT,
                                        CAP_SYS_TIME,   CAP_NET_ADMIN, CAP_NET_RAW,
                                        CAP_SYS_CHROOT, CAP_SETPCAP,   CAP_SYS_RESOURCE};

        CHECK(chroot("/") == 0);
        CHECK(tk_harden_capabilities() == 0);
        CHECK_FAILS(chroot("/"), EPERM);
        CHECK(syscall(SYS_capget, &header, data) == 0);
        for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
                CHECK(!(data[0].permitted >> gone[i] & 1) && !(data[0].effective >> gone[i] & 1));
                CHECK(prctl(PR_CAPBSET_READ, gone[i], 0, 0, 0) == 0);
        }
        CHECK(data[0].inheritable == 0 && data[1].inheritable == 0);
        CHECK(data[0].effective >> CAP_DAC_READ_SEARCH & 1);
        CHECK(data[0].effective == data[0].permitted);
        CHECK(data[1].permitted == 0);
}

static void test_harden_capabilities__the_rest_is_given_up(void **state)
{
        if (geteuid() != 0)
                skip();
        in_child(try_capabilities);
}

/* Landlock ---------------------------------------------------------------------- */

static char *directory; /* of the test, absolute */

static void make_places(void)
{
        assert_int_equal(mkdir("volume", 0777), 0);
        assert_int_equal(mkdir("volume/a", 0777), 0);
        assert_int_equal(mkdir("volume/b", 0777), 0);
        assert_int_equal(mkdir("keys", 0777), 0);
        assert_int_equal(mkdir("outside", 0777), 0);
        for (int i = 0; i < 5; i++) {
                static const char *const names[] = {".", "volume", "volume/a", "volume/b", "keys"};

                assert_int_equal(chmod(names[i], 0777), 0);
        }
        assert_int_equal(chmod("outside", 0777), 0);
        close(open("outside/there", O_WRONLY | O_CREAT, 0666));
        assert_int_equal(chmod("outside/there", 0666), 0);
}

static enum tk_harden_files restrict_files(void)
{
        TK_AUTOCLOSE int volume = open("volume", O_PATH | O_DIRECTORY | O_CLOEXEC);
        enum tk_harden_files files = TK_HARDEN_FILES_NONE;
        char keystore[600];

        snprintf(keystore, sizeof(keystore), "%s/keys/keystore", directory);
        CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        CHECK(tk_harden_files(volume, keystore, &files) == 0);
        return files;
}

static bool makes(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        if (fd >= 0)
                close(fd);
        return fd >= 0;
}

static void try_writing(void)
{
        int fd;

        if (geteuid() == 0)
                CHECK(setresgid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0 &&
                      setresuid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0);
        CHECK(makes("outside/before"));
        CHECK(restrict_files() == TK_HARDEN_FILES_WRITES);

        CHECK(!makes("outside/x") && errno == EACCES);
        CHECK_FAILS(open("outside/there", O_WRONLY | O_CLOEXEC), EACCES);
        CHECK_FAILS(unlink("outside/before"), EACCES);
        CHECK_FAILS(mkdir("outside/dir", 0700), EACCES);
        CHECK_FAILS(symlink("x", "outside/link"), EACCES);
        fd = open("outside/there", O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0 && close(fd) == 0);

        CHECK(makes("volume/a/x") && makes("volume/a/y"));
        CHECK(truncate("volume/a/x", 10) == 0);
        CHECK(rename("volume/a/x", "volume/b/x") == 0);
        CHECK(link("volume/b/x", "volume/a/z") == 0);
        CHECK(mkdir("volume/a/d", 0700) == 0 && rename("volume/a/d", "volume/b/d") == 0);
        CHECK(symlink("x", "volume/s") == 0 && mkfifo("volume/f", 0600) == 0);
        CHECK(unlink("volume/b/x") == 0 && rmdir("volume/b/d") == 0);
        CHECK_FAILS(rename("volume/a/y", "outside/y"), EACCES);
        CHECK(makes("keys/new") && rename("keys/new", "keys/keystore") == 0);
        CHECK_FAILS(mkdir("keys/dir", 0700), EACCES);
        CHECK(makes("/dev/null"));
        CHECK_FAILS(execl("/bin/true", "true", NULL), EACCES);
}

static void test_harden_files__a_user_writes_in_the_volume_and_beside_the_keystore(void **state)
{
        directory = *state;
        if (tk_harden_landlock() < 3)
                skip();
        make_places();
        in_child(try_writing);
}

static void try_sockets(void)
{
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        TK_AUTOCLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        CHECK(restrict_files() == TK_HARDEN_FILES_SOCKETS);
        CHECK_FAILS(bind(fd, (const struct sockaddr *)&address, sizeof(address)), EACCES);
        CHECK(makes("outside/x"));
}

static void test_harden_files__root_keeps_the_files(void **state)
{
        directory = *state;
        if (geteuid() != 0 || tk_harden_landlock() < 4)
                skip();
        make_places();
        in_child(try_sockets);
}

/* A child as the guardian, and we as the daemon, which is killed. */
static void try_death(void)
{
        int fds[2];
        char byte;

        CHECK(pipe2(fds, O_CLOEXEC) == 0);
        if (fork() == 0) {
                sigset_t set;
                int number;

                sigemptyset(&set);
                sigaddset(&set, SIGUSR1);
                sigprocmask(SIG_BLOCK, &set, NULL);
                prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
                (void)!write(fds[1], "", 1);
                alarm(20);
                sigwait(&set, &number);
                _exit(0);
        }
        CHECK(read(fds[0], &byte, 1) == 1);
        CHECK(restrict_files() != TK_HARDEN_FILES_NONE);
        harden(false, false);
        close(fds[0]);
}

/* It holds the lifeline until then: the kernel may take the signal for one of ours. */
static void test_harden__the_guardian_hears_of_the_end(void **state)
{
        struct pollfd gone = {0};
        int lifeline[2];
        pid_t pid;

        directory = *state;
        if (tk_harden_landlock() < 4)
                skip();
        make_places();
        assert_int_equal(pipe(lifeline), 0);
        pid = fork();
        if (pid == 0) {
                close(lifeline[0]);
                try_death();
                _exit(failures != 0);
        }
        close(lifeline[1]);
        assert_int_equal(end_of(pid), 0);
        gone.fd = lifeline[0];
        gone.events = POLLIN;
        assert_int_equal(poll(&gone, 1, 10000), 1);
        close(lifeline[0]);
}

/* Another user who may open by handle, as root's daemon does. */
static void become_handle_opener(void)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2] = {
                {.permitted = 1 << CAP_DAC_READ_SEARCH, .effective = 1 << CAP_DAC_READ_SEARCH}};

        CHECK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
        CHECK(setresuid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0);
        CHECK(syscall(SYS_capset, &header, data) == 0);
}

static void forget_names(void)
{
        TK_AUTOCLOSE int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

        sync();
        CHECK(fd >= 0 && write(fd, "2", 1) == 1);
}

enum { OPENED = 2, REFUSED = 3 };

/* Whether a file of the volume opens by handle, once its name has left the kernel's cache. */
static void try_handle(bool restricted)
{
        TK_AUTOCLOSE int root = open("volume", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        TK_AUTOCLOSE int fd = -1;
        struct {
                struct file_handle handle;
                uint8_t bytes[64];
        } buf = {.handle = {.handle_bytes = 64}};
        int mount_id;

        CHECK(makes("volume/file") && chmod("volume/file", 0666) == 0);
        CHECK(name_to_handle_at(AT_FDCWD, "volume/file", &buf.handle, &mount_id, 0) == 0);
        forget_names();
        become_handle_opener();
        if (restricted)
                CHECK(restrict_files() == TK_HARDEN_FILES_WRITES);
        fd = open_by_handle_at(root, &buf.handle, O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0 || (errno == EACCES && restricted));
        _exit(failures ? 1 : fd >= 0 ? OPENED : REFUSED);
}

static int handle_result(bool restricted)
{
        pid_t pid = fork();

        if (pid == 0)
                try_handle(restricted);
        return WEXITSTATUS(end_of(pid));
}

/* Why root keeps them: if the kernel were to follow such files home, Landlock could be for all. */
static void test_harden_files__a_forgotten_file_is_refused_by_handle(void **state)
{
        int restricted;

        directory = *state;
        if (geteuid() != 0 || tk_harden_landlock() < 3)
                skip();
        make_places();
        assert_int_equal(handle_result(false), OPENED);
        restricted = handle_result(true);
        if (restricted == OPENED)
                skip(); /* a filesystem that forgets no names, such as tmpfs, or that newer kernel
                         */
        assert_int_equal(restricted, REFUSED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_harden_calls__forbidden_ones_fail),
                TK_TEST_IN_DIR(test_harden_calls__threads_and_children_can_be_made_and_inherit),
                TK_TEST_IN_DIR(test_harden_calls__files_are_served),
                TK_TEST(test_harden_calls__the_network_is_there),
                TK_TEST(test_harden_calls__memory_can_be_locked),
                TK_TEST(test_harden_calls__programs_and_io_uring_where_allowed),
                TK_TEST(test_harden_capabilities__the_rest_is_given_up),
                TK_TEST_IN_DIR(
                        test_harden_files__a_user_writes_in_the_volume_and_beside_the_keystore),
                TK_TEST_IN_DIR(test_harden_files__root_keeps_the_files),
                TK_TEST_IN_DIR(test_harden__the_guardian_hears_of_the_end),
                TK_TEST_IN_DIR(test_harden_files__a_forgotten_file_is_refused_by_handle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
