/* SPDX-License-Identifier: Apache-2.0 */

/* One filesystem: put together and taken apart. */

#include "fs/fs.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/journal_kept.h"
#include "fs/journal_replay.h"
#include "fs/keeper.h"
#include "fs/lift.h"
#include "fs/op.h"
#include "fs/openfile.h"
#include "fs/scratch.h"
#include "fs/seal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

enum { DIRKEYS_MAX = 4096 };

/* Replay first, then a journal for this mount. */
static int start_journal(struct tk_fs *fs, const struct tk_fs_options *options,
                         struct tk_fault *fault)
{
        struct tk_replay_totals totals;
        int r;

        if (options->keep_journal)
                return 0;
        r = tk_journal_replay(fs, &totals, fault);
        if (r < 0)
                return r;
        if (totals.batches > 0)
                tk_log(TK_LOG_INFO,
                       "%s was not unmounted cleanly: %llu overwrites of %llu files put in place "
                       "from its journal",
                       tk_volume_path(fs->volume), (unsigned long long)totals.entries,
                       (unsigned long long)totals.files);
        if (totals.kept > 0)
                tk_log(TK_LOG_WARNING,
                       "%s: overwrites of %llu files wait until these can be opened: %s",
                       tk_volume_path(fs->volume), (unsigned long long)totals.kept,
                       strerror(-totals.kept_error));
        if (options->read_only || options->relaxed)
                return 0;
        return tk_journal_new(
                fs, options->journal_len > 0 ? options->journal_len : TK_JOURNAL_LEN_DEFAULT,
                &fs->journal, fault);
}

static bool is_btrfs(int fd)
{
        struct statfs st;

        return fstatfs(fd, &st) == 0 && st.f_type == BTRFS_SUPER_MAGIC;
}

int tk_fs_new(struct tk_volume *volume, const struct tk_fs_options *options, struct tk_fs **ret_fs,
              struct tk_fault *fault)
{
        TK_CLEANUP(tk_fs_freep) struct tk_fs *fs = NULL;
        int r;

        fs = calloc(1, sizeof(*fs));
        if (!fs)
                return -ENOMEM;
        pthread_mutex_init(&fs->openfiles_lock, NULL);
        pthread_cond_init(&fs->openfiles_loaded, NULL);
        pthread_mutex_init(&fs->keeper_lock, NULL);
        pthread_mutex_init(&fs->lift_lock, NULL);
        fs->lease_until_ms = INT64_MAX; /* until there is a keeper */
        for (int i = 0; i < TK_SIBLING_STRIPES; i++)
                pthread_mutex_init(&fs->sibling_locks[i], NULL);
        fs->volume = volume;
        fs->keyring = tk_volume_keyring(volume);
        fs->read_only = options->read_only;
        fs->base = tk_volume_dek_wrap(volume) == TK_DEK_WRAP_KMS ? TK_BLOCK_LEN : 0;
        fs->mount_number = tk_volume_mount_number(volume);
        fs->names_encrypted = tk_volume_names(volume) == TK_NAMES_ENCRYPTED;
        fs->rootfd = openat(tk_volume_dirfd(volume), "root",
                            O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fs->rootfd < 0)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -errno,
                                    "cannot open %s/root: %s; restore it from a backup",
                                    tk_volume_path(volume), strerror(errno));
        fs->sync_siblings = is_btrfs(fs->rootfd);
        r = tk_dirkeys_new(DIRKEYS_MAX, &fs->dirkeys);
        if (r < 0)
                return r;
        r = tk_inode_table_new(fs->rootfd, &fs->stats, &fs->inodes);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot read %s/root: %s",
                                    tk_volume_path(volume), strerror(-r));
        if (!fs->read_only)
                tk_lift_undo_all(fs);
        r = start_journal(fs, options, fault);
        if (r < 0)
                return r;
        *ret_fs = TK_TAKE(fs);
        return 0;
}

static int seal_open(void *context, struct tk_openfile *file)
{
        tk_seal_close(context, file);
        return 0;
}

int tk_fs_finish(struct tk_fs *fs, struct tk_fault *fault)
{
        int r_sync;
        int r = 0;

        if (fs->read_only)
                return 0;
        if (fs->journal)
                r = tk_journal_finish(fs->journal);
        /* Files that the kernel has left open. */
        if (r == 0)
                r = tk_openfile_for_each(fs, seal_open, fs);
        r_sync = tk_backing_sync_all(fs->rootfd); /* also what of all is not to blame */
        if (r == 0)
                r = r_sync;
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot write everything to %s: %s; it counts as not unmounted "
                                    "cleanly",
                                    tk_volume_path(fs->volume), strerror(-r));
        return fs->seals_missing ? TK_FS_UNSEALED : 0;
}

struct tk_fs *tk_fs_free(struct tk_fs *fs)
{
        if (!fs)
                return NULL;
        tk_op_releasedir_all(fs);
        fs->journal = tk_journal_free(fs->journal);
        tk_openfile_put_all(fs);
        fs->kept = tk_journal_kept_free(fs->kept);
        tk_inode_table_free(fs->inodes);
        tk_dirkeys_free(fs->dirkeys);
        if (fs->rootfd >= 0)
                close(fs->rootfd);
        pthread_cond_destroy(&fs->openfiles_loaded);
        for (int i = 0; i < TK_SIBLING_STRIPES; i++)
                pthread_mutex_destroy(&fs->sibling_locks[i]);
        pthread_mutex_destroy(&fs->openfiles_lock);
        pthread_mutex_destroy(&fs->keeper_lock);
        pthread_mutex_destroy(&fs->lift_lock);
        free(fs);
        tk_scratch_drop();
        return NULL;
}

const struct tk_stats *tk_fs_stats(const struct tk_fs *fs)
{
        return &fs->stats;
}

void tk_fs_held_status(struct tk_fs *fs, struct tk_held_status *ret_status)
{
        *ret_status = (struct tk_held_status){.kept = tk_journal_kept_count(fs)};
        if (fs->journal)
                ret_status->held =
                        tk_journal_held_files(fs->journal, ret_status->path, &ret_status->error);
}

bool tk_fs_keeper_status(struct tk_fs *fs, struct tk_keeper_status *ret_status)
{
        TK_LOCK_SCOPE(&fs->keeper_lock);
        if (fs->keeper)
                tk_keeper_status(fs->keeper, ret_status);
        return fs->keeper;
}

void tk_fs_set_windows(struct tk_fs *fs, int64_t grace_ms, int64_t rotation_window_ms)
{
        TK_LOCK_SCOPE(&fs->keeper_lock);
        if (fs->keeper)
                tk_keeper_set_windows(fs->keeper, grace_ms, rotation_window_ms);
}

void tk_fs_look(struct tk_fs *fs, struct tk_fs_load *ret_load)
{
        *ret_load = (struct tk_fs_load){.cached_deks = tk_keyring_cached_deks(fs->keyring),
                                        .has_journal = fs->journal};
        if (fs->journal)
                tk_journal_look(fs->journal, &ret_load->journal);
}

bool tk_fs_hides_paths(const struct tk_fs *fs)
{
        return tk_volume_names(fs->volume) == TK_NAMES_PLAIN && !tk_log_names();
}

void tk_fs_log_path(const struct tk_fs *fs, int fd, char *path, size_t max)
{
        struct stat st;

        if (!tk_fs_hides_paths(fs) || fstat(fd, &st) < 0)
                tk_backing_path(fd, path, max);
        else
                snprintf(path, max, "%s: inode %llu", tk_volume_path(fs->volume),
                         (unsigned long long)st.st_ino);
}
