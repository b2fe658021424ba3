/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal of a mount.
 *
 * Entries are collected in a batch in memory. Whoever wants one durable becomes the
 * leader and writes and flushes the batch for all who wait; meanwhile the next one is
 * being filled. Flushed batches go to the thread, which puts them in place in order.
 *
 * The file has two areas, filled in turn. The other area is used again when all of its
 * batches are in place, the files are fsynced, and its first page was wiped durably:
 * so the areas on disk always hold everything that may be missing in place, and an area
 * that is overwritten is never half believed. Only the leader moves in the areas.
 *
 * Lock order: the journal's lock, then the open-file lock.
 */

#include "fs/journal.h"

#include "base/bytes.h"
#include "base/crc.h"
#include "base/log.h"
#include "base/plant.h"
#include "base/thread.h"
#include "crypto/kdf.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/creds.h"
#include "fs/fs_internal.h"
#include "fs/journal_apply.h"
#include "fs/openfile.h"
#include "fs/volume_internal.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum {
        BATCHES = 4, /* one being filled, one being flushed, two on their way in place */
        BUCKETS = 2048,
        AREA_FILES = 512, /* files that an area may hold open */
        FLUSH_AFTER_MS = 5000,
        RESET_AFTER_MS = 5000,
        TICK_MS = 1000,
};

struct batch;

struct pending {
        struct tk_journal_item item; /* first: an array of these is one of items for apply */
        struct tk_openfile *file;
        struct batch *batch;
        struct pending *next; /* in its bucket, while linked */
        bool linked;          /* the newest entry of its block: reads see it */
};

struct batch {
        uint64_t sequence;
        struct pending *entries;
        unsigned count;
        uint8_t *pages;
        unsigned page_count;
        struct tk_openfile *files[TK_JOURNAL_FILES_MAX]; /* counted */
        unsigned file_count;
        bool busy;
};

struct area {
        struct tk_openfile *files[AREA_FILES]; /* counted: in place, perhaps not durable there */
        unsigned file_count;
        uint64_t last_sequence; /* 0: no batch */
        bool checkpointed;      /* all in place and durable there; the first page is wiped */
        bool dead;              /* and the wiping is durable */
        int error;              /* a file could not be synced: the area must stay as it is */
};

struct tk_journal {
        struct tk_fs *fs;
        int fd;
        struct tk_secret *mac_key;
        uint64_t area_len;
        uint64_t filesystem;
        unsigned pages_max; /* of data in a batch */
        bool by_handle;
        bool has_thread;
        char root_path[PATH_MAX];             /* of CIPHERDIR/root, for path hints */
        uint8_t *descriptor;                  /* the leader's */
        const struct tk_journal_item **items; /* the thread's */
        pthread_t thread;

        pthread_mutex_t lock;
        pthread_cond_t changed;
        struct batch batches[BATCHES];
        struct batch *building;
        struct batch *unflushed;      /* its flush failed: it goes first */
        struct batch *queue[BATCHES]; /* flushed, not in place, oldest first */
        bool flushing;                /* there is a leader */
        bool stop;
        bool finishing;   /* somebody waits for an empty journal */
        bool area_failed; /* the leader's: a write to the current area failed */
        unsigned queued;
        int finished; /* what came of it */
        int failure;
        int stuck;              /* putting in place fails with this */
        unsigned failures;      /* flushes that failed */
        unsigned current;       /* area */
        uint64_t last_sequence; /* handed out */
        uint64_t flushed;       /* sequences up to this are durable in the journal */
        uint64_t applied;       /* and up to this in place */
        _Atomic uint64_t dead;  /* and up to this not in the journal any more */
        uint64_t failed;        /* the sequence of the last flush that failed */
        int64_t filled_ms;      /* when the batch being filled got its first entry */
        int64_t active_ms;      /* when the last flush ended */
        struct pending *buckets[BUCKETS];
        struct area areas[2];
        uint64_t off;   /* the leader's: in the current area */
        uint64_t chain; /* the leader's */
};

static int64_t now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Files --------------------------------------------------------------------------- */

/* References that are to be given back without the journal's lock held. */
struct release {
        struct tk_openfile *files[2 * AREA_FILES + TK_JOURNAL_FILES_MAX];
        unsigned count;
};

static void release_all(struct tk_journal *journal, struct release *release)
{
        while (release->count > 0)
                tk_openfile_put(journal->fs, release->files[--release->count]);
}

static void release_area(struct area *area, struct release *release)
{
        while (area->file_count > 0)
                release->files[release->count++] = area->files[--area->file_count];
}

/* The area on disk holds nothing any more. */
static void bury(struct tk_journal *journal, unsigned i, struct release *release)
{
        struct area *area = &journal->areas[i];

        for (unsigned f = 0; f < area->file_count; f++)
                area->files[f]->journal.areas &= (uint8_t) ~(1U << i);
        release_area(area, release);
        area->dead = true;
        area->checkpointed = true;
        if (area->last_sequence > journal->dead)
                journal->dead = area->last_sequence;
        area->last_sequence = 0;
}

/* The overlay --------------------------------------------------------------------- */

static struct pending **bucket_of(struct tk_journal *journal, const struct tk_openfile *file,
                                  uint64_t block)
{
        uint64_t mixed = ((uintptr_t)file >> 4 ^ block) * UINT64_C(0x9E3779B97F4A7C15);

        return &journal->buckets[(mixed >> 40) % BUCKETS];
}

static struct pending *find(struct tk_journal *journal, const struct tk_openfile *file,
                            uint64_t block)
{
        struct pending *entry = *bucket_of(journal, file, block);

        while (entry && (entry->file != file || entry->item.at != block))
                entry = entry->next;
        return entry;
}

static void unlink_entry(struct tk_journal *journal, struct pending *entry)
{
        struct pending **link = bucket_of(journal, entry->file, entry->item.at);

        while (*link != entry)
                link = &(*link)->next;
        *link = entry->next;
        entry->linked = false;
}

static void link_entry(struct tk_journal *journal, struct pending *entry)
{
        struct pending *older = find(journal, entry->file, entry->item.at);
        struct pending **bucket = bucket_of(journal, entry->file, entry->item.at);

        if (older)
                unlink_entry(journal, older);
        else
                entry->file->journal.overlay++;
        entry->next = *bucket;
        *bucket = entry;
        entry->linked = true;
}

int tk_journal_overlay(struct tk_journal *journal, struct tk_openfile *file, uint64_t first,
                       uint64_t last, uint64_t gen, uint8_t *cells, uint8_t *data)
{
        TK_LOCK_SCOPE(&journal->lock);
        if (file->journal.overlay_gen != gen)
                return -EAGAIN;
        for (uint64_t block = first; block <= last; block++) {
                const struct pending *entry = find(journal, file, block);

                if (!entry)
                        continue;
                memcpy(cells + (block - first) * TK_CELL_LEN, entry->item.cell, TK_CELL_LEN);
                if (data && entry->item.type == TK_JOURNAL_BLOCK)
                        memcpy(data + (block - first) * TK_BLOCK_LEN, entry->item.page,
                               tk_journal_item_len(&entry->item));
        }
        return 0;
}

/* Flushing ------------------------------------------------------------------------ */

static uint64_t area_base(const struct tk_journal *journal, unsigned area)
{
        return area * journal->area_len;
}

/* Wipe the first page of an area, without a flush. */
static int wipe_area(struct tk_journal *journal, unsigned area)
{
        static const uint8_t zeros[TK_BLOCK_LEN];

        return tk_backing_pwrite(journal->fd, zeros, sizeof(zeros), area_base(journal, area));
}

/* The leader goes on in the other area, as soon as nothing in it is needed. */
static int switch_area(struct tk_journal *journal)
{
        struct release release = {.count = 0};
        unsigned other = !journal->current;
        struct area *area = &journal->areas[other];
        bool dead;
        int r = 0;

        pthread_mutex_lock(&journal->lock);
        while (!area->checkpointed && !area->error && !journal->stuck && !journal->stop)
                pthread_cond_wait(&journal->changed, &journal->lock);
        if (!area->checkpointed)
                r = area->error ? area->error : journal->stuck ? journal->stuck : -EIO;
        dead = area->dead;
        pthread_mutex_unlock(&journal->lock);
        if (r < 0)
                return r;
        if (!dead) {
                r = journal->area_failed ? wipe_area(journal, other) : 0;
                if (r == 0)
                        r = tk_backing_sync(journal->fd, true);
                if (r < 0)
                        return r;
        }
        r = tk_random_bytes(&journal->chain, sizeof(journal->chain));
        if (r < 0)
                return r;
        pthread_mutex_lock(&journal->lock);
        if (!dead)
                bury(journal, other, &release);
        area->checkpointed = false;
        area->dead = false;
        journal->current = other;
        pthread_mutex_unlock(&journal->lock);
        journal->off = 0;
        journal->area_failed = false;
        release_all(journal, &release);
        return 0;
}

/* Without handles, the name that the file has now helps to find it again. */
static uint16_t path_hint(const struct tk_journal *journal, int fd, char path[PATH_MAX],
                          const char **ret_path)
{
        size_t root_len = strlen(journal->root_path);
        char link[32];
        ssize_t n;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        n = readlink(link, path, PATH_MAX - 1);
        if (n <= (ssize_t)root_len + 1 || memcmp(path, journal->root_path, root_len) != 0 ||
            n - (ssize_t)root_len - 1 > TK_JOURNAL_PATH_MAX)
                return 0;
        *ret_path = path + root_len + 1;
        return (uint16_t)(n - (ssize_t)root_len - 1);
}

static int describe_file(struct tk_journal *journal, struct tk_journal_writer *writer,
                         struct tk_openfile *file)
{
        struct tk_journal_file entry = {0};
        char path[PATH_MAX];
        int r;

        if (!file->journal.identified) {
                r = tk_identity_read(file->fd, journal->by_handle, &file->journal.identity);
                if (r < 0)
                        return r;
                file->journal.identified = true;
        }
        memcpy(entry.proof, file->journal.proof, TK_JOURNAL_PROOF_LEN);
        entry.identity = file->journal.identity;
        if (!journal->by_handle)
                entry.path_len = path_hint(journal, file->fd, path, &entry.path);
        tk_journal_write_file(writer, &entry);
        return 0;
}

static int describe(struct tk_journal *journal, const struct batch *batch,
                    struct tk_journal_writer *writer)
{
        int r;

        tk_journal_write_begin(writer, journal->descriptor);
        for (unsigned i = 0; i < batch->file_count; i++) {
                r = describe_file(journal, writer, batch->files[i]);
                if (r < 0)
                        return r;
        }
        for (unsigned i = 0; i < batch->count; i++)
                tk_journal_write_item(writer, &batch->entries[i].item);
        return 0;
}

/* Pages at the end of an area that no batch is begun in, because the largest would not fit. */
static uint64_t room_wanted(const struct tk_journal_writer *writer)
{
        uint64_t pages = (writer->len + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN + writer->pages;

        return pages * TK_BLOCK_LEN;
}

static int write_batch(struct tk_journal *journal, const struct batch *batch)
{
        struct tk_journal_head head = {.sequence = batch->sequence,
                                       .mount = journal->fs->mount_number,
                                       .filesystem = journal->filesystem};
        struct tk_journal_writer writer;
        struct iovec iov[2];
        bool full;
        int r;

        r = describe(journal, batch, &writer);
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&journal->lock);
                full = journal->areas[journal->current].file_count + batch->file_count > AREA_FILES;
        }
        if (full || journal->area_failed ||
            journal->off + room_wanted(&writer) > journal->area_len) {
                r = switch_area(journal);
                if (r < 0)
                        return r;
        }
        head.chain = journal->chain;
        r = tk_journal_write_end(&writer, &head, journal->mac_key);
        if (r < 0)
                return r;
        iov[0] = (struct iovec){.iov_base = writer.bytes, .iov_len = writer.len};
        iov[1] = (struct iovec){.iov_base = batch->pages,
                                .iov_len = (size_t)batch->page_count * TK_BLOCK_LEN};
        r = tk_backing_pwritev(journal->fd, iov, batch->page_count > 0 ? 2 : 1,
                               area_base(journal, journal->current) + journal->off);
        if (r == 0 && !TK_PLANT(TK_PLANT_JOURNAL_UNFLUSHED))
                r = tk_backing_sync(journal->fd, true);
        if (r < 0)
                journal->area_failed = true; /* what is on the disk there is not known */
        else
                journal->off += room_wanted(&writer);
        return r;
}

static struct batch *free_batch(struct tk_journal *journal)
{
        for (int i = 0; i < BATCHES; i++)
                if (!journal->batches[i].busy)
                        return &journal->batches[i];
        return NULL;
}

static void start_building(struct tk_journal *journal, struct batch *batch)
{
        batch->busy = true;
        batch->count = 0;
        batch->page_count = 0;
        batch->file_count = 0;
        batch->sequence = ++journal->last_sequence;
        journal->building = batch;
}

/* The files of a batch that is durable now belong to the area it lies in. */
static void note_files(struct tk_journal *journal, const struct batch *batch)
{
        struct area *area = &journal->areas[journal->current];

        for (unsigned i = 0; i < batch->file_count; i++) {
                struct tk_openfile *file = batch->files[i];

                if (file->journal.areas & 1U << journal->current)
                        continue;
                file->journal.areas |= (uint8_t)(1U << journal->current);
                assert(area->file_count < AREA_FILES);
                area->files[area->file_count++] = tk_openfile_ref(journal->fs, file);
        }
        area->last_sequence = batch->sequence;
}

static void note_flushed(struct tk_journal *journal, struct batch *batch, bool buries,
                         struct release *release)
{
        journal->unflushed = NULL;
        journal->flushed = batch->sequence;
        journal->queue[journal->queued++] = batch;
        note_files(journal, batch);
        if (buries)
                bury(journal, !journal->current, release);
}

/*
 * Become the leader for the oldest batch that is not durable. Called with the lock held,
 * which is let go of meanwhile; there is no leader, and room for the next batch.
 */
static int flush_next(struct tk_journal *journal)
{
        struct release release = {.count = 0};
        struct batch *batch = journal->unflushed ? journal->unflushed : journal->building;
        struct batch *next = free_batch(journal);
        unsigned before = journal->current;
        bool buries;
        int r;

        if (batch == journal->building) {
                assert(next);
                start_building(journal, next);
        }
        journal->flushing = true;
        buries = journal->areas[!before].checkpointed && !journal->areas[!before].dead;
        pthread_mutex_unlock(&journal->lock);

        r = write_batch(journal, batch);

        pthread_mutex_lock(&journal->lock);
        journal->flushing = false;
        journal->active_ms = now_ms();
        if (r < 0) {
                journal->unflushed = batch;
                journal->failures++;
                journal->failed = batch->sequence;
                journal->failure = r;
                tk_log_limited(TK_LOG_ERROR, "%s: the journal can't be written: %s",
                               tk_volume_path(journal->fs->volume), strerror(-r));
        } else {
                note_flushed(journal, batch, buries && before == journal->current, &release);
        }
        pthread_cond_broadcast(&journal->changed);
        if (release.count > 0) {
                pthread_mutex_unlock(&journal->lock);
                release_all(journal, &release);
                pthread_mutex_lock(&journal->lock);
        }
        return r;
}

static bool may_flush(struct tk_journal *journal)
{
        return !journal->flushing && (journal->unflushed || free_batch(journal));
}

/* Called with the lock held. */
static int commit_until(struct tk_journal *journal, uint64_t sequence)
{
        while (journal->flushed < sequence) {
                unsigned failures = journal->failures;
                int r;

                if (may_flush(journal)) {
                        r = flush_next(journal);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (!journal->flushing && journal->stuck)
                        return journal->stuck;
                pthread_cond_wait(&journal->changed, &journal->lock);
                if (journal->failures != failures && journal->failed <= sequence)
                        return journal->failure;
        }
        return 0;
}

int tk_journal_commit(struct tk_journal *journal, struct tk_openfile *file)
{
        TK_LOCK_SCOPE(&journal->lock);
        return commit_until(journal, file->journal.sequence);
}

int tk_journal_settle(struct tk_journal *journal, struct tk_openfile *file)
{
        uint64_t sequence = file->journal.sequence;
        int r;

        TK_LOCK_SCOPE(&journal->lock);
        r = commit_until(journal, sequence);
        while (r == 0 && journal->applied < sequence) {
                if (journal->stuck)
                        return journal->stuck;
                pthread_cond_wait(&journal->changed, &journal->lock);
        }
        return r;
}

bool tk_journal_holds(struct tk_journal *journal, uint64_t sequence)
{
        return sequence > journal->dead;
}

bool tk_journal_is_live(struct tk_journal *journal, const struct tk_openfile *file)
{
        return tk_journal_holds(journal, file->journal.sequence);
}

/* Appending ----------------------------------------------------------------------- */

/* What proves in replay that a file is the one of its entries. */
static int make_proof(struct tk_openfile *file)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *proof = NULL;
        int r;

        r = tk_secret_new(TK_JOURNAL_PROOF_LEN, &proof);
        if (r == 0)
                r = tk_kdf_expand(file->dek, "turnkeyfs journal file", NULL, 0, proof);
        if (r == 0)
                memcpy(file->journal.proof, tk_secret_bytes(proof), TK_JOURNAL_PROOF_LEN);
        return r;
}

static bool is_full(const struct tk_journal *journal, const struct tk_openfile *file)
{
        const struct batch *batch = journal->building;

        return batch->count == TK_JOURNAL_ENTRIES_MAX || batch->page_count == journal->pages_max ||
               (batch->file_count == TK_JOURNAL_FILES_MAX &&
                file->journal.batch != batch->sequence);
}

static void copy_page(const struct pending *entry, const struct tk_journal_item *item)
{
        uint8_t *page = (uint8_t *)(uintptr_t)entry->item.page;
        uint32_t len = tk_journal_item_len(item);

        memcpy(page, item->page, len);
        memset(page + len, 0, TK_BLOCK_LEN - len);
}

/* The entry of the batch being filled that @item may take the place of. */
static struct pending *find_same(struct tk_journal *journal, struct tk_openfile *file,
                                 const struct tk_journal_item *item)
{
        struct pending *entry;

        if (item->type != TK_JOURNAL_BLOCK ||
            file->journal.size_sequence == journal->building->sequence)
                return NULL;
        entry = find(journal, file, item->at);
        return entry && entry->batch == journal->building && entry->item.type == item->type ? entry
                                                                                            : NULL;
}

static void enter_file(struct tk_journal *journal, struct tk_openfile *file)
{
        struct batch *batch = journal->building;

        if (file->journal.batch == batch->sequence)
                return;
        file->journal.batch = batch->sequence;
        file->journal.index = (uint16_t)batch->file_count;
        batch->files[batch->file_count++] = tk_openfile_ref(journal->fs, file);
}

static void add_entry(struct tk_journal *journal, struct tk_openfile *file,
                      const struct tk_journal_item *item, uint32_t crc)
{
        struct batch *batch = journal->building;
        struct pending *entry = &batch->entries[batch->count++];

        if (batch->count == 1) {
                journal->filled_ms = now_ms();
                pthread_cond_broadcast(&journal->changed); /* the thread's clock starts */
        }
        enter_file(journal, file);
        *entry = (struct pending){.item = *item, .file = file, .batch = batch};
        entry->item.file = file->journal.index;
        entry->item.crc = crc;
        if (item->type == TK_JOURNAL_BLOCK) {
                entry->item.page = batch->pages + (size_t)batch->page_count++ * TK_BLOCK_LEN;
                copy_page(entry, item);
        }
        if (item->type == TK_JOURNAL_BLOCK || item->type == TK_JOURNAL_HOLE)
                link_entry(journal, entry);
        file->journal.sequence = batch->sequence;
        if (item->type == TK_JOURNAL_SIZE)
                file->journal.size_sequence = batch->sequence;
}

int tk_journal_append(struct tk_journal *journal, struct tk_openfile *file,
                      const struct tk_journal_item *item)
{
        uint32_t crc = item->type == TK_JOURNAL_BLOCK
                               ? tk_crc32(item->page, tk_journal_item_len(item))
                               : 0;
        struct pending *same;
        int r;

        TK_LOCK_SCOPE(&journal->lock);
        if (!file->journal.proved) {
                r = make_proof(file);
                if (r < 0)
                        return r;
                file->journal.proved = true;
        }
        while (!(same = find_same(journal, file, item)) && is_full(journal, file)) {
                r = commit_until(journal, journal->building->sequence);
                if (r < 0)
                        return r;
        }
        if (!same) {
                add_entry(journal, file, item, crc);
                return 0;
        }
        memcpy(same->item.cell, item->cell, TK_CELL_LEN);
        same->item.crc = crc;
        copy_page(same, item);
        return 0;
}

/* The thread: in place ------------------------------------------------------------ */

/* When the newest journaled write of @file was, which its mtime must show. */
static struct timespec touched(const struct tk_openfile *file)
{
        int64_t ns = file->journal.touched_ns;

        return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static int put_file(struct tk_journal *journal, const struct batch *batch, unsigned index)
{
        struct tk_openfile *file = batch->files[index];
        struct tk_journal_target target = {.fd = file->fd, .base = file->base};
        size_t count = 0;

        for (unsigned i = 0; i < batch->count; i++) {
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

static int put_batch(struct tk_journal *journal, const struct batch *batch)
{
        for (unsigned i = 0; i < batch->file_count; i++) {
                int r = put_file(journal, batch, i);

                if (r < 0) {
                        tk_log_limited(TK_LOG_ERROR,
                                       "%s: an overwrite that is in the journal can't be put in "
                                       "place: %s; trying again",
                                       tk_volume_path(journal->fs->volume), strerror(-r));
                        return r;
                }
        }
        return 0;
}

static void note_applied(struct tk_journal *journal, struct batch *batch, struct release *release)
{
        for (unsigned i = 0; i < batch->count; i++) {
                struct pending *entry = &batch->entries[i];

                if (!entry->linked)
                        continue;
                unlink_entry(journal, entry);
                /* In this order: who sees no overlay any more sees the new generation. */
                entry->file->journal.overlay_gen++;
                entry->file->journal.overlay--;
        }
        while (batch->file_count > 0)
                release->files[release->count++] = batch->files[--batch->file_count];
        journal->applied = batch->sequence;
        batch->busy = false;
        for (unsigned i = 1; i < journal->queued; i++)
                journal->queue[i - 1] = journal->queue[i];
        journal->queued--;
}

/* The lock is held, and let go of meanwhile; so below. */
static void put_next(struct tk_journal *journal, struct release *release)
{
        struct batch *batch = journal->queue[0];
        int r;

        pthread_mutex_unlock(&journal->lock);
        r = put_batch(journal, batch);
        pthread_mutex_lock(&journal->lock);
        journal->stuck = r;
        if (r == 0)
                note_applied(journal, batch, release);
        pthread_cond_broadcast(&journal->changed);
}

/* The thread: areas --------------------------------------------------------------- */

/* Make durable in place what area @i holds. Nobody adds to the area meanwhile. */
static int sync_area(struct tk_journal *journal, unsigned i)
{
        struct area *area = &journal->areas[i];
        int first = 0;

        for (unsigned f = 0; f < area->file_count && !TK_PLANT(TK_PLANT_JOURNAL_REUSED); f++) {
                int r = tk_backing_sync(area->files[f]->fd, false);

                if (r < 0 && first == 0)
                        first = r;
        }
        return first;
}

static int checkpoint(struct tk_journal *journal, unsigned i)
{
        struct area *area = &journal->areas[i];
        int r;

        pthread_mutex_unlock(&journal->lock);
        r = sync_area(journal, i);
        if (r == 0)
                r = wipe_area(journal, i);
        pthread_mutex_lock(&journal->lock);
        if (r < 0) {
                area->error = r;
                tk_log(TK_LOG_ERROR,
                       "%s: overwritten files can't be synced: %s; the journal keeps them until "
                       "the next mount",
                       tk_volume_path(journal->fs->volume), strerror(-r));
        }
        area->checkpointed = r == 0;
        pthread_cond_broadcast(&journal->changed);
        return r;
}

static bool wants_checkpoint(const struct tk_journal *journal)
{
        const struct area *area = &journal->areas[!journal->current];

        return !area->checkpointed && !area->error && journal->applied >= area->last_sequence;
}

/* One area after the other, oldest first: what is on the disk stays a consistent tail. */
static int empty_areas(struct tk_journal *journal)
{
        unsigned order[2] = {!journal->current, journal->current};
        int r;

        for (int i = 0; i < 2; i++) {
                if (journal->areas[order[i]].dead)
                        continue;
                r = sync_area(journal, order[i]);
                if (r == 0)
                        r = wipe_area(journal, order[i]);
                if (r == 0)
                        r = tk_backing_sync(journal->fd, true);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Everything is in place: leave an empty journal. As the leader, so that nothing is added. */
static int reset(struct tk_journal *journal, struct release *release)
{
        int r;

        if (journal->areas[0].error || journal->areas[1].error)
                return journal->areas[0].error ? journal->areas[0].error : journal->areas[1].error;
        journal->flushing = true;
        pthread_mutex_unlock(&journal->lock);
        r = empty_areas(journal);
        if (r == 0)
                r = tk_random_bytes(&journal->chain, sizeof(journal->chain));
        pthread_mutex_lock(&journal->lock);
        journal->flushing = false;
        if (r == 0) {
                bury(journal, 0, release);
                bury(journal, 1, release);
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

static bool is_settled(const struct tk_journal *journal)
{
        return !journal->flushing && !journal->unflushed && journal->queued == 0 &&
               journal->building->count == 0;
}

/* Removed files that only the journal holds open: their space is to be free. */
static void drop_removed(struct tk_journal *journal, struct release *release)
{
        for (unsigned i = 0; i < 2; i++) {
                struct area *area = &journal->areas[i];

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

void tk_journal_drop_removed(struct tk_journal *journal)
{
        TK_LOCK_SCOPE(&journal->lock);
        pthread_cond_broadcast(&journal->changed);
}

/* The thread ---------------------------------------------------------------------- */

/* Do one thing that is due; false if nothing is. */
static bool work(struct tk_journal *journal, struct release *release)
{
        int64_t now = now_ms();

        if (journal->queued > 0 && !journal->stuck) {
                put_next(journal, release);
                return true;
        }
        if (wants_checkpoint(journal)) {
                (void)!checkpoint(journal, !journal->current);
                return true;
        }
        if (journal->building->count > 0 && now - journal->filled_ms >= FLUSH_AFTER_MS &&
            may_flush(journal))
                return flush_next(journal) == 0;
        if (is_settled(journal) && journal->finishing) {
                journal->finished = reset(journal, release);
                pthread_mutex_unlock(&journal->lock);
                release_all(journal, release);
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

        if (!has_live_area(journal) && is_settled(journal)) {
                pthread_cond_wait(&journal->changed, &journal->lock);
                return;
        }
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += TICK_MS / 1000;
        if (pthread_cond_timedwait(&journal->changed, &journal->lock, &until) == ETIMEDOUT)
                journal->stuck = 0; /* once more */
}

static void *run(void *context)
{
        struct release release = {.count = 0};
        struct tk_journal *journal = context;

        pthread_mutex_lock(&journal->lock);
        while (!journal->stop) {
                if (!work(journal, &release))
                        wait_tick(journal);
                drop_removed(journal, &release);
                if (release.count > 0) {
                        pthread_mutex_unlock(&journal->lock);
                        release_all(journal, &release);
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
        if (journal->building->count > 0)
                r = commit_until(journal, journal->building->sequence);
        else if (journal->unflushed)
                r = commit_until(journal, journal->unflushed->sequence);
        if (r < 0)
                return r;
        journal->finishing = true;
        pthread_cond_broadcast(&journal->changed);
        while (journal->finishing && !journal->stuck)
                pthread_cond_wait(&journal->changed, &journal->lock);
        if (!journal->finishing)
                return journal->finished;
        journal->finishing = false;
        return journal->stuck;
}

/* Life ---------------------------------------------------------------------------- */

int tk_journal_create(int dirfd, uint64_t len)
{
        static const uint8_t zeros[64 * TK_BLOCK_LEN];
        TK_AUTOCLOSE int journal_dirfd = -1;
        TK_AUTOCLOSE int fd = -1;
        int r = 0;

        journal_dirfd =
                openat(dirfd, TK_JOURNAL_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (journal_dirfd < 0)
                return -errno;
        fd = openat(journal_dirfd, TK_JOURNAL_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
                    0600);
        if (fd < 0)
                return -errno;
        for (uint64_t off = 0; r == 0 && off < len; off += sizeof(zeros))
                r = tk_backing_pwrite(fd, zeros,
                                      len - off < sizeof(zeros) ? len - off : sizeof(zeros), off);
        if (r == 0)
                r = tk_backing_truncate(fd, len);
        if (r == 0)
                r = tk_backing_sync(fd, false);
        return r < 0 ? r : tk_backing_sync(journal_dirfd, false);
}

static int open_file(struct tk_journal *journal, uint64_t len)
{
        int dirfd = tk_volume_dirfd(journal->fs->volume);
        struct stat st;
        int r;

        journal->fd =
                openat(dirfd, TK_JOURNAL_DIR "/" TK_JOURNAL_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (journal->fd >= 0 && fstat(journal->fd, &st) == 0 && S_ISREG(st.st_mode) &&
            st.st_size >= TK_JOURNAL_LEN_MIN && st.st_size % ((off_t)2 * TK_BLOCK_LEN) == 0) {
                journal->area_len = (uint64_t)st.st_size / 2;
                return 0;
        }
        if (journal->fd >= 0)
                close(journal->fd);
        journal->fd = -1;
        if (mkdirat(dirfd, TK_JOURNAL_DIR, 0700) < 0 && errno != EEXIST)
                return -errno;
        r = tk_journal_create(dirfd, len);
        if (r < 0)
                return r;
        journal->fd =
                openat(dirfd, TK_JOURNAL_DIR "/" TK_JOURNAL_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        journal->area_len = len / 2;
        return journal->fd < 0 ? -errno : 0;
}

/* Memory that is not used stays untouched: pages of a batch cost nothing until then. */
static int allocate(struct tk_journal *journal)
{
        uint64_t spare =
                journal->area_len / TK_BLOCK_LEN - TK_JOURNAL_DESCRIPTOR_MAX / TK_BLOCK_LEN;

        journal->pages_max =
                spare / 2 < TK_JOURNAL_PAGES_MAX ? (unsigned)(spare / 2) : TK_JOURNAL_PAGES_MAX;
        journal->descriptor = calloc(1, TK_JOURNAL_DESCRIPTOR_MAX);
        journal->items = calloc(TK_JOURNAL_ENTRIES_MAX, sizeof(struct tk_journal_item *));
        if (!journal->descriptor || !journal->items)
                return -ENOMEM;
        for (int i = 0; i < BATCHES; i++) {
                struct batch *batch = &journal->batches[i];

                batch->entries = calloc(TK_JOURNAL_ENTRIES_MAX, sizeof(*batch->entries));
                batch->pages = calloc(TK_JOURNAL_PAGES_MAX, TK_BLOCK_LEN);
                if (!batch->entries || !batch->pages)
                        return -ENOMEM;
        }
        return 0;
}

static int find_root_path(struct tk_journal *journal)
{
        char link[32];
        ssize_t n;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", journal->fs->rootfd);
        n = readlink(link, journal->root_path, sizeof(journal->root_path) - 1);
        if (n < 0)
                return -errno;
        journal->root_path[n] = '\0';
        return 0;
}

int tk_journal_mac_key(struct tk_fs *fs, struct tk_secret **ret_key)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        if (!fs->volume->volume_key)
                return -ENOKEY;
        r = tk_secret_new(TK_KEY_LEN, &key);
        if (r == 0)
                r = tk_kdf_expand(fs->volume->volume_key, "turnkeyfs journal", NULL, 0, key);
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}

static int set_up(struct tk_journal *journal, uint64_t len)
{
        pthread_condattr_t attr;
        int r;

        pthread_mutex_init(&journal->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&journal->changed, &attr);
        pthread_condattr_destroy(&attr);
        journal->by_handle = tk_identity_handles_work(journal->fs->rootfd);
        journal->filesystem = tk_identity_filesystem(journal->fs->rootfd);
        r = tk_journal_mac_key(journal->fs, &journal->mac_key);
        if (r == 0)
                r = find_root_path(journal);
        if (r == 0)
                r = open_file(journal, len);
        if (r == 0)
                r = allocate(journal);
        if (r == 0)
                r = tk_random_bytes(&journal->chain, sizeof(journal->chain));
        if (r < 0)
                return r;
        journal->areas[1].checkpointed = true;
        journal->areas[1].dead = true;
        start_building(journal, &journal->batches[0]);
        r = tk_thread_start(run, journal, &journal->thread);
        if (r < 0)
                return r;
        journal->has_thread = true;
        return 0;
}

int tk_journal_new(struct tk_fs *fs, uint64_t len, struct tk_journal **ret_journal,
                   struct tk_fault *fault)
{
        struct tk_journal *journal;
        int r;

        journal = calloc(1, sizeof(*journal));
        if (!journal)
                return -ENOMEM;
        journal->fs = fs;
        journal->fd = -1;
        r = set_up(journal, len);
        if (r < 0) {
                tk_journal_free(journal);
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot open the journal of %s: %s", tk_volume_path(fs->volume),
                                    strerror(-r));
        }
        *ret_journal = journal;
        return 0;
}

struct tk_journal *tk_journal_free(struct tk_journal *journal)
{
        if (!journal)
                return NULL;
        if (journal->has_thread) {
                pthread_mutex_lock(&journal->lock);
                journal->stop = true;
                pthread_cond_broadcast(&journal->changed);
                pthread_mutex_unlock(&journal->lock);
                pthread_join(journal->thread, NULL);
        }
        for (int i = 0; i < BATCHES; i++) {
                free(journal->batches[i].entries);
                free(journal->batches[i].pages);
        }
        free(journal->descriptor);
        free(journal->items);
        tk_secret_free(journal->mac_key);
        if (journal->fd >= 0)
                close(journal->fd);
        pthread_cond_destroy(&journal->changed);
        pthread_mutex_destroy(&journal->lock);
        free(journal);
        return NULL;
}
