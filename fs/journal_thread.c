/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal's thread: what was flushed is put in place, areas are made free for new
 * batches, and what is due after a while.
 *
 * It sleeps while requests are served: on few processors, waking it costs more than they do.
 */

#include "base/log.h"
#include "base/plant.h"
#include "base/thread.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/content_sync.h"
#include "fs/creds.h"
#include "fs/journal_apply.h"
#include "fs/journal_internal.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum {
        FLUSH_AFTER_MS = 5000,
        APPLY_AFTER_MS = 5000,
        RESET_AFTER_MS = 5000,
        RETRY_AFTER_MS = 5000,
        TICK_MS = 1000,
        SYNC_ALL_FILES = 32,
};

/* In place ------------------------------------------------------------ */

/* When the newest journaled write of @file was, which its mtime must show. */
static struct timespec touched(const struct tk_openfile *file)
{
        int64_t ns = file->journal.touched_ns;

        return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

int tk_journal_put_file(struct tk_journal *journal, const struct tk_journal_batch *batch,
                        unsigned end, unsigned index)
{
        struct tk_openfile *file = batch->files[index];
        struct tk_journal_target target = {.fd = file->fd, .base = file->base};
        size_t count = 0;

        for (unsigned i = batch->applied; i < end; i++) {
                const struct tk_journal_item *item = &batch->entries[i].item;

                /* The mtime was set when the application set it. */
                if (item->file == index && item->type != TK_JOURNAL_MTIME)
                        journal->items[count++] = item;
        }
        if (count == 0)
                return 0;
        tk_creds_charge(file->owner);
        TK_LOCK_SCOPE(&file->times_lock);
        target.touched = touched(file);
        return tk_journal_apply(&target, journal->items, count);
}

/*
 * Put entries up to @end of a batch with @files in place. A file that fails is held; an error:
 * nor can that be.
 */
static int put_batch(struct tk_journal *journal, struct tk_journal_batch *batch, unsigned end,
                     unsigned files)
{
        for (unsigned i = 0; i < files; i++) {
                int r = batch->files[i]->journal.held;

                if (r == 0)
                        r = tk_journal_put_file(journal, batch, end, i);
                if (r < 0)
                        r = tk_journal_hold_unput(journal, batch, end, i, r);
                if (r < 0) {
                        tk_log_limited(TK_LOG_ERROR,
                                       "%s: overwrites that are in the journal can neither be put "
                                       "in place nor held: %s; trying again; until then all wait",
                                       tk_volume_path(journal->fs->volume), strerror(-r));
                        return r;
                }
        }
        return 0;
}

/* Everything in @batch is in place. */
static void empty_batch(struct tk_journal *journal, struct tk_journal_batch *batch,
                        struct tk_journal_release *release)
{
        while (batch->file_count > 0)
                release->files[release->count++] = batch->files[--batch->file_count];
        if (batch == journal->building) {
                tk_journal_start_building(journal, batch);
                return;
        }
        batch->busy = false;
        for (unsigned i = 1; i < journal->queued; i++)
                journal->queue[i - 1] = journal->queue[i];
        journal->queued--;
}

void tk_journal_unlink_applied(struct tk_journal *journal, struct tk_journal_batch *batch,
                               unsigned end)
{
        for (unsigned i = batch->applied; i < end; i++) {
                struct tk_journal_pending *entry = &batch->entries[i];

                if (!entry->linked)
                        continue;
                tk_journal_unlink_entry(journal, entry);
                /* In this order: who sees no overlay any more sees the new generation. */
                entry->file->journal.overlay_gen++;
                entry->file->journal.overlay--;
        }
        batch->applied = end;
}

void tk_journal_begin_applying(struct tk_journal_batch *batch, unsigned end)
{
        for (unsigned i = batch->applied; i < end; i++)
                if (batch->entries[i].keep_space)
                        batch->entries[i].item.flags |= TK_JOURNAL_KEEP;
        batch->applying = true;
}

/* The lock is held, and let go of meanwhile; so below. */
static void put_next(struct tk_journal *journal, struct tk_journal_batch *batch,
                     struct tk_journal_release *release)
{
        uint64_t sequence = journal->flushed;
        unsigned files = batch->file_count;
        unsigned end = batch->flushed;
        int r;

        /* If it is full and flushed, later ones may be flushed as well, but are not in place. */
        if (end == batch->part.end)
                sequence = batch->part.sequence;
        tk_journal_begin_applying(batch, end);
        pthread_mutex_unlock(&journal->lock);
        r = put_batch(journal, batch, end, files);
        pthread_mutex_lock(&journal->lock);
        batch->applying = false;
        journal->stuck = r;
        if (r == 0) {
                journal->applied = sequence;
                tk_journal_unlink_applied(journal, batch, end);
                if (end == batch->count)
                        empty_batch(journal, batch, release);
        }
        pthread_cond_broadcast(&journal->changed);
}

/* Areas --------------------------------------------------------------- */

/* A flush that failed, whoever asked, may have lost what was put in place before. */
static int sync_file(struct tk_openfile *file, bool synced)
{
        int r = synced ? 0 : tk_content_flush(file, false);

        return r == 0 && file->flush_failures != file->journal.failures ? file->flush_error : r;
}

/*
 * Make durable in place what area @i holds: its first @count files, or hold those that fail. Of
 * many files one flush of the whole filesystem is cheaper; if it fails, each says for itself
 * whether it was it.
 */
static int sync_area(struct tk_journal *journal, unsigned i, unsigned count)
{
        struct tk_journal_area *area = &journal->areas[i];
        bool synced = TK_PLANT(TK_PLANT_JOURNAL_REUSED) ||
                      (count >= SYNC_ALL_FILES && tk_backing_sync_all(journal->fs->rootfd) == 0);

        for (unsigned f = 0; f < count; f++) {
                struct tk_openfile *file = area->files[f];
                int r = file->journal.held < 0 ? 0 : sync_file(file, synced);

                if (r < 0)
                        r = tk_journal_hold_unsynced(journal, file, r);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int checkpoint(struct tk_journal *journal, unsigned i)
{
        struct tk_journal_area *area = &journal->areas[i];
        unsigned count = area->file_count;
        int r;

        bool kept;

        pthread_mutex_unlock(&journal->lock);
        r = sync_area(journal, i, count);
        if (r == 0)
                r = tk_journal_keep_held(journal, i);
        kept = r == 0;
        if (kept)
                r = tk_journal_wipe_area(journal, i);
        pthread_mutex_lock(&journal->lock);
        if (r < 0) {
                if (kept)
                        area->error = r;
                else
                        journal->stuck = r;
                tk_log_limited(TK_LOG_ERROR,
                               "%s: the journal can't be made free: %s; overwrites wait%s",
                               tk_volume_path(journal->fs->volume), strerror(-r),
                               kept ? " until the next mount" : "; trying again");
        }
        area->checkpointed = r == 0;
        pthread_cond_broadcast(&journal->changed);
        return r;
}

static bool wants_checkpoint(const struct tk_journal *journal)
{
        const struct tk_journal_area *area = &journal->areas[!journal->current];

        return !area->checkpointed && !area->error && !journal->stuck &&
               journal->applied >= area->last_sequence;
}

/* Sync the files of both areas, beside whoever adds to them. */
static int sync_areas(struct tk_journal *journal)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 2; i++) {
                unsigned count = journal->areas[i].file_count;

                if (journal->areas[i].checkpointed)
                        continue;
                pthread_mutex_unlock(&journal->lock);
                r = sync_area(journal, i, count);
                pthread_mutex_lock(&journal->lock);
        }
        return r;
}

/* One area after the other, oldest first: what is on the disk stays a consistent tail. */
static int wipe_areas(struct tk_journal *journal)
{
        unsigned order[2] = {!journal->current, journal->current};
        int r = 0;

        for (int i = 0; r == 0 && i < 2; i++) {
                const struct tk_journal_area *area = &journal->areas[order[i]];

                if (area->dead)
                        continue;
                r = area->checkpointed ? 0 : tk_journal_keep_held(journal, order[i]);
                if (r == 0)
                        r = tk_journal_wipe_area(journal, order[i]);
                if (r == 0)
                        r = tk_backing_sync(journal->fd, true);
        }
        return r == 0 ? tk_random_bytes(&journal->chain, sizeof(journal->chain)) : r;
}

static bool is_settled(const struct tk_journal *journal)
{
        return !journal->flushing && !journal->unflushed && journal->queued == 0 &&
               journal->building->count == 0;
}

/*
 * Nothing is on its way: leave nothing in the journal. Only the wiping is done as the leader,
 * so that nothing is added. -EAGAIN: something was added before.
 */
static int reset(struct tk_journal *journal, struct tk_journal_release *release)
{
        uint64_t flushed = journal->flushed;
        int r;

        if (journal->areas[0].error || journal->areas[1].error)
                return journal->areas[0].error ? journal->areas[0].error : journal->areas[1].error;
        r = sync_areas(journal);
        if (r < 0)
                return r;
        if (!is_settled(journal) || journal->flushed != flushed)
                return -EAGAIN;
        journal->flushing = true;
        pthread_mutex_unlock(&journal->lock);
        r = wipe_areas(journal);
        pthread_mutex_lock(&journal->lock);
        journal->flushing = false;
        if (r == 0) {
                tk_journal_bury(journal, 0, release);
                tk_journal_bury(journal, 1, release);
                journal->areas[journal->current].dead = false;
                journal->areas[journal->current].checkpointed = false;
                journal->off = 0;
                journal->area_failed = false;
        } else {
                journal->areas[journal->current].error = r;
                journal->area_failed = true;
        }
        pthread_cond_broadcast(&journal->changed);
        return r;
}

static bool has_live_area(const struct tk_journal *journal)
{
        return journal->areas[0].last_sequence > 0 || journal->areas[1].last_sequence > 0;
}

/* Removed files that only the journal holds open: their space is to be free. */
static void drop_removed(struct tk_journal *journal, struct tk_journal_release *release)
{
        for (unsigned i = 0; i < 2; i++) {
                struct tk_journal_area *area = &journal->areas[i];

                for (unsigned f = area->file_count; f-- > 0;) {
                        struct tk_openfile *file = area->files[f];
                        struct stat st;

                        if (!tk_openfile_is_last(
                                    journal->fs, file,
                                    (unsigned)__builtin_popcount(file->journal.areas)) ||
                            fstat(file->fd, &st) < 0 || st.st_nlink > 0)
                                continue;
                        file->journal.areas &= (uint8_t) ~(1U << i);
                        release->files[release->count++] = file;
                        area->files[f] = area->files[--area->file_count];
                }
        }
}

/* When a file was removed, and once in a while for those that were closed later. */
static void drop_if_due(struct tk_journal *journal, struct tk_journal_release *release)
{
        int64_t now = tk_journal_now_ms();

        if (!journal->removed && now - journal->dropped_ms < TICK_MS)
                return;
        journal->dropped_ms = now;
        drop_removed(journal, release);
}

/* Whether the batch being filled keeps the space of a file that is gone otherwise. */
static bool holds_removed(const struct tk_journal *journal)
{
        const struct tk_journal_batch *batch = journal->building;

        for (unsigned i = 0; i < batch->file_count; i++) {
                struct tk_openfile *file = batch->files[i];
                unsigned refs = 1 + (unsigned)__builtin_popcount(file->journal.areas);
                struct stat st;

                if (tk_openfile_is_last(journal->fs, file, refs) && fstat(file->fd, &st) == 0 &&
                    st.st_nlink == 0)
                        return true;
        }
        return false;
}

void tk_journal_note_names(struct tk_journal *journal)
{
        journal->names++;
        TK_LOCK_SCOPE(&journal->lock);
        if (journal->areas[0].file_count + journal->areas[1].file_count + journal->queued +
                    journal->building->file_count ==
            0)
                return;
        journal->removed = true; /* the thread sees it with its next tick */
}

/* The thread ---------------------------------------------------------------------- */

static bool is_flush_due(struct tk_journal *journal, int64_t now_ms)
{
        return tk_journal_has_new(journal) && !journal->flushing &&
               (now_ms - journal->filled_ms >= FLUSH_AFTER_MS ||
                (journal->removed && holds_removed(journal)));
}

/* The oldest batch, if it holds what is durable and not in place. */
static struct tk_journal_batch *next_to_put(struct tk_journal *journal)
{
        struct tk_journal_batch *batch =
                journal->queued > 0 ? journal->queue[0] : journal->building;

        return batch->applied < batch->flushed ? batch : NULL;
}

static bool is_put_due(struct tk_journal *journal, const struct tk_journal_batch *batch,
                       int64_t now_ms)
{
        const struct tk_journal_area *other = &journal->areas[!journal->current];

        return batch != journal->building || journal->finishing ||
               journal->wanted > journal->applied ||
               (!other->checkpointed && journal->applied < other->last_sequence) ||
               now_ms - batch->began_ms >= APPLY_AFTER_MS ||
               (journal->removed && holds_removed(journal));
}

/* Do one thing that is due; false if nothing is. */
static bool work(struct tk_journal *journal, struct tk_journal_release *release)
{
        struct tk_journal_batch *batch = next_to_put(journal);
        int64_t now = tk_journal_now_ms();

        if (journal->held && (journal->retry || now - journal->tried_ms >= RETRY_AFTER_MS)) {
                tk_journal_retry_held(journal, release);
                return true;
        }
        if (batch && !journal->stuck && is_put_due(journal, batch, now)) {
                put_next(journal, batch, release);
                return true;
        }
        if (wants_checkpoint(journal)) {
                (void)!checkpoint(journal, !journal->current);
                return true;
        }
        if (is_flush_due(journal, now))
                return tk_journal_flush_next(journal) == 0;
        if (is_settled(journal) && journal->finishing) {
                journal->finished = reset(journal, release);
                if (journal->finished == -EAGAIN)
                        return true;
                if (journal->finished == 0)
                        journal->finished = tk_journal_held_error(journal);
                pthread_mutex_unlock(&journal->lock);
                tk_journal_release_all(journal, release);
                pthread_mutex_lock(&journal->lock);
                journal->finishing = false;
                pthread_cond_broadcast(&journal->changed);
                return true;
        }
        if (is_settled(journal) && has_live_area(journal) &&
            now - journal->active_ms >= RESET_AFTER_MS)
                return reset(journal, release) == 0;
        return false;
}

static void wait_tick(struct tk_journal *journal)
{
        struct timespec until;

        if (!has_live_area(journal) && is_settled(journal) && !journal->held) {
                journal->idle = true;
                pthread_cond_wait(&journal->due, &journal->lock);
                journal->idle = false;
                return;
        }
        until = tk_thread_deadline(TICK_MS);
        if (pthread_cond_timedwait(&journal->due, &journal->lock, &until) == ETIMEDOUT)
                journal->stuck = 0; /* once more */
}

void *tk_journal_run(void *context)
{
        struct tk_journal_release release = {.count = 0};
        struct tk_journal *journal = context;

        pthread_mutex_lock(&journal->lock);
        while (!journal->stop) {
                if (!work(journal, &release))
                        wait_tick(journal);
                drop_if_due(journal, &release);
                if (is_settled(journal))
                        journal->removed = false;
                if (release.count > 0) {
                        pthread_mutex_unlock(&journal->lock);
                        tk_journal_release_all(journal, &release);
                        pthread_mutex_lock(&journal->lock);
                }
        }
        pthread_mutex_unlock(&journal->lock);
        return NULL;
}

int tk_journal_finish(struct tk_journal *journal)
{
        int r = 0;

        TK_LOCK_SCOPE(&journal->lock);
        if (tk_journal_has_new(journal))
                r = tk_journal_commit_until(journal, journal->filling);
        else if (journal->unflushed)
                r = tk_journal_commit_until(journal, journal->unflushed->part.sequence);
        if (r < 0)
                return r;
        journal->finishing = true;
        journal->retry = true;
        pthread_cond_signal(&journal->due);
        while (journal->finishing && !journal->stuck)
                pthread_cond_wait(&journal->changed, &journal->lock);
        if (!journal->finishing)
                return journal->finished;
        journal->finishing = false;
        return journal->stuck;
}
