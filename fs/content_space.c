/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Content: size, allocation and holes.
 *
 * Invariant: cells above the end of the file are zero, and so is every byte of
 * the last group's tag page behind them. A file can therefore grow by ftruncate
 * alone, and a short last block goes on with zeros without being rewritten.
 */

#include "base/bytes.h"
#include "base/fdio.h"
#include "base/plant.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/content_internal.h"
#include "fs/content_sync.h"
#include "fs/creds.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/seal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

static const uint8_t zero_page[TK_BLOCK_LEN];

/* Size ---------------------------------------------------------------------- */

/* The last block of a shrunk file covers only what is left of it. */
static int shorten_last_block(struct tk_fs *fs, struct tk_openfile *file,
                              struct tk_scratch *scratch, uint64_t size)
{
        uint64_t block = tk_block_of(size - 1);
        uint32_t valid = tk_block_valid(block, size);
        uint8_t cell[TK_CELL_LEN];
        int r;

        r = tk_content_read_cells(fs, file, block, 1, cell);
        if (r < 0 || tk_block_cell_len(cell) <= valid)
                return r;
        r = tk_content_load_block(fs, file, scratch, block, file->size, scratch->head);
        if (r < 0)
                return r;
        return tk_content_store_block(fs, file, scratch, block, scratch->head, valid);
}

/* While every block is durable, the size is, too: it goes through the journal. */
static int journal_size(struct tk_fs *fs, struct tk_openfile *file, uint64_t size, uint8_t flags)
{
        struct tk_journal_item item = {.type = TK_JOURNAL_SIZE, .flags = flags, .at = size};

        if (TK_PLANT(TK_PLANT_TRUNCATE_UNJOURNALED))
                return 0;
        return tk_content_journal(fs, file, &item);
}

static int grow_held(struct tk_fs *fs, struct tk_openfile *file, uint64_t size)
{
        int r;

        r = tk_content_ensure_header(file);
        if (r == 0 && file->durable == TK_ALL_DURABLE)
                r = journal_size(fs, file, size, TK_JOURNAL_GROW);
        if (r == 0)
                r = tk_backing_truncate(file->fd, tk_backing_size_at(file->base, size));
        if (r < 0)
                return r;
        file->unsynced = true;
        file->size = size;
        return 0;
}

/* Less is sealed from now on. Whether a seal that binds is longer, and must be lowered first. */
static bool lower_seal(struct tk_openfile *file, uint64_t size)
{
        bool binds = file->seal.binding >= 0 && file->seal.binding_length > size;

        tk_seal_lower(file, size);
        if (size == 0) /* the seal of a file without bytes goes with it */
                file->seal.binding_length = 0;
        return binds && size > 0;
}

/*
 * What goes is fresh, or the whole of a file of which the journal holds nothing. In the latter
 * case what is written next is fresh: it lies in other space than what was there, which goes
 * to nobody before the cut is durable. So a crash leaves the old file or the new one.
 */
static int shrink_at_once(struct tk_fs *fs, struct tk_openfile *file, uint64_t size)
{
        int r = 0;

        if (lower_seal(file, size)) {
                r = tk_seal_write(fs, file, size, false);
                if (r == 0)
                        r = tk_content_flush(file, true);
        }
        if (r == 0)
                r = tk_content_cut(file, size);
        if (r < 0)
                return r;
        file->unsynced = true;
        file->size = size;
        file->cuts++;
        if (size == 0 && file->durable > 0) {
                tk_inode_note_cut(file->inode, true);
                file->durable = 0;
        }
        return 0;
}

/* The lowered seal, as an entry of the journal. */
static int journal_seal(struct tk_fs *fs, struct tk_openfile *file, uint64_t size)
{
        struct tk_journal_item item = {.type = TK_JOURNAL_SEAL, .at = tk_seal_next_slot(file)};
        int r;

        r = tk_seal_prepare(fs, file, size, false, item.cell);
        if (r == 0)
                r = tk_content_journal(fs, file, &item);
        if (r == 0)
                tk_seal_take(fs, file, item.cell);
        return r;
}

/*
 * The new end and the new size are durable in the journal before the file is cut, which
 * the journal's thread does. Replay cuts again: so until the entry is gone, everything
 * that is written to the file goes through the journal.
 */
static int shrink_journaled(struct tk_fs *fs, struct tk_openfile *file, uint64_t size)
{
        int r = lower_seal(file, size) ? journal_seal(fs, file, size) : 0;

        if (r == 0)
                r = journal_size(fs, file, size, 0);
        if (r < 0)
                return r;
        file->cuts++;
        /* From here on the cut comes, sooner or later. */
        file->durable = TK_ALL_DURABLE;
        r = tk_journal_settle(fs->journal, file);
        file->size = size;
        if (size == 0)
                file->has_header = false;
        return r;
}

static int shrink_held(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                       uint64_t size)
{
        uint64_t durable = file->durable;
        bool fresh = durable != TK_ALL_DURABLE && size >= durable * TK_BLOCK_LEN;
        int r = size > 0 ? shorten_last_block(fs, file, scratch, size) : 0;

        if (r < 0)
                return r;
        if (!fs->journal || fresh || (size == 0 && !tk_journal_is_live(fs->journal, file)))
                return shrink_at_once(fs, file, size);
        return shrink_journaled(fs, file, size);
}

int tk_content_truncate(struct tk_fs *fs, struct tk_openfile *file, uint64_t size)
{
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        TK_RANGE_SCOPE(range);
        int r;

        if (size > TK_SIZE_MAX)
                return -EFBIG;
        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        tk_creds_charge(file->owner);
        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        r = tk_openfile_need_dek(fs, file);
        if (r < 0)
                return r;
        file->unsealed = true;
        file->tags_taken = 0; /* a tag page may lose its space */
        if (size > file->size)
                return grow_held(fs, file, size);
        if (size < file->size)
                return shrink_held(fs, file, scratch, size);
        return 0;
}

/* Holes --------------------------------------------------------------------- */

/* Zero bytes @from to @to of one block, unless it is a hole anyway. */
static int zero_in_block(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                         uint64_t from, uint64_t to)
{
        uint64_t block = tk_block_of(from);
        uint8_t cell[TK_CELL_LEN];
        int r;

        r = tk_content_read_cells(fs, file, block, 1, cell);
        if (r < 0 || tk_block_cell_is_hole(cell))
                return r;
        r = tk_content_load_block(fs, file, scratch, block, file->size, scratch->head);
        if (r < 0)
                return r;
        memset(scratch->head + from % TK_BLOCK_LEN, 0, to - from);
        return tk_content_store_block(fs, file, scratch, block, scratch->head,
                                      tk_block_valid(block, file->size));
}

/* Blocks @first to @last of one group become explicit holes. */
static int write_hole_cells(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                            uint64_t first, uint64_t last)
{
        size_t count = last - first + 1;
        int r;

        r = tk_random_bytes(scratch->ivs, count * TK_AEAD_IV_LEN);
        if (r < 0)
                return r;
        r = tk_block_use_group(scratch, file->dek, tk_group_of_block(first));
        if (r < 0)
                return r;
        for (size_t i = 0; i < count; i++) {
                r = tk_block_seal(scratch, first + i, fs->mount_number,
                                  scratch->ivs + i * TK_AEAD_IV_LEN, scratch->head, 0,
                                  scratch->tag_pages + i * TK_CELL_LEN);
                if (r < 0)
                        return r;
        }
        return tk_backing_pwrite(file->fd, scratch->tag_pages, count * TK_CELL_LEN,
                                 file->base + tk_cell_off(first));
}

/*
 * Give back the space of backing bytes, or (@keep) only see that they have some.
 * What the backing filesystem can't do is left: the cells say what is a hole.
 */
static int release_space(const struct tk_openfile *file, bool keep, uint64_t from, uint64_t to)
{
        int mode = keep ? FALLOC_FL_KEEP_SIZE : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        int r;

        if (from >= to)
                return 0;
        r = tk_backing_fallocate(file->fd, mode, file->base + from, to - from);
        return r == -EOPNOTSUPP ? 0 : r;
}

/* Whole groups @first to @last become absent. */
static int remove_groups(const struct tk_openfile *file, bool keep, uint64_t first, uint64_t last)
{
        uint64_t from = tk_tag_page_off(first);
        uint64_t to = tk_tag_page_off(last + 1);
        uint64_t end = tk_backing_size(file->size);
        int mode = keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
        int r;

        if (to > end)
                to = end;
        r = tk_backing_fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, file->base + from,
                                 to - from);
        if (r != -EOPNOTSUPP)
                return r;
        for (uint64_t group = first; group <= last; group++) {
                r = tk_backing_pwrite(file->fd, zero_page, TK_BLOCK_LEN,
                                      file->base + tk_tag_page_off(group));
                if (r < 0)
                        return r;
        }
        return release_space(file, keep, from, to);
}

/* The first group from @group on that the backing file has bytes for; -ENXIO if none. */
static int next_present_group(const struct tk_openfile *file, uint64_t group, uint64_t *ret_group)
{
        off_t at = lseek(file->fd, (off_t)(file->base + tk_tag_page_off(group)), SEEK_DATA);

        if (at < 0)
                return -errno;
        *ret_group = ((uint64_t)at - file->base) / TK_GROUP_STRIDE;
        return 0;
}

/* Blocks @first to @last of one group, which are durable: those that are no holes become some. */
static int punch_durable_group(struct tk_fs *fs, struct tk_openfile *file,
                               struct tk_scratch *scratch, bool keep, uint64_t first, uint64_t last)
{
        uint8_t *cells = scratch->tag_pages;
        int r;

        r = tk_content_read_cells(fs, file, first, last - first + 1, cells);
        for (uint64_t block = first; r == 0 && block <= last; block++) {
                uint8_t *cell = cells + (block - first) * TK_CELL_LEN;

                if (tk_block_cell_is_hole(cell))
                        continue;
                r = tk_random_bytes(scratch->ivs, TK_AEAD_IV_LEN);
                if (r == 0)
                        r = tk_block_seal(scratch, block, fs->mount_number, scratch->ivs,
                                          scratch->head, 0, cell);
                if (r == 0)
                        r = tk_content_journal_hole(fs, file, block, cell, keep);
        }
        return r;
}

/* The space of holes, unless they are not in place yet: then it goes when they are. */
static int release_durable(const struct tk_openfile *file, bool keep, uint64_t first, uint64_t last)
{
        uint64_t end = tk_backing_size(file->size);
        uint64_t to = tk_data_off(last) + TK_BLOCK_LEN;

        if (!keep && file->journal.overlay > 0)
                return 0;
        return release_space(file, keep, tk_data_off(first), to < end ? to : end);
}

/* Whole durable blocks @first to @last. Groups that are absent are holes already. */
static int punch_durable(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                         bool keep, uint64_t first, uint64_t last)
{
        int r = 0;

        while (r == 0 && first <= last) {
                uint64_t group = tk_group_of_block(first);
                uint64_t group_last = group * TK_GROUP_BLOCKS + TK_GROUP_BLOCKS - 1;
                uint64_t to = last < group_last ? last : group_last;
                uint64_t present = group;

                if (!keep && file->journal.overlay == 0) {
                        r = next_present_group(file, group, &present);
                        if (r == -ENXIO)
                                return 0;
                }
                if (r == 0 && present > group) {
                        first = present * TK_GROUP_BLOCKS;
                        continue;
                }
                if (r == 0)
                        r = tk_block_use_group(scratch, file->dek, group);
                if (r == 0)
                        r = punch_durable_group(fs, file, scratch, keep, first, to);
                if (r == 0)
                        r = release_durable(file, keep, first, to);
                first = to + 1;
        }
        return r;
}

/* Blocks @first to @last of one group; the group stays present. */
static int punch_in_group(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                          bool keep, uint64_t first, uint64_t last)
{
        uint64_t end = tk_backing_size(file->size);
        uint64_t to = tk_data_off(last) + TK_BLOCK_LEN;
        int r;

        /* Holes without cells stay so: cells would take space. */
        r = tk_content_cells_absent(file, first, last - first + 1);
        if (r == 0)
                r = write_hole_cells(fs, file, scratch, first, last);
        if (r < 0)
                return r;
        return release_space(file, keep, tk_data_off(first), to < end ? to : end);
}

/* Whole blocks @first to @last: group 0 keeps its header, others may go altogether. */
static int punch_blocks(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                        bool keep, uint64_t first, uint64_t last)
{
        uint64_t file_last = tk_block_of(file->size - 1);
        uint64_t durable = file->durable;
        int r;

        if (first < durable) {
                uint64_t to = last < durable ? last : durable - 1;

                r = punch_durable(fs, file, scratch, keep, first, to);
                if (r < 0)
                        return r;
                first = to + 1;
        }
        if (first <= last)
                file->unsynced = true;
        if (file->solid > first)
                file->solid = first; /* groups may become absent */
        while (first <= last) {
                uint64_t group = tk_group_of_block(first);
                uint64_t group_last = group * TK_GROUP_BLOCKS + TK_GROUP_BLOCKS - 1;
                uint64_t to = last < group_last ? last : group_last;

                if (group == 0 || first * TK_BLOCK_LEN < file->sealed ||
                    tk_slot_of_block(first) != 0 || (to < group_last && to < file_last)) {
                        r = punch_in_group(fs, file, scratch, keep, first, to);
                } else {
                        uint64_t end = last == file_last ? tk_group_of_block(last)
                                                         : (last + 1) / TK_GROUP_BLOCKS - 1;

                        r = remove_groups(file, keep, group, end);
                        to = last == file_last ? last : end * TK_GROUP_BLOCKS + TK_GROUP_BLOCKS - 1;
                }
                if (r < 0)
                        return r;
                first = to + 1;
        }
        return 0;
}

/* Bytes @from to @to, below the file's end, read as zeros from now on. */
static int zero_range(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                      bool keep, uint64_t from, uint64_t to)
{
        uint64_t first = (from + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN;
        uint64_t end = to == file->size ? tk_block_of(to - 1) + 1 : tk_block_of(to);
        int r;

        if (from % TK_BLOCK_LEN != 0) {
                uint64_t block_end = first * TK_BLOCK_LEN;

                r = zero_in_block(fs, file, scratch, from, to < block_end ? to : block_end);
                if (r < 0 || to <= block_end)
                        return r;
        }
        if (to % TK_BLOCK_LEN != 0 && to != file->size) {
                r = zero_in_block(fs, file, scratch, end * TK_BLOCK_LEN, to);
                if (r < 0)
                        return r;
        }
        return first < end ? punch_blocks(fs, file, scratch, keep, first, end - 1) : 0;
}

/* Allocation ------------------------------------------------------------------ */

/* Space for the pages of plaintext @off to @end, and for the tag pages before and among them. */
static int allocate_pages(const struct tk_openfile *file, bool keep_size, uint64_t off,
                          uint64_t end)
{
        uint64_t block = tk_block_of(off);
        uint64_t tags = tk_tag_page_off(tk_group_of_block(block));
        uint64_t from = tk_slot_of_block(block) == 0 ? tags : tk_data_off(block);
        int r = 0;

        if (from != tags)
                r = tk_backing_fallocate(file->fd, FALLOC_FL_KEEP_SIZE, file->base + tags,
                                         TK_BLOCK_LEN);
        if (r == 0 && file->base > 0)
                r = tk_backing_fallocate(file->fd, FALLOC_FL_KEEP_SIZE, 0, file->base);
        if (r < 0)
                return r;
        return tk_backing_fallocate(file->fd, keep_size ? FALLOC_FL_KEEP_SIZE : 0,
                                    file->base + from, tk_backing_size(end) - from);
}

/* Plaintext @off to @end gets space; the size grows unless @keep_size. */
static int allocate_held(struct tk_fs *fs, struct tk_openfile *file, bool keep_size, uint64_t off,
                         uint64_t end)
{
        bool grows = !keep_size && end > file->size;
        int r = 0;

        if (grows)
                r = tk_content_ensure_header(file);
        if (grows && r == 0 && file->durable == TK_ALL_DURABLE)
                r = journal_size(fs, file, end, TK_JOURNAL_GROW);
        if (r < 0)
                return r;
        file->unsynced = true;
        r = allocate_pages(file, keep_size, off, end);
        if (r < 0) {
                (void)!tk_content_cut(file, file->size);
                return r;
        }
        if (grows)
                file->size = end;
        return 0;
}

/* Space that is given back in quantity is free when the call returns. */
static int settle_punch(struct tk_fs *fs, struct tk_openfile *file, uint64_t len)
{
        return file->journal.overlay > 0 && len >= TK_GROUP_LEN
                       ? tk_journal_settle(fs->journal, file)
                       : 0;
}

static int fallocate_held(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                          int mode, uint64_t off, uint64_t len)
{
        bool punch = mode & FALLOC_FL_PUNCH_HOLE;
        uint64_t end = off + len;
        uint64_t below = end < file->size ? end : file->size;
        int r;

        if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && off < below) {
                r = zero_range(fs, file, scratch, !punch, off, below);
                if (r == 0 && punch)
                        r = settle_punch(fs, file, below - off);
                if (r < 0)
                        return r;
        }
        return punch ? 0 : allocate_held(fs, file, mode & FALLOC_FL_KEEP_SIZE, off, end);
}

int tk_content_fallocate(struct tk_fs *fs, struct tk_openfile *file, int mode, uint64_t off,
                         uint64_t len)
{
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        TK_RANGE_SCOPE(range);
        int r;

        if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
                return -EOPNOTSUPP;
        if (mode & FALLOC_FL_PUNCH_HOLE && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
                return -EOPNOTSUPP;
        if (len == 0)
                return -EINVAL;
        if (off > TK_SIZE_MAX || len > TK_SIZE_MAX - off)
                return -EFBIG;
        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        tk_creds_charge(file->owner);
        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        r = tk_openfile_need_dek(fs, file);
        if (r < 0)
                return r;
        file->unsealed = true;
        file->tags_taken = 0; /* a tag page may lose its space */
        return fallocate_held(fs, file, scratch, mode, off, len);
}

/* Data and holes ---------------------------------------------------------------- */

/* The first block from @block on, up to @end, that is a hole (or is not); @end if there is none. */
static int find_block(struct tk_openfile *file, struct tk_scratch *scratch, bool hole,
                      uint64_t block, uint64_t end, uint64_t *ret_block)
{
        while (block < end) {
                uint64_t group = tk_group_of_block(block);
                uint64_t present = 0;
                ssize_t n;
                int r;

                r = next_present_group(file, group, &present);
                if (r == -ENXIO)
                        present = UINT64_MAX;
                else if (r < 0)
                        return r;
                if (present > group && hole)
                        break;
                if (present > group) {
                        block = present == UINT64_MAX ? end : present * TK_GROUP_BLOCKS;
                        continue;
                }
                n = tk_fdio_pread(file->fd, scratch->tag_pages, TK_BLOCK_LEN,
                                  (off_t)(file->base + tk_tag_page_off(group)));
                if (n < 0)
                        return (int)n;
                memset(scratch->tag_pages + n, 0, (size_t)(TK_BLOCK_LEN - n));
                for (; block < end && tk_group_of_block(block) == group; block++) {
                        const uint8_t *cell = scratch->tag_pages + TK_HEADER_LEN +
                                              (size_t)tk_slot_of_block(block) * TK_CELL_LEN;

                        if (tk_block_cell_is_hole(cell) == hole) {
                                *ret_block = block;
                                return 0;
                        }
                }
        }
        *ret_block = block < end ? block : end;
        return 0;
}

int tk_content_seek(struct tk_fs *fs, struct tk_openfile *file, uint64_t off, int whence,
                    uint64_t *ret_off)
{
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        TK_RANGE_SCOPE(range);
        uint64_t size;
        uint64_t block = 0;
        uint64_t found;
        int r;

        if (whence != SEEK_DATA && whence != SEEK_HOLE)
                return -EINVAL;
        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        tk_range_hold(&file->ranges, &range, tk_block_of(off), TK_RANGE_END, false);
        size = file->size;
        if (off >= size)
                return -ENXIO;
        /* Below, holes and data are found as the backing file has them. */
        if (file->journal.overlay > 0) {
                r = tk_journal_settle(fs->journal, file);
                if (r < 0)
                        return r;
        }
        r = find_block(file, scratch, whence == SEEK_HOLE, tk_block_of(off),
                       tk_block_of(size - 1) + 1, &block);
        if (r < 0)
                return r;
        found = block * TK_BLOCK_LEN;
        if (found < off)
                found = off;
        if (found >= size && whence == SEEK_DATA)
                return -ENXIO;
        *ret_off = found < size ? found : size;
        return 0;
}
