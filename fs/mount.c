/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Mounting.
 *
 * Order of teardown: the kernel lets go of the mount (everything dirty arrives
 * before that), the loop ends, the seeker's thread ends, the session is
 * destroyed. A signal only asks for the first of these; the second signal ends
 * the loop whatever the kernel still holds.
 */

#include "fs/mount.h"

#include "base/log.h"
#include "fs/creds.h"
#include "fs/fs_internal.h"
#include "fs/killpriv.h"
#include "fs/ops.h"
#include "fs/seeker.h"
#include "fs/uring.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

enum { THREADS_EXTRA = 4, THREADS_MAX = 16 };

/*
 * We are the only writer of the backing directory: what the kernel knows stays true.
 * But names that it remembers must not outlive a revocation: the lease's share of the
 * window and this one are below the whole.
 */
static const double cache_timeout_max_s = 30;
static const double cache_share_of_window = 0.4;

struct session {
        struct fuse_session *fuse;
        struct tk_seeker *seeker;
        struct tk_ops_context ops;
        const struct tk_mount_options *options;
        atomic_bool mounted; /* and not detached by us */
        pthread_t main_thread;
        pthread_t signal_thread;
        bool has_signal_thread;
        atomic_bool finished;
};

/* Mount options --------------------------------------------------------------- */

/* A comma separates options: one inside a value is escaped. */
static void put_escaped(FILE *out, const char *value)
{
        for (; *value; value++) {
                if (*value == ',' || *value == '\\')
                        fputc('\\', out);
                fputc(*value, out);
        }
}

/*
 * Whether the kernel lets only root in, which may do everything anyway: then it need not
 * judge, for which it would ask for a directory's mode after each change in it.
 */
static bool for_root_only(const struct tk_mount_options *options)
{
        return !options->allow_other && tk_creds_override();
}

static int make_option_text(const struct tk_mount_options *options, char **ret_text)
{
        char uring[TK_URING_OPTIONS] = "";
        size_t len = 0;
        FILE *out = open_memstream(ret_text, &len);

        if (!out)
                return -ENOMEM;
        if (options->io_uring)
                tk_uring_options(uring);
        fprintf(out, "subtype=turnkeyfs%s%s,fsname=", uring,
                for_root_only(options) ? "" : ",default_permissions");
        put_escaped(out, options->source);
        if (options->allow_other)
                fprintf(out, ",allow_other");
        if (geteuid() == 0)
                fprintf(out, ",dev,suid");
        if (options->read_only)
                fprintf(out, ",ro");
        if (options->fuse_options && options->fuse_options[0])
                fprintf(out, ",%s", options->fuse_options);
        return fclose(out) == 0 ? 0 : -ENOMEM;
}

static int new_session(const struct tk_mount_options *options, struct tk_ops_context *ops,
                       struct fuse_session **ret_session)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        char name[] = "turnkeyfs";
        char flag[] = "-o";
        int r;

        r = make_option_text(options, &text);
        if (r < 0)
                return r;
        {
                char *argv[] = {name, flag, text, NULL};
                struct fuse_args args = FUSE_ARGS_INIT(3, argv);

                *ret_session = fuse_session_new(&args, &tk_ops, sizeof(tk_ops), ops);
                ops->session = *ret_session;
                fuse_opt_free_args(&args);
        }
        return *ret_session ? 0 : -EINVAL;
}

/* The mount itself ------------------------------------------------------------ */

int tk_mount_attach(const struct tk_mount_options *options, int *ret_fd)
{
        struct tk_ops_context ops = {.fs = NULL};
        struct fuse_session *fuse;
        int fd = -1;
        int r;

        r = new_session(options, &ops, &fuse);
        if (r < 0)
                return r;
        if (fuse_session_mount(fuse, options->mountpoint) == 0)
                fd = fcntl(fuse_session_fd(fuse), F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        fuse_session_destroy(fuse); /* which unmounts nothing */
        if (fd < 0)
                return -EIO;
        *ret_fd = fd;
        return 0;
}

static int detach_by_helper(const char *mountpoint)
{
        int status = -1;
        pid_t pid = fork();

        if (pid == 0) {
                execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", mountpoint, NULL);
                _exit(127);
        }
        if (pid < 0)
                return -errno;
        waitpid(pid, &status, 0);
        return status == 0 ? 0 : -EPERM;
}

int tk_mount_detach(const char *mountpoint)
{
        if (umount2(mountpoint, MNT_DETACH) == 0)
                return 0;
        return errno == EPERM ? detach_by_helper(mountpoint) : -errno;
}

/* In the process that serves: libfuse takes the descriptor in place of a mountpoint. */
static int attach(struct session *session)
{
        const struct tk_mount_options *options = session->options;
        char name[32];
        int fd;
        int r;

        r = options->attach(options->context, &fd);
        if (r < 0)
                return r;
        session->mounted = true;
        snprintf(name, sizeof(name), "/dev/fd/%d", fd);
        return fuse_session_mount(session->fuse, name) < 0 ? -EIO : 0;
}

static void detach(struct session *session)
{
        if (atomic_exchange(&session->mounted, false))
                session->options->detach(session->options->context);
}

/* Signals --------------------------------------------------------------------- */

static void ignore_signal(int number)
{
        (void)number;
}

/* The signals that end a mount, for sigwait. */
static sigset_t ending_signals(void)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        return set;
}

/* Ask the kernel to let go: what is dirty first, then the mount as soon as nobody uses it. */
static void ask_to_unmount(struct session *session)
{
        TK_AUTOCLOSE int fd =
                open(session->options->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd >= 0)
                (void)!syncfs(fd);
        detach(session);
}

/* Keeper and seeker must not wait for writeback that nobody serves any more. */
static void halt_waiters(struct session *session)
{
        struct tk_fs *fs = session->ops.fs;

        tk_seeker_halt(session->seeker);
        TK_LOCK_SCOPE(&fs->keeper_lock);
        if (fs->keeper)
                tk_keeper_halt(fs->keeper);
}

static void end_loop(struct session *session)
{
        halt_waiters(session);
        fuse_session_exit(session->fuse);
        pthread_kill(session->main_thread, SIGUSR1);
}

static void *wait_for_signals(void *context)
{
        struct session *session = context;
        sigset_t set = ending_signals();
        int number;

        for (int count = 0; sigwait(&set, &number) == 0 && !session->finished; count++) {
                if (count == 0) {
                        tk_log(TK_LOG_INFO, "%s: unmounting on signal %d",
                               session->options->mountpoint, number);
                        ask_to_unmount(session);
                } else {
                        tk_log(TK_LOG_WARNING,
                               "%s: ended by a second signal while still in use; what was not "
                               "synced is lost",
                               session->options->mountpoint);
                        end_loop(session);
                }
        }
        return NULL;
}

static int start_signals(struct session *session)
{
        struct sigaction wake = {.sa_handler = ignore_signal};
        struct sigaction ignore = {.sa_handler = SIG_IGN};

        sigaction(SIGUSR1, &wake, NULL);
        sigaction(SIGPIPE, &ignore, NULL);
        session->main_thread = pthread_self();
        if (pthread_create(&session->signal_thread, NULL, wait_for_signals, session) != 0)
                return -EAGAIN;
        session->has_signal_thread = true;
        return 0;
}

static void stop_signals(struct session *session)
{
        if (!session->has_signal_thread)
                return;
        session->finished = true;
        /* The thread takes the signal with sigwait: it ends nothing. */
        pthread_kill(session->signal_thread, SIGTERM); /* NOLINT(*-bad-signal-*,cert-pos44-c) */
        pthread_join(session->signal_thread, NULL);
}

/* The loop -------------------------------------------------------------------- */

unsigned tk_mount_threads(unsigned configured)
{
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        unsigned count = (unsigned)(cpus > 0 ? cpus : 1) + THREADS_EXTRA;

        if (configured > 0)
                return configured;
        return count < THREADS_MAX ? count : THREADS_MAX;
}

/* Threads, once made, stay (libfuse's default): each holds buffers and a cipher context. */
static int loop(struct session *session, unsigned threads)
{
        struct fuse_loop_config *config = fuse_loop_cfg_create();
        int r;

        if (!config)
                return -ENOMEM;
        fuse_loop_cfg_set_max_threads(config, tk_mount_threads(threads));
        r = fuse_session_loop_mt(session->fuse, config);
        fuse_loop_cfg_destroy(config);
        return r < 0 ? r : 0;
}

/* In every thread to come, so that only the one that waits for them sees them. */
static void block_signals(void)
{
        sigset_t set = ending_signals();

        pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Keeper ---------------------------------------------------------------------- */

static void invalidate(void *context, struct tk_inode *inode)
{
        const struct session *session = context;
        bool is_root = inode == tk_inode_root(session->ops.fs->inodes);

        (void)!fuse_lowlevel_notify_inval_inode(
                session->fuse, is_root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)inode, 0, 0);
}

static int start_keeper(struct session *session, const struct tk_keeper_options *options)
{
        struct tk_revoke_kernel kernel = {.invalidate = invalidate, .context = session};
        struct tk_fs *fs = session->ops.fs;

        if (!options)
                return 0;
        TK_LOCK_SCOPE(&fs->keeper_lock);
        return tk_keeper_new(fs, options, &kernel, &fs->keeper);
}

/* Outside the lock: the thread may be waiting for the kernel. */
static void stop_keeper(struct session *session)
{
        struct tk_fs *fs = session->ops.fs;
        struct tk_keeper *keeper;

        pthread_mutex_lock(&fs->keeper_lock);
        keeper = fs->keeper;
        fs->keeper = NULL;
        pthread_mutex_unlock(&fs->keeper_lock);
        tk_keeper_free(keeper);
}

static double cache_timeout_s(const struct tk_keeper_options *keeper)
{
        double share = keeper ? (double)keeper->lease.window_ms / 1000 * cache_share_of_window
                              : cache_timeout_max_s;

        return share < cache_timeout_max_s ? share : cache_timeout_max_s;
}

static int set_up(struct session *session, struct tk_fs *fs, const struct tk_mount_options *options,
                  struct tk_fault *fault)
{
        int r;

        block_signals();
        r = new_session(options, &session->ops, &session->fuse);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_MOUNT, r,
                                    "FUSE does not accept the mount options; see above");
        r = tk_seeker_new(fs, session->fuse, &session->seeker);
        if (r < 0)
                return r;
        session->ops.seeker = session->seeker;
        r = start_signals(session);
        if (r < 0)
                return r;
        r = attach(session);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_MOUNT, r,
                                    "cannot mount at %s; see above, and 'turnkeyfs doctor'",
                                    options->mountpoint);
        r = start_keeper(session, options->keeper);
        if (r < 0)
                return r;
        r = tk_killpriv_enable(session->fuse);
        if (r < 0)
                tk_log(TK_LOG_WARNING,
                       "small writes will be slow: libfuse does not let its messages be seen: %s",
                       strerror(-r));
        return 0;
}

/* Whether the kernel has given up the connection: what waits for it is woken. */
static bool is_over(const struct session *session)
{
        struct pollfd pfd = {.fd = fuse_session_fd(session->fuse)};

        return poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLERR);
}

static void tear_down(struct session *session)
{
        stop_signals(session);
        /* After a failure: the loop has ended, and the kernel does not know. */
        if (session->mounted && !is_over(session)) {
                halt_waiters(session);
                detach(session);
        }
        stop_keeper(session);
        tk_seeker_free(session->seeker);
        if (session->fuse)
                fuse_session_destroy(session->fuse);
}

int tk_mount_prepare(struct tk_fault *fault)
{
        int r = tk_creds_init();

        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot prepare to serve other users (securebits): %s; give "
                                    "the process CAP_SETPCAP, or run it as an ordinary user",
                                    strerror(-r));
        return 0;
}

int tk_mount_run(struct tk_fs *fs, const struct tk_mount_options *options, struct tk_fault *fault)
{
        struct session session = {
                .options = options,
                .ops = {.fs = fs,
                        .mountpoint = options->mountpoint,
                        .timeout_s = cache_timeout_s(options->keeper),
                        .root_only = for_root_only(options),
                        .cpus = options->cpus,
                        .ready = options->ready,
                        .ready_context = options->context},
        };
        int r;

        r = set_up(&session, fs, options, fault);
        if (r == 0)
                r = loop(&session, options->threads);
        tear_down(&session);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_MOUNT, r, "the mount at %s ended: %s",
                                    options->mountpoint, strerror(-r));
        return 0;
}

const char *tk_mount_library(void)
{
        return fuse_pkgversion();
}
