/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rotation of a mounted volume.
 *
 * Providers that a job moved to are kept until the end: the volume goes on asking
 * them, and status reads where they are.
 */

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "cli/rotation_internal.h"
#include "fs/op.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

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

int tk_rotation_new(struct tk_volume *volume, const struct tk_provider *provider,
                    const struct tk_rotation_options *options, struct tk_rotation **ret_rotation)
{
        struct tk_rotation *rotation = calloc(1, sizeof(*rotation));

        if (!rotation)
                return -ENOMEM;
        pthread_mutex_init(&rotation->lock, NULL);
        rotation->volume = volume;
        rotation->current = provider;
        rotation->options = *options;
        rotation->noticed_ms = TK_ROTATION_NEVER;
        rotation->begun_ms = TK_ROTATION_NEVER;
        rotation->last_kept = -1;
        *ret_rotation = rotation;
        return 0;
}

void tk_rotation_set_options(struct tk_rotation *rotation,
                             const struct tk_rotation_options *options)
{
        TK_LOCK_SCOPE(&rotation->lock);
        rotation->options = *options;
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

/*
 * How many files there may be, directories, links and other users' files included; 0: the
 * backing filesystem does not say.
 */
static uint64_t estimate_files(struct tk_fs *fs)
{
        struct statvfs st;

        if (tk_op_statfs(fs, &st) < 0 || st.f_files <= st.f_ffree)
                return 0;
        return st.f_files - st.f_ffree;
}

/*
 * An earlier mount's rotation is as old as its KEK version, or as the last one that was admitted
 * again, by a clock that may have been set.
 */
static int64_t begun_before(struct tk_volume *volume)
{
        size_t count = tk_volume_kek_count(volume);
        int64_t newest = tk_volume_kek_at(volume, count - 1).created;
        int64_t age_s;

        for (size_t i = 0; i < count; i++) {
                struct tk_volume_kek kek = tk_volume_kek_at(volume, i);

                if (kek.active && kek.readmitted > newest)
                        newest = kek.readmitted;
        }
        age_s = (int64_t)time(NULL) - newest;
        if (tk_volume_active_count(volume) < 2)
                return TK_ROTATION_NEVER;
        return tk_clock_ms() - (age_s > 0 ? age_s * 1000 : 0);
}

void tk_rotation_begin(struct tk_rotation *rotation, struct tk_fs *fs)
{
        TK_LOCK_SCOPE(&rotation->lock);
        rotation->fs = fs;
        rotation->serving = true;
        rotation->estimate = estimate_files(fs);
        rotation->begun_ms = begun_before(rotation->volume);
}

/* The window -------------------------------------------------------------- */

/*
 * Since when older versions should be left: since the newest KEK version came into use,
 * or since the mount learned of a new root key version.
 */
static int64_t due_since(const struct tk_rotation *rotation)
{
        if (tk_volume_active_count(rotation->volume) < 2 ||
            rotation->noticed_ms < rotation->begun_ms)
                return rotation->noticed_ms;
        return rotation->begun_ms;
}

/* A new version is noticed within a quarter of the window: what is left is for the rest. */
bool tk_rotation_is_late(const struct tk_rotation *rotation)
{
        int64_t since = due_since(rotation);

        return rotation->options.window_s > 0 && since != TK_ROTATION_NEVER &&
               (tk_clock_ms() - since) / 750 > (int64_t)rotation->options.window_s;
}

/* The lock is held. Said once for each rotation. */
static void note_window(struct tk_rotation *rotation)
{
        if (rotation->missed || !tk_rotation_is_late(rotation))
                return;
        rotation->missed = true;
        tk_log(TK_LOG_ERROR,
               "rotation of %s: the rotation window of %u s is missed: files are still under an "
               "older version; see 'turnkeyfs status'",
               tk_volume_path(rotation->volume), rotation->options.window_s);
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
                rotation->pass_began_ms = tk_clock_ms();
        }
        rotation->progress = *progress;
        note_window(rotation);
}

static enum tk_rotation_state judge(int r, const struct tk_rotate_progress *progress)
{
        if (r < 0)
                return r == -ECANCELED ? TK_ROTATION_STOPPED : TK_ROTATION_FAILED;
        if (progress->done)
                return TK_ROTATION_DONE;
        return progress->passes == 0 ? TK_ROTATION_UNNEEDED : TK_ROTATION_INCOMPLETE;
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
        if (rotation->state == TK_ROTATION_DONE || rotation->state == TK_ROTATION_INCOMPLETE)
                rotation->total = progress->files;
        if (rotation->state != TK_ROTATION_DONE && rotation->state != TK_ROTATION_UNNEEDED)
                return;
        if (rotation->state == TK_ROTATION_DONE)
                rotation->last_kept = rotation->options.window_s > 0 ? !rotation->missed : -1;
        rotation->noticed_ms = TK_ROTATION_NEVER;
        rotation->begun_ms = TK_ROTATION_NEVER;
        rotation->missed = false;
}

static void say(const struct tk_rotation *rotation, int r,
                const struct tk_rotate_progress *progress, const struct tk_fault *fault)
{
        const char *path = tk_volume_path(rotation->volume);

        switch (judge(r, progress)) {
        case TK_ROTATION_DONE:
                tk_log(TK_LOG_INFO,
                       "rotation of %s: all files are under KEK version %u, older ones are retired",
                       path, progress->kek_version);
                break;
        case TK_ROTATION_INCOMPLETE:
                tk_log(TK_LOG_ERROR,
                       "rotation of %s is incomplete: the key records of %llu files could not be "
                       "rewrapped, so older KEK versions stay in use",
                       path, (unsigned long long)progress->failed);
                break;
        case TK_ROTATION_FAILED:
                tk_log(TK_LOG_ERROR, "rotation of %s stopped: %s", path,
                       fault->kind ? fault->text : strerror(-r));
                break;
        default:
                break;
        }
}

static unsigned rate_of(struct tk_rotation *rotation)
{
        TK_LOCK_SCOPE(&rotation->lock);
        return rotation->options.files_per_s;
}

static void *run_job(void *context)
{
        struct tk_rotation *rotation = context;
        struct tk_rotate_options options = {.files_per_s = rate_of(rotation),
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

        if (rotation->state == TK_ROTATION_RUNNING)
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
        if (tk_volume_active_count(rotation->volume) < 2)
                rotation->begun_ms = tk_clock_ms();
        rotation->progress = (struct tk_rotate_progress){0};
        rotation->fault = (struct tk_fault){0};
        rotation->started = (int64_t)time(NULL);
        rotation->ended = 0;
        r = tk_thread_start(run_job, rotation, &rotation->thread);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot start a thread: %s",
                                    strerror(-r));
        rotation->has_thread = true;
        rotation->state = TK_ROTATION_RUNNING;
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
        r = tk_volume_check_move(rotation->volume, fault);
        if (r == 0)
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
        if (rotation->noticed_ms == TK_ROTATION_NEVER)
                rotation->noticed_ms = tk_clock_ms();
        note_window(rotation);
        if (rotation->state == TK_ROTATION_RUNNING || !rotation->serving)
                return;
        tk_log(TK_LOG_INFO, "rotation of %s: %s", tk_volume_path(rotation->volume),
               unfinished ? "going on with an unfinished one" : "the root key has a new version");
        if (start(rotation, rotation->current, false, &fault) < 0)
                tk_log(TK_LOG_ERROR, "rotation of %s did not start: %s",
                       tk_volume_path(rotation->volume), fault.text);
}

void tk_rotation_make_due(struct tk_rotation *rotation)
{
        const struct tk_provider *provider = tk_rotation_provider(rotation);
        char version[TK_KMS_VERSION_MAX];
        struct tk_fault fault = {0};
        int r;

        if (provider->rotate_every_s == 0)
                return;
        r = tk_kms_admin_rotate_due(provider->kms, provider->rotate_every_s, version, &fault);
        if (r > 0)
                tk_log(TK_LOG_INFO,
                       "rotation of %s: the root key was %u s old: its version %s was made in %s; "
                       "back that up",
                       tk_volume_path(rotation->volume), provider->rotate_every_s, version,
                       provider->place);
        else if (r < 0)
                tk_log_limited(TK_LOG_ERROR, "rotation of %s: no new version was made: %s",
                               tk_volume_path(rotation->volume), fault.text);
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

const struct tk_provider *tk_rotation_provider(struct tk_rotation *rotation)
{
        TK_LOCK_SCOPE(&rotation->lock);
        return rotation->current;
}
