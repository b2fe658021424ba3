/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The metrics' thread: an event loop over the listening socket and a few clients.
 *
 * A client is read until its request's head is complete, answered, and read on until it
 * closes: closed with bytes unread, it would lose the end of its answer. Whatever it does, its
 * place is free again after CLIENT_MS; while all are taken, others wait in the kernel's queue.
 */

#include "cli/metrics.h"

#include "base/clock.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/thread.h"
#include "cli/metrics_http.h"
#include "cli/unixsock.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

enum {
        CLIENTS_MAX = 16,
        CLIENT_MS = 5000, /* for one client, from first to last */
        RETRY_MS = 500,   /* after an accept that failed */
        BACKLOG = 64,
};

struct client {
        int fd; /* -1: the place is free */
        int64_t until_ms;
        char request[TK_HTTP_REQUEST_MAX];
        size_t request_len;
        char *answer; /* NULL: the request is not complete */
        size_t answer_len;
        size_t sent;
};

struct tk_metrics {
        struct tk_metrics_options options;
        int socket_dirfd; /* -1 where there is none, as below */
        int listen_fd;
        int text_dirfd;
        int stop_fd;
        const char *socket_name; /* in the paths of the options */
        const char *text_name;
        dev_t socket_dev; /* of the socket that was made */
        ino_t socket_ino;
        bool text_failed; /* said once */
        int64_t accept_ms;
        int64_t text_ms; /* when the next textfile is due */
        pthread_t thread;
        struct client clients[CLIENTS_MAX];
};

/* Clients --------------------------------------------------------------------- */

static void drop(struct client *client)
{
        close(client->fd);
        free(client->answer);
        client->answer = NULL;
        client->fd = -1;
}

/* Head and body as one text. */
static int make_answer(const struct tk_metrics *metrics, struct client *client,
                       enum tk_http_verdict verdict, bool head_only)
{
        TK_CLEANUP(tk_freep) char *page = NULL;
        const char *body = tk_http_refusal(verdict);
        size_t body_len = strlen(body);
        char head[TK_HTTP_HEAD_MAX];
        size_t head_len;

        if (verdict == TK_HTTP_OK) {
                int r = metrics->options.make(metrics->options.context, &page, &body_len);

                if (r < 0)
                        return r;
                body = page;
        }
        head_len = tk_http_head(verdict, body_len, head);
        if (head_only)
                body_len = 0;
        client->answer = malloc(head_len + body_len);
        if (!client->answer)
                return -ENOMEM;
        memcpy(client->answer, head, head_len);
        memcpy(client->answer + head_len, body, body_len);
        client->answer_len = head_len + body_len;
        client->sent = 0;
        return 0;
}

static void take_request(const struct tk_metrics *metrics, struct client *client)
{
        size_t room = sizeof(client->request) - client->request_len;
        ssize_t n = recv(client->fd, client->request + client->request_len, room, MSG_DONTWAIT);
        enum tk_http_verdict verdict;
        bool head_only;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                drop(client);
                return;
        }
        client->request_len += (size_t)n;
        verdict = tk_http_judge(client->request, client->request_len, &head_only);
        if (verdict != TK_HTTP_MORE && make_answer(metrics, client, verdict, head_only) < 0)
                drop(client);
}

static void send_answer(struct client *client)
{
        ssize_t n = send(client->fd, client->answer + client->sent,
                         client->answer_len - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n < 0) {
                drop(client);
                return;
        }
        client->sent += (size_t)n;
        if (client->sent == client->answer_len)
                (void)shutdown(client->fd, SHUT_WR);
}

/* What comes behind the request is for nobody. */
static void drain(struct client *client)
{
        char waste[1024];
        ssize_t n = recv(client->fd, waste, sizeof(waste), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                drop(client);
}

static bool is_answering(const struct client *client)
{
        return client->answer && client->sent < client->answer_len;
}

static void serve(const struct tk_metrics *metrics, struct client *client)
{
        if (!client->answer)
                take_request(metrics, client);
        else if (is_answering(client))
                send_answer(client);
        else
                drain(client);
}

static struct client *free_place(struct tk_metrics *metrics)
{
        for (unsigned i = 0; i < CLIENTS_MAX; i++)
                if (metrics->clients[i].fd < 0)
                        return &metrics->clients[i];
        return NULL;
}

static void take_client(struct tk_metrics *metrics, int64_t now_ms)
{
        struct client *client = free_place(metrics);
        int fd = accept4(metrics->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
                /* Out of descriptors, most likely: don't spin. */
                if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                        metrics->accept_ms = now_ms + RETRY_MS;
                return;
        }
        client->fd = fd;
        client->until_ms = now_ms + CLIENT_MS;
        client->request_len = 0;
}

/* The textfile ------------------------------------------------------------------ */

/* Written beside and renamed, so that no reader sees half of one. It need not survive a crash. */
static int replace_textfile(const struct tk_metrics *metrics, const char *text, size_t len)
{
        char sibling[NAME_MAX + 8];
        TK_AUTOCLOSE int fd = -1;
        int r;

        snprintf(sibling, sizeof(sibling), "%s.new", metrics->text_name);
        if (unlinkat(metrics->text_dirfd, sibling, 0) < 0 && errno != ENOENT)
                return -errno;
        fd = openat(metrics->text_dirfd, sibling,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        r = fchmod(fd, 0644) < 0 ? -errno : tk_fdio_pwrite(fd, text, len, 0);
        if (r == 0 &&
            renameat(metrics->text_dirfd, sibling, metrics->text_dirfd, metrics->text_name) < 0)
                r = -errno;
        if (r < 0)
                (void)unlinkat(metrics->text_dirfd, sibling, 0);
        return r;
}

static void write_textfile(struct tk_metrics *metrics)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t len;
        int r;

        r = metrics->options.make(metrics->options.context, &text, &len);
        if (r == 0)
                r = replace_textfile(metrics, text, len);
        if (r < 0 && !metrics->text_failed)
                tk_log(TK_LOG_WARNING, "the metrics in %s can't be written: %s; trying on",
                       metrics->options.textfile, strerror(-r));
        if (r == 0 && metrics->text_failed)
                tk_log(TK_LOG_INFO, "the metrics in %s are written again",
                       metrics->options.textfile);
        metrics->text_failed = r < 0;
}

/* The thread --------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
        return a < b ? a : b;
}

/* Milliseconds until something is due; -1: never. */
static int next_due(const struct tk_metrics *metrics, int64_t now_ms)
{
        int64_t due = INT64_MAX;

        if (metrics->text_dirfd >= 0)
                due = metrics->text_ms;
        if (metrics->accept_ms > now_ms)
                due = earlier(due, metrics->accept_ms);
        for (unsigned i = 0; i < CLIENTS_MAX; i++)
                if (metrics->clients[i].fd >= 0)
                        due = earlier(due, metrics->clients[i].until_ms);
        if (due == INT64_MAX)
                return -1;
        return due <= now_ms ? 0 : (int)(due - now_ms);
}

/* The stop descriptor, the listening socket, and the clients in the order of their places. */
enum { FD_STOP, FD_LISTEN, FD_CLIENTS, FDS = FD_CLIENTS + CLIENTS_MAX };

static void gather_fds(struct tk_metrics *metrics, struct pollfd fds[FDS], int64_t now_ms)
{
        bool listens = metrics->accept_ms <= now_ms && free_place(metrics);

        fds[FD_STOP] = (struct pollfd){.fd = metrics->stop_fd, .events = POLLIN};
        fds[FD_LISTEN] = (struct pollfd){.fd = listens ? metrics->listen_fd : -1, .events = POLLIN};
        for (unsigned i = 0; i < CLIENTS_MAX; i++) {
                const struct client *client = &metrics->clients[i];

                fds[FD_CLIENTS + i] = (struct pollfd){
                        .fd = client->fd, .events = is_answering(client) ? POLLOUT : POLLIN};
        }
}

static void serve_clients(struct tk_metrics *metrics, const struct pollfd fds[FDS])
{
        int64_t now_ms = tk_clock_ms();

        for (unsigned i = 0; i < CLIENTS_MAX; i++) {
                struct client *client = &metrics->clients[i];

                if (fds[FD_CLIENTS + i].fd >= 0 && fds[FD_CLIENTS + i].revents)
                        serve(metrics, client);
                if (client->fd >= 0 && now_ms >= client->until_ms)
                        drop(client);
        }
        if (fds[FD_LISTEN].revents)
                take_client(metrics, now_ms);
}

static void *run(void *context)
{
        struct tk_metrics *metrics = context;
        struct pollfd fds[FDS];

        for (;;) {
                int64_t now_ms = tk_clock_ms();

                if (metrics->text_dirfd >= 0 && now_ms >= metrics->text_ms) {
                        write_textfile(metrics);
                        now_ms = tk_clock_ms();
                        metrics->text_ms = now_ms + (int64_t)metrics->options.interval_s * 1000;
                }
                gather_fds(metrics, fds, now_ms);
                if (poll(fds, FDS, next_due(metrics, now_ms)) < 0)
                        continue;
                if (fds[FD_STOP].revents)
                        return NULL;
                serve_clients(metrics, fds);
        }
}

/* Start and end ------------------------------------------------------------------- */

static int fail(struct tk_fault *fault, int r, const char *what, const char *path)
{
        return tk_fault_set(fault, TK_FAULT_CONFIG, r, "%s %s: %s", what, path, strerror(-r));
}

/* The directory of @path, and the name in it. */
static int open_dir(const char *path, const char **ret_name, int *ret_fd, struct tk_fault *fault)
{
        const char *slash = strrchr(path, '/');
        TK_CLEANUP(tk_freep) char *dir = strndup(path, (size_t)(slash - path) + 1);

        if (!dir)
                return -ENOMEM;
        *ret_name = slash + 1;
        *ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return *ret_fd < 0 ? fail(fault, -errno, "metrics: cannot open the directory", dir) : 0;
}

static int group_id(const char *group, gid_t *ret_gid, struct tk_fault *fault)
{
        const struct group *entry;
        char *end;
        unsigned long number = strtoul(group, &end, 10);

        if (end > group && !*end && number < UINT32_MAX) {
                *ret_gid = (gid_t)number;
                return 0;
        }
        entry = getgrnam(group); /* NOLINT(concurrency-mt-unsafe): before the mount serves */
        if (!entry)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "metrics: there is no group '%s' here ([metrics] "
                                    "socket_group)",
                                    group);
        *ret_gid = entry->gr_gid;
        return 0;
}

/* A socket that nobody listens at is a dead mount's; anything else stays. */
static int check_free(const struct tk_metrics *metrics)
{
        struct sockaddr_un address;
        TK_AUTOCLOSE int fd = -1;
        struct stat st;

        if (fstatat(metrics->socket_dirfd, metrics->socket_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EEXIST;
        if (!tk_unixsock_address(metrics->socket_dirfd, metrics->socket_name, &address))
                return -ENAMETOOLONG;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN)
                return -EADDRINUSE;
        return errno == ECONNREFUSED ? 0 : -errno;
}

static int let_group_in(const struct tk_metrics *metrics, gid_t gid)
{
        if (fchownat(metrics->socket_dirfd, metrics->socket_name, (uid_t)-1, gid,
                     AT_SYMLINK_NOFOLLOW) < 0 ||
            fchmodat(metrics->socket_dirfd, metrics->socket_name, 0660, 0) < 0)
                return -errno;
        return 0;
}

static int open_socket(struct tk_metrics *metrics, struct tk_fault *fault)
{
        const struct tk_metrics_options *options = &metrics->options;
        gid_t gid = 0;
        struct stat st;
        int r;

        r = open_dir(options->socket, &metrics->socket_name, &metrics->socket_dirfd, fault);
        if (r == 0 && options->group)
                r = group_id(options->group, &gid, fault);
        if (r < 0)
                return r;
        r = check_free(metrics);
        if (r == 0)
                r = tk_unixsock_listen(metrics->socket_dirfd, metrics->socket_name, BACKLOG,
                                       &metrics->listen_fd);
        if (r == 0 &&
            fstatat(metrics->socket_dirfd, metrics->socket_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
                metrics->socket_dev = st.st_dev;
                metrics->socket_ino = st.st_ino;
        }
        if (r == 0 && options->group)
                r = let_group_in(metrics, gid);
        return r < 0 ? fail(fault, r, "metrics: cannot listen at", options->socket) : 0;
}

static int set_up(struct tk_metrics *metrics, struct tk_fault *fault)
{
        int r = 0;

        metrics->stop_fd = eventfd(0, EFD_CLOEXEC);
        if (metrics->stop_fd < 0)
                return -errno;
        if (metrics->options.socket)
                r = open_socket(metrics, fault);
        if (r == 0 && metrics->options.textfile)
                r = open_dir(metrics->options.textfile, &metrics->text_name, &metrics->text_dirfd,
                             fault);
        return r == 0 ? tk_thread_start(run, metrics, &metrics->thread) : r;
}

/* Another mount may have put its own there meanwhile. */
static void remove_socket(const struct tk_metrics *metrics)
{
        struct stat st;

        if (fstatat(metrics->socket_dirfd, metrics->socket_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_dev == metrics->socket_dev && st.st_ino == metrics->socket_ino)
                (void)unlinkat(metrics->socket_dirfd, metrics->socket_name, 0);
}

static void metrics_free(struct tk_metrics *metrics)
{
        const int fds[] = {metrics->listen_fd, metrics->socket_dirfd, metrics->text_dirfd,
                           metrics->stop_fd};

        for (unsigned i = 0; i < CLIENTS_MAX; i++)
                if (metrics->clients[i].fd >= 0)
                        drop(&metrics->clients[i]);
        if (metrics->listen_fd >= 0)
                remove_socket(metrics);
        for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        free(metrics);
}

int tk_metrics_start(const struct tk_metrics_options *options, struct tk_metrics **ret_metrics,
                     struct tk_fault *fault)
{
        struct tk_metrics *metrics;
        int r;

        *ret_metrics = NULL;
        if (!options->socket && !options->textfile)
                return 0;
        metrics = calloc(1, sizeof(*metrics));
        if (!metrics)
                return -ENOMEM;
        metrics->options = *options;
        metrics->socket_dirfd = metrics->listen_fd = metrics->text_dirfd = -1;
        for (unsigned i = 0; i < CLIENTS_MAX; i++)
                metrics->clients[i].fd = -1;
        r = set_up(metrics, fault);
        if (r < 0) {
                metrics_free(metrics);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot start the metrics: %s",
                                    strerror(-r));
        }
        *ret_metrics = metrics;
        return 0;
}

struct tk_metrics *tk_metrics_stop(struct tk_metrics *metrics)
{
        const uint64_t one = 1;

        if (!metrics)
                return NULL;
        (void)!write(metrics->stop_fd, &one, sizeof(one));
        pthread_join(metrics->thread, NULL);
        /* What is not written any more must not be taken for news. */
        if (metrics->text_dirfd >= 0)
                (void)unlinkat(metrics->text_dirfd, metrics->text_name, 0);
        metrics_free(metrics);
        return NULL;
}
