/* SPDX-License-Identifier: Apache-2.0 */

/* Read-ahead of the mount, by way of /sys/class/bdi. */

#include "fs/readahead.h"

#include "base/fdio.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* 512 KiB: a third more throughput than with 128; 1024 brings little beyond it. */
static const char wanted_kib[] = "512";

/* The device of the mount, from what the kernel knows without asking: the request would wait. */
static bool find_device(const char *mountpoint, char *path, size_t max)
{
        struct statx st;

        if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0)
                return false;
        /* Of a device with a number of its own it is not ours. */
        if (!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT) || st.stx_dev_major != 0)
                return false;
        snprintf(path, max, "/sys/class/bdi/0:%u/read_ahead_kb", st.stx_dev_minor);
        return true;
}

void tk_readahead_raise(const char *mountpoint)
{
        TK_AUTOCLOSE int fd = -1;
        char path[64];

        if (!find_device(mountpoint, path, sizeof(path)))
                return;
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
                (void)!tk_fdio_pwrite(fd, wanted_kib, strlen(wanted_kib), 0);
}
