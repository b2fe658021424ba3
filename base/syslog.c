/* SPDX-License-Identifier: Apache-2.0 */

#include "base/syslog.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>

enum { DATAGRAM_MAX = 4096 };

static int log_fd = -1;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int reach(void)
{
        return connect(log_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

void tk_syslog_close(void)
{
        closelog();
        if (log_fd >= 0)
                close(log_fd);
        log_fd = -1;
}

void tk_syslog_open(void)
{
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): before there are threads */
        const char *path = getenv("TURNKEYFS_SYSLOG_SOCKET");

        openlog("turnkeyfs", LOG_PID, LOG_DAEMON);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path ? path : _PATH_LOG);
        log_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (log_fd >= 0)
                (void)!reach();
}

static int send_text(const char *text, size_t len)
{
        return send(log_fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int send_line(int priority, const char *line)
{
        char text[DATAGRAM_MAX];
        char stamp[32];
        time_t now = time(NULL);
        struct tm local;
        int len;
        int r;

        strftime(stamp, sizeof(stamp), "%b %e %H:%M:%S", localtime_r(&now, &local));
        len = snprintf(text, sizeof(text), "<%d>%s turnkeyfs[%d]: %s", LOG_DAEMON | priority, stamp,
                       (int)getpid(), line);
        if (len < 0 || len >= (int)sizeof(text))
                return -EMSGSIZE;

        r = send_text(text, (size_t)len);
        if (r == 0 || r == -EAGAIN)
                return r;
        /* Whoever reads there was started again, or only now. */
        r = reach();
        return r < 0 ? r : send_text(text, (size_t)len);
}

int tk_syslog_send(int priority, const char *line)
{
        int r = send_line(priority, line);

        if (r != -EPROTOTYPE)
                return r;
        syslog(priority, "%s", line); /* a stream: rare, and worth waiting for */
        return 0;
}
