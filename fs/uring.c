/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whether the kernel takes requests over io_uring, and how many at once. libfuse makes a
 * queue and a thread for each CPU, and a buffer as large as the largest request for each
 * place in a queue.
 */

#include "fs/uring.h"

#include "base/fdio.h"
#include "fs/reply.h"
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Places in all queues together, which is MiB of buffers, as far as there are so few CPUs. */
enum { PLACES = 16, DEPTH_MIN = 2, DEPTH_MAX = 8 };

static bool is_switched_on(void)
{
        return tk_fdio_file_says("/sys/module/fuse/parameters/enable_uring", "Y");
}

/* Containers and sysctl may forbid it, which libfuse would take for the end of the mount. */
static bool is_allowed(void)
{
        struct io_uring_params params = {0};
        long fd = syscall(SYS_io_uring_setup, 1, &params);

        if (fd < 0)
                return false;
        close((int)fd);
        return true;
}

void tk_uring_options(char ret_options[TK_URING_OPTIONS])
{
        long cpus = sysconf(_SC_NPROCESSORS_CONF);
        long depth = PLACES / (cpus > 0 ? cpus : 1);

        ret_options[0] = '\0';
        if (!is_switched_on() || !is_allowed())
                return;
        if (depth < DEPTH_MIN)
                depth = DEPTH_MIN;
        if (depth > DEPTH_MAX)
                depth = DEPTH_MAX;
        snprintf(ret_options, TK_URING_OPTIONS, ",io_uring,io_uring_q_depth=%ld", depth);
}

unsigned tk_uring_capability(void)
{
        return FUSE_CAP_OVER_IO_URING;
}
