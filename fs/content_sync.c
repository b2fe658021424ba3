/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Content: the border between fresh and durable blocks, and fsync.
 *
 * A block below `durable` may be relied upon after a crash: it changes by way of the
 * journal only, but for holes before the first fsync (fills_holes in content.c). The border
 * rises when an fsync begins. It falls only when the file is cut to nothing, and never while
 * the journal holds a block of it.
 */

#include "fs/content_sync.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "base/plant.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/content_internal.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/seal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static uint64_t blocks_of(const struct tk_openfile *file)
{
        return (file->size + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN;
}

/* The journal ---------------------------------------------------------------------- */

static void touch(struct tk_openfile *file)
{
        struct timespec now;

        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        file->journal.touched_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int tk_content_journal(struct tk_fs *fs, struct tk_openfile *file,
                       const struct tk_journal_item *item)
{
        if (tk_inode_is_cut(file->inode)) {
                int r = tk_content_flush(file, false);

                if (r < 0)
                        return r;
                tk_inode_note_cut(file->inode, false);
        }
        return tk_journal_append(fs->journal, file, item);
}

static int append(struct tk_fs *fs, struct tk_openfile *file, const struct tk_journal_item *item)
{
        touch(file);
        return tk_content_journal(fs, file, item);
}

int tk_content_journal_block(struct tk_fs *fs, struct tk_openfile *file, uint64_t block,
                             const uint8_t cell[TK_CELL_LEN], const uint8_t *data)
{
        struct tk_journal_item item = {.type = TK_JOURNAL_BLOCK, .at = block, .page = data};

        memcpy(item.cell, cell, TK_CELL_LEN);
        if (TK_PLANT(TK_PLANT_EARLY_IN_PLACE))
                (void)!tk_backing_pwrite(file->fd, data, tk_journal_item_len(&item),
                                         file->base + tk_data_off(block));
        return append(fs, file, &item);
}

int tk_content_journal_hole(struct tk_fs *fs, struct tk_openfile *file, uint64_t block,
                            const uint8_t cell[TK_CELL_LEN], bool keep)
{
        struct tk_journal_item item = {
                .type = TK_JOURNAL_HOLE, .flags = keep ? TK_JOURNAL_KEEP : 0, .at = block};

        memcpy(item.cell, cell, TK_CELL_LEN);
        return append(fs, file, &item);
}

/* Whether one of @count blocks has no data page of its own in place: 1, 0 or a negative errno. */
static int lacks_space(const struct tk_openfile *file, uint64_t first, uint64_t count)
{
        uint8_t cells[TK_GROUP_BLOCKS * TK_CELL_LEN];
        ssize_t n = tk_fdio_pread(file->fd, cells, count * TK_CELL_LEN,
                                  (off_t)(file->base + tk_cell_off(first)));

        if (n < 0)
                return (int)n;
        if ((size_t)n < count * TK_CELL_LEN)
                return 1;
        for (uint64_t i = 0; i < count; i++)
                if (tk_block_cell_is_hole(cells + i * TK_CELL_LEN))
                        return 1;
        return 0;
}

int tk_content_want_space(struct tk_fs *fs, struct tk_openfile *file, uint64_t first, uint64_t last)
{
        uint64_t group = tk_group_of_block(first);
        int r;

        tk_journal_keep_space(fs->journal, file, first, last);
        /* Pages on their way took theirs. */
        first = tk_journal_skip_pages(fs->journal, file, first, last);
        if (first > last)
                return 0;
        r = lacks_space(file, first, last - first + 1);
        if (r <= 0)
                return r;
        if (file->tags_taken != group + 1)
                r = tk_backing_fallocate(file->fd, FALLOC_FL_KEEP_SIZE,
                                         file->base + tk_tag_page_off(group), TK_BLOCK_LEN);
        else
                r = 0;
        if (r == 0 || r == -EOPNOTSUPP)
                file->tags_taken = group + 1;
        if (r == 0)
                r = tk_backing_fallocate(file->fd, FALLOC_FL_KEEP_SIZE,
                                         file->base + tk_data_off(first),
                                         (last - first + 1) * TK_BLOCK_LEN);
        return r == -EOPNOTSUPP ? 0 : r;
}

/* The backing file ----------------------------------------------------------------- */

int tk_content_flush(struct tk_openfile *file, bool data_only)
{
        TK_RANGE_SCOPE(range);
        int r;

        tk_range_hold(&file->flushes, &range, 0, TK_RANGE_END, true);
        r = tk_backing_sync(file->fd, data_only);
        if (r < 0) {
                file->flush_error = r;
                file->flush_failures++;
        }
        return r;
}

/* What a sync of the backing file that begins now makes durable. */
struct sync {
        unsigned cuts;
        uint64_t size;
        bool attributes;
};

/* Seal what the sync before made durable, as far as whole blocks; it rides with this one. */
static void seal_synced(struct tk_fs *fs, struct tk_openfile *file)
{
        uint64_t length = TK_PLANT(TK_PLANT_EARLY_SEAL) ? file->size : file->synced_len;

        if (length / TK_BLOCK_LEN > file->seal.binding_length / TK_BLOCK_LEN && file->dek)
                (void)!tk_seal_write(fs, file, length, false);
}

static struct sync begin_sync(struct tk_fs *fs, struct tk_openfile *file, bool data_only)
{
        struct sync sync = {.cuts = 0};
        TK_RANGE_SCOPE(range);

        /* Of everything: a write that took its blocks for fresh has come to its end. */
        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        if (!TK_PLANT(TK_PLANT_FRESH_IN_FSYNC))
                tk_content_raise(&file->durable, blocks_of(file));
        file->sync_begun = true;
        file->unsynced = false;
        seal_synced(fs, file);
        sync.cuts = file->cuts;
        sync.size = file->size;
        sync.attributes = !data_only && atomic_exchange(&file->attributes_unsynced, false);
        return sync;
}

static void end_sync(struct tk_openfile *file, const struct sync *sync)
{
        TK_RANGE_SCOPE(range);

        /* A cut, which holds everything, comes before or after. */
        tk_range_hold(&file->ranges, &range, TK_RANGE_END, TK_RANGE_END, false);
        if (file->cuts != sync->cuts)
                return;
        tk_content_raise(&file->synced_len, sync->size);
        tk_inode_note_cut(file->inode, false);
}

/* Called with `syncs` held. */
static int sync_backing(struct tk_fs *fs, struct tk_openfile *file, bool data_only)
{
        struct sync sync = begin_sync(fs, file, data_only);
        int r;

        r = tk_content_flush(file, data_only);
        if (r < 0) {
                file->unsynced = true;
                if (sync.attributes)
                        file->attributes_unsynced = true;
                return r;
        }
        if (TK_PLANT(TK_PLANT_FRESH_IN_FSYNC))
                tk_content_raise(&file->durable, blocks_of(file));
        end_sync(file, &sync);
        return 0;
}

/* The size entry is gone from the journal: new blocks need not be in it any more. */
static void leave_all_durable(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(range);

        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        if (file->durable == TK_ALL_DURABLE && !tk_journal_has_size(fs->journal, file))
                file->durable = blocks_of(file);
}

void tk_content_relieve(struct tk_fs *fs, struct tk_openfile *file)
{
        if (fs->journal && file->durable == TK_ALL_DURABLE &&
            !tk_journal_has_size(fs->journal, file))
                leave_all_durable(fs, file);
}

/* fsync ---------------------------------------------------------------------------- */

/* The mtime that the application set goes with the entries that the journal may replay. */
static int append_mtime(struct tk_fs *fs, struct tk_openfile *file)
{
        struct tk_journal_item item = {.type = TK_JOURNAL_MTIME};

        pthread_mutex_lock(&file->times_lock);
        item.at = (uint64_t)file->mtime.tv_sec;
        tk_put_be32(item.cell, (uint32_t)file->mtime.tv_nsec);
        pthread_mutex_unlock(&file->times_lock);
        return tk_content_journal(fs, file, &item);
}

static int sync_mtime(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(syncing);
        int r = 0;

        tk_range_hold(&file->syncs, &syncing, 0, TK_RANGE_END, true);
        if (!atomic_exchange(&file->mtime_unsynced, false))
                return 0;
        if (tk_journal_is_live(fs->journal, file))
                r = append_mtime(fs, file);
        else
                file->attributes_unsynced = true;
        if (r < 0)
                file->mtime_unsynced = true;
        return r;
}

/* Flush what is not durable. A sync that runs already may have taken it on: it is waited for. */
static int sync_rest(struct tk_fs *fs, struct tk_openfile *file, bool data_only, unsigned reported)
{
        TK_RANGE_SCOPE(syncing);
        int r = 0;

        tk_range_hold(&file->syncs, &syncing, 0, TK_RANGE_END, true);
        if (file->unsynced || file->durable < blocks_of(file) ||
            (!data_only && file->attributes_unsynced))
                r = sync_backing(fs, file, data_only);
        if (r == 0 && file->flush_failures != reported)
                r = file->flush_error;
        if (r < 0)
                file->flush_reported = file->flush_failures;
        return r;
}

int tk_content_sync(struct tk_fs *fs, struct tk_openfile *file, bool data_only)
{
        unsigned reported = file->flush_reported;
        int r = 0;

        if (!fs->journal)
                return tk_backing_sync(file->fd, data_only);
        if (!data_only)
                r = sync_mtime(fs, file);
        if (r == 0)
                r = tk_journal_commit(fs->journal, file);
        if (r < 0 && file->journal.held < 0)
                file->flush_reported = file->flush_failures; /* it is told now */
        return r < 0 ? r : sync_rest(fs, file, data_only, reported);
}
