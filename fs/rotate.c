/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rotation.
 *
 * A pass walks the tree with the operations that serve the mount, so that it
 * shares open files with it. Files made during a pass have current records. What
 * is renamed or linked meanwhile is rewrapped first (op_name.c), and a renamed
 * directory makes the pass count for nothing: so a pass that found nothing old
 * has seen everything. It begins when all that began before it knew of the new version,
 * or of the pass, is over (epoch.h). Only after a sync are old versions retired.
 */

#include "fs/rotate.h"

#include "base/log.h"
#include "fs/fs_internal.h"
#include "fs/op.h"
#include "fs/rewrap.h"
#include "fs/translate.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PASSES_MAX = 100, PACE_SLACK_US = 10000, PACE_SLICE_US = 50000, SAID_MAX = 20 };

struct walk {
        struct tk_fs *fs;
        const struct tk_rotate_options *options;
        struct tk_rotate_progress progress;
        uint64_t old;   /* records found old in this pass */
        uint64_t said;  /* failures that were logged, in all passes; not those of open files */
        int64_t due_us; /* when the next file is due, by the rate */
};

/* Where a file is in the backing tree; the root has nothing above and no name. */
struct spot {
        const struct spot *above;
        const char *name;
        uint64_t ino;
};

static bool stopped(const struct walk *walk)
{
        return walk->options->stop && atomic_load(walk->options->stop);
}

static int64_t now_us(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/*
 * Keep to the rate: sleep when the walk is ahead of it. What it fell behind, it makes up
 * for within a moment or not at all, so that no burst follows a pause.
 */
static void pace(struct walk *walk)
{
        unsigned rate = walk->options->files_per_s;
        int64_t now;

        if (rate == 0)
                return;
        now = now_us();
        if (walk->due_us < now - PACE_SLACK_US)
                walk->due_us = now - PACE_SLACK_US;
        walk->due_us += 1000000 / rate;
        while (walk->due_us > now + PACE_SLACK_US && !stopped(walk)) {
                int64_t ahead = walk->due_us - now;
                struct timespec pause = {
                        .tv_nsec = (ahead < PACE_SLICE_US ? ahead : PACE_SLICE_US) * 1000};

                nanosleep(&pause, NULL);
                now = now_us();
        }
}

/* Whether @r is about the keys of all files, so that going on would be in vain. */
static bool is_about_keys(int r)
{
        return r == -ENOKEY || r == -EKEYREVOKED || r == -EKEYEXPIRED;
}

/* The record is under @version and stays there; if there are many such versions, some are lumped.
 */
static void count_older(struct tk_rotate_progress *progress, uint16_t version)
{
        size_t i = 0;

        progress->failed++;
        while (i < TK_ROTATE_OLDER_MAX - 1 && progress->older[i].files > 0 &&
               progress->older[i].version != version)
                i++;
        if (i == TK_ROTATE_OLDER_MAX - 1)
                version = 0;
        progress->older[i].version = version;
        progress->older[i].files++;
}

/* The path below CIPHERDIR/root, for the caller to free; NULL without memory. */
static char *backing_path(const struct spot *spot)
{
        TK_CLEANUP(tk_freep) char *above = NULL;
        char *path;

        if (!spot->above)
                return strdup(spot->name);
        above = backing_path(spot->above);
        if (!above || asprintf(&path, "%s%s%s", above, above[0] ? "/" : "", spot->name) < 0)
                return NULL;
        return path;
}

/* Say what can't be done about the file at @spot: by its path in the mount, if that may be said
 * and can be had; by its inode if the path below holds names that may not. */
static void say_path(struct tk_fs *fs, const struct spot *spot, const char *what, int r)
{
        TK_CLEANUP(tk_freep) char *backing = backing_path(spot);
        TK_CLEANUP(tk_freep) char *plain = NULL;

        if (tk_log_names() && backing && tk_translate_to_plain(fs, backing, &plain) == 0)
                tk_log(TK_LOG_ERROR, "rotation: '/%s' %s: %s", plain, what, strerror(-r));
        else if (tk_fs_hides_paths(fs) && spot->above)
                tk_log(TK_LOG_ERROR, "rotation: the backing file of inode %llu %s: %s",
                       (unsigned long long)spot->ino, what, strerror(-r));
        else
                tk_log(TK_LOG_ERROR, "rotation: the backing file '%s' %s: %s",
                       backing ? backing : spot->name, what, strerror(-r));
}

/* There may be a million: the first few are named, the others are in the result's count. */
static void say(struct walk *walk, const struct spot *spot, const char *what, int r)
{
        if (walk->said < SAID_MAX)
                say_path(walk->fs, spot, what, r);
        else if (walk->said == SAID_MAX)
                tk_log(TK_LOG_ERROR, "rotation: there are more such files, which are not named");
        walk->said++;
}

static int visit_inode(struct walk *walk, struct tk_inode *inode, const struct spot *spot)
{
        int r;

        r = tk_rewrap_inode(walk->fs, inode);
        if (is_about_keys(r))
                return r;
        if (r == TK_REWRAP_NONE)
                return 0;
        walk->progress.files++;
        if (r == TK_REWRAP_DONE) {
                walk->old++;
                walk->progress.rewrapped++;
        } else if (r < 0 && r != -ESTALE && r != -ENOENT) {
                count_older(&walk->progress, tk_rewrap_version(walk->fs, inode));
                say(walk, spot, "can't be rewrapped", r);
        }
        if (walk->options->progress)
                walk->options->progress(walk->options->context, &walk->progress);
        pace(walk);
        return 0;
}

/* What can't be looked at may be old: it is counted, and the walk goes on. */
static int skip(struct walk *walk, const struct spot *spot, int r)
{
        if (r == -ENOENT || r == -ESTALE)
                return 0; /* removed meanwhile */
        count_older(&walk->progress, 0);
        say(walk, spot, "can't be looked at", r);
        return 0;
}

static int visit_dir(struct walk *walk, struct tk_inode *inode, const struct spot *spot);

/* Where visit_dir is. */
struct place {
        struct walk *walk;
        struct tk_dir *dir;
        const struct spot *spot; /* the directory's */
};

static int visit_entry(void *context, const struct tk_dir_entry *found)
{
        struct place *place = context;
        struct walk *walk = place->walk;
        struct spot spot = {.above = place->spot, .name = found->backing, .ino = found->ino};
        struct tk_entry entry;
        int r;

        if (found->name)
                return 0; /* "." and ".." */
        if (stopped(walk))
                return -ECANCELED;
        r = tk_op_lookup_in(walk->fs, place->dir, found->backing, &entry);
        if (r < 0)
                return skip(walk, &spot, r);
        if (S_ISDIR(entry.st.st_mode))
                r = visit_dir(walk, entry.inode, &spot);
        else if (S_ISREG(entry.st.st_mode))
                r = visit_inode(walk, entry.inode, &spot);
        tk_inode_forget(walk->fs->inodes, entry.inode, 1);
        return r;
}

static int visit_dir(struct walk *walk, struct tk_inode *inode, const struct spot *spot)
{
        struct place place = {.walk = walk, .spot = spot};
        int r;

        r = visit_inode(walk, inode, spot);
        if (r < 0)
                return r;
        r = tk_op_opendir(walk->fs, inode, &place.dir);
        if (r < 0)
                return skip(walk, spot, r);
        r = tk_op_readdir_backing(place.dir, visit_entry, &place);
        tk_op_releasedir(place.dir);
        return r == -ECANCELED || is_about_keys(r) ? r : r < 0 ? skip(walk, spot, r) : 0;
}

/* Files that are open and have no name any more are in no directory. */
static int visit_open(void *context, struct tk_openfile *file)
{
        struct walk *walk = context;
        int r;

        if (stopped(walk))
                return -ECANCELED;
        r = tk_rewrap_file(walk->fs, file);
        if (is_about_keys(r))
                return r;
        if (r == TK_REWRAP_DONE) {
                walk->old++;
                walk->progress.rewrapped++;
        } else if (r < 0) {
                count_older(&walk->progress, 0);
        }
        return 0;
}

/* One pass. Returns whether it saw everything and found nothing old, or a negative errno. */
static int run_pass(struct walk *walk)
{
        struct tk_fs *fs = walk->fs;
        const struct spot root = {.name = ""};
        uint64_t moves = fs->rotate_moves; /* before the wait: a move that is over is none */
        int r;

        r = tk_epoch_wait(&fs->changes, walk->options->stop);
        if (r < 0)
                return r;
        walk->progress.passes++;
        walk->progress.files = 0;
        walk->progress.failed = 0;
        memset(walk->progress.older, 0, sizeof(walk->progress.older));
        walk->old = 0;
        r = visit_dir(walk, tk_inode_root(fs->inodes), &root);
        if (r == 0)
                r = tk_openfile_for_each(fs, visit_open, walk);
        if (r < 0)
                return r;
        return walk->old == 0 && fs->rotate_moves == moves;
}

/* Passes until one counts. 1: everything is current; 0: some records can't be rewrapped. */
static int run_passes(struct walk *walk)
{
        int r = 0;

        walk->fs->rotating = true;
        while (r == 0 && walk->progress.passes < PASSES_MAX)
                r = run_pass(walk);
        walk->fs->rotating = false;
        return r > 0 ? walk->progress.failed == 0 : r;
}

static int retire_old(struct tk_fs *fs, const atomic_bool *stop, struct tk_fault *fault)
{
        struct tk_volume *volume = fs->volume;
        uint16_t current = tk_keyring_current(fs->keyring);
        int r;

        /* Whoever read an old record still has to unwrap it. */
        r = tk_epoch_wait(&fs->changes, stop);
        if (r < 0)
                return r;
        /* Every new record must be on the disk before the key of the old ones goes. */
        if (syncfs(fs->rootfd) < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno,
                                    "cannot sync %s: %s; the old key versions stay",
                                    tk_volume_path(volume), strerror(errno));
        return tk_volume_retire_below(volume, current, fault);
}

int tk_rotate_run(struct tk_fs *fs, const struct tk_rotate_options *options,
                  struct tk_rotate_progress *ret_progress, struct tk_fault *fault)
{
        struct walk walk = {.fs = fs, .options = options};
        int r;

        r = tk_volume_renew_kek(fs->volume, options->kms, options->even_if_current, fault);
        if (r < 0)
                return r;
        walk.progress.kek_version = tk_keyring_current(fs->keyring);
        if (tk_volume_active_count(fs->volume) > 1) {
                r = run_passes(&walk);
                if (r > 0) {
                        r = retire_old(fs, options->stop, fault);
                        walk.progress.done = r == 0;
                }
        }
        *ret_progress = walk.progress;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "the files of %s can't be rewrapped: %s",
                                    tk_volume_path(fs->volume), strerror(-r));
        return 0;
}
