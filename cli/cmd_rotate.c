/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `rotate`: a mount is told to, over the control channel; without one it is done
 * here, under the volume lock.
 */

#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/open.h"
#include "cli/paths.h"
#include "cli/progress.h"
#include "cli/rotation.h"
#include "cli/serve.h"
#include "fs/fs.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { POLL_MS = 100, SILENT_MAX = 50 };

static atomic_bool interrupted;

static void interrupt(int signal_number)
{
        (void)signal_number;
        atomic_store(&interrupted, true);
}

/* What the user has to do about the configuration after a move. */
static void say_moved(const char *to)
{
        printf("From now on mount with the configuration %s.\n", to);
}

static int say_incomplete(const struct tk_volume *volume, uint64_t failed, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_INTERNAL, -EIO,
                            "the rotation of %s is incomplete: the key records of %" PRIu64
                            " files could not be rewrapped, so the old key versions stay in use; "
                            "the log names the first of them",
                            tk_volume_path(volume), failed);
}

/* Unmounted -------------------------------------------------------------- */

static void draw(void *context, const struct tk_rotate_progress *progress)
{
        tk_progress_count(context, progress->files);
}

static int run_here(struct tk_volume *volume, const struct tk_provider *provider, bool new_version,
                    struct tk_rotate_progress *ret_progress, struct tk_fault *fault)
{
        TK_CLEANUP(tk_fs_freep) struct tk_fs *fs = NULL;
        struct tk_progress bar;
        struct tk_rotate_options options = {
                .stop = &interrupted, .progress = draw, .context = &bar};
        struct sigaction action = {.sa_handler = interrupt};
        int r_end;
        int r;

        r = tk_fs_new(volume, &(struct tk_fs_options){.read_only = false}, &fs, fault);
        if (r < 0)
                return r;
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        tk_progress_init(&bar, "rotate", 0);
        r = tk_rotation_run(fs, provider, new_version, &options, ret_progress, fault);
        tk_progress_clear(&bar);
        r_end = tk_fs_finish(fs, fault);
        return r < 0 ? r : r_end < 0 ? r_end : 0;
}

static int say_result(const struct tk_volume *volume, const struct tk_provider *provider,
                      const struct tk_rotate_progress *progress, struct tk_fault *fault)
{
        if (progress->passes == 0) {
                printf("Nothing to do: all file keys are under the current version of the %s %s.\n",
                       provider->place_name, provider->place);
                return 0;
        }
        if (!progress->done)
                return say_incomplete(volume, progress->failed, fault);
        printf("Rotated: KEK version %u, %" PRIu64 " of %" PRIu64 " files rewrapped.\n",
               progress->kek_version, progress->rewrapped, progress->files);
        if (provider->makes_versions)
                printf("Back up the keystore %s: without its newest version the data is lost.\n",
                       provider->place);
        return 0;
}

static int open_target(const char *path, const struct tk_volume *volume,
                       struct tk_provider *ret_provider, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        struct tk_provider_volume target = tk_open_target(volume);
        int r;

        r = tk_conf_load(path, &conf, fault);
        if (r < 0)
                return r;
        return tk_provider_open(conf, &target, ret_provider, fault);
}

static int rotate_here(struct tk_volume *volume, const struct tk_args *args,
                       struct tk_open_keys *keys, struct tk_provider *target,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        const struct tk_provider *provider = args->to ? target : &keys->current;
        struct tk_rotate_progress progress = {0};
        int r;

        r = tk_open_conf(args->config, &conf, fault);
        if (r == 0)
                r = tk_hygiene_lock_memory(conf, fault);
        if (r == 0)
                r = tk_open_unlock(volume, conf, "being rotated", keys, fault);
        if (r == 0 && args->to)
                r = tk_volume_check_move(volume, fault);
        if (r == 0 && args->to)
                r = open_target(args->to, volume, target, fault);
        if (r == 0)
                r = run_here(volume, provider, !args->to, &progress, fault);
        if (r == 0)
                r = say_result(volume, provider, &progress, fault);
        if (r == 0 && args->to)
                say_moved(args->to);
        return r;
}

/* Mounted ---------------------------------------------------------------- */

/* What the mount says that a rotation came to. 1: it is still running. */
static int judge(const struct tk_volume *volume, const json_t *rotation, struct tk_fault *fault)
{
        const char *state = json_string_value(json_object_get(rotation, "state"));
        const char *error = json_string_value(json_object_get(rotation, "error"));
        json_int_t kind = json_integer_value(json_object_get(rotation, "kind"));

        if (!state || strcmp(state, "running") == 0)
                return 1;
        if (strcmp(state, "done") == 0 || strcmp(state, "current") == 0)
                return 0;
        if (strcmp(state, "incomplete") == 0)
                return say_incomplete(
                        volume, (uint64_t)json_integer_value(json_object_get(rotation, "failed")),
                        fault);
        if (kind <= TK_FAULT_NONE || kind > TK_FAULT_UNSUPPORTED)
                kind = TK_FAULT_INTERNAL;
        return tk_fault_set(fault, (enum tk_fault_kind)kind, -EIO, "%s",
                            error ? error : "the rotation was stopped");
}

static int wait_done(struct tk_volume *volume, struct tk_fault *fault)
{
        const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
        int silent = 0;

        while (silent < SILENT_MAX) {
                const char *why;
                json_t *daemon = tk_serve_ask(volume, &why);
                int r = daemon ? judge(volume, json_object_get(daemon, "rotation"), fault) : 1;

                silent = daemon ? 0 : silent + 1;
                json_decref(daemon);
                if (r <= 0)
                        return r;
                nanosleep(&pause, NULL);
        }
        return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, -ENOTCONN,
                            "the mount of %s does not answer any more; the rotation goes on with "
                            "the next mount",
                            tk_volume_path(volume));
}

static int follow(struct tk_volume *volume, const struct tk_args *args, const char *to,
                  struct tk_fault *fault)
{
        int r;

        if (args->wait) {
                r = wait_done(volume, fault);
                if (r < 0)
                        return r;
                printf("Rotated.\n");
        } else {
                printf("The rotation has begun; 'turnkeyfs status %s' shows how far it is.\n",
                       args->paths[0]);
        }
        if (to) {
                say_moved(to);
                if (!args->wait)
                        printf("Should the mount end before it is done, that configuration needs "
                               "[kms] previous = the present one.\n");
        }
        return 0;
}

/* Whoever answers is told; the path of the configuration has to make sense there, too. */
static int rotate(struct tk_volume *volume, const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *to = NULL;
        int r = 0;

        if (args->to)
                r = tk_path_resolve(args->to, &to);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r, "cannot find %s: %s", args->to,
                                    strerror(-r));
        r = tk_serve_ask_rotate(volume, to, fault);
        if (r == TK_SERVE_NOBODY)
                return TK_SERVE_NOBODY;
        return r < 0 ? r : follow(volume, args, to, fault);
}

int tk_cmd_rotate(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_provider_done) struct tk_provider target = {0};
        TK_CLEANUP(tk_open_keys_done) struct tk_open_keys keys = {0};
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL; /* freed before its keys */
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        int r;

        r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        if (r == 0)
                r = tk_volume_open(cipherdir, &volume, fault);
        if (r == 0)
                r = rotate(volume, args, fault);
        if (r == TK_SERVE_NOBODY)
                r = rotate_here(volume, args, &keys, &target, fault);
        return r;
}
