/* SPDX-License-Identifier: Apache-2.0 */

/* The journal's leader: what is new in a batch is written and flushed, for all who wait. */

#include "base/log.h"
#include "base/plant.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/journal_internal.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { NO_FILE = UINT16_MAX };

/* Wipe the first page of an area, without a flush. */
int tk_journal_wipe_area(struct tk_journal *journal, unsigned area)
{
        static const uint8_t zeros[TK_BLOCK_LEN];

        return tk_backing_pwrite(journal->fd, zeros, sizeof(zeros),
                                 tk_journal_area_base(journal, area));
}

/* The leader goes on in the other area, as soon as nothing in it is needed. */
static int switch_area(struct tk_journal *journal)
{
        struct tk_journal_release release = {.count = 0};
        unsigned other = !journal->current;
        struct tk_journal_area *area = &journal->areas[other];
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
                r = journal->area_failed ? tk_journal_wipe_area(journal, other) : 0;
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
                tk_journal_bury(journal, other, &release);
        area->checkpointed = false;
        area->dead = false;
        journal->current = other;
        pthread_mutex_unlock(&journal->lock);
        journal->off = 0;
        journal->area_failed = false;
        tk_journal_release_all(journal, &release);
        return 0;
}

/* The name that the file has now finds it again where its handle does not: in a copy. */
static void find_path(const struct tk_journal *journal, int fd, struct tk_journal_hint *hint)
{
        size_t root_len = strlen(journal->root_path);
        unsigned names = journal->names;
        char path[PATH_MAX];
        size_t len;

        if (hint->names == names)
                return;
        hint->names = names;
        hint->len = 0;
        tk_backing_path(fd, path, sizeof(path));
        len = strlen(path);
        if (root_len == 0 || len <= root_len + 1 || len - root_len - 1 > TK_JOURNAL_PATH_MAX ||
            memcmp(path, journal->root_path, root_len) != 0) /* not secret */
                return;
        hint->len = (uint16_t)(len - root_len - 1);
        memcpy(hint->path, path + root_len + 1, hint->len);
}

static int describe_file(struct tk_journal *journal, struct tk_journal_writer *writer,
                         struct tk_openfile *file, struct tk_journal_hint *hint)
{
        struct tk_journal_file entry = {0};
        int r;

        if (!file->journal.identified) {
                r = tk_identity_read(file->fd, journal->by_handle, &file->journal.identity);
                if (r < 0)
                        return r;
                file->journal.identified = true;
        }
        memcpy(entry.proof, file->journal.proof, TK_JOURNAL_PROOF_LEN);
        entry.identity = file->journal.identity;
        find_path(journal, file->fd, hint);
        entry.path = hint->path;
        entry.path_len = hint->len;
        tk_journal_write_file(writer, &entry);
        return 0;
}

static int describe(struct tk_journal *journal, const struct tk_journal_batch *batch,
                    struct tk_journal_writer *writer)
{
        const struct tk_journal_part *part = &batch->part;
        int r;

        tk_journal_write_begin(writer, journal->descriptor);
        memset(journal->numbers, 0xFF, sizeof(journal->numbers));
        for (unsigned i = part->first; i < part->end; i++) {
                uint16_t file = batch->entries[i].item.file;

                if (journal->numbers[file] != NO_FILE)
                        continue;
                journal->numbers[file] = writer->files;
                r = describe_file(journal, writer, batch->files[file], &batch->hints[file]);
                if (r < 0)
                        return r;
        }
        for (unsigned i = part->first; i < part->end; i++) {
                struct tk_journal_item item = batch->entries[i].item;

                item.file = journal->numbers[item.file];
                tk_journal_write_item(writer, &item);
        }
        return 0;
}

/* Pages at the end of an area that no batch is begun in, because the largest would not fit. */
static uint64_t room_wanted(const struct tk_journal_writer *writer)
{
        uint64_t pages = (writer->len + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN + writer->pages;

        return pages * TK_BLOCK_LEN;
}

static int write_batch(struct tk_journal *journal, const struct tk_journal_batch *batch)
{
        const struct tk_journal_part *part = &batch->part;
        struct tk_journal_head head = {.sequence = part->sequence,
                                       .mount = journal->fs->mount_number,
                                       .tree = journal->tree};
        struct tk_journal_writer writer;
        struct iovec iov[2];
        bool full;
        int r;

        r = describe(journal, batch, &writer);
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&journal->lock);
                full = journal->areas[journal->current].file_count + writer.files >
                       journal->area_files;
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
        iov[1] = (struct iovec){.iov_base = batch->pages + (size_t)part->first_page * TK_BLOCK_LEN,
                                .iov_len =
                                        (size_t)(part->end_page - part->first_page) * TK_BLOCK_LEN};
        r = tk_backing_pwritev(journal->fd, iov, iov[1].iov_len > 0 ? 2 : 1,
                               tk_journal_area_base(journal, journal->current) + journal->off);
        if (r == 0 && !TK_PLANT(TK_PLANT_JOURNAL_UNFLUSHED))
                r = tk_backing_sync(journal->fd, true);
        if (r < 0)
                journal->area_failed = true; /* what is on the disk there is not known */
        else
                journal->off += room_wanted(&writer);
        return r;
}

struct tk_journal_batch *tk_journal_free_batch(struct tk_journal *journal)
{
        for (int i = 0; i < TK_JOURNAL_BATCHES; i++)
                if (!journal->batches[i].busy)
                        return &journal->batches[i];
        return NULL;
}

void tk_journal_start_building(struct tk_journal *journal, struct tk_journal_batch *batch)
{
        batch->busy = true;
        batch->count = 0;
        batch->page_count = 0;
        batch->file_count = 0;
        batch->flushed = 0;
        batch->applied = 0;
        batch->part = (struct tk_journal_part){.sequence = 0};
        batch->id = journal->filling;
        journal->building = batch;
}

/* The files of a part that is durable now belong to the area it lies in. */
static void note_files(struct tk_journal *journal, const struct tk_journal_batch *batch)
{
        struct tk_journal_area *area = &journal->areas[journal->current];

        for (unsigned i = 0; i < batch->file_count; i++) {
                struct tk_openfile *file = batch->files[i];

                if (journal->numbers[i] == NO_FILE || file->journal.areas & 1U << journal->current)
                        continue;
                if (file->journal.areas == 0)
                        file->journal.failures = file->flush_failures;
                file->journal.areas |= (uint8_t)(1U << journal->current);
                assert(area->file_count < journal->area_files);
                area->files[area->file_count++] = tk_openfile_ref(journal->fs, file);
        }
        area->last_sequence = batch->part.sequence;
        area->chain = journal->chain;
}

static void note_flushed(struct tk_journal *journal, struct tk_journal_batch *batch, bool buries,
                         struct tk_journal_release *release)
{
        journal->unflushed = NULL;
        journal->flushed = batch->part.sequence;
        batch->flushed = batch->part.end;
        note_files(journal, batch);
        if (buries)
                tk_journal_bury(journal, !journal->current, release);
}

/* What is new in the batch being filled is flushed next. */
static struct tk_journal_batch *take_part(struct tk_journal *journal)
{
        struct tk_journal_batch *batch = journal->building;

        assert(tk_journal_has_new(journal));
        batch->part = (struct tk_journal_part){.sequence = journal->filling++,
                                               .first = batch->part.end,
                                               .end = batch->count,
                                               .first_page = batch->part.end_page,
                                               .end_page = batch->page_count};
        return batch;
}

int tk_journal_flush_next(struct tk_journal *journal)
{
        struct tk_journal_release release = {.count = 0};
        struct tk_journal_batch *batch =
                journal->unflushed ? journal->unflushed : take_part(journal);
        unsigned before = journal->current;
        bool buries;
        int r;

        journal->flushing = true;
        buries = journal->areas[!before].checkpointed && !journal->areas[!before].dead;
        pthread_mutex_unlock(&journal->lock);

        r = write_batch(journal, batch);

        pthread_mutex_lock(&journal->lock);
        journal->flushing = false;
        journal->active_ms = tk_journal_now_ms();
        if (r < 0) {
                journal->unflushed = batch;
                journal->failures++;
                journal->failed = batch->part.sequence;
                journal->failure = r;
                tk_log_limited(TK_LOG_ERROR, "%s: the journal can't be written: %s",
                               tk_volume_path(journal->fs->volume), strerror(-r));
        } else {
                note_flushed(journal, batch, buries && before == journal->current, &release);
        }
        pthread_cond_broadcast(&journal->changed);
        /* What others wait for, and an area that is full, concern the thread at once. */
        if (journal->queued > 0 || journal->wanted > journal->applied || before != journal->current)
                pthread_cond_signal(&journal->due);
        if (release.count > 0) {
                pthread_mutex_unlock(&journal->lock);
                tk_journal_release_all(journal, &release);
                pthread_mutex_lock(&journal->lock);
        }
        return r;
}

/* Called with the lock held. */
int tk_journal_commit_until(struct tk_journal *journal, uint64_t sequence)
{
        while (journal->flushed < sequence) {
                unsigned failures = journal->failures;
                int r;

                if (!journal->flushing) {
                        r = tk_journal_flush_next(journal);
                        if (r < 0)
                                return r;
                        continue;
                }
                pthread_cond_wait(&journal->changed, &journal->lock);
                if (journal->failures != failures && journal->failed <= sequence)
                        return journal->failure;
        }
        return 0;
}

int tk_journal_commit(struct tk_journal *journal, struct tk_openfile *file)
{
        int r;

        TK_LOCK_SCOPE(&journal->lock);
        r = tk_journal_commit_until(journal, file->journal.sequence);
        return r < 0 ? r : tk_journal_await_held(journal, file);
}

int tk_journal_settle(struct tk_journal *journal, struct tk_openfile *file)
{
        uint64_t sequence = file->journal.sequence;
        int r;

        TK_LOCK_SCOPE(&journal->lock);
        r = tk_journal_commit_until(journal, sequence);
        if (r == 0 && journal->applied < sequence && journal->wanted < sequence) {
                journal->wanted = sequence;
                pthread_cond_signal(&journal->due);
        }
        while (r == 0 && journal->applied < sequence) {
                if (journal->stuck)
                        return journal->stuck;
                pthread_cond_wait(&journal->changed, &journal->lock);
        }
        return r < 0 ? r : tk_journal_await_held(journal, file);
}

/* What is kept of a file that is held counts, too. */
static bool may_replay(struct tk_journal *journal, const struct tk_openfile *file,
                       uint64_t sequence)
{
        return sequence > journal->dead || file->journal.held < 0;
}

bool tk_journal_is_live(struct tk_journal *journal, const struct tk_openfile *file)
{
        return may_replay(journal, file, file->journal.sequence);
}

bool tk_journal_has_size(struct tk_journal *journal, const struct tk_openfile *file)
{
        return may_replay(journal, file, file->journal.size_sequence);
}
