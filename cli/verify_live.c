/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `verify` of a live mount, the daemon's side.
 *
 * The thread of an ended walk is joined when the next one begins, or at the end.
 */

#include "cli/verify_live.h"

#include "base/clock.h"
#include "base/thread.h"
#include "cli/verify_wire.h"
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

enum {
        PROGRESS_MS = 500, /* between two lines that say how far it is */
        SEND_MS = 10000,   /* for which a client may not read */
};

struct tk_verify_live {
        struct tk_fs *fs;
        pthread_t thread;
        bool has_thread;     /* of the control thread, and of free */
        atomic_bool running; /* set with the thread, cleared by it */
        atomic_bool stop;
        int fd; /* the thread's */
        bool repair;
        int64_t told_ms; /* when the client was last told anything */
};

static int send_bytes(int fd, const char *bytes, size_t len)
{
        while (len > 0) {
                struct pollfd ready = {.fd = fd, .events = POLLOUT};
                ssize_t n = send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EAGAIN && poll(&ready, 1, SEND_MS) > 0)
                        continue;
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                bytes += n;
                len -= (size_t)n;
        }
        return 0;
}

/* Takes over @line. Without a client there is nobody to walk for. */
static void tell(struct tk_verify_live *live, char *line)
{
        TK_CLEANUP(tk_freep) char *owned = line;

        live->told_ms = tk_clock_ms();
        if (!owned || send_bytes(live->fd, owned, strlen(owned)) < 0 ||
            send_bytes(live->fd, "\n", 1) < 0)
                atomic_store(&live->stop, true);
}

static void on_finding(void *context, const struct tk_verify_finding *finding)
{
        tell(context, tk_verify_wire_finding(finding));
}

static void on_progress(void *context, const struct tk_verify_totals *so_far)
{
        struct tk_verify_live *live = context;

        if (tk_clock_ms() - live->told_ms >= PROGRESS_MS)
                tell(live, tk_verify_wire_bytes(so_far->bytes));
}

static void *walk(void *argument)
{
        struct tk_verify_live *live = argument;
        struct tk_verify_callbacks callbacks = {.finding = on_finding,
                                                .progress = on_progress,
                                                .context = live,
                                                .stop = &live->stop,
                                                .live = true,
                                                .repair = live->repair};
        struct tk_verify_totals totals = {0};
        struct tk_fault fault = {0};
        int r;

        r = tk_verify_run(live->fs, &callbacks, &totals, &fault);
        if (r != -ECANCELED)
                tell(live, tk_verify_wire_end(r, &fault, &totals));
        close(live->fd);
        atomic_store(&live->running, false);
        return NULL;
}

static void join(struct tk_verify_live *live)
{
        if (live->has_thread)
                pthread_join(live->thread, NULL);
        live->has_thread = false;
}

/* Why not, in the words of an end, for the client that has to wait. */
static void refuse(int fd, int r, const char *why)
{
        const struct tk_verify_totals none = {0};
        TK_CLEANUP(tk_freep) char *line = NULL;
        struct tk_fault fault = {0};

        (void)tk_fault_set(&fault, TK_FAULT_IN_USE, r, "%s", why);
        line = tk_verify_wire_end(r, &fault, &none);
        if (line && send_bytes(fd, line, strlen(line)) == 0)
                (void)send_bytes(fd, "\n", 1);
        close(fd);
}

bool tk_verify_live_take(void *context, const char *request, int fd)
{
        struct tk_verify_live *live = context;
        bool repair = strcmp(request, "verify-repair") == 0;
        int r;

        if (!repair && strcmp(request, "verify") != 0)
                return false;
        if (atomic_load(&live->running)) {
                refuse(fd, -EBUSY, "the mount is being verified already; wait for that to end");
                return true;
        }
        join(live);
        live->fd = fd;
        live->repair = repair;
        live->told_ms = 0;
        atomic_store(&live->stop, false);
        atomic_store(&live->running, true);
        r = tk_thread_start(walk, live, &live->thread);
        live->has_thread = r == 0;
        if (r < 0) {
                atomic_store(&live->running, false);
                refuse(fd, r, "the mount can't start a thread for it");
        }
        return true;
}

int tk_verify_live_new(struct tk_fs *fs, struct tk_verify_live **ret_live)
{
        struct tk_verify_live *live = calloc(1, sizeof(*live));

        if (!live)
                return -ENOMEM;
        live->fs = fs;
        *ret_live = live;
        return 0;
}

struct tk_verify_live *tk_verify_live_free(struct tk_verify_live *live)
{
        if (!live)
                return NULL;
        atomic_store(&live->stop, true);
        join(live);
        free(live);
        return NULL;
}
