/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Files that are held: what is in the journal can't be put or made durable in their places.
 *
 * Only they suffer. All that the journal on disk has of such a file is read into memory, where
 * reads see it; nothing more of the file is taken. Before an area is wiped, its entries go to
 * the kept ones (journal_kept.h), and the area serves others. Everything is tried again once in
 * a while, and when somebody waits for it: put in place from the first entry on, since a flush
 * that failed may have lost any of them, flushed, and then no longer kept.
 *
 * After a crash the kept entries are replayed, then the areas: in the order they were made, some
 * of them twice.
 */

#include "base/bytes.h"
#include "base/log.h"
#include "base/plant.h"
#include "fs/backing.h"
#include "fs/content_sync.h"
#include "fs/journal_internal.h"
#include "fs/journal_kept.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Memory -------------------------------------------------------------------------- */

enum { FILES_MAX = 64 };

/* Of memory: room for all that the journal may hold of one file. */
static size_t limit_of(const struct tk_journal *journal)
{
        return 8 * journal->area_len;
}

static size_t len_of(const struct tk_journal_held *held)
{
        return held->batch.count * sizeof(struct tk_journal_pending) +
               (size_t)held->batch.page_count * TK_BLOCK_LEN;
}

static struct tk_journal_held *held_free(struct tk_journal_held *held)
{
        if (held) {
                free(held->batch.entries);
                free(held->batch.pages);
                free(held);
        }
        return NULL;
}

/* Room for @entries entries, @pages of them with a page, of @file. */
static struct tk_journal_held *held_new(struct tk_openfile *file, unsigned entries, unsigned pages)
{
        struct tk_journal_held *held = calloc(1, sizeof(*held));

        if (!held)
                return NULL;
        held->batch.entries = calloc(entries > 0 ? entries : 1, sizeof(*held->batch.entries));
        held->batch.pages = calloc(pages > 0 ? pages : 1, TK_BLOCK_LEN);
        if (!held->batch.entries || !held->batch.pages)
                return held_free(held);
        held->batch.files[0] = file;
        held->batch.file_count = 1;
        return held;
}

static void add_item(struct tk_journal_held *held, const struct tk_journal_item *item)
{
        struct tk_journal_batch *batch = &held->batch;
        struct tk_journal_pending *entry = &batch->entries[batch->count++];

        *entry =
                (struct tk_journal_pending){.item = *item, .file = batch->files[0], .batch = batch};
        entry->item.file = 0;
        if (item->type != TK_JOURNAL_BLOCK)
                return;
        entry->item.page = batch->pages + (size_t)batch->page_count++ * TK_BLOCK_LEN;
        memcpy(batch->pages + (size_t)(batch->page_count - 1) * TK_BLOCK_LEN, item->page,
               TK_BLOCK_LEN);
}

/* Entries on their way in place: @held has them from now on. */
struct range {
        struct tk_journal_batch *batch; /* NULL: none */
        unsigned end;
};

/* Reads see what @held has, where there is nothing newer. */
static void link_held(struct tk_journal *journal, struct tk_journal_held *held,
                      const struct range *instead)
{
        const struct tk_journal_batch *batch = instead->batch;

        for (unsigned i = held->batch.count; i-- > 0;) {
                struct tk_journal_pending *entry = &held->batch.entries[i];
                const struct tk_journal_pending *found;

                if (entry->item.type != TK_JOURNAL_BLOCK && entry->item.type != TK_JOURNAL_HOLE)
                        continue;
                found = tk_journal_find(journal, entry->file, entry->item.at);
                if (!found ||
                    (batch && found->batch == batch && found < batch->entries + instead->end))
                        tk_journal_link_entry(journal, entry);
        }
}

/* Take @list on, which may be none. */
static void add_list(struct tk_journal *journal, struct tk_journal_held *list,
                     const struct range *instead)
{
        struct tk_journal_held **end = &journal->held;

        while (*end)
                end = &(*end)->next;
        *end = list;
        for (; list; list = list->next)
                journal->held_len += len_of(list);
        /* The newest first: it is what counts of its blocks. */
        for (struct tk_journal_held *done = NULL; done != *end;) {
                struct tk_journal_held *last = *end;

                while (last->next != done)
                        last = last->next;
                link_held(journal, last, instead);
                done = last;
        }
}

static void free_list(struct tk_journal_held *list)
{
        while (list) {
                struct tk_journal_held *next = list->next;

                held_free(list);
                list = next;
        }
}

/* From the areas ------------------------------------------------------------------ */

/* An area that counts. */
struct live {
        struct tk_journal_source source;
        uint64_t last_sequence;
};

/* The areas that count, the older first; returns how many there are. */
static unsigned live_areas(struct tk_journal *journal, struct live live[2])
{
        unsigned order[2];
        unsigned count = 0;

        TK_LOCK_SCOPE(&journal->lock);
        order[0] = !journal->current;
        order[1] = journal->current;
        for (int i = 0; i < 2; i++) {
                const struct tk_journal_area *area = &journal->areas[order[i]];

                if (area->last_sequence > 0 && !area->checkpointed)
                        live[count++] = (struct live){
                                .source = {.fd = journal->fd,
                                           .begin = tk_journal_area_base(journal, order[i]),
                                           .len = journal->area_len,
                                           .chain = area->chain},
                                .last_sequence = area->last_sequence};
        }
        return count;
}

/* The number of @file in the batch that was read; -1: it has nothing of it. */
static int number_of(const struct tk_journal_reader *reader, const struct tk_openfile *file)
{
        for (unsigned i = 0; i < reader->head.files; i++) {
                struct tk_journal_file entry = tk_journal_file_at(reader->batch, &reader->head, i);

                if (tk_bytes_equal_ct(entry.proof, file->journal.proof, TK_JOURNAL_PROOF_LEN))
                        return (int)i;
        }
        return -1;
}

/* What the batch that was read has of @file. NULL without memory. */
static struct tk_journal_held *copy_batch(const struct tk_journal_reader *reader, int number,
                                          struct tk_openfile *file)
{
        struct tk_journal_cursor cursor = {0};
        struct tk_journal_held *held = NULL;
        struct tk_journal_item item;
        unsigned entries = 0;
        unsigned pages = 0;

        while (tk_journal_next_item(reader->batch, &reader->head, &cursor, &item))
                if (item.file == number) {
                        entries++;
                        pages += item.type == TK_JOURNAL_BLOCK;
                }
        held = held_new(file, entries, pages);
        if (!held)
                return NULL;
        cursor = (struct tk_journal_cursor){0};
        while (tk_journal_next_item(reader->batch, &reader->head, &cursor, &item))
                if (item.file == number)
                        add_item(held, &item);
        return held;
}

/* What is on the disk was flushed: all of it must be there. -ENOBUFS: too much is held. */
static int read_areas(struct tk_journal *journal, struct tk_openfile *file,
                      struct tk_journal_held **ret_list)
{
        TK_CLEANUP(tk_journal_reader_done) struct tk_journal_reader reader = {0};
        struct live live[2];
        size_t len = journal->held_len;
        unsigned count = live_areas(journal, live);
        int r = tk_journal_reader_init(&reader, journal->fs);

        for (unsigned i = 0; r == 0 && i < count; i++) {
                tk_journal_reader_begin(&reader, &live[i].source);
                while ((r = tk_journal_reader_next(&reader)) > 0) {
                        int number = number_of(&reader, file);

                        if (number < 0)
                                continue;
                        *ret_list = copy_batch(&reader, number, file);
                        if (!*ret_list)
                                return -ENOMEM;
                        len += len_of(*ret_list);
                        if (len > limit_of(journal))
                                return -ENOBUFS;
                        ret_list = &(*ret_list)->next;
                }
                if (r == 0 && reader.sequence < live[i].last_sequence)
                        return -EIO;
        }
        return r;
}

/* Holding ------------------------------------------------------------------------- */

static void note_held(const struct tk_fs *fs, const struct tk_openfile *file, const char *what,
                      int error)
{
        char path[PATH_MAX];

        tk_fs_log_path(fs, file->fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: overwrites that are in the journal can't be %s: %s; they are kept and "
                       "tried again, and until then the file takes no more",
                       path, what, strerror(-error));
}

static int hold(struct tk_journal *journal, struct tk_openfile *file, const struct range *instead,
                int error)
{
        struct tk_journal_held *list = NULL;
        int r;

        r = journal->held_files < FILES_MAX ? read_areas(journal, file, &list) : -ENOBUFS;
        if (r == 0 && !list)
                r = -EIO;
        if (r < 0) {
                free_list(list);
                return r == -ENOBUFS ? error : r;
        }
        TK_LOCK_SCOPE(&journal->lock);
        file->journal.held = error;
        journal->held_files++;
        tk_openfile_ref(journal->fs, file);
        add_list(journal, list, instead);
        return 0;
}

int tk_journal_hold_unsynced(struct tk_journal *journal, struct tk_openfile *file, int error)
{
        static const struct range none = {.batch = NULL};

        note_held(journal->fs, file, "synced", error);
        return hold(journal, file, &none, error);
}

/* More of a file that is held: it was taken before. */
static int hold_more(struct tk_journal *journal, struct tk_journal_batch *batch, unsigned end,
                     unsigned index)
{
        const struct range instead = {.batch = batch, .end = end};
        struct tk_journal_held *held;
        unsigned entries = 0;
        unsigned pages = 0;

        for (unsigned i = batch->applied; i < end; i++)
                if (batch->entries[i].item.file == index) {
                        entries++;
                        pages += batch->entries[i].item.type == TK_JOURNAL_BLOCK;
                }
        if (entries == 0)
                return 0;
        if (journal->held_len > limit_of(journal))
                return batch->files[index]->journal.held;
        held = held_new(batch->files[index], entries, pages);
        if (!held)
                return -ENOMEM;
        for (unsigned i = batch->applied; i < end; i++)
                if (batch->entries[i].item.file == index)
                        add_item(held, &batch->entries[i].item);
        TK_LOCK_SCOPE(&journal->lock);
        add_list(journal, held, &instead);
        return 0;
}

int tk_journal_hold_unput(struct tk_journal *journal, struct tk_journal_batch *batch, unsigned end,
                          unsigned index, int error)
{
        struct tk_openfile *file = batch->files[index];
        const struct range instead = {.batch = batch, .end = end};

        if (file->journal.held < 0)
                return hold_more(journal, batch, end, index);
        note_held(journal->fs, file, "put in place", error);
        return hold(journal, file, &instead, error);
}

int tk_journal_keep_held(struct tk_journal *journal, unsigned i)
{
        struct tk_journal_area *area = &journal->areas[i];
        uint8_t proofs[TK_JOURNAL_AREA_FILES][TK_JOURNAL_PROOF_LEN];
        struct tk_journal_source source = {.fd = journal->fd,
                                           .begin = tk_journal_area_base(journal, i),
                                           .len = journal->area_len};
        unsigned count = 0;

        {
                TK_LOCK_SCOPE(&journal->lock);
                source.chain = area->chain;
                for (unsigned f = 0; f < area->file_count; f++)
                        if (area->files[f]->journal.held < 0)
                                memcpy(proofs[count++], area->files[f]->journal.proof,
                                       TK_JOURNAL_PROOF_LEN);
        }
        if (count == 0 || TK_PLANT(TK_PLANT_HELD_UNKEPT))
                return 0;
        return tk_journal_kept_add(journal->fs, &source, proofs, count);
}

/* Trying again -------------------------------------------------------------------- */

/* Whether nobody can see @file any more: then nothing needs to be put in place. */
static bool is_gone(struct tk_journal *journal, struct tk_openfile *file)
{
        unsigned refs = 1 + (unsigned)__builtin_popcount(file->journal.areas);
        struct stat st;

        return tk_openfile_is_last(journal->fs, file, refs) && fstat(file->fd, &st) == 0 &&
               st.st_nlink == 0;
}

static int put_again(struct tk_journal *journal, struct tk_openfile *file)
{
        int r = 0;

        for (struct tk_journal_held *held = journal->held; r == 0 && held; held = held->next)
                if (held->batch.files[0] == file)
                        r = tk_journal_put_file(journal, &held->batch, held->batch.count, 0);
        if (r == 0 && !TK_PLANT(TK_PLANT_HELD_UNSYNCED))
                r = tk_content_flush(file, false);
        return r;
}

/* What is held of @file is about to be put in place, or is not any more. */
static void set_applying(struct tk_journal *journal, const struct tk_openfile *file, bool applying)
{
        for (struct tk_journal_held *held = journal->held; held; held = held->next) {
                if (held->batch.files[0] != file)
                        continue;
                if (applying)
                        tk_journal_begin_applying(&held->batch, held->batch.count);
                held->batch.applying = applying;
        }
}

/* All of @file is in place, durably. */
static void let_go(struct tk_journal *journal, struct tk_openfile *file,
                   struct tk_journal_release *release)
{
        struct tk_journal_held **link = &journal->held;

        file->journal.held = 0;
        journal->held_files--;
        release->files[release->count++] = file;
        while (*link) {
                struct tk_journal_held *held = *link;

                if (held->batch.files[0] != file) {
                        link = &held->next;
                        continue;
                }
                tk_journal_unlink_applied(journal, &held->batch, held->batch.count);
                journal->held_len -= len_of(held);
                *link = held->next;
                held_free(held);
        }
}

static void retry(struct tk_journal *journal, struct tk_openfile *file,
                  struct tk_journal_release *release)
{
        unsigned failures = file->flush_failures;
        bool gone = is_gone(journal, file);
        int r;

        set_applying(journal, file, true);
        pthread_mutex_unlock(&journal->lock);
        r = gone ? 0 : put_again(journal, file);
        if (r == 0)
                r = tk_journal_kept_forget(journal->fs, file->journal.proof);
        pthread_mutex_lock(&journal->lock);
        set_applying(journal, file, false);
        if (r < 0) {
                file->journal.held = r;
        } else {
                file->journal.failures = failures;
                let_go(journal, file, release);
        }
}

void tk_journal_retry_held(struct tk_journal *journal, struct tk_journal_release *release)
{
        struct tk_openfile *files[FILES_MAX];
        unsigned count = 0;

        for (const struct tk_journal_held *held = journal->held; held; held = held->next) {
                unsigned i = 0;

                while (i < count && files[i] != held->batch.files[0])
                        i++;
                if (i == count)
                        files[count++] = held->batch.files[0];
        }
        for (unsigned i = 0; i < count; i++)
                retry(journal, files[i], release);
        journal->retry = false;
        journal->tries++;
        journal->tried_ms = tk_journal_now_ms();
        pthread_cond_broadcast(&journal->changed);
}

int tk_journal_await_held(struct tk_journal *journal, const struct tk_openfile *file)
{
        unsigned tries = journal->tries;

        while (file->journal.held < 0 && journal->tries == tries && !journal->stop) {
                journal->retry = true;
                pthread_cond_signal(&journal->due);
                pthread_cond_wait(&journal->changed, &journal->lock);
        }
        return file->journal.held;
}

int tk_journal_held_error(const struct tk_journal *journal)
{
        return journal->held ? journal->held->batch.files[0]->journal.held : 0;
}

unsigned tk_journal_held_files(struct tk_journal *journal, char ret_path[PATH_MAX], int *ret_error)
{
        TK_LOCK_SCOPE(&journal->lock);
        *ret_error = tk_journal_held_error(journal);
        if (journal->held)
                tk_backing_path(journal->held->batch.files[0]->fd, ret_path, PATH_MAX);
        return journal->held_files;
}

void tk_journal_drop_held(struct tk_journal *journal)
{
        free_list(journal->held);
        journal->held = NULL;
}
