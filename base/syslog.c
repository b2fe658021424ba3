/* SPDX-License-Identifier: Apache-2.0 */

#include "base/syslog.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>

enum { DATAGRAM_MAX = 4096 };

static int log_fd = -1;
static atomic_uint lost;

static int reach(void)
{
        static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = _PATH_LOG};

        return connect(log_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

void tk_syslog_open(void)
{
        openlog("turnkeyfs", LOG_PID, LOG_DAEMON);
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

void tk_syslog_send(int priority, const char *line)
{
        char text[64];
        unsigned missing = atomic_exchange(&lost, 0);
        int r = 0;

        if (missing > 0) {
                snprintf(text, sizeof(text), "%u lines of the log found no room and were lost",
                         missing);
                r = send_line(LOG_WARNING, text);
        }
        if (r == 0) {
                missing = 0;
                r = send_line(priority, line);
        }
        if (r == -EPROTOTYPE) /* a stream: rare, and worth waiting for */
                syslog(priority, "%s", line);
        else if (r == -EAGAIN)
                atomic_fetch_add(&lost, missing + 1);
}
