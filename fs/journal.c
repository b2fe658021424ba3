/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal of a mount.
 *
 * Entries are collected in a batch in memory. Whoever wants one durable becomes the
 * leader and writes and flushes what is new in the batch, for all who wait; meanwhile it is
 * filled further. When it is full, or some seconds old, or somebody waits for it, the
 * thread puts in place what was flushed, in order.
 *
 * The file has two areas, filled in turn. The other area is used again when all of its
 * batches are in place, the files are fsynced, and its first page was wiped durably:
 * so the areas on disk always hold everything that may be missing in place, and an area
 * that is overwritten is never half believed. Only the leader moves in the areas.
 *
 * Lock order: the journal's lock, then the open-file lock.
 */

#include "fs/journal.h"

#include "base/crc.h"
#include "base/thread.h"
#include "crypto/kdf.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/journal_find.h"
#include "fs/journal_internal.h"
#include "fs/volume_internal.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Files --------------------------------------------------------------------------- */

void tk_journal_release_all(struct tk_journal *journal, struct tk_journal_release *release)
{
        while (release->count > 0)
                tk_openfile_put(journal->fs, release->files[--release->count]);
}

static void release_area(struct tk_journal_area *area, struct tk_journal_release *release)
{
        while (area->file_count > 0)
                release->files[release->count++] = area->files[--area->file_count];
}

/* The area on disk holds nothing any more. */
void tk_journal_bury(struct tk_journal *journal, unsigned i, struct tk_journal_release *release)
{
        struct tk_journal_area *area = &journal->areas[i];

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

static struct tk_journal_pending **bucket_of(struct tk_journal *journal,
                                             const struct tk_openfile *file, uint64_t block)
{
        uint64_t mixed = ((uintptr_t)file >> 4 ^ block) * UINT64_C(0x9E3779B97F4A7C15);

        return &journal->buckets[(mixed >> 40) % TK_JOURNAL_BUCKETS];
}

struct tk_journal_pending *tk_journal_find(struct tk_journal *journal,
                                           const struct tk_openfile *file, uint64_t block)
{
        struct tk_journal_pending *entry = *bucket_of(journal, file, block);

        while (entry && (entry->file != file || entry->item.at != block))
                entry = entry->next;
        return entry;
}

void tk_journal_unlink_entry(struct tk_journal *journal, struct tk_journal_pending *entry)
{
        struct tk_journal_pending **link = bucket_of(journal, entry->file, entry->item.at);

        while (*link != entry)
                link = &(*link)->next;
        *link = entry->next;
        entry->linked = false;
}

void tk_journal_link_entry(struct tk_journal *journal, struct tk_journal_pending *entry)
{
        struct tk_journal_pending *older = tk_journal_find(journal, entry->file, entry->item.at);
        struct tk_journal_pending **bucket = bucket_of(journal, entry->file, entry->item.at);

        if (older)
                tk_journal_unlink_entry(journal, older);
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
                const struct tk_journal_pending *entry = tk_journal_find(journal, file, block);

                if (!entry)
                        continue;
                memcpy(cells + (block - first) * TK_CELL_LEN, entry->item.cell, TK_CELL_LEN);
                if (data && entry->item.type == TK_JOURNAL_BLOCK)
                        memcpy(data + (block - first) * TK_BLOCK_LEN, entry->item.page,
                               tk_journal_item_len(&entry->item));
        }
        return 0;
}

/* How it is ------------------------------------------------------------------------ */

void tk_journal_look(struct tk_journal *journal, struct tk_journal_status *ret_status)
{
        int64_t now_ms = tk_journal_now_ms();

        TK_LOCK_SCOPE(&journal->lock);
        *ret_status = (struct tk_journal_status){
                .len = 2 * journal->area_len,
                .flush_failures = journal->failures,
                .stuck = journal->stuck != 0,
        };
        for (unsigned i = 0; i < TK_JOURNAL_BATCHES; i++) {
                const struct tk_journal_batch *batch = &journal->batches[i];

                if (batch->applied == batch->count)
                        continue;
                ret_status->batches++;
                ret_status->waiting += batch->count - batch->applied;
                ret_status->waiting_bytes += (uint64_t)batch->page_count * TK_BLOCK_LEN;
                if (now_ms - batch->began_ms > ret_status->oldest_ms)
                        ret_status->oldest_ms = now_ms - batch->began_ms;
        }
}

/* Appending ----------------------------------------------------------------------- */

static bool is_full(const struct tk_journal *journal, const struct tk_openfile *file)
{
        const struct tk_journal_batch *batch = journal->building;

        return batch->count == TK_JOURNAL_ENTRIES_MAX || batch->page_count == journal->pages_max ||
               (batch->file_count == journal->files_max && file->journal.batch != batch->id);
}

/* Whether no flush has taken @entry on: it may change. */
static bool is_new(const struct tk_journal *journal, const struct tk_journal_pending *entry)
{
        const struct tk_journal_batch *batch = journal->building;

        return entry->batch == batch && entry >= batch->entries + batch->part.end;
}

static void copy_page(const struct tk_journal_pending *entry, const struct tk_journal_item *item)
{
        uint8_t *page = (uint8_t *)(uintptr_t)entry->item.page;
        uint32_t len = tk_journal_item_len(item);

        memcpy(page, item->page, len);
        memset(page + len, 0, TK_BLOCK_LEN - len);
}

/* The entry that is new, too, and that @item may take the place of. */
static struct tk_journal_pending *find_same(struct tk_journal *journal, struct tk_openfile *file,
                                            const struct tk_journal_item *item)
{
        struct tk_journal_pending *entry;

        if (item->type != TK_JOURNAL_BLOCK || file->journal.size_sequence == journal->filling)
                return NULL;
        entry = tk_journal_find(journal, file, item->at);
        return entry && is_new(journal, entry) && entry->item.type == item->type ? entry : NULL;
}

static void enter_file(struct tk_journal *journal, struct tk_openfile *file)
{
        struct tk_journal_batch *batch = journal->building;

        if (file->journal.batch == batch->id)
                return;
        file->journal.batch = batch->id;
        file->journal.index = (uint16_t)batch->file_count;
        batch->hints[batch->file_count].names = 0;
        batch->files[batch->file_count++] = tk_openfile_ref(journal->fs, file);
}

static void add_entry(struct tk_journal *journal, struct tk_openfile *file,
                      const struct tk_journal_item *item, uint32_t crc)
{
        struct tk_journal_batch *batch = journal->building;
        struct tk_journal_pending *entry;

        if (!tk_journal_has_new(journal))
                journal->filled_ms = tk_journal_now_ms();
        if (batch->count == 0)
                batch->began_ms = journal->filled_ms;
        if (journal->idle)
                pthread_cond_signal(&journal->due); /* its clock starts */
        entry = &batch->entries[batch->count++];
        enter_file(journal, file);
        *entry = (struct tk_journal_pending){.item = *item, .file = file, .batch = batch};
        entry->item.file = file->journal.index;
        entry->item.crc = crc;
        if (item->type == TK_JOURNAL_BLOCK) {
                entry->item.page = batch->pages + (size_t)batch->page_count++ * TK_BLOCK_LEN;
                copy_page(entry, item);
        }
        if (item->type == TK_JOURNAL_BLOCK || item->type == TK_JOURNAL_HOLE)
                tk_journal_link_entry(journal, entry);
        file->journal.sequence = journal->filling;
        if (item->type == TK_JOURNAL_HOLE)
                file->journal.punched = true;
        if (item->type == TK_JOURNAL_SIZE)
                file->journal.size_sequence = journal->filling;
}

/* The batch being filled is full. Called with the lock held, which is let go of meanwhile. */
static int make_room(struct tk_journal *journal)
{
        struct tk_journal_batch *next = tk_journal_free_batch(journal);

        if (tk_journal_has_new(journal))
                return tk_journal_commit_until(journal, journal->filling);
        if (next) {
                journal->queue[journal->queued++] = journal->building;
                tk_journal_start_building(journal, next);
                pthread_cond_signal(&journal->due);
                return 0;
        }
        if (journal->stuck)
                return journal->stuck;
        pthread_cond_wait(&journal->changed, &journal->lock);
        return 0;
}

int tk_journal_append(struct tk_journal *journal, struct tk_openfile *file,
                      const struct tk_journal_item *item)
{
        uint32_t crc = item->type == TK_JOURNAL_BLOCK
                               ? tk_crc32(item->page, tk_journal_item_len(item))
                               : 0;
        struct tk_journal_pending *same;
        int r;

        TK_LOCK_SCOPE(&journal->lock);
        if (!file->journal.proved) {
                r = tk_journal_proof_of(file, file->journal.proof);
                if (r < 0)
                        return r;
                file->journal.proved = true;
        }
        for (;;) {
                r = tk_journal_await_held(journal, file);
                if (r < 0)
                        return r;
                same = find_same(journal, file, item);
                if (same || !is_full(journal, file))
                        break;
                r = make_room(journal);
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

/* The space of one block. Called with the lock held, which it lets go of while it waits. */
static void keep_space(struct tk_journal *journal, struct tk_openfile *file, uint64_t block)
{
        struct tk_journal_pending *entry;

        while ((entry = tk_journal_find(journal, file, block)) &&
               entry->item.type == TK_JOURNAL_HOLE) {
                entry->keep_space = true;
                if (is_new(journal, entry))
                        entry->item.flags |= TK_JOURNAL_KEEP; /* replay keeps it, too */
                if (!entry->batch->applying)
                        return;
                pthread_cond_wait(&journal->changed, &journal->lock);
        }
}

void tk_journal_keep_space(struct tk_journal *journal, struct tk_openfile *file, uint64_t first,
                           uint64_t last)
{
        if (!file->journal.punched || file->journal.overlay == 0)
                return;
        TK_LOCK_SCOPE(&journal->lock);
        for (uint64_t block = first; block <= last; block++)
                keep_space(journal, file, block);
}

uint64_t tk_journal_skip_pages(struct tk_journal *journal, struct tk_openfile *file, uint64_t first,
                               uint64_t last)
{
        const struct tk_journal_pending *entry;

        if (file->journal.overlay == 0)
                return first;
        TK_LOCK_SCOPE(&journal->lock);
        while (first <= last && (entry = tk_journal_find(journal, file, first)) &&
               entry->item.type == TK_JOURNAL_BLOCK)
                first++;
        return first;
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

/* Open the journal, if it is one: -ENOENT if it is missing or of a size that it can't have. */
static int open_file(struct tk_journal *journal)
{
        struct stat st;
        int fd = openat(tk_volume_dirfd(journal->fs->volume), TK_JOURNAL_DIR "/" TK_JOURNAL_NAME,
                        O_RDWR | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < TK_JOURNAL_LEN_MIN ||
            st.st_size % ((off_t)2 * TK_BLOCK_LEN) != 0) {
                close(fd);
                return -ENOENT;
        }
        journal->fd = fd;
        journal->area_len = (uint64_t)st.st_size / 2;
        return 0;
}

static int open_or_make_file(struct tk_journal *journal, uint64_t len)
{
        int dirfd = tk_volume_dirfd(journal->fs->volume);
        int r = open_file(journal);

        if (r != -ENOENT)
                return r;
        if (mkdirat(dirfd, TK_JOURNAL_DIR, 0700) < 0 && errno != EEXIST)
                return -errno;
        r = tk_journal_create(dirfd, len);
        return r < 0 ? r : open_file(journal);
}

/* The journal holds files open: two areas and the batches take a third of the limit at most. */
static void bound_files(struct tk_journal *journal)
{
        struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
        rlim_t files;

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        files = limit.rlim_cur / 8;
        journal->area_files =
                files < TK_JOURNAL_AREA_FILES ? (unsigned)files : TK_JOURNAL_AREA_FILES;
        files = limit.rlim_cur / 64;
        journal->files_max = files < TK_JOURNAL_FILES_MAX ? (unsigned)files : TK_JOURNAL_FILES_MAX;
        if (journal->files_max == 0)
                journal->files_max = 1;
        if (journal->area_files < journal->files_max)
                journal->area_files = journal->files_max;
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
        for (int i = 0; i < TK_JOURNAL_BATCHES; i++) {
                struct tk_journal_batch *batch = &journal->batches[i];

                batch->entries = calloc(TK_JOURNAL_ENTRIES_MAX, sizeof(*batch->entries));
                batch->pages = calloc(TK_JOURNAL_PAGES_MAX, TK_BLOCK_LEN);
                batch->hints = calloc(TK_JOURNAL_FILES_MAX, sizeof(*batch->hints));
                if (!batch->entries || !batch->pages || !batch->hints)
                        return -ENOMEM;
        }
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
        int r;

        pthread_mutex_init(&journal->lock, NULL);
        tk_thread_cond_init(&journal->changed);
        tk_thread_cond_init(&journal->due);
        journal->names = 1;
        journal->filling = 1;
        journal->by_handle = tk_identity_handles_work(journal->fs->rootfd);
        bound_files(journal);
        journal->tree = tk_identity_tree(journal->fs->rootfd);
        tk_backing_path(journal->fs->rootfd, journal->root_path, sizeof(journal->root_path));
        r = tk_journal_mac_key(journal->fs, &journal->mac_key);
        if (r == 0)
                r = open_or_make_file(journal, len);
        if (r == 0)
                r = allocate(journal);
        if (r == 0)
                r = tk_random_bytes(&journal->chain, sizeof(journal->chain));
        if (r < 0)
                return r;
        journal->areas[1].checkpointed = true;
        journal->areas[1].dead = true;
        tk_journal_start_building(journal, &journal->batches[0]);
        r = tk_thread_start(tk_journal_run, journal, &journal->thread);
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
                pthread_cond_signal(&journal->due);
                pthread_mutex_unlock(&journal->lock);
                pthread_join(journal->thread, NULL);
        }
        tk_journal_drop_held(journal);
        for (int i = 0; i < TK_JOURNAL_BATCHES; i++) {
                free(journal->batches[i].entries);
                free(journal->batches[i].pages);
                free(journal->batches[i].hints);
        }
        free(journal->descriptor);
        free(journal->items);
        tk_secret_free(journal->mac_key);
        if (journal->fd >= 0)
                close(journal->fd);
        pthread_cond_destroy(&journal->changed);
        pthread_cond_destroy(&journal->due);
        pthread_mutex_destroy(&journal->lock);
        free(journal);
        return NULL;
}
