/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The control channel.
 *
 * The server talks to one client at a time and gives it half a
 * second each way, so that a stuck one delays the others no longer than that. What may wait
 * for a KMS is answered in a second thread: `status` is for the time when that hangs.
 */

#include "cli/control.h"

#include "base/thread.h"
#include "cli/unixsock.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

static const char socket_name[] = "turnkeyfs.sock";

enum {
        SERVE_MS = 500,          /* for one client */
        ASK_MS = 15000,          /* for one answer, other clients' turns included */
        ASK_SLOW_MS = 90000,     /* where a KMS is asked before: some calls of 20 s at most */
        ANSWER_MAX = 256 * 1024, /* bytes */
        SILENCE_MS = 60000,      /* within an answer of many lines */
        BACKLOG = 16,
        SLOW_MAX = 8, /* that wait for their turn */
};

/* To a client whose slow request is one too many: kind and errno say EBUSY in both ways. */
static const char busy_answer[] =
        "{\"kind\":6,\"errno\":16,\"error\":\"the mount is busy with other requests; try again\"}";
_Static_assert(TK_FAULT_IN_USE == 6 && EBUSY == 16, "busy_answer");

struct slow_request {
        int fd;
        char *text;
};

struct tk_control {
        int dirfd; /* borrowed */
        int listen_fd;
        int stop_fd; /* an eventfd: readable when the thread is to end */
        pthread_t thread;
        struct tk_control_handlers handlers;

        pthread_t slow_thread;
        bool has_slow_thread;
        pthread_mutex_t slow_lock;
        pthread_cond_t slow_changed;
        struct slow_request slow[SLOW_MAX]; /* under slow_lock, as what follows: oldest first */
        size_t slow_count;
        bool stopping;
};

static int64_t now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Wait until @fd is ready for @events. -ETIMEDOUT at @deadline; -ECANCELED as soon
 * as @stop_fd is readable (-1: none).
 */
static int wait_ready(int fd, short events, int stop_fd, int64_t deadline)
{
        struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
        int64_t left = deadline < 0 ? -1 : deadline - now_ms();
        int n;

        if (deadline >= 0 && left <= 0)
                return -ETIMEDOUT;
        n = poll(fds, 2, (int)left);
        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        if (fds[1].revents)
                return -ECANCELED;
        return n == 0 ? -ETIMEDOUT : 0;
}

/* Read until the end of the stream, or until @until was read if it is not 0. Returns the count. */
static ssize_t receive(int fd, char *buf, size_t size, char until, int stop_fd, int64_t deadline)
{
        size_t len = 0;

        while (len < size) {
                ssize_t n;
                int r = wait_ready(fd, POLLIN, stop_fd, deadline);

                if (r < 0)
                        return r;
                n = recv(fd, buf + len, size - len, MSG_DONTWAIT);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        continue;
                if (n < 0)
                        return -errno;
                len += (size_t)n;
                if (n == 0 || (until && buf[len - 1] == until))
                        return (ssize_t)len;
        }
        return -EMSGSIZE;
}

static int send_all(int fd, const char *text, size_t len, int stop_fd, int64_t deadline)
{
        while (len > 0) {
                ssize_t n;
                int r = wait_ready(fd, POLLOUT, stop_fd, deadline);

                if (r < 0)
                        return r;
                n = send(fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        continue;
                if (n < 0)
                        return -errno;
                text += n;
                len -= (size_t)n;
        }
        return 0;
}

/* The server ------------------------------------------------------------- */

static bool peer_is_allowed(int fd)
{
        struct ucred peer;
        socklen_t len = sizeof(peer);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
                return false;
        return peer.uid == 0 || peer.uid == geteuid();
}

static void send_answer(const struct tk_control *control, int fd, const char *answer)
{
        (void)send_all(fd, answer, strlen(answer), control->stop_fd, now_ms() + SERVE_MS);
}

static void give_answer(const struct tk_control *control, int fd, const char *request)
{
        const struct tk_control_handlers *handlers = &control->handlers;
        TK_CLEANUP(tk_freep) char *answer = handlers->answer(handlers->answer_context, request);

        if (answer)
                send_answer(control, fd, answer);
}

/* Whether @request was put in the queue, and @fd with it. */
static bool defer(struct tk_control *control, int fd, const char *request)
{
        char *text;

        TK_LOCK_SCOPE(&control->slow_lock);
        text = control->slow_count < SLOW_MAX ? strdup(request) : NULL;
        if (!text)
                return false;
        control->slow[control->slow_count++] = (struct slow_request){.fd = fd, .text = text};
        pthread_cond_signal(&control->slow_changed);
        return true;
}

static void drop(struct slow_request *request)
{
        close(request->fd);
        free(request->text);
}

/* The oldest one; false at the end. */
static bool next_slow(struct tk_control *control, struct slow_request *ret_request)
{
        TK_LOCK_SCOPE(&control->slow_lock);
        while (control->slow_count == 0 && !control->stopping)
                pthread_cond_wait(&control->slow_changed, &control->slow_lock);
        if (control->stopping)
                return false;
        *ret_request = control->slow[0];
        control->slow_count--;
        memmove(control->slow, control->slow + 1, control->slow_count * sizeof(control->slow[0]));
        return true;
}

static void *slow_thread(void *argument)
{
        struct tk_control *control = argument;
        struct slow_request request;

        while (next_slow(control, &request)) {
                give_answer(control, request.fd, request.text);
                drop(&request);
        }
        return NULL;
}

/* Whether @fd was taken over. */
static bool serve(struct tk_control *control, int fd)
{
        const struct tk_control_handlers *handlers = &control->handlers;
        char request[TK_CONTROL_REQUEST_MAX];
        ssize_t len;

        if (!peer_is_allowed(fd))
                return false;
        len = receive(fd, request, sizeof(request) - 1, '\n', control->stop_fd,
                      now_ms() + SERVE_MS);
        if (len <= 0 || request[len - 1] != '\n')
                return false;
        request[len - 1] = '\0';
        if (handlers->take && handlers->take(handlers->take_context, request, fd))
                return true;
        if (!handlers->is_slow || !handlers->is_slow(request))
                give_answer(control, fd, request);
        else if (defer(control, fd, request))
                return true;
        else
                send_answer(control, fd, busy_answer);
        return false;
}

static void *server_thread(void *argument)
{
        struct tk_control *control = argument;

        for (;;) {
                TK_AUTOCLOSE int fd = -1;
                int r = wait_ready(control->listen_fd, POLLIN, control->stop_fd, -1);

                if (r == -ECANCELED)
                        return NULL;
                fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd >= 0 && serve(control, fd))
                        (void)TK_TAKE_FD(fd);
                else if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                        /* Out of descriptors, most likely: don't spin. */
                        (void)wait_ready(control->stop_fd, POLLIN, -1, now_ms() + SERVE_MS);
        }
}

static void control_free(struct tk_control *control)
{
        if (control->listen_fd >= 0) {
                (void)unlinkat(control->dirfd, socket_name, 0);
                close(control->listen_fd);
        }
        if (control->stop_fd >= 0)
                close(control->stop_fd);
        for (size_t i = 0; i < control->slow_count; i++)
                drop(&control->slow[i]);
        pthread_cond_destroy(&control->slow_changed);
        pthread_mutex_destroy(&control->slow_lock);
        free(control);
}

static void stop_slow(struct tk_control *control)
{
        if (!control->has_slow_thread)
                return;
        {
                TK_LOCK_SCOPE(&control->slow_lock);
                control->stopping = true;
                pthread_cond_signal(&control->slow_changed);
        }
        pthread_join(control->slow_thread, NULL);
}

static int start_threads(struct tk_control *control)
{
        int r = tk_thread_start(slow_thread, control, &control->slow_thread);

        if (r < 0)
                return r;
        control->has_slow_thread = true;
        return tk_thread_start(server_thread, control, &control->thread);
}

int tk_control_start(int dirfd, const struct tk_control_handlers *handlers,
                     struct tk_control **ret_control, struct tk_fault *fault)
{
        struct tk_control *control = calloc(1, sizeof(*control));
        int r;

        if (!control)
                return -ENOMEM;
        *control = (struct tk_control){.dirfd = dirfd,
                                       .listen_fd = -1,
                                       .stop_fd = eventfd(0, EFD_CLOEXEC),
                                       .handlers = *handlers};
        pthread_mutex_init(&control->slow_lock, NULL);
        pthread_cond_init(&control->slow_changed, NULL);
        r = control->stop_fd < 0
                    ? -errno
                    : tk_unixsock_listen(dirfd, socket_name, BACKLOG, &control->listen_fd);
        if (r == 0)
                r = start_threads(control);
        if (r < 0) {
                stop_slow(control);
                control_free(control);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot open the control channel %s in the encrypted "
                                    "directory: %s",
                                    socket_name, strerror(-r));
        }
        *ret_control = control;
        return 0;
}

struct tk_control *tk_control_stop(struct tk_control *control)
{
        const uint64_t one = 1;

        if (!control)
                return NULL;
        (void)!write(control->stop_fd, &one, sizeof(one));
        pthread_join(control->thread, NULL);
        stop_slow(control);
        control_free(control);
        return NULL;
}

/* The client ------------------------------------------------------------- */

static int connect_in(int dirfd, int *ret_fd)
{
        const struct timeval limit = {.tv_sec = ASK_MS / 1000};
        TK_AUTOCLOSE int fd = -1;
        struct sockaddr_un address;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        tk_unixsock_address(dirfd, socket_name, &address);
        /* Connecting waits while the server's queue is full. */
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return errno == EAGAIN ? -ETIMEDOUT : -errno;
        *ret_fd = TK_TAKE_FD(fd);
        return 0;
}

static int send_request(int dirfd, const char *request, int64_t deadline, int *ret_fd)
{
        TK_CLEANUP(tk_freep) char *line = NULL;
        TK_AUTOCLOSE int fd = -1;
        int r;

        if (asprintf(&line, "%s\n", request) < 0)
                return -ENOMEM;
        r = connect_in(dirfd, &fd);
        if (r < 0)
                return r;
        r = send_all(fd, line, strlen(line), -1, deadline);
        if (r < 0)
                return r;
        *ret_fd = TK_TAKE_FD(fd);
        return 0;
}

static int ask(int dirfd, const char *request, int64_t wait_ms, char **ret_text)
{
        TK_CLEANUP(tk_freep) char *text = malloc(ANSWER_MAX + 1);
        int64_t deadline = now_ms() + wait_ms;
        TK_AUTOCLOSE int fd = -1;
        ssize_t len;
        int r;

        if (!text)
                return -ENOMEM;
        r = send_request(dirfd, request, deadline, &fd);
        if (r < 0)
                return r;
        len = receive(fd, text, ANSWER_MAX, '\0', -1, deadline);
        if (len < 0)
                return (int)len;
        if (len == 0)
                return -ENOMSG; /* who is refused is not even read, and gets a reset */
        text[len] = '\0';
        *ret_text = TK_TAKE(text);
        return 0;
}

int tk_control_ask(int dirfd, const char *request, char **ret_text)
{
        return ask(dirfd, request, ASK_MS, ret_text);
}

int tk_control_ask_slow(int dirfd, const char *request, char **ret_text)
{
        return ask(dirfd, request, ASK_SLOW_MS, ret_text);
}

int tk_control_follow(int dirfd, const char *request, int (*take)(void *context, const char *line),
                      void *context)
{
        TK_CLEANUP(tk_freep) char *line = NULL;
        FILE *stream;
        const struct timeval silence = {.tv_sec = SILENCE_MS / 1000};
        TK_AUTOCLOSE int fd = -1;
        size_t size = 0;
        ssize_t len;
        int r;

        r = send_request(dirfd, request, now_ms() + ASK_MS, &fd);
        if (r < 0)
                return r;
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence)) < 0)
                return -errno;
        stream = fdopen(fd, "r");
        if (!stream)
                return -errno;
        TK_TAKE_FD(fd);
        while (r == 0 && (len = getline(&line, &size, stream)) > 0) {
                if (line[len - 1] == '\n')
                        line[len - 1] = '\0';
                r = take(context, line);
        }
        if (r == 0 && ferror(stream))
                r = errno == EAGAIN ? -ETIMEDOUT : -errno;
        fclose(stream);
        return r;
}
