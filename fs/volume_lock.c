/* SPDX-License-Identifier: Apache-2.0 */

/* The volume lock. */

#include "fs/volume_lock.h"

#include "base/fdio.h"
#include "fs/backing.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

enum { TEXT_MAX = 600 };

static void read_holder(int fd, struct tk_volume_holder *holder)
{
        char text[TEXT_MAX] = "";
        char *newline;

        memset(holder, 0, sizeof(*holder));
        if (tk_fdio_pread(fd, text, sizeof(text) - 1, 0) <= 0)
                return;
        holder->pid = strtol(text, &newline, 10);
        if (*newline != '\n')
                return;
        snprintf(holder->doing, sizeof(holder->doing), "%.*s", (int)strcspn(newline + 1, "\n"),
                 newline + 1);
}

/* Whoever only asks for the holder (tk_volume_holder) has the lock for an instant: wait that out.
 */
static int flock_patiently(int fd)
{
        const struct timespec pause = {.tv_nsec = 20L * 1000 * 1000};

        for (int tries = 0; tries < 10; tries++) {
                if (flock(fd, LOCK_EX | LOCK_NB) == 0)
                        return 0;
                if (errno != EWOULDBLOCK)
                        return -1;
                nanosleep(&pause, NULL);
        }
        errno = EWOULDBLOCK;
        return -1;
}

/* By a descriptor for the moment: one that may write would keep the backing filesystem from being
 * remounted read-only. */
static int write_holder(int dirfd, const char *doing)
{
        TK_AUTOCLOSE int fd = -1;
        char text[TEXT_MAX];
        int len = snprintf(text, sizeof(text), "%ld\n%.511s\n", (long)getpid(), doing);
        int r;

        fd = openat(dirfd, TK_VOLUME_LOCK_FILE, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        r = tk_backing_truncate(fd, 0);
        if (r < 0)
                return r;
        return tk_fdio_pwrite(fd, text, (size_t)len, 0);
}

int tk_volume_lock_take(int dirfd, const char *path, const char *doing, int *ret_lockfd,
                        struct tk_fault *fault)
{
        TK_AUTOCLOSE int fd = -1;
        struct tk_volume_holder holder;
        int r;

        fd = openat(dirfd, TK_VOLUME_LOCK_FILE, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "cannot open %s/%s: %s",
                                    path, TK_VOLUME_LOCK_FILE, strerror(errno));
        if (flock_patiently(fd) < 0) {
                if (errno != EWOULDBLOCK)
                        return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno,
                                            "cannot lock %s/%s: %s", path, TK_VOLUME_LOCK_FILE,
                                            strerror(errno));
                read_holder(fd, &holder);
                return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                                    "%s is in use: %s by process %ld; unmount or end that first",
                                    path, holder.doing[0] ? holder.doing : "held", holder.pid);
        }
        r = write_holder(dirfd, doing);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot write %s/%s: %s", path,
                                    TK_VOLUME_LOCK_FILE, strerror(-r));
        *ret_lockfd = TK_TAKE_FD(fd);
        return 0;
}

void tk_volume_lock_release(int lockfd)
{
        /* What it says of the holder stays: nobody reads it unless the lock is held. */
        if (lockfd >= 0)
                close(lockfd);
}

int tk_volume_lock_holder(int dirfd, struct tk_volume_holder *ret_holder)
{
        TK_AUTOCLOSE int fd = -1;

        fd = openat(dirfd, TK_VOLUME_LOCK_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (flock(fd, LOCK_SH | LOCK_NB) == 0)
                return 0;
        if (errno != EWOULDBLOCK)
                return -errno;
        read_holder(fd, ret_holder);
        return 1;
}
