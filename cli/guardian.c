/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The guardian.
 *
 * A process with a thread that can't die is no zombie: neither wait(2) nor a pidfd
 * tells of its end, and its descriptors stay open. The parent death signal does: it
 * comes as soon as the daemon's main thread is gone. The end of the pipe alone means
 * that all descriptors are closed, /dev/fuse among them: nothing is left to do.
 *
 * The connection's file is opened early. It is bound to that connection: one that
 * gets the same number later is not hit.
 */

#include "cli/guardian.h"

#include "base/log.h"
#include "cli/hygiene.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* In the guardian ---------------------------------------------------------- */

/*
 * The control filesystem, mounted nowhere: root needs no help from the machine's
 * set-up. By system call, since the C library's functions are younger than the kernel's.
 */
static int mount_control_files(void)
{
        TK_AUTOCLOSE int fs = (int)syscall(SYS_fsopen, "fusectl", FSOPEN_CLOEXEC);

        if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return -1;
        return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
}

static int open_abort(unsigned connection)
{
        TK_AUTOCLOSE int dir = mount_control_files();
        char name[32];

        if (dir < 0)
                dir = open("/sys/fs/fuse/connections", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return -1;
        snprintf(name, sizeof(name), "%u/abort", connection);
        return openat(dir, name, O_WRONLY | O_CLOEXEC);
}

static void cut_off(int abort_fd)
{
        if (abort_fd < 0)
                return;
        if (write(abort_fd, "1", 1) < 0)
                tk_log(TK_LOG_ERROR, "the daemon was killed, and its mount can't be ended: %s",
                       strerror(errno));
        else
                tk_log(TK_LOG_ERROR, "the daemon was killed; its mount is ended");
}

/* Until the daemon says which connection it has, and then until it ends, either way. */
_Noreturn static void watch(int pipe_fd, int signal_fd)
{
        struct pollfd fds[2] = {{.fd = signal_fd, .events = POLLIN},
                                {.fd = pipe_fd, .events = POLLIN}};
        unsigned connection;
        int abort_fd = -1;

        for (;;) {
                if (poll(fds, 2, -1) < 0)
                        continue;
                if (fds[0].revents) {
                        cut_off(abort_fd);
                        _exit(0);
                }
                if (read(pipe_fd, &connection, sizeof(connection)) != sizeof(connection))
                        _exit(0);
                abort_fd = open_abort(connection);
                if (abort_fd < 0)
                        tk_log(TK_LOG_INFO,
                               "killed by SIGKILL, the daemon may leave a mount that hangs: "
                               "/sys/fs/fuse/connections/%u/abort can't be opened: %s",
                               connection, strerror(errno));
        }
}

static void leave_terminal(bool foreground)
{
        TK_AUTOCLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        (void)setsid();
        (void)!chdir("/");
        if (null < 0)
                return;
        (void)dup2(null, STDIN_FILENO);
        (void)dup2(null, STDOUT_FILENO);
        if (foreground)
                return;
        (void)dup2(null, STDERR_FILENO);
        tk_log_to_syslog();
}

/* What ends a daemon must not end its guardian first: a terminal's or service's signals go to all.
 */
_Noreturn static void be_guardian(int pipe_fd, pid_t daemon, bool foreground)
{
        sigset_t set;
        int signal_fd;

        sigfillset(&set);
        sigprocmask(SIG_SETMASK, &set, NULL);
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        (void)prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0);
        (void)prctl(PR_SET_NAME, "tkfs-guardian", 0, 0, 0);
        if (getppid() != daemon)
                _exit(0);
        tk_hygiene_close_inherited(&pipe_fd, 1);
        leave_terminal(foreground);
        signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
        if (signal_fd < 0)
                _exit(1);
        watch(pipe_fd, signal_fd);
}

/* In the daemon ------------------------------------------------------------ */

int tk_guardian_start(bool foreground, struct tk_guardian *ret_guardian, struct tk_fault *fault)
{
        pid_t daemon = getpid();
        pid_t pid;
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "cannot make a pipe: %s",
                                    strerror(errno));
        pid = fork();
        if (pid == 0)
                be_guardian(fds[0], daemon, foreground);
        close(fds[0]);
        if (pid < 0) {
                close(fds[1]);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "cannot fork: %s",
                                    strerror(errno));
        }
        *ret_guardian = (struct tk_guardian){.pid = pid, .fd = fds[1]};
        return 0;
}

void tk_guardian_watch(const struct tk_guardian *guardian, unsigned connection)
{
        if (guardian->pid > 0)
                (void)!write(guardian->fd, &connection, sizeof(connection));
}

void tk_guardian_stop(struct tk_guardian *guardian)
{
        if (guardian->pid <= 0)
                return;
        close(guardian->fd);
        while (waitpid(guardian->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        guardian->pid = 0;
}
