/* SPDX-License-Identifier: Apache-2.0 */

/* Going into the background. */

#include "cli/daemon.h"

#include "cli/hygiene.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static int wait_for_child(pid_t child)
{
        int status;

        while (waitpid(child, &status, 0) < 0)
                if (errno != EINTR)
                        return TK_FAULT_INTERNAL;
        if (WIFEXITED(status))
                return WEXITSTATUS(status) ? WEXITSTATUS(status) : TK_FAULT_INTERNAL;
        fprintf(stderr, "turnkeyfs: the background process was ended by signal %d\n",
                WTERMSIG(status));
        return TK_FAULT_INTERNAL;
}

static volatile sig_atomic_t waited_child;

/* Whoever ends the waiting parent means the child. */
static void pass_on(int signal_number)
{
        (void)kill((pid_t)waited_child, signal_number);
        (void)signal(signal_number, SIG_DFL);
        (void)raise(signal_number);
}

/* One byte says that the child is ready; none, that it has exited or will. */
_Noreturn static void be_parent(int fd, pid_t child)
{
        static const int ending[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
        char byte;
        ssize_t n;

        waited_child = child;
        for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
                (void)signal(ending[i], pass_on);
        do
                n = read(fd, &byte, 1);
        while (n < 0 && errno == EINTR);
        _exit(n == 1 ? 0 : wait_for_child(child));
}

int tk_daemon_fork(int *ret_ready_fd, struct tk_fault *fault)
{
        pid_t child;
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "cannot make a pipe: %s",
                                    strerror(errno));
        child = fork();
        if (child < 0) {
                close(fds[0]);
                close(fds[1]);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "cannot fork: %s",
                                    strerror(errno));
        }
        if (child > 0) {
                close(fds[1]);
                be_parent(fds[0], child);
        }

        close(fds[0]);
        *ret_ready_fd = fds[1];
        return 0;
}

void tk_daemon_ready(int *ready_fd)
{
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        (void)setsid();
        (void)!chdir("/");
        fflush(NULL);
        tk_hygiene_log(true);
        for (int fd = 0; fd <= 2 && null >= 0; fd++)
                (void)dup2(null, fd);
        if (null > 2)
                close(null);

        (void)!write(*ready_fd, "", 1);
        close(*ready_fd);
        *ready_fd = -1;
}
