/* SPDX-License-Identifier: Apache-2.0 */

/*
 * No field of ours has a newline in it, so that each is one line of the datagram; and a line of
 * the log is short enough for one, so that no memfd is needed.
 */

#include "base/journald.h"

#include "base/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { DATAGRAM_MAX = 4096 };

static int journal_fd = -1;
static char volume_field[512];

void tk_journald_close(void)
{
        if (journal_fd >= 0)
                close(journal_fd);
        journal_fd = -1;
}

int tk_journald_open(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): before there are threads */
        const char *path = getenv("TURNKEYFS_JOURNAL_SOCKET");
        TK_AUTOCLOSE int fd = -1;

        if (!path)
                path = "/run/systemd/journal/socket";
        if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >=
            (int)sizeof(address.sun_path))
                return -ENAMETOOLONG;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        journal_fd = TK_TAKE_FD(fd);
        return 0;
}

void tk_journald_set_volume(const char *volume)
{
        snprintf(volume_field, sizeof(volume_field), "TURNKEYFS_VOLUME=%s\n", volume);
        for (char *c = volume_field; *c; c++)
                if (*c == '\n' && c[1])
                        *c = '?';
}

/* The name of a kind of event, which stays when lines move: module and function. */
static void make_event(const struct tk_log_origin *origin, char *event, size_t size)
{
        const char *slash = strrchr(origin->file, '/');
        const char *module = slash ? slash + 1 : origin->file;

        snprintf(event, size, "%.*s.%s", (int)strcspn(module, "."), module, origin->func);
}

int tk_journald_send(int priority, const struct tk_log_origin *origin, const char *line)
{
        char text[DATAGRAM_MAX];
        char event[128];
        int len;

        make_event(origin, event, sizeof(event));
        len = snprintf(text, sizeof(text),
                       "PRIORITY=%d\nSYSLOG_IDENTIFIER=turnkeyfs\nSYSLOG_PID=%d\n%s"
                       "TURNKEYFS_EVENT=%s\nCODE_FILE=%s\nCODE_LINE=%d\nCODE_FUNC=%s\nMESSAGE=%s\n",
                       priority, (int)getpid(), volume_field, event, origin->file, origin->line,
                       origin->func, line);
        if (len < 0 || len >= (int)sizeof(text))
                return -EMSGSIZE;
        return send(journal_fd, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}
