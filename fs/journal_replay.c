/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Replay.
 *
 * First what an earlier replay had to keep, then the two areas, the one with the older
 * batches first. What belongs to a file that can't be opened now is kept again.
 */

#include "fs/journal_replay.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/journal_find.h"
#include "fs/journal_kept.h"
#include "fs/journal_read.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { KEPT, AREA_0, AREA_1, SOURCES };

/* Sequences of a source's first and last batch; 0 if it holds none. */
struct span {
        uint64_t first;
        uint64_t last;
};

struct replay {
        struct tk_fs *fs;
        int fd;
        uint64_t area_len;
        struct tk_journal_source sources[SOURCES];
        struct span spans[SOURCES];
        struct tk_journal_reader reader;
        struct tk_journal_finder finder;
        struct tk_replay_totals totals;
        struct tk_fault *fault;
};

static int cannot(struct replay *replay, const char *what, int error)
{
        return tk_fault_set(replay->fault, TK_FAULT_INTERNAL, error, "%s: %s: %s",
                            tk_volume_path(replay->fs->volume), what, strerror(-error));
}

/* Reading --------------------------------------------------------------------------- */

/* Read all batches of a source: its span, and the files it names. */
static int survey(struct replay *replay, unsigned source)
{
        struct tk_journal_reader *reader = &replay->reader;
        struct span *span = &replay->spans[source];
        int r;

        *span = (struct span){0};
        tk_journal_reader_begin(reader, &replay->sources[source]);
        while ((r = tk_journal_reader_next(reader)) > 0) {
                if (span->first == 0)
                        span->first = reader->head.sequence;
                span->last = reader->head.sequence;
                for (unsigned i = 0; i < reader->head.files; i++) {
                        struct tk_journal_file file =
                                tk_journal_file_at(reader->batch, &reader->head, i);

                        r = tk_journal_finder_add(&replay->finder, &file, reader->head.tree);
                        if (r < 0)
                                return r;
                }
        }
        return r < 0 ? cannot(replay, "its journal can't be read", r) : 0;
}

/*
 * The area to put in place first. A batch whose flush failed is written again in the other
 * area, and more behind it: of two areas that begin with the same one, the shorter is older.
 */
static unsigned older_area(const struct span spans[2])
{
        if (spans[0].first != spans[1].first)
                return spans[1].first < spans[0].first;
        return spans[1].last < spans[0].last;
}

/* Putting in place ------------------------------------------------------------------ */

static bool is_full(int error)
{
        return error == -ENOSPC || error == -EDQUOT;
}

/*
 * @found can't be written. If that may be for its own reasons, only it waits: what the journal
 * holds of it is kept, and put in place again from the first entry on.
 */
static int refuse(struct replay *replay, struct tk_journal_found *found, int error)
{
        char path[PATH_MAX] = "a file";

        if (found->file)
                tk_fs_log_path(replay->fs, found->file->fd, path, sizeof(path));
        if (!is_full(error) && error != -EIO)
                return tk_fault_set(replay->fault, TK_FAULT_INTERNAL, error,
                                    "%s: overwrites that the journal holds can't be put in place: "
                                    "%s; mount again when that is mended: the journal keeps them",
                                    path, strerror(-error));
        tk_log(TK_LOG_ERROR,
               "%s: overwrites that a crash left in the journal can't be put in place: %s; they "
               "are kept until they can",
               path, strerror(-error));
        found->state = TK_JOURNAL_REFUSED;
        found->error = error;
        found->changed = false;
        replay->totals.files--;
        replay->totals.kept++;
        replay->totals.kept_error = error;
        return 0;
}

static int put_file(struct replay *replay, unsigned index)
{
        struct tk_journal_reader *reader = &replay->reader;
        struct tk_journal_file entry = tk_journal_file_at(reader->batch, &reader->head, index);
        struct tk_journal_found *found = tk_journal_finder_get(&replay->finder, entry.proof);
        int r;

        if (found->state != TK_JOURNAL_FOUND)
                return 0;
        r = tk_journal_finder_open(&replay->finder, found);
        if (r == 0) {
                found->changed = true;
                r = tk_journal_reader_put(reader, index, found->file);
        }
        if (r < 0)
                return refuse(replay, found, r);
        replay->totals.entries += (unsigned)r;
        return 0;
}

static int put_source(struct replay *replay, unsigned source)
{
        struct tk_journal_reader *reader = &replay->reader;
        int r;

        tk_journal_reader_begin(reader, &replay->sources[source]);
        while ((r = tk_journal_reader_next(reader)) > 0) {
                for (unsigned i = 0; i < reader->head.files; i++) {
                        r = put_file(replay, i);
                        if (r < 0)
                                return r;
                }
                replay->totals.batches++;
        }
        return r < 0 ? cannot(replay, "its journal can't be read", r) : 0;
}

static int find_files(struct replay *replay)
{
        struct tk_replay_totals *totals = &replay->totals;
        int r = tk_journal_finder_run(&replay->finder);

        if (r < 0)
                return cannot(replay, "files of its journal can't be looked for", r);
        for (const struct tk_journal_found *found = replay->finder.files; found;
             found = found->next) {
                totals->files += found->state == TK_JOURNAL_FOUND;
                totals->gone += found->state == TK_JOURNAL_GONE;
                if (found->state == TK_JOURNAL_REFUSED) {
                        totals->kept++;
                        totals->kept_error = found->error;
                }
        }
        return 0;
}

static int sync_files(struct replay *replay)
{
        for (struct tk_journal_found *found = replay->finder.files; found; found = found->next) {
                int r = 0;

                if (found->changed && found->file && found->state == TK_JOURNAL_FOUND)
                        r = tk_backing_sync(found->file->fd, false);
                if (r < 0)
                        r = refuse(replay, found, r);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Emptying -------------------------------------------------------------------------- */

/* The older area first: if that is as far as it gets, the newer one is replayed again. */
static int empty(struct replay *replay, unsigned older)
{
        static const uint8_t zeros[TK_BLOCK_LEN];
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 2; i++) {
                unsigned area = i == 0 ? older : !older;

                r = tk_backing_pwrite(replay->fd, zeros, sizeof(zeros), area * replay->area_len);
                if (r == 0)
                        r = tk_backing_sync(replay->fd, true);
        }
        return r < 0 ? cannot(replay, "the journal can't be emptied", r) : 0;
}

static bool is_refused(void *context, const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        return tk_journal_finder_get(context, proof)->state == TK_JOURNAL_REFUSED;
}

/*
 * Keep what is refused, and nothing else: the volume file says so before the areas are emptied,
 * since what was kept is older than what they hold.
 */
static int keep_refused(struct replay *replay)
{
        uint64_t chain;
        int r;

        r = tk_journal_kept_write(replay->fs, &replay->reader, replay->sources, SOURCES, is_refused,
                                  &replay->finder, &chain);
        if (r < 0)
                return cannot(replay,
                              is_full(r) ? "entries of its journal can't be kept; free some space "
                                           "there and mount again"
                                         : "entries of its journal can't be kept",
                              r);
        return tk_volume_note_replay(replay->fs->volume, chain, replay->fault);
}

/*
 * Nothing to replay. Batches of a mount that ended cleanly, that was replayed already, or whose
 * number this one has now, must not be there when they might count again.
 */
static int drop_stale(struct replay *replay)
{
        int r = 0;

        if (replay->fs->mount_number == 0)
                return 0;
        if (replay->reader.stale) {
                tk_log(TK_LOG_WARNING,
                       "%s: its journal is an older one: left out; was it put back from a backup?",
                       tk_volume_path(replay->fs->volume));
                r = empty(replay, 0);
        }
        return r < 0 ? r : tk_volume_note_replay(replay->fs->volume, 0, replay->fault);
}

static int replay_all(struct replay *replay)
{
        unsigned older;
        bool keeps;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < SOURCES; i++)
                r = survey(replay, i);
        if (r < 0)
                return r;
        if (!replay->finder.files)
                return drop_stale(replay);
        if ((fcntl(replay->fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
                if (replay->spans[AREA_0].first == 0 && replay->spans[AREA_1].first == 0)
                        return 0; /* files of which something is kept are not served */
                return tk_fault_set(replay->fault, TK_FAULT_PERMISSION, -EROFS,
                                    "%s was not unmounted cleanly, and its journal must be "
                                    "replayed first, which needs to write: mount it once with "
                                    "the right to",
                                    tk_volume_path(replay->fs->volume));
        }
        older = older_area(&replay->spans[AREA_0]);
        if (older == 1) {
                struct tk_journal_source area = replay->sources[AREA_0];

                replay->sources[AREA_0] = replay->sources[AREA_1];
                replay->sources[AREA_1] = area;
        }
        r = find_files(replay);
        for (unsigned i = 0; r == 0 && i < SOURCES; i++)
                r = put_source(replay, i);
        if (r == 0)
                r = sync_files(replay);
        keeps = replay->totals.kept > 0 || replay->spans[KEPT].first > 0;
        if (r == 0 && keeps)
                r = keep_refused(replay);
        if (r == 0)
                r = empty(replay, older);
        if (r == 0 && !keeps)
                r = tk_volume_note_replay(replay->fs->volume, 0, replay->fault);
        return r;
}

/* Start and end --------------------------------------------------------------------- */

static int open_journal(struct replay *replay)
{
        int dirfd = tk_volume_dirfd(replay->fs->volume);
        const char *path = TK_JOURNAL_DIR "/" TK_JOURNAL_NAME;
        struct stat st;

        replay->fd = openat(dirfd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (replay->fd < 0 && (errno == EROFS || errno == EACCES))
                replay->fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (replay->fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (fstat(replay->fd, &st) < 0)
                return -errno;
        replay->area_len = S_ISREG(st.st_mode) ? (uint64_t)st.st_size / 2 : 0;
        replay->area_len -= replay->area_len % TK_BLOCK_LEN;
        for (unsigned i = 0; i < 2; i++)
                replay->sources[AREA_0 + i] = (struct tk_journal_source){
                        .fd = replay->fd, .begin = i * replay->area_len, .len = replay->area_len};
        return 0;
}

static int open_kept(struct replay *replay)
{
        int r;

        replay->sources[KEPT].fd = -1;
        if (tk_volume_kept(replay->fs->volume) == 0)
                return 0;
        r = tk_journal_kept_open(replay->fs, &replay->sources[KEPT]);
        if (r != -ENOENT)
                return r;
        tk_log(TK_LOG_WARNING,
               "%s: journal entries that an earlier mount had to keep are missing: the last "
               "overwrites of some files may be lost",
               tk_volume_path(replay->fs->volume));
        return 0;
}

static void replay_done(struct replay *replay)
{
        tk_journal_finder_done(&replay->finder);
        tk_journal_reader_done(&replay->reader);
        if (replay->sources[KEPT].fd >= 0)
                close(replay->sources[KEPT].fd);
        if (replay->fd >= 0)
                close(replay->fd);
}

/* Without a journal, whatever only it held is lost. */
static int note_missing(struct tk_fs *fs, struct tk_fault *fault)
{
        if (fs->mount_number == 0 || !tk_volume_any_awaits_replay(fs->volume))
                return 0;
        tk_log(TK_LOG_WARNING,
               "%s was not unmounted cleanly, and its journal is missing: if there was one, the "
               "last overwrites may be lost",
               tk_volume_path(fs->volume));
        return tk_volume_note_replay(fs->volume, tk_volume_kept(fs->volume), fault);
}

static int start_kept(struct replay *replay)
{
        int r;

        if (!replay->fs->read_only)
                tk_journal_kept_sweep(replay->fs);
        r = tk_journal_kept_start(replay->fs, &replay->reader);
        return r < 0 ? cannot(replay, "kept entries of its journal can't be read", r) : 0;
}

int tk_journal_replay(struct tk_fs *fs, struct tk_replay_totals *ret_totals, struct tk_fault *fault)
{
        TK_CLEANUP(replay_done)
        struct replay replay = {.fs = fs, .fd = -1, .sources[KEPT].fd = -1, .fault = fault};
        int r;

        memset(ret_totals, 0, sizeof(*ret_totals));
        tk_journal_finder_init(&replay.finder, fs);
        r = open_journal(&replay);
        if (r == 0)
                r = open_kept(&replay);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot open the journal of %s: %s", tk_volume_path(fs->volume),
                                    strerror(-r));
        r = tk_journal_reader_init(&replay.reader, fs);
        if (r < 0)
                return r;
        if (replay.fd < 0 || replay.area_len == 0)
                r = note_missing(fs, fault);
        else
                r = replay_all(&replay);
        if (r == 0)
                r = start_kept(&replay);
        *ret_totals = replay.totals;
        return r;
}
