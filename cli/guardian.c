/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The guardian.
 *
 * An order is one byte. The answer to the first, an errno, brings the descriptor of
 * /dev/fuse along.
 *
 * A process with a thread that can't die is no zombie: neither wait(2) nor a pidfd
 * tells of its end, and its descriptors stay open. The parent death signal does: it
 * comes as soon as the daemon's main thread is gone. The end of the socket alone means
 * that all descriptors are closed, /dev/fuse among them: nothing is left to do.
 *
 * The connection's file is opened early. It is bound to that connection: one that
 * gets the same number later is not hit.
 */

#include "cli/guardian.h"

#include "base/log.h"
#include "cli/harden.h"
#include "cli/hygiene.h"
#include "cli/mountinfo.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { ATTACH = 'a', DETACH = 'd' };

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

/* All but where failures to mount are told, as long as there may be any. */
static void leave_terminal(bool stderr_too)
{
        TK_AUTOCLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        tk_hygiene_log(stderr_too);
        (void)!chdir("/");
        if (null < 0)
                return;
        (void)dup2(null, STDIN_FILENO);
        (void)dup2(null, STDOUT_FILENO);
        if (!stderr_too)
                return;
        (void)dup2(null, STDERR_FILENO);
}

struct duty {
        const struct tk_mount_options *options;
        bool foreground;
        bool hardened;
        int socket_fd;
        int abort_fd; /* -1: there is nothing to abort, or no right to */
};

/* The connection's file, which is bound to it. */
static void prepare_abort(struct duty *duty)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};

        if (tk_mountinfo_at(duty->options->mountpoint, &info) <= 0)
                return;
        duty->abort_fd = open_abort(info.connection);
        if (duty->abort_fd < 0)
                tk_log(TK_LOG_INFO,
                       "killed by SIGKILL, the daemon may leave a mount that hangs: "
                       "/sys/fs/fuse/connections/%u/abort can't be opened: %s",
                       info.connection, strerror(errno));
}

/* Answer with @error, and with @fd if there is none. */
static void answer(int socket_fd, int error, int fd)
{
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr head;
        } control = {.bytes = {0}};
        struct iovec text = {.iov_base = &error, .iov_len = sizeof(error)};
        struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};

        if (error == 0) {
                message.msg_control = control.bytes;
                message.msg_controllen = sizeof(control.bytes);
                control.head.cmsg_level = SOL_SOCKET;
                control.head.cmsg_type = SCM_RIGHTS;
                control.head.cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
        }
        (void)!sendmsg(socket_fd, &message, MSG_NOSIGNAL);
}

static void attach(struct duty *duty)
{
        TK_AUTOCLOSE int fd = -1;
        int r = tk_mount_attach(duty->options, &fd);

        /* Not before: an automount lets nobody through to the place that it waits for, but
         * the process group of the service manager. */
        (void)setsid();
        if (r == 0) {
                prepare_abort(duty);
                if (!duty->foreground)
                        leave_terminal(true);
        }
        answer(duty->socket_fd, -r, fd);
}

static void detach(const struct duty *duty)
{
        int r = tk_mount_detach(duty->options->mountpoint);

        /* Somebody else may have been faster. */
        if (r < 0 && r != -EINVAL && r != -ENOENT)
                tk_log(TK_LOG_WARNING, "cannot unmount %s: %s", duty->options->mountpoint,
                       strerror(-r));
}

/* What the daemon orders, until it ends, either way. */
_Noreturn static void serve(struct duty *duty, int signal_fd)
{
        struct pollfd fds[2] = {{.fd = signal_fd, .events = POLLIN},
                                {.fd = duty->socket_fd, .events = POLLIN}};
        char order;

        for (;;) {
                if (poll(fds, 2, -1) < 0)
                        continue;
                if (fds[0].revents) {
                        cut_off(duty->abort_fd);
                        _exit(0);
                }
                if (recv(duty->socket_fd, &order, 1, 0) != 1)
                        _exit(0);
                if (order == ATTACH)
                        attach(duty);
                else
                        detach(duty);
        }
}

/* What ends a daemon must not end its guardian first: a terminal's or service's signals go to all.
 */
_Noreturn static void be_guardian(struct duty *duty, pid_t daemon)
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
        tk_log_to(TK_LOG_STDERR); /* what the daemon opened for it is closed */
        tk_hygiene_close_inherited(&duty->socket_fd, 1);
        leave_terminal(false);
        if (duty->hardened)
                (void)!tk_harden_capabilities(); /* the daemon says so if it can't */
        signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
        if (signal_fd < 0)
                _exit(1);
        serve(duty, signal_fd);
}

/* In the daemon ------------------------------------------------------------ */

int tk_guardian_start(const struct tk_mount_options *options, bool foreground, bool hardened,
                      struct tk_guardian *ret_guardian, struct tk_fault *fault)
{
        struct duty duty = {
                .options = options, .foreground = foreground, .hardened = hardened, .abort_fd = -1};
        pid_t daemon = getpid();
        pid_t pid;
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "cannot make a socket: %s",
                                    strerror(errno));
        pid = fork();
        if (pid == 0) {
                duty.socket_fd = fds[0];
                be_guardian(&duty, daemon);
        }
        close(fds[0]);
        if (pid < 0) {
                close(fds[1]);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "cannot fork: %s",
                                    strerror(errno));
        }
        *ret_guardian = (struct tk_guardian){.pid = pid, .fd = fds[1]};
        return 0;
}

static int order(const struct tk_guardian *guardian, char what)
{
        return send(guardian->fd, &what, 1, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int tk_guardian_attach(const struct tk_guardian *guardian, int *ret_fd)
{
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr head;
        } control = {.bytes = {0}};
        int error = EPIPE;
        struct iovec text = {.iov_base = &error, .iov_len = sizeof(error)};
        struct msghdr message = {.msg_iov = &text,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof(control.bytes)};
        ssize_t n;
        int r;

        r = order(guardian, ATTACH);
        if (r < 0)
                return r;
        do
                n = recvmsg(guardian->fd, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n != sizeof(error))
                return -EPIPE;
        if (error != 0 || message.msg_controllen < CMSG_LEN(sizeof(int)))
                return -(error ? error : EIO);
        memcpy(ret_fd, CMSG_DATA(&control.head), sizeof(*ret_fd));
        return 0;
}

int tk_guardian_detach(const struct tk_guardian *guardian)
{
        return order(guardian, DETACH);
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
