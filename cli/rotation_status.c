/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What is known of a rotation: docs/cli.md, "daemon.rotation".
 *
 * How many files there are is known when a pass has ended. Before that it is estimated
 * from the inodes in use on the backing filesystem: too many where that holds other files.
 */

#include "base/clock.h"
#include "cli/rotation_internal.h"
#include "cli/text.h"

enum { FILES_PER_S_GUESS = 10000 }; /* before the first file of a pass, without a limit */

static const char *const state_names[] = {
        [TK_ROTATION_IDLE] = "none",
        [TK_ROTATION_RUNNING] = "running",
        [TK_ROTATION_DONE] = "done",
        [TK_ROTATION_UNNEEDED] = "current",
        [TK_ROTATION_INCOMPLETE] = "incomplete",
        [TK_ROTATION_STOPPED] = "stopped",
        [TK_ROTATION_FAILED] = "failed",
};

static json_t *number_or_null(int64_t number)
{
        return number > 0 ? json_integer((json_int_t)number) : json_null();
}

/* Files in the volume, as far as that can be told; 0: it can't. */
static uint64_t total_files(const struct tk_rotation *rotation)
{
        uint64_t known = rotation->total > 0 ? rotation->total : rotation->estimate;

        return known > 0 && known < rotation->progress.files ? rotation->progress.files : known;
}

/* Milliseconds for @files, by the pace in this pass, or the one that is allowed. */
static uint64_t time_for(const struct tk_rotation *rotation, uint64_t files)
{
        unsigned rate = rotation->options.files_per_s;
        uint64_t seen = rotation->progress.files;
        int64_t took_ms = tk_clock_ms() - rotation->pass_began_ms;

        if (seen > 0 && took_ms > 0)
                return files * (uint64_t)took_ms / seen;
        return files * 1000 / (rate > 0 ? rate : FILES_PER_S_GUESS);
}

/* Seconds until the job is through; -1: that can't be told. */
static int64_t estimate_left_s(const struct tk_rotation *rotation)
{
        uint64_t total = total_files(rotation);
        uint64_t left = total - rotation->progress.files;

        if (rotation->state != TK_ROTATION_RUNNING || total == 0)
                return -1;
        /* The first pass finds old records, so that one more has to confirm it. */
        if (rotation->progress.passes <= 1)
                left += total;
        return (int64_t)(time_for(rotation, left) / 1000);
}

static void add_version(json_t *list, uint16_t version, uint64_t files)
{
        if (files > 0)
                json_array_append_new(list, json_pack("{si sI}", "version", (int)version, "files",
                                                      (json_int_t)files));
}

/* What the present pass, or the last one, has seen, by KEK version. */
static json_t *versions_json(const struct tk_rotate_progress *progress, uint16_t newest,
                             uint64_t current)
{
        json_t *list = json_array();

        add_version(list, newest, current);
        for (size_t i = 0; i < TK_ROTATE_OLDER_MAX; i++)
                add_version(list, progress->older[i].version, progress->older[i].files);
        return list;
}

/* Files by KEK version. With one version in use, all of them are under that. */
static json_t *files_json(const struct tk_rotation *rotation)
{
        const struct tk_rotate_progress *progress = &rotation->progress;
        uint16_t newest = tk_keyring_current(tk_volume_keyring(rotation->volume));
        bool single = tk_volume_active_count(rotation->volume) < 2;
        uint64_t total = total_files(rotation);
        uint64_t unseen = total > progress->files ? total - progress->files : 0;
        /* A pass behind the first one repeats what was found current. */
        bool repeated = progress->passes > 1 && rotation->state == TK_ROTATION_RUNNING;
        uint64_t seen = progress->files - progress->failed;
        uint64_t current = single ? total : repeated ? seen + unseen : seen;
        uint64_t left = single || repeated ? 0 : unseen; /* for the first pass to come to */
        uint64_t older = left + progress->failed;

        return json_pack("{sI sI sI sb sI so}",                          //
                         "current", (json_int_t)current,                 //
                         "older", (json_int_t)older,                     //
                         "unseen", (json_int_t)left,                     //
                         "estimated", rotation->total == 0 && total > 0, //
                         "total", (json_int_t)total,                     //
                         "versions", versions_json(progress, newest, current));
}

json_t *tk_rotation_json(struct tk_rotation *rotation)
{
        const struct tk_rotate_progress *progress = &rotation->progress;
        int64_t left_s;
        bool failed;

        TK_LOCK_SCOPE(&rotation->lock);
        failed = rotation->fault.kind != TK_FAULT_NONE;
        left_s = estimate_left_s(rotation);
        return json_pack("{so so sb so sI sI ss so so si sI sI sI si si so}",       //
                         "files_by_version", files_json(rotation),                  //
                         "left_s", left_s < 0 ? json_null() : json_integer(left_s), //
                         "window_missed", tk_rotation_is_late(rotation),            //
                         "last_in_window",
                         rotation->last_kept < 0 ? json_null() : json_boolean(rotation->last_kept),
                         "window_s", (json_int_t)rotation->options.window_s,       //
                         "rewrap_rate", (json_int_t)rotation->options.files_per_s, //
                         "state", state_names[rotation->state],                    //
                         "started", number_or_null(rotation->started),             //
                         "ended", number_or_null(rotation->ended),                 //
                         "passes", (int)progress->passes,                          //
                         "files", (json_int_t)progress->files,                     //
                         "rewrapped", (json_int_t)progress->rewrapped,             //
                         "failed", (json_int_t)progress->failed,                   //
                         "kek_version", (int)progress->kek_version,                //
                         "kind", (int)rotation->fault.kind,                        //
                         "error", failed ? tk_text_json(rotation->fault.text) : json_null());
}
