/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Talking to the service manager.
 *
 * The socket is opened once, early: a sandbox that is entered later does not shut it off.
 */

#include "cli/notify.h"

#include "base/log.h"
#include "base/thread.h"
#include "fs/keeper.h"
#include <errno.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A round of the keeper asks the KMS, which its timeouts bound, or empties the kernel's
 * caches through slow disks: only far beyond that it hangs. */
enum { MESSAGE_MAX = 1024, KEEPER_ROUND_MAX_MS = 10 * 60 * 1000 };

struct tk_notify {
        int fd;
        int64_t watchdog_ms; /* how often at least; 0: the manager wants none */
        struct tk_fs *fs;
        const char *mountpoint;
        pthread_t thread;
        bool watching;
        pthread_mutex_t lock;
        pthread_cond_t woken;
        bool stop; /* under lock */
};

/* An address that begins with @ is an abstract one: its first byte is 0. */
static int connect_to(const char *address)
{
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        size_t len = strlen(address);
        TK_AUTOCLOSE int fd = -1;

        if ((address[0] != '/' && address[0] != '@') || len < 2 || len >= sizeof(to.sun_path))
                return -EINVAL;
        memcpy(to.sun_path, address, len);
        if (address[0] == '@')
                to.sun_path[0] = '\0';
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&to,
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
                return -errno;
        return TK_TAKE_FD(fd);
}

/* Half of what the manager allows; for another process than this one: 0. */
static int64_t watchdog_interval(void)
{
        const char *usec = getenv("WATCHDOG_USEC");
        const char *pid = getenv("WATCHDOG_PID");

        if (!usec || (pid && strtol(pid, NULL, 10) != getpid()))
                return 0;
        return strtoll(usec, NULL, 10) / 2000;
}

int tk_notify_new(struct tk_notify **ret_notify)
{
        const char *address = getenv("NOTIFY_SOCKET");
        struct tk_notify *notify;
        int fd;

        *ret_notify = NULL;
        if (!address)
                return 0;
        fd = connect_to(address);
        if (fd < 0) {
                tk_log(TK_LOG_WARNING, "the service manager is not told how the mount is: %s: %s",
                       address, strerror(-fd));
                return 0;
        }
        notify = calloc(1, sizeof(*notify));
        if (!notify) {
                close(fd);
                return -ENOMEM;
        }
        notify->fd = fd;
        notify->watchdog_ms = watchdog_interval();
        pthread_mutex_init(&notify->lock, NULL);
        tk_thread_cond_init(&notify->woken);
        unsetenv("NOTIFY_SOCKET");
        unsetenv("WATCHDOG_USEC");
        unsetenv("WATCHDOG_PID");
        *ret_notify = notify;
        return 0;
}

void tk_notify_send(const struct tk_notify *notify, const char *fmt, ...)
{
        char message[MESSAGE_MAX];
        va_list args;
        int len;

        if (!notify)
                return;
        va_start(args, fmt);
        len = vsnprintf(message, sizeof(message), fmt, args);
        va_end(args);
        if (len >= MESSAGE_MAX)
                len = MESSAGE_MAX - 1;
        if (len > 0)
                (void)!send(notify->fd, message, (size_t)len, MSG_NOSIGNAL);
}

/* The watchdog --------------------------------------------------------------- */

/* The kernel never answers this itself: it takes a thread of ours that serves. */
static bool mount_answers(const struct tk_notify *notify)
{
        struct statfs st;

        return statfs(notify->mountpoint, &st) == 0 && st.f_type == FUSE_SUPER_MAGIC;
}

static void watch_once(const struct tk_notify *notify)
{
        struct tk_keeper_status keeper = {0};

        if (!mount_answers(notify) || !tk_fs_keeper_status(notify->fs, &keeper))
                return;
        if (keeper.round_ago_ms > KEEPER_ROUND_MAX_MS) {
                tk_log_limited(TK_LOG_ERROR,
                               "%s: the thread that asks the KMS has not come round for %lld s",
                               notify->mountpoint, (long long)(keeper.round_ago_ms / 1000));
                return;
        }
        tk_notify_send(notify,
                       "WATCHDOG=1\nSTATUS=mounted at %s, the key is %s, confirmed %lld s ago",
                       notify->mountpoint, tk_lease_name(keeper.state),
                       (long long)(keeper.confirmed_ago_ms / 1000));
}

/* False when it is time to stop. */
static bool sleep_between(struct tk_notify *notify)
{
        struct timespec until = tk_thread_deadline(notify->watchdog_ms);

        TK_LOCK_SCOPE(&notify->lock);
        while (!notify->stop)
                if (pthread_cond_timedwait(&notify->woken, &notify->lock, &until) == ETIMEDOUT)
                        return !notify->stop;
        return false;
}

static void *watch(void *context)
{
        struct tk_notify *notify = context;

        while (sleep_between(notify))
                watch_once(notify);
        return NULL;
}

void tk_notify_watch(struct tk_notify *notify, struct tk_fs *fs, const char *mountpoint)
{
        if (!notify || notify->watchdog_ms <= 0)
                return;
        notify->fs = fs;
        notify->mountpoint = mountpoint;
        notify->stop = false;
        notify->watching = tk_thread_start(watch, notify, &notify->thread) == 0;
        if (!notify->watching)
                tk_log(TK_LOG_WARNING, "the watchdog's thread can't be started: the service "
                                       "manager will end this mount");
}

void tk_notify_unwatch(struct tk_notify *notify)
{
        if (!notify || !notify->watching)
                return;
        pthread_mutex_lock(&notify->lock);
        notify->stop = true;
        pthread_cond_signal(&notify->woken);
        pthread_mutex_unlock(&notify->lock);
        pthread_join(notify->thread, NULL);
        notify->watching = false;
}

struct tk_notify *tk_notify_free(struct tk_notify *notify)
{
        if (!notify)
                return NULL;
        tk_notify_unwatch(notify);
        pthread_cond_destroy(&notify->woken);
        pthread_mutex_destroy(&notify->lock);
        close(notify->fd);
        free(notify);
        return NULL;
}
