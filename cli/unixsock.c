/* SPDX-License-Identifier: Apache-2.0 */

/* Sockets are bound and reached through /proc/self/fd, which is short. */

#include "cli/unixsock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool tk_unixsock_address(int dirfd, const char *name, struct sockaddr_un *ret_address)
{
        memset(ret_address, 0, sizeof(*ret_address));
        ret_address->sun_family = AF_UNIX;
        return snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s",
                        dirfd, name) < (int)sizeof(ret_address->sun_path);
}

int tk_unixsock_listen(int dirfd, const char *name, int backlog, int *ret_fd)
{
        TK_AUTOCLOSE int fd = -1;
        struct sockaddr_un address;

        if (!tk_unixsock_address(dirfd, name, &address))
                return -ENAMETOOLONG;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        /* The file gets the socket's mode, so it is never open to others. */
        if (fchmod(fd, 0600) < 0)
                return -errno;
        if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        if (listen(fd, backlog) < 0)
                return -errno;
        *ret_fd = TK_TAKE_FD(fd);
        return 0;
}
