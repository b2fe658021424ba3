/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `mount`: check, fork, unlock, serve, and take it all down in the reverse order.
 *
 * Everything that can be checked without keys is checked before the fork; the
 * first secret and the first thread come after it.
 */

#include "base/clock.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/control.h"
#include "cli/daemon.h"
#include "cli/fuseconf.h"
#include "cli/guardian.h"
#include "cli/harden.h"
#include "cli/hygiene.h"
#include "cli/metrics.h"
#include "cli/metrics_text.h"
#include "cli/mountinfo.h"
#include "cli/mountopts.h"
#include "cli/notify.h"
#include "cli/open.h"
#include "cli/paths.h"
#include "cli/serve.h"
#include "cli/verify_live.h"
#include "crypto/random.h"
#include "fs/mount.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct job {
        const struct tk_args *args;
        struct tk_mountopts opts;
        struct tk_conf *conf;
        struct tk_volume *volume;
        char *mountpoint; /* absolute, without links */
        char *conf_path;  /* absolute, with them: `reload` follows them anew; NULL: there is none */
        struct tk_open_keys keys;
        struct tk_rotation *rotation;
        struct tk_guardian guardian;
        struct tk_harden harden;
        struct tk_cpulatency *cpus; /* NULL: they are not kept awake */
        struct tk_notify *notify;   /* NULL: no service manager listens */
        struct tk_fs *fs;           /* borrowed, while it is served */
        int ready_fd;               /* -1: in the foreground, or in the background already */
        bool background;
        bool served;   /* the mount was there */
        bool unsealed; /* files could not be sealed at its end */
};

static void job_done(struct job *job)
{
        tk_guardian_stop(&job->guardian);
        tk_volume_free(job->volume);
        tk_rotation_free(job->rotation);
        tk_cpulatency_free(job->cpus);
        tk_open_keys_done(&job->keys);
        tk_conf_free(job->conf);
        tk_mountopts_done(&job->opts);
        tk_notify_free(job->notify);
        free(job->mountpoint);
        free(job->conf_path);
        if (job->ready_fd >= 0)
                close(job->ready_fd);
}

/* Before the fork -------------------------------------------------------- */

/* All but where secrets will be read from. */
static void close_inherited(const struct tk_conf *conf)
{
        int keep[TK_PROVIDER_SECRETS_MAX];

        tk_hygiene_close_inherited(keep, tk_provider_fds(conf, keep));
}

static int read_options(struct job *job, struct tk_fault *fault)
{
        const struct tk_args *args = job->args;
        const char *path;
        int r;

        r = tk_mountopts_parse(args->mount_options ? args->mount_options : "", &job->opts, fault);
        if (r < 0)
                return r;
        if (args->config && job->opts.config)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "mount: there are two configurations, '-c %s' and 'config=%s'; "
                                    "give one",
                                    args->config, job->opts.config);
        path = args->config ? args->config : job->opts.config;
        r = tk_open_conf(path, &job->conf, fault);
        if (r < 0)
                return r;
        if (path)
                r = tk_path_absolute(path, &job->conf_path);
        if (r < 0)
                return r;
        close_inherited(job->conf);
        if (args->foreground)
                tk_hygiene_log(false);
        tk_log_allow_names(job->conf->log.names);
        tk_mountopts_apply(&job->opts, job->conf);
        if (job->conf->mount.allow_other && geteuid() != 0 && !tk_fuseconf_allows_other())
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EPERM,
                                    "allow_other is only for root, unless /etc/fuse.conf holds the "
                                    "line 'user_allow_other'; add it there, or leave allow_other "
                                    "out");
        return 0;
}

static int fail_use(const char *path, int error, struct tk_fault *fault)
{
        if (error == ENOTCONN)
                return tk_fault_set(fault, TK_FAULT_MOUNT, -error,
                                    "a dead mount is left at %s; run 'turnkeyfs umount %s' first",
                                    path, path);
        return tk_fault_set(fault, TK_FAULT_MOUNT, -error, "cannot use the mountpoint %s: %s", path,
                            strerror(error));
}

static int find_mountpoint(struct job *job, const char *path, struct tk_fault *fault)
{
        struct stat st;

        job->mountpoint = realpath(path, NULL);
        if (!job->mountpoint)
                return fail_use(path, errno, fault);
        if (stat(job->mountpoint, &st) < 0)
                return fail_use(path, errno, fault);
        if (!S_ISDIR(st.st_mode))
                return tk_fault_set(fault, TK_FAULT_MOUNT, -ENOTDIR,
                                    "cannot use the mountpoint %s: it is not a directory", path);
        return 0;
}

static int check_mountpoint(const struct job *job, struct tk_fault *fault)
{
        const char *cipherdir = tk_volume_path(job->volume);
        char name[NAME_MAX + 1];
        int r;

        if (tk_path_is_inside(job->mountpoint, cipherdir))
                return tk_fault_set(fault, TK_FAULT_MOUNT, -EINVAL,
                                    "the mountpoint %s lies inside the encrypted directory %s; "
                                    "choose another one",
                                    job->mountpoint, cipherdir);
        if (tk_path_is_inside(cipherdir, job->mountpoint))
                return tk_fault_set(fault, TK_FAULT_MOUNT, -EINVAL,
                                    "the mountpoint %s would hide the encrypted directory %s, "
                                    "which lies inside it; choose another one",
                                    job->mountpoint, cipherdir);
        r = job->opts.nonempty ? 0 : tk_path_first_entry(job->mountpoint, name);
        if (r < 0)
                return fail_use(job->mountpoint, -r, fault);
        if (r > 0)
                return tk_fault_set(fault, TK_FAULT_MOUNT, -ENOTEMPTY,
                                    "the mountpoint %s is not empty (it holds '%s'); choose an "
                                    "empty directory, or say '-o nonempty'",
                                    job->mountpoint, name);
        return 0;
}

/* The lock decides; this spares people a passphrase, and names the first mount early. */
static int check_unused(const struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_volume_holder holder = {0};

        if (tk_volume_holder(volume, &holder) <= 0)
                return 0;
        return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                            "%s is in use: %s by process %ld; unmount or end that first",
                            tk_volume_path(volume), holder.doing, holder.pid);
}

static int prepare(struct job *job, struct tk_fault *fault)
{
        int r;

        r = read_options(job, fault);
        if (r < 0)
                return r;
        r = tk_volume_open(job->args->paths[0], &job->volume, fault);
        if (r < 0)
                return r;
        tk_log_set_volume(tk_volume_path(job->volume));
        r = check_unused(job->volume, fault);
        if (r < 0)
                return r;
        r = find_mountpoint(job, job->args->paths[1], fault);
        if (r < 0)
                return r;
        return check_mountpoint(job, fault);
}

/* After the fork --------------------------------------------------------- */

static int attach(void *context, int *ret_fd)
{
        const struct job *job = context;

        return tk_guardian_attach(&job->guardian, ret_fd);
}

static void detach(void *context)
{
        const struct job *job = context;
        int r = tk_guardian_detach(&job->guardian);

        if (r < 0)
                tk_log(TK_LOG_ERROR,
                       "cannot unmount %s, as the guardian process is gone (%s); run 'turnkeyfs "
                       "umount %s'",
                       job->mountpoint, strerror(-r), job->mountpoint);
}

static void when_ready(void *context)
{
        struct job *job = context;

        job->served = true;
        if (job->ready_fd >= 0) {
                tk_daemon_ready(&job->ready_fd);
                job->background = true;
        }
        tk_log(TK_LOG_INFO, "mounted %s at %s", tk_volume_path(job->volume), job->mountpoint);
        tk_notify_send(job->notify, "READY=1\nSTATUS=mounted at %s", job->mountpoint);
        tk_notify_watch(job->notify, job->fs, job->mountpoint);
        if (!job->conf->mount.read_only)
                tk_rotation_resume(job->rotation);
}

static void when_to_rotate(void *context)
{
        struct job *job = context;

        tk_rotation_follow(job->rotation);
}

static void before_look(void *context)
{
        struct job *job = context;

        tk_rotation_make_due(job->rotation);
}

static struct tk_keeper_options keeper_options(struct job *job)
{
        const struct tk_conf *conf = job->conf;

        return (struct tk_keeper_options){
                .lease = {.window_ms = (int64_t)conf->kms.revocation_window * 1000,
                          .grace_ms = (int64_t)conf->kms.outage_grace * 1000,
                          .expiry_revokes = conf->kms.expiry_revokes},
                .rotation_window_ms =
                        conf->mount.read_only ? 0 : (int64_t)conf->kms.rotation_window * 1000,
                .before_look = before_look,
                .rotate = when_to_rotate,
                .context = job,
        };
}

static struct tk_mount_options mount_options(struct job *job)
{
        return (struct tk_mount_options){.mountpoint = job->mountpoint,
                                         .source = tk_volume_path(job->volume),
                                         .fuse_options = job->opts.kernel,
                                         .allow_other = job->conf->mount.allow_other,
                                         .read_only = job->conf->mount.read_only,
                                         .io_uring = job->conf->mount.io_uring,
                                         .threads = job->conf->mount.threads,
                                         .cpus = job->cpus,
                                         .attach = attach,
                                         .detach = detach,
                                         .ready = when_ready,
                                         .context = job};
}

static int make_metrics(void *context, char **ret_text, size_t *ret_len)
{
        return tk_metrics_text(context, ret_text, ret_len);
}

/* A mount serves without them: NULL then. */
static void start_metrics(const struct tk_conf *conf, struct tk_serve *serve,
                          struct tk_metrics **ret_metrics)
{
        struct tk_metrics_options options = {.socket = conf->metrics.socket,
                                             .group = conf->metrics.socket_group,
                                             .textfile = conf->metrics.textfile,
                                             .interval_s = conf->metrics.interval,
                                             .make = make_metrics,
                                             .context = serve};
        struct tk_fault fault = {0};

        if (tk_metrics_start(&options, ret_metrics, &fault) < 0)
                tk_log(TK_LOG_WARNING, "%s; the mount goes on without metrics", fault.text);
}

static int run_mount(struct job *job, struct tk_fs *fs, struct tk_fault *fault)
{
        struct tk_fault minor = {0};
        struct tk_keeper_options keeper = keeper_options(job);
        struct tk_mount_options options = mount_options(job);
        struct tk_reload reload = {.path = job->conf_path,
                                   .opts = &job->opts,
                                   .conf = job->conf,
                                   .fs = fs,
                                   .rotation = job->rotation};
        struct tk_serve serve = {.volume = job->volume,
                                 .fs = fs,
                                 .rotation = job->rotation,
                                 .harden = &job->harden,
                                 .reload = &reload,
                                 .mountpoint = job->mountpoint,
                                 .read_only = options.read_only,
                                 .allow_other = options.allow_other,
                                 .threads = tk_mount_threads(options.threads),
                                 .keeps_cpus_awake = job->cpus != NULL,
                                 .started_ms = tk_clock_ms()};
        TK_CLEANUP(tk_verify_live_freep) struct tk_verify_live *live = NULL;
        TK_CLEANUP(tk_control_stopp) struct tk_control *control = NULL; /* ends before it */
        TK_CLEANUP(tk_metrics_stopp) struct tk_metrics *metrics = NULL;
        struct tk_control_handlers handlers = {.answer = tk_serve_answer,
                                               .answer_context = &serve,
                                               .is_slow = tk_serve_is_slow,
                                               .take = tk_verify_live_take};
        int r;

        options.keeper = &keeper;
        r = tk_verify_live_new(fs, &live);
        if (r < 0)
                return r;
        handlers.take_context = live;
        /* A mount serves without it; only status says less then. */
        if (tk_control_start(tk_volume_dirfd(job->volume), &handlers, &control, &minor) < 0)
                tk_log(TK_LOG_WARNING, "%s", minor.text);
        start_metrics(job->conf, &serve, &metrics);
        tk_rotation_begin(job->rotation, fs);
        job->fs = fs;
        r = tk_mount_run(fs, &options, fault);
        tk_notify_unwatch(job->notify);
        tk_notify_send(job->notify, "STOPPING=1\nSTATUS=unmounted, writing what is left");
        tk_rotation_stop(job->rotation);
        return r;
}

static void start_cpus(struct job *job)
{
        if (!job->cpus || tk_cpulatency_start(job->cpus) == 0)
                return;
        tk_log(TK_LOG_WARNING, "CPUs can't be kept awake: there is no thread for it");
        job->cpus = tk_cpulatency_free(job->cpus);
}

static int serve_volume(struct job *job, struct tk_fault *fault)
{
        TK_CLEANUP(tk_fs_freep) struct tk_fs *fs = NULL;
        struct tk_fs_options options = {.read_only = job->conf->mount.read_only,
                                        .relaxed = job->conf->mount.relaxed,
                                        .journal_len = (uint64_t)job->conf->volume.journal_size
                                                       << 20};
        int r;
        int r_end;

        r = tk_fs_new(job->volume, &options, &fs, fault);
        if (r < 0)
                return r;
        start_cpus(job);
        r = run_mount(job, fs, fault);
        r_end = tk_fs_finish(fs, fault);
        job->unsealed = r_end == TK_FS_UNSEALED;
        r_end = job->unsealed ? 0 : r_end;
        return r < 0 ? r : r_end;
}

/* Serve under a mount number. A mount that failed after serving may have lost writes: it stays
 * on the list of unclean ones. */
static int serve_numbered(struct job *job, struct tk_fault *fault)
{
        int r;
        int r_end;

        r = tk_volume_mount_begin(job->volume, fault);
        if (r < 0)
                return r;
        r = serve_volume(job, fault);
        if (job->unsealed || (r < 0 && job->served))
                return r;
        r_end = tk_volume_mount_end(job->volume, fault);
        return r < 0 ? r : r_end;
}

/* Pauses between attempts to reach the KMS, cut by chance: a fleet must not come all at once. */
enum { FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 30000 };

static void pause_before_retry(unsigned attempt, int64_t left_ms)
{
        int64_t pause_ms = (int64_t)FIRST_PAUSE_MS << (attempt < 6 ? attempt : 6);
        uint32_t random = 0;
        struct timespec pause;

        (void)!tk_random_bytes(&random, sizeof(random));
        if (pause_ms > LONGEST_PAUSE_MS)
                pause_ms = LONGEST_PAUSE_MS;
        pause_ms = pause_ms / 2 + random % (uint32_t)(pause_ms / 2 + 1);
        if (pause_ms > left_ms)
                pause_ms = left_ms;
        pause.tv_sec = pause_ms / 1000;
        pause.tv_nsec = pause_ms % 1000 * 1000000;
        nanosleep(&pause, NULL);
}

/* Open the provider and unlock, once. What was opened stays open for the next attempt. */
static int try_unlock(struct job *job, struct tk_fault *fault)
{
        struct tk_provider_volume target = tk_open_target(job->volume);
        int r = 0;

        if (!job->keys.current.kms)
                r = tk_provider_open(job->conf, &target, &job->keys.current, fault);
        if (r == 0)
                r = tk_open_unlock_with(job->volume, job->conf, &job->keys, fault);
        return r;
}

/* The service manager's time to start is not for waiting that was asked for. */
static void say_waiting(const struct job *job, int64_t left_ms, const struct tk_fault *fault)
{
        enum { CALLS_MS = 60000 }; /* to be done with an attempt */

        tk_notify_send(
                job->notify,
                "EXTEND_TIMEOUT_USEC=%lld\nSTATUS=waiting for the key management service: %s",
                (long long)(left_ms + CALLS_MS) * 1000, fault->text);
}

/*
 * The KMS may have been asked in vain because it is ill, or with a wrong secret, and does not
 * say which: it allows one more try, soon, but nobody is to start us again for another one.
 */
static bool is_in_doubt(int r, const struct tk_fault *fault)
{
        return r == -ENOKEY && fault->kind == TK_FAULT_PASSPHRASE;
}

/*
 * As long as the KMS can't be reached, and [kms] mount_timeout allows, once more. In doubt it
 * is waited for that one try whatever the timeout.
 */
static int unlock(struct job *job, struct tk_fault *fault)
{
        enum { DOUBT_MS = 30000 }; /* longer than a provider puts the second try off */
        int64_t end_ms = tk_clock_ms() + (int64_t)job->conf->kms.mount_timeout * 1000;
        bool doubted = false;
        char doing[512];
        int r;

        tk_mountinfo_doing(job->mountpoint, doing, sizeof(doing));
        r = tk_volume_lock(job->volume, doing, fault);
        if (r < 0)
                return r;
        for (unsigned attempt = 0;; attempt++) {
                int64_t left_ms;
                bool doubt;

                r = try_unlock(job, fault);
                left_ms = end_ms - tk_clock_ms();
                doubt = is_in_doubt(r, fault);
                if (doubt && !doubted && left_ms < DOUBT_MS) {
                        end_ms += DOUBT_MS - left_ms;
                        left_ms = DOUBT_MS;
                }
                doubted |= doubt;
                if (r >= 0 || left_ms <= 0 || (fault->kind != TK_FAULT_KMS_UNREACHABLE && !doubt))
                        return r;
                if (attempt == 0)
                        tk_log(TK_LOG_WARNING, "%s; trying again for %lld s", fault->text,
                               (long long)(left_ms / 1000));
                say_waiting(job, left_ms, fault);
                *fault = (struct tk_fault){0};
                pause_before_retry(attempt, left_ms);
        }
}

static int new_rotation(struct job *job)
{
        const struct tk_conf *conf = job->conf;

        return tk_rotation_new(
                job->volume, &job->keys.current,
                &(struct tk_rotation_options){
                        .window_s = conf->mount.read_only ? 0 : conf->kms.rotation_window,
                        .files_per_s = conf->kms.rewrap_rate},
                &job->rotation);
}

/*
 * Before the right to open the device is given up, and after the guardian is there, which must
 * not hold it, too. A mount is only slower without it.
 */
static void prepare_cpus(struct job *job)
{
        enum tk_conf_when when = job->conf->mount.keep_cpus_awake;
        int r;

        if (when == TK_CONF_NO || (when == TK_CONF_AUTO && !tk_cpulatency_is_gain()))
                return;
        r = tk_cpulatency_new(NULL, &job->cpus);
        if (r < 0)
                tk_log(when == TK_CONF_YES ? TK_LOG_WARNING : TK_LOG_DEBUG,
                       "CPUs can't be kept awake: /dev/cpu_dma_latency: %s; [mount] "
                       "keep_cpus_awake needs root, and the device",
                       strerror(-r));
}

/* Before the first secret and the first thread. */
static int harden(struct job *job, struct tk_fault *fault)
{
        struct tk_provider_volume target = tk_open_target(job->volume);
        TK_CLEANUP(tk_freep) char *place = NULL;
        int r;

        r = tk_mount_prepare(fault);
        if (r == 0)
                r = tk_provider_locate(job->conf, &target, &place, fault);
        if (r == 0)
                tk_harden(job->conf, tk_volume_dirfd(job->volume), place, &job->harden);
        return r;
}

static int unlock_and_serve(struct job *job, struct tk_fault *fault)
{
        struct tk_mount_options options = mount_options(job);
        int r;

        r = tk_guardian_start(&options, job->args->foreground, job->conf->mount.hardening,
                              &job->guardian, fault);
        if (r < 0)
                return r;
        tk_hygiene_daemon();
        tk_provider_check_secrets(job->conf, NULL);
        prepare_cpus(job);
        r = tk_hygiene_lock_memory(job->conf, fault);
        if (r == 0)
                r = harden(job, fault);
        if (r == 0)
                r = unlock(job, fault);
        if (r == 0)
                r = new_rotation(job);
        if (r < 0)
                return r;
        /* Numbers are for what is written. */
        return job->conf->mount.read_only ? serve_volume(job, fault) : serve_numbered(job, fault);
}

static int run_job(struct job *job, struct tk_fault *fault)
{
        int r;

        r = prepare(job, fault);
        if (r < 0)
                return r;
        r = job->args->foreground ? tk_notify_new(&job->notify)
                                  : tk_daemon_fork(&job->ready_fd, fault);
        if (r < 0)
                return r;
        r = unlock_and_serve(job, fault);
        if (r < 0 && fault->kind)
                tk_notify_send(job->notify, "STATUS=%s", fault->text);
        if (!job->background)
                return r;
        if (r < 0)
                tk_log(TK_LOG_ERROR, "%s", fault->kind ? fault->text : strerror(-r));
        else
                tk_log(TK_LOG_INFO, "unmounted %s", tk_volume_path(job->volume));
        return r;
}

int tk_cmd_mount(const struct tk_args *args, struct tk_fault *fault)
{
        struct job job = {.args = args, .ready_fd = -1};
        int r;

        r = run_job(&job, fault);
        job_done(&job);
        return r;
}
