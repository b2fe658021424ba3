/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rotation of a mounted volume.
 *
 * Providers that a job moved to are kept until the end: the volume goes on asking
 * them, and status reads where they are.
 */

#include "cli/rotation.h"

#include "base/log.h"
#include "base/thread.h"
#include "cli/text.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { FILES_PER_S = 5000 };

enum state { IDLE, RUNNING, DONE, UNNEEDED, INCOMPLETE, STOPPED, FAILED };

static const char *const state_names[] = {
        [IDLE] = "none",        [RUNNING] = "running",       [DONE] = "done",
        [UNNEEDED] = "current", [INCOMPLETE] = "incomplete", [STOPPED] = "stopped",
        [FAILED] = "failed",
};

/* A provider that was moved to. */
struct kept {
        struct kept *next;
        struct tk_provider provider;
};

struct tk_rotation {
        struct tk_volume *volume; /* borrowed */
        struct tk_fs *fs;         /* borrowed, from begin to stop */
        unsigned window_s;        /* 0: none */
        atomic_bool stop;
        pthread_mutex_t lock; /* guards what follows */
        bool serving;         /* jobs may run */
        pthread_t thread;
        bool has_thread; /* it has not been joined */
        const struct tk_provider *current;
        const struct tk_provider *target; /* of the job */
        struct kept *kept;
        bool new_version; /* of the job */
        enum state state;
        int64_t started; /* Unix seconds; 0: no job yet */
        int64_t ended;   /* 0: not yet */
        struct tk_rotate_progress progress;
        struct tk_fault fault;
        int64_t noticed;    /* Unix seconds: since when the mount knows of it; 0: all is current */
        bool missed;        /* it has been said that the window was missed */
        int last_kept;      /* whether the last one that was finished was in time; -1: none yet */
        uint64_t total;     /* files in the last whole pass; 0: there was none */
        int64_t pass_began; /* monotonic milliseconds */
        unsigned pass;      /* that pass_began belongs to */
};

int tk_rotation_run(struct tk_fs *fs, const struct tk_provider *provider, bool new_version,
                    struct tk_rotate_options *options, struct tk_rotate_progress *ret_progress,
                    struct tk_fault *fault)
{
        char version[TK_KMS_VERSION_MAX];
        int r;

        if (new_version && provider->makes_versions) {
                r = tk_kms_admin_rotate(provider->kms, version, fault);
                if (r < 0)
                        return r;
                tk_log(TK_LOG_INFO, "rotation: version %s of the root key in %s was made", version,
                       provider->place);
        }
        options->kms = provider->kms;
        return tk_rotate_run(fs, options, ret_progress, fault);
}

int tk_rotation_new(struct tk_volume *volume, const struct tk_provider *provider, unsigned window_s,
                    struct tk_rotation **ret_rotation)
{
        struct tk_rotation *rotation = calloc(1, sizeof(*rotation));

        if (!rotation)
                return -ENOMEM;
        pthread_mutex_init(&rotation->lock, NULL);
        rotation->volume = volume;
        rotation->current = provider;
        rotation->window_s = window_s;
        rotation->last_kept = -1;
        *ret_rotation = rotation;
        return 0;
}

struct tk_rotation *tk_rotation_free(struct tk_rotation *rotation)
{
        if (!rotation)
                return NULL;
        while (rotation->kept) {
                struct kept *kept = rotation->kept;

                rotation->kept = kept->next;
                tk_provider_done(&kept->provider);
                free(kept);
        }
        pthread_mutex_destroy(&rotation->lock);
        free(rotation);
        return NULL;
}

void tk_rotation_begin(struct tk_rotation *rotation, struct tk_fs *fs)
{
        TK_LOCK_SCOPE(&rotation->lock);
        rotation->fs = fs;
        rotation->serving = true;
}

/* The window -------------------------------------------------------------- */

static int64_t monotonic_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Since when older versions should be left: since the newest KEK version was made,
 * also by an earlier mount, or since the mount learned of a new root key version.
 */
static int64_t due_since(struct tk_rotation *rotation)
{
        size_t count = tk_volume_kek_count(rotation->volume);
        int64_t made = tk_volume_kek_at(rotation->volume, count - 1).created;

        if (tk_volume_active_count(rotation->volume) < 2)
                return rotation->noticed;
        return rotation->noticed > 0 && rotation->noticed < made ? rotation->noticed : made;
}

/* A new version is noticed within a quarter of the window: what is left is for the rest. */
static bool is_late(struct tk_rotation *rotation, int64_t now)
{
        int64_t since = due_since(rotation);

        return rotation->window_s > 0 && since > 0 &&
               (now - since) * 4 > (int64_t)rotation->window_s * 3;
}

/* The lock is held. Said once for each rotation. */
static void note_window(struct tk_rotation *rotation)
{
        if (rotation->missed || !is_late(rotation, (int64_t)time(NULL)))
                return;
        rotation->missed = true;
        tk_log(TK_LOG_ERROR,
               "rotation of %s: the rotation window of %u s is missed: files are still under an "
               "older version; see 'turnkeyfs status'",
               tk_volume_path(rotation->volume), rotation->window_s);
}

/* The job's thread ------------------------------------------------------- */

static void note_progress(void *context, const struct tk_rotate_progress *progress)
{
        struct tk_rotation *rotation = context;

        TK_LOCK_SCOPE(&rotation->lock);
        if (progress->passes != rotation->pass) {
                if (progress->passes > 1)
                        rotation->total = rotation->progress.files;
                rotation->pass = progress->passes;
                rotation->pass_began = monotonic_ms();
        }
        rotation->progress = *progress;
        note_window(rotation);
}

static enum state judge(int r, const struct tk_rotate_progress *progress)
{
        if (r < 0)
                return r == -ECANCELED ? STOPPED : FAILED;
        if (progress->done)
                return DONE;
        return progress->passes == 0 ? UNNEEDED : INCOMPLETE;
}

/* The new KEK version may be there although the job failed later on. */
static void finish(struct tk_rotation *rotation, int r, const struct tk_rotate_progress *progress,
                   const struct tk_fault *fault, bool renewed)
{
        TK_LOCK_SCOPE(&rotation->lock);
        if (r == 0)
                rotation->progress = *progress;
        if (r == 0 || renewed)
                rotation->current = rotation->target;
        rotation->state = judge(r, progress);
        rotation->fault = *fault;
        rotation->ended = (int64_t)time(NULL);
        note_window(rotation);
        if (rotation->state != DONE && rotation->state != UNNEEDED)
                return;
        if (rotation->state == DONE) {
                rotation->last_kept = rotation->window_s > 0 ? !rotation->missed : -1;
                rotation->total = progress->files;
        }
        rotation->noticed = 0;
        rotation->missed = false;
}

static void say(const struct tk_rotation *rotation, int r,
                const struct tk_rotate_progress *progress, const struct tk_fault *fault)
{
        const char *path = tk_volume_path(rotation->volume);

        switch (judge(r, progress)) {
        case DONE:
                tk_log(TK_LOG_INFO,
                       "rotation of %s: all files are under KEK version %u, older ones are retired",
                       path, progress->kek_version);
                break;
        case INCOMPLETE:
                tk_log(TK_LOG_ERROR,
                       "rotation of %s is incomplete: the key records of %llu files could not be "
                       "rewrapped, so older KEK versions stay in use",
                       path, (unsigned long long)progress->failed);
                break;
        case FAILED:
                tk_log(TK_LOG_ERROR, "%s", fault->kind ? fault->text : strerror(-r));
                break;
        default:
                break;
        }
}

static void *run_job(void *context)
{
        struct tk_rotation *rotation = context;
        struct tk_rotate_options options = {.files_per_s = FILES_PER_S,
                                            .stop = &rotation->stop,
                                            .progress = note_progress,
                                            .context = rotation};
        struct tk_keyring *keyring = tk_volume_keyring(rotation->volume);
        uint16_t before = tk_keyring_current(keyring);
        struct tk_rotate_progress progress = {0};
        struct tk_fault fault = {0};
        int r;

        r = tk_rotation_run(rotation->fs, rotation->target, rotation->new_version, &options,
                            &progress, &fault);
        say(rotation, r, &progress, &fault);
        finish(rotation, r, &progress, &fault, tk_keyring_current(keyring) != before);
        return NULL;
}

/* Starting and stopping -------------------------------------------------- */

/* A job towards @target, unless one is running. The lock is held. */
static int start(struct tk_rotation *rotation, const struct tk_provider *target, bool new_version,
                 struct tk_fault *fault)
{
        int r;

        if (rotation->state == RUNNING)
                return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                                    "a rotation of %s is running already; 'turnkeyfs status' shows "
                                    "how far it is",
                                    tk_volume_path(rotation->volume));
        if (!rotation->serving)
                return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY, "%s is being unmounted",
                                    tk_volume_path(rotation->volume));
        if (rotation->has_thread)
                pthread_join(rotation->thread, NULL);
        rotation->has_thread = false;
        rotation->target = target;
        rotation->new_version = new_version;
        rotation->pass = 0;
        rotation->progress = (struct tk_rotate_progress){0};
        rotation->fault = (struct tk_fault){0};
        rotation->started = (int64_t)time(NULL);
        rotation->ended = 0;
        r = tk_thread_start(run_job, rotation, &rotation->thread);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot start a thread: %s",
                                    strerror(-r));
        rotation->has_thread = true;
        rotation->state = RUNNING;
        return 0;
}

/* Open the provider of the configuration @path, without anybody to ask for a secret. */
static int open_target(const struct tk_rotation *rotation, const char *path,
                       struct tk_provider *ret_provider, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_freep) char *place = NULL;
        struct tk_provider_volume volume = {.id = tk_volume_id(rotation->volume),
                                            .cipherdir = tk_volume_path(rotation->volume)};
        int r;

        r = tk_conf_load(path, &conf, fault);
        if (r == 0)
                r = tk_provider_locate(conf, &volume, &place, fault);
        if (r == 0)
                r = tk_provider_is_interactive(conf, place, fault);
        if (r > 0)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%s: a mount in the background can't ask for a secret; use "
                                    "another source, such as file:/PATH, or unmount %s first",
                                    path, tk_volume_path(rotation->volume));
        if (r < 0)
                return r;
        return tk_provider_open(conf, &volume, ret_provider, fault);
}

static int start_move(struct tk_rotation *rotation, const char *path, struct tk_fault *fault)
{
        struct kept *kept = calloc(1, sizeof(*kept));
        int r;

        if (!kept)
                return -ENOMEM;
        r = open_target(rotation, path, &kept->provider, fault);
        if (r == 0) {
                TK_LOCK_SCOPE(&rotation->lock);
                r = start(rotation, &kept->provider, false, fault);
                if (r == 0) {
                        kept->next = rotation->kept;
                        rotation->kept = kept;
                        return 0;
                }
        }
        tk_provider_done(&kept->provider);
        free(kept);
        return r;
}

int tk_rotation_start(struct tk_rotation *rotation, const char *to, struct tk_fault *fault)
{
        if (to)
                return start_move(rotation, to, fault);
        TK_LOCK_SCOPE(&rotation->lock);
        return start(rotation, rotation->current, true, fault);
}

/*
 * A job that nobody asked for: what hinders it is logged. One that is running will do,
 * and so will the end of the mount.
 */
static void start_unasked(struct tk_rotation *rotation)
{
        bool unfinished = tk_volume_active_count(rotation->volume) > 1;
        struct tk_fault fault = {0};

        TK_LOCK_SCOPE(&rotation->lock);
        if (rotation->noticed == 0)
                rotation->noticed = (int64_t)time(NULL);
        note_window(rotation);
        if (rotation->state == RUNNING || !rotation->serving)
                return;
        tk_log(TK_LOG_INFO, "rotation of %s: %s", tk_volume_path(rotation->volume),
               unfinished ? "going on with an unfinished one" : "the root key has a new version");
        if (start(rotation, rotation->current, false, &fault) < 0)
                tk_log(TK_LOG_ERROR, "%s", fault.text);
}

void tk_rotation_follow(struct tk_rotation *rotation)
{
        start_unasked(rotation);
}

void tk_rotation_resume(struct tk_rotation *rotation)
{
        if (tk_volume_active_count(rotation->volume) > 1)
                start_unasked(rotation);
}

void tk_rotation_stop(struct tk_rotation *rotation)
{
        bool has_thread;

        atomic_store(&rotation->stop, true);
        {
                TK_LOCK_SCOPE(&rotation->lock);
                rotation->serving = false;
                has_thread = rotation->has_thread;
                rotation->has_thread = false;
        }
        if (has_thread)
                pthread_join(rotation->thread, NULL);
}

/* What is known ---------------------------------------------------------- */

const struct tk_provider *tk_rotation_provider(struct tk_rotation *rotation)
{
        TK_LOCK_SCOPE(&rotation->lock);
        return rotation->current;
}

static json_t *number_or_null(int64_t number)
{
        return number > 0 ? json_integer((json_int_t)number) : json_null();
}

/* Seconds until the job is through, by its pace in this pass; -1: that can't be told yet. */
static int64_t estimate_left_s(const struct tk_rotation *rotation)
{
        const struct tk_rotate_progress *progress = &rotation->progress;
        int64_t took_ms = monotonic_ms() - rotation->pass_began;
        uint64_t left;

        if (rotation->state != RUNNING || rotation->total == 0 || progress->files == 0 ||
            took_ms <= 0)
                return -1;
        left = rotation->total > progress->files ? rotation->total - progress->files : 0;
        /* The first pass finds old records, so that one more has to confirm it. */
        if (progress->passes == 1)
                left += rotation->total;
        return (int64_t)(left * (uint64_t)took_ms / progress->files / 1000);
}

/* Files by KEK version, as far as the present pass has come: docs/cli.md. */
static json_t *files_json(const struct tk_rotation *rotation)
{
        const struct tk_rotate_progress *progress = &rotation->progress;
        uint64_t unseen = rotation->total > progress->files && rotation->state == RUNNING
                                  ? rotation->total - progress->files
                                  : 0;
        bool first = progress->passes <= 1;
        uint64_t current = progress->files - progress->failed + (first ? 0 : unseen);
        uint64_t older = progress->failed + (first ? unseen : 0);

        return json_pack("{sI sI sI}",                   //
                         "current", (json_int_t)current, //
                         "older", (json_int_t)older,     //
                         "total", (json_int_t)rotation->total);
}

json_t *tk_rotation_json(struct tk_rotation *rotation)
{
        const struct tk_rotate_progress *progress = &rotation->progress;
        int64_t left_s;
        bool failed;

        TK_LOCK_SCOPE(&rotation->lock);
        failed = rotation->fault.kind != TK_FAULT_NONE;
        left_s = estimate_left_s(rotation);
        return json_pack("{so so sb so sI ss so so si sI sI sI si si so}",          //
                         "files_by_version", files_json(rotation),                  //
                         "left_s", left_s < 0 ? json_null() : json_integer(left_s), //
                         "window_missed", is_late(rotation, (int64_t)time(NULL)),   //
                         "last_in_window",
                         rotation->last_kept < 0 ? json_null() : json_boolean(rotation->last_kept),
                         "window_s", (json_int_t)rotation->window_s,   //
                         "state", state_names[rotation->state],        //
                         "started", number_or_null(rotation->started), //
                         "ended", number_or_null(rotation->ended),     //
                         "passes", (int)progress->passes,              //
                         "files", (json_int_t)progress->files,         //
                         "rewrapped", (json_int_t)progress->rewrapped, //
                         "failed", (json_int_t)progress->failed,       //
                         "kek_version", (int)progress->kek_version,    //
                         "kind", (int)rotation->fault.kind,            //
                         "error", failed ? tk_text_json(rotation->fault.text) : json_null());
}
