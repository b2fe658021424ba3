/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Content: read and write.
 *
 * A request is cut into pieces, one for each group it touches. The cells and the
 * data pages of all pieces are collected into one batch, so that a request of
 * whole groups is one call to the backing file. Tag pages are not cached: the
 * kernel's page cache has them.
 */

#include "fs/content.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/plant.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/content_internal.h"
#include "fs/creds.h"
#include "fs/fs_internal.h"
#include "fs/iobatch.h"
#include "fs/journal.h"
#include "fs/keyattr.h"
#include "fs/seal.h"
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

/* The part of a request that lies in one group. */
struct piece {
        uint64_t group;
        uint64_t first; /* blocks, both ends included */
        uint64_t last;
        uint8_t *tag_page; /* in the scratch */
};

/* The piece that begins at block @first of a request that ends with block @last; @index from 0. */
static struct piece piece_at(struct tk_scratch *scratch, uint64_t first, uint64_t last, int index)
{
        struct piece piece = {.group = tk_group_of_block(first), .first = first};
        uint64_t group_last = piece.group * TK_GROUP_BLOCKS + TK_GROUP_BLOCKS - 1;

        assert(index < TK_REQUEST_GROUPS);
        piece.last = last < group_last ? last : group_last;
        piece.tag_page = scratch->tag_pages + (size_t)index * TK_BLOCK_LEN;
        return piece;
}

static uint8_t *cell_in(const struct piece *piece, uint64_t block)
{
        return piece->tag_page + TK_HEADER_LEN + (size_t)tk_slot_of_block(block) * TK_CELL_LEN;
}

/* Failures ------------------------------------------------------------------ */

static void note_bad_block(struct tk_fs *fs, const struct tk_openfile *file, uint64_t block)
{
        char path[PATH_MAX];

        fs->stats.block_failures++;
        tk_fs_log_path(fs, file->fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: block %llu (bytes %llu to %llu) does not authenticate: damaged or "
                       "tampered with; restore the file from a backup",
                       path, (unsigned long long)block, (unsigned long long)block * TK_BLOCK_LEN,
                       (unsigned long long)(block + 1) * TK_BLOCK_LEN - 1);
}

/* Read ---------------------------------------------------------------------- */

/*
 * Cells and data of a piece. From a group's start, the whole tag page is read: it
 * joins the data pages before and behind it into one span.
 */
static void plan_read(struct tk_iobatch *batch, const struct piece *piece, uint8_t *data)
{
        size_t count = piece->last - piece->first + 1;

        if (tk_slot_of_block(piece->first) == 0)
                tk_iobatch_add(batch, tk_tag_page_off(piece->group), piece->tag_page, TK_BLOCK_LEN);
        else
                tk_iobatch_add(batch, tk_cell_off(piece->first), cell_in(piece, piece->first),
                               count * TK_CELL_LEN);
        tk_iobatch_add(batch, tk_data_off(piece->first), data, count * TK_BLOCK_LEN);
}

/*
 * A block that does not authenticate: a mount that did not end cleanly wrote it, and no seal
 * covers it. So it was never acknowledged, and counts for zeros.
 */
static bool is_torn(struct tk_fs *fs, const struct tk_openfile *file, uint64_t block,
                    const uint8_t *cell)
{
        uint16_t mount = tk_get_be16(cell + TK_CELL_LEN - 2);

        return block * TK_BLOCK_LEN >= file->sealed && mount != fs->mount_number &&
               tk_volume_is_unclean(fs->volume, mount);
}

/* A cell of zeros stands for a hole, but not where a seal says that there is a block. */
static bool is_missing(const struct tk_openfile *file, uint64_t block, const uint8_t *cell)
{
        return block * TK_BLOCK_LEN < file->sealed && tk_bytes_are_zero(cell, TK_CELL_LEN);
}

static int open_block(struct tk_fs *fs, const struct tk_openfile *file, struct tk_scratch *scratch,
                      uint64_t block, const uint8_t *cell, uint8_t *data, uint32_t valid)
{
        int r;

        if (is_missing(file, block, cell)) {
                memset(data, 0, valid);
                return -EBADMSG;
        }
        r = tk_block_open(scratch, block, cell, data, valid);
        return r == -EBADMSG && is_torn(fs, file, block, cell) ? 0 : r;
}

static int open_piece(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                      const struct piece *piece, uint64_t size, uint8_t *data)
{
        int first_error = 0;
        int r;

        r = tk_block_use_group(scratch, file->dek, piece->group);
        if (r < 0)
                return r;
        for (uint64_t block = piece->first; block <= piece->last; block++, data += TK_BLOCK_LEN) {
                r = open_block(fs, file, scratch, block, cell_in(piece, block), data,
                               tk_block_valid(block, size));
                if (r < 0)
                        note_bad_block(fs, file, block);
                if (r < 0 && first_error == 0)
                        first_error = r;
        }
        return first_error;
}

/*
 * Lay what is not in place yet over blocks that were read. -EAGAIN if some came in place
 * meanwhile.
 */
static int overlay(struct tk_fs *fs, struct tk_openfile *file, const struct piece *pieces,
                   int count, uint64_t gen, uint8_t *data)
{
        uint64_t first = pieces[0].first;
        int r = 0;

        if (file->journal.overlay == 0)
                return file->journal.overlay_gen == gen ? 0 : -EAGAIN;
        for (int i = 0; r == 0 && i < count; i++)
                r = tk_journal_overlay(fs->journal, file, pieces[i].first, pieces[i].last, gen,
                                       cell_in(&pieces[i], pieces[i].first),
                                       data + (pieces[i].first - first) * TK_BLOCK_LEN);
        return r;
}

/* Blocks @first to @last, still encrypted, into @data, and their cells; returns the pieces. */
static int fetch_blocks(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                        uint64_t first, uint64_t last, uint8_t *data,
                        struct piece pieces[TK_REQUEST_GROUPS])
{
        int count;
        int r;

        do {
                uint64_t gen = file->journal.overlay_gen;
                struct tk_iobatch batch = {.count = 0};

                count = 0;
                for (uint64_t block = first; block <= last; block = pieces[count++].last + 1) {
                        pieces[count] = piece_at(scratch, block, last, count);
                        plan_read(&batch, &pieces[count], data + (block - first) * TK_BLOCK_LEN);
                }
                r = tk_iobatch_read(&batch, file->fd, file->base);
                if (r == 0)
                        r = overlay(fs, file, pieces, count, gen, data);
        } while (r == -EAGAIN);
        return r < 0 ? r : count;
}

/* Blocks @first to @last, decrypted, into @data. */
static int read_blocks(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                       uint64_t first, uint64_t last, uint64_t size, uint8_t *data)
{
        struct piece pieces[TK_REQUEST_GROUPS] = {0};
        int count;
        int r;

        count = fetch_blocks(fs, file, scratch, first, last, data, pieces);
        if (count < 0)
                return count;
        for (int i = 0; i < count; i++) {
                r = open_piece(fs, file, scratch, &pieces[i], size,
                               data + (pieces[i].first - first) * TK_BLOCK_LEN);
                if (r < 0)
                        return r;
        }
        return 0;
}

ssize_t tk_content_read(struct tk_fs *fs, struct tk_openfile *file, uint64_t off, size_t len,
                        const uint8_t **ret_data)
{
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        TK_RANGE_SCOPE(range);
        uint64_t first = tk_block_of(off);
        uint64_t size;
        int r;

        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        *ret_data = scratch->data + off % TK_BLOCK_LEN;
        if (len > TK_REQUEST_MAX)
                len = TK_REQUEST_MAX;
        if (off >= TK_SIZE_MAX || len == 0)
                return 0;

        tk_range_hold(&file->ranges, &range, first, tk_block_of(off + len - 1), false);
        r = tk_openfile_need_dek(fs, file);
        if (r < 0)
                return r;
        size = file->size;
        if (off >= size)
                return 0;
        if (len > size - off)
                len = size - off;
        r = read_blocks(fs, file, scratch, first, tk_block_of(off + len - 1), size, scratch->data);
        if (r < 0)
                return r;
        tk_stats_count(&fs->stats, TK_STATS_READ, len);
        return (ssize_t)len;
}

int tk_content_load_block(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                          uint64_t block, uint64_t size, uint8_t *dst)
{
        uint32_t valid = tk_block_valid(block, size);
        int r;

        if (valid > 0) {
                r = read_blocks(fs, file, scratch, block, block, size, dst);
                if (r < 0)
                        return r;
        }
        memset(dst + valid, 0, TK_BLOCK_LEN - valid);
        return 0;
}

/* Write --------------------------------------------------------------------- */

/* What is cut off of a tag page. */
static const uint8_t zero_cells[TK_GROUP_BLOCKS * TK_CELL_LEN];

/* A write in hand. */
struct write {
        struct tk_fs *fs;
        struct tk_openfile *file;
        struct tk_scratch *scratch;
        uint64_t off;
        uint8_t *data;
        size_t len;
        uint64_t first; /* blocks, both ends included */
        uint64_t last;
        uint64_t fresh; /* blocks below this go through the journal */
        uint64_t old_size;
        uint64_t new_size;
        bool head;   /* the first block lies in scratch->head */
        bool tail;   /* the last block lies in scratch->tail */
        bool sealed; /* all blocks are encrypted already */
};

/* Plaintext of a block of the write: in the caller's buffer, or merged in the scratch. */
static uint8_t *write_block_data(const struct write *write, uint64_t block)
{
        if (block == write->first && write->head)
                return write->scratch->head;
        if (block == write->last && write->tail)
                return write->scratch->tail;
        return write->data + (block * TK_BLOCK_LEN - write->off);
}

/* Load a block that is written in part and lay the new bytes over it. */
static int merge_block(const struct write *write, uint64_t block, uint8_t *dst)
{
        uint64_t start = block * TK_BLOCK_LEN;
        uint64_t from = write->off > start ? write->off : start;
        uint64_t end = write->off + write->len;
        uint64_t to = end < start + TK_BLOCK_LEN ? end : start + TK_BLOCK_LEN;
        int r;

        r = tk_content_load_block(write->fs, write->file, write->scratch, block, write->old_size,
                                  dst);
        if (r < 0)
                return r;
        memcpy(dst + (from - start), write->data + (from - write->off), to - from);
        return 0;
}

/* The blocks at either end of the write that keep old bytes. */
static int merge_ends(struct write *write)
{
        uint64_t end = write->off + write->len;
        int r;

        if (write->off % TK_BLOCK_LEN != 0) {
                r = merge_block(write, write->first, write->scratch->head);
                if (r < 0)
                        return r;
                write->head = true;
                if (write->first == write->last)
                        return 0;
        }
        if (end % TK_BLOCK_LEN != 0 && end < write->old_size) {
                r = merge_block(write, write->last, write->scratch->tail);
                if (r < 0)
                        return r;
                write->tail = true;
        }
        return 0;
}

static int seal_piece(const struct write *write, const struct piece *piece, const uint8_t *ivs)
{
        int r;

        r = tk_block_use_group(write->scratch, write->file->dek, piece->group);
        if (r < 0)
                return r;
        for (uint64_t block = piece->first; block <= piece->last; block++) {
                r = tk_block_seal(write->scratch, block, write->fs->mount_number,
                                  ivs + (block - write->first) * TK_AEAD_IV_LEN,
                                  write_block_data(write, block),
                                  tk_block_valid(block, write->new_size), cell_in(piece, block));
                if (r < 0)
                        return r;
        }
        return 0;
}

/*
 * Whether the piece may write its group's whole tag page, together with the data: it
 * starts a group that holds nothing yet. That makes sequential writes one call. Nothing
 * durable is below such a page, which a lost cut could bring back.
 */
static bool owns_tag_page(const struct write *write, const struct piece *piece)
{
        return tk_slot_of_block(piece->first) == 0 && piece->first >= write->fresh &&
               write->old_size <= piece->first * TK_BLOCK_LEN;
}

/* A small file written at once is sealed at once: its close has nothing to add. */
static bool seals_itself(const struct write *write)
{
        return write->old_size == 0 && write->off == 0 && write->new_size <= TK_GROUP_LEN &&
               write->fresh == 0;
}

static int seal_itself(const struct write *write, uint8_t header[TK_HEADER_LEN])
{
        return tk_seal_prepare_whole(write->fs, write->file, write->new_size, true,
                                     header + tk_seal_off(tk_seal_next_slot(write->file)));
}

static int plan_tags(struct tk_iobatch *batch, const struct write *write, const struct piece *piece)
{
        size_t count = piece->last - piece->first + 1;
        uint8_t *page = piece->tag_page;

        if (!owns_tag_page(write, piece)) {
                tk_iobatch_add(batch, tk_cell_off(piece->first), cell_in(piece, piece->first),
                               count * TK_CELL_LEN);
                return 0;
        }
        memset(page, 0, TK_HEADER_LEN);
        if (seals_itself(write)) {
                int r = seal_itself(write, page);

                if (r < 0)
                        return r;
        }
        if (piece->group == 0 && write->file->base == 0)
                memcpy(page, write->file->record.bytes, TK_RECORD_LEN);
        memset(page + TK_HEADER_LEN + count * TK_CELL_LEN, 0,
               TK_BLOCK_LEN - TK_HEADER_LEN - count * TK_CELL_LEN);
        tk_iobatch_add(batch, tk_tag_page_off(piece->group), page, TK_BLOCK_LEN);
        return 0;
}

static void plan_data(struct tk_iobatch *batch, const struct write *write,
                      const struct piece *piece)
{
        for (uint64_t block = piece->first; block <= piece->last;) {
                uint8_t *data = write_block_data(write, block);
                uint64_t end = block + 1;

                /* Blocks in the caller's buffer follow each other; merged ones stand alone. */
                if (data != write->scratch->head && data != write->scratch->tail)
                        end = piece->last + 1 - (piece->last == write->last && write->tail);
                tk_iobatch_add(batch, tk_data_off(block), data,
                               (end - block - 1) * TK_BLOCK_LEN +
                                       tk_block_valid(end - 1, write->new_size));
                block = end;
        }
}

/*
 * Bring one old block to its new content, data and then cell, after a failed write.
 * The file did not grow: a last block that would have covered more is cut. If the data
 * can't be written, the block is left as it was.
 */
static void settle_block(const struct write *write, const struct piece *piece, uint64_t block)
{
        const struct tk_openfile *file = write->file;
        struct tk_scratch *scratch = write->scratch;
        uint8_t *data = write_block_data(write, block);
        uint8_t *cell = cell_in(piece, block);
        uint32_t len = tk_block_cell_len(cell);
        uint32_t valid = tk_block_valid(block, write->old_size);

        if (len > valid) {
                if (tk_block_use_group(scratch, file->dek, piece->group) < 0 ||
                    tk_block_open(scratch, block, cell, data, len) < 0 ||
                    tk_random_bytes(scratch->ivs, TK_AEAD_IV_LEN) < 0 ||
                    tk_block_seal(scratch, block, write->fs->mount_number, scratch->ivs, data,
                                  valid, cell) < 0)
                        return;
                tk_wipe(data + valid, len - valid);
                len = valid;
        }
        if (tk_backing_pwrite(file->fd, data, len, file->base + tk_data_off(block)) == 0)
                (void)!tk_backing_pwrite(file->fd, cell, TK_CELL_LEN,
                                         file->base + tk_cell_off(block));
}

/*
 * A write failed half-way: the disk is full, say. Blocks that were there may have new
 * data under old cells. Each is settled by itself, so that what was there stays readable.
 */
static void settle(const struct write *write)
{
        uint64_t block = write->first;

        for (int index = 0; block <= write->last; index++) {
                struct piece piece = piece_at(write->scratch, block, write->last, index);

                for (; block <= piece.last; block++) {
                        if (block * TK_BLOCK_LEN >= write->old_size)
                                return;
                        if (block >= write->fresh)
                                settle_block(write, &piece, block);
                }
        }
}

/* The part of @piece that goes in place at once; false: nothing of it. */
static bool clip_fresh(const struct write *write, struct piece *piece)
{
        if (piece->last < write->fresh)
                return false;
        if (piece->first < write->fresh)
                piece->first = write->fresh;
        return true;
}

static int seal_blocks(const struct write *write)
{
        struct tk_scratch *scratch = write->scratch;
        uint64_t block = write->first;
        int r;

        r = tk_random_bytes(scratch->ivs, (write->last - write->first + 1) * TK_AEAD_IV_LEN);
        for (int index = 0; r == 0 && block <= write->last; index++) {
                struct piece piece = piece_at(scratch, block, write->last, index);

                block = piece.last + 1;
                r = seal_piece(write, &piece, scratch->ivs);
        }
        return r;
}

/*
 * Encrypt a write of whole blocks before its range is held: what is there does not matter, and
 * neighbours need not wait for the cipher. Of the range only its end is held, which keeps the DEK.
 */
static int seal_ahead(struct write *write)
{
        TK_RANGE_SCOPE(range);
        int r;

        if (write->off % TK_BLOCK_LEN != 0 || write->len % TK_BLOCK_LEN != 0)
                return 0;
        tk_range_hold(&write->file->ranges, &range, TK_RANGE_END, TK_RANGE_END, false);
        r = tk_openfile_need_dek(write->fs, write->file);
        if (r < 0)
                return r;
        write->new_size = write->off + write->len;
        r = seal_blocks(write);
        write->sealed = r == 0;
        tk_scratch_forget(write->scratch); /* whoever wipes keys does not wait for the rest */
        return r;
}

/* Write the fresh blocks. */
static int write_fresh(const struct write *write)
{
        struct tk_scratch *scratch = write->scratch;
        struct tk_iobatch batch = {.count = 0};
        struct tk_iobatch cells = {.count = 0};
        int index = 0;
        int r;

        for (uint64_t block = write->first; block <= write->last; index++) {
                struct piece piece = piece_at(scratch, block, write->last, index);

                block = piece.last + 1;
                if (!clip_fresh(write, &piece))
                        continue;
                r = plan_tags(owns_tag_page(write, &piece) ? &batch : &cells, write, &piece);
                if (r < 0)
                        return r;
                plan_data(&batch, write, &piece);
        }
        if (write->fresh > write->last)
                return 0;
        write->file->unsynced = true;
        /* Data first: if we are killed in between, a fresh block is a hole and not a ruin. */
        r = tk_iobatch_write(&batch, write->file->fd, write->file->base);
        if (r == 0)
                r = tk_iobatch_write(&cells, write->file->fd, write->file->base);
        if (r < 0)
                settle(write);
        return r;
}

/* Hand the durable blocks, which are encrypted, to the journal. */
static int write_journaled(const struct write *write)
{
        uint64_t end = write->fresh <= write->last ? write->fresh : write->last + 1;
        uint64_t block = write->first;
        int index = 0;

        /* What the journal may replay is not written in place behind its back. */
        if (block < end)
                tk_content_raise(&write->file->durable, end);
        while (block < end) {
                struct piece piece = piece_at(write->scratch, block, write->last, index++);
                uint64_t last = piece.last < end ? piece.last : end - 1;
                int r;

                r = tk_content_want_space(write->fs, write->file, block, last);
                for (; r == 0 && block <= last; block++)
                        r = tk_content_journal_block(write->fs, write->file, block,
                                                     cell_in(&piece, block),
                                                     write_block_data(write, block));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int write_blocks(const struct write *write)
{
        int r = write->sealed ? 0 : seal_blocks(write);

        if (r == 0)
                r = write_fresh(write);
        return r < 0 ? r : write_journaled(write);
}

int tk_content_ensure_header(struct tk_openfile *file)
{
        int r;

        if (file->has_header)
                return 0;
        r = tk_backing_pwrite(file->fd, file->record.bytes, tk_record_len(&file->record), 0);
        if (r < 0)
                return r;
        file->has_header = true;
        file->unsynced = true;
        return 0;
}

int tk_content_read_cells(struct tk_fs *fs, struct tk_openfile *file, uint64_t first,
                          uint64_t count, uint8_t *cells)
{
        size_t len = count * TK_CELL_LEN;
        int r;

        assert(count <= TK_GROUP_BLOCKS - tk_slot_of_block(first));
        do {
                uint64_t gen = file->journal.overlay_gen;
                ssize_t n = tk_fdio_pread(file->fd, cells, len,
                                          (off_t)(file->base + tk_cell_off(first)));

                if (n < 0)
                        return (int)n;
                memset(cells + n, 0, len - (size_t)n);
                if (file->journal.overlay == 0)
                        r = file->journal.overlay_gen == gen ? 0 : -EAGAIN;
                else
                        r = tk_journal_overlay(fs->journal, file, first, first + count - 1, gen,
                                               cells, NULL);
        } while (r == -EAGAIN);
        return r;
}

int tk_content_cells_absent(const struct tk_openfile *file, uint64_t first, uint64_t count)
{
        uint8_t cells[TK_GROUP_BLOCKS * TK_CELL_LEN];
        ssize_t n;

        assert(count <= TK_GROUP_BLOCKS - tk_slot_of_block(first));
        n = tk_fdio_pread(file->fd, cells, count * TK_CELL_LEN,
                          (off_t)(file->base + tk_cell_off(first)));
        return n < 0 ? (int)n : tk_bytes_are_zero(cells, (size_t)n);
}

/* Clear the cells behind block @last in its group. In a hole that would take space. */
static int clear_cells_behind(const struct tk_openfile *file, uint64_t last)
{
        uint64_t count = TK_GROUP_BLOCKS - 1 - tk_slot_of_block(last);
        int r;

        if (count == 0)
                return 0;
        r = tk_content_cells_absent(file, last + 1, count);
        if (r != 0)
                return r < 0 ? r : 0;
        return tk_backing_pwrite(file->fd, zero_cells, count * TK_CELL_LEN,
                                 file->base + tk_cell_off(last + 1));
}

int tk_content_cut(struct tk_openfile *file, uint64_t size)
{
        int r;

        file->tags_taken = 0;
        if (size == 0) {
                r = tk_backing_truncate(file->fd, 0);
                if (r == 0)
                        file->has_header = false;
                return r;
        }
        r = clear_cells_behind(file, tk_block_of(size - 1));
        if (r < 0)
                return r;
        return tk_backing_truncate(file->fd, tk_backing_size_at(file->base, size));
}

/* After a failed write: give back what was taken beyond the end of the file. */
static void undo_growth(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(range);

        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        /* The end of the file may lie in the journal yet. */
        if (file->journal.overlay > 0 && tk_journal_settle(fs->journal, file) < 0)
                return;
        (void)!tk_content_cut(file, file->size);
}

/* A few new blocks behind durable ones go with them: one flush then makes all durable. */
enum { RIDERS_MAX = 8 };

static uint64_t first_fresh(const struct write *write)
{
        uint64_t durable = write->file->durable;

        if (write->first < durable && write->last >= durable && write->last - durable < RIDERS_MAX)
                return write->last + 1;
        return durable;
}

/*
 * Whether the write fills holes that may be filled in place, although they lie within a file that
 * was there: 1, 0 or a negative errno. Whatever of them a crash leaves reads as zeros, as they did,
 * as long as no seal covers them and the journal replays nothing of the file. Not once a sync has
 * begun: the next one seals what that one flushed, and takes a hole filled meanwhile for flushed.
 * As with any fresh block, a page that the backing filesystem fails to write later is lost, and the
 * fsync says so.
 */
static int fills_holes(const struct write *write)
{
        const struct tk_openfile *file = write->file;
        uint64_t durable = file->durable;
        uint64_t end = write->last < durable ? write->last + 1 : durable;
        uint64_t block = write->first;
        int r = 1;

        if (block >= end || durable == TK_ALL_DURABLE ||
            (file->sync_begun && !TK_PLANT(TK_PLANT_HOLES_IN_FSYNC)) ||
            block * TK_BLOCK_LEN < file->sealed || tk_journal_is_live(write->fs->journal, file))
                return 0;
        for (int index = 0; r > 0 && block < end; index++) {
                struct piece piece = piece_at(write->scratch, block, end - 1, index);

                block = piece.last + 1;
                r = tk_content_cells_absent(file, piece.first, block - piece.first);
        }
        return r;
}

/* What the write means for the seal. Blocks that are on their way in place don't count yet. */
static void note_sealed(const struct write *write)
{
        struct tk_openfile *file = write->file;

        file->unsealed = true;
        if (write->first >= write->fresh && write->first <= file->solid)
                tk_content_raise(&file->solid, write->last + 1);
        if (seals_itself(write))
                tk_seal_take(write->fs, file,
                             write->scratch->tag_pages + tk_seal_off(tk_seal_next_slot(file)));
}

static int write_held(struct write *write)
{
        struct tk_openfile *file = write->file;
        bool first_group = tk_group_of_block(write->first) == 0;
        int r;

        r = tk_openfile_need_dek(write->fs, file);
        if (r < 0)
                return r;
        write->old_size = file->size;
        write->new_size = write->off + write->len > write->old_size ? write->off + write->len
                                                                    : write->old_size;
        r = fills_holes(write);
        if (r < 0)
                return r;
        write->fresh = r > 0 ? write->first : first_fresh(write);
        r = merge_ends(write);
        if (r < 0)
                return r;
        /* A write of group 0's tag page brings the header, unless that lies before the page. */
        if (!first_group || tk_slot_of_block(write->first) != 0 || file->base > 0 ||
            write->fresh > 0) {
                r = tk_content_ensure_header(file);
                if (r < 0)
                        return r;
        }
        r = write_blocks(write);
        if (r < 0)
                return r;
        if (first_group)
                file->has_header = true;
        note_sealed(write);
        tk_content_raise(&file->size, write->off + write->len);
        return TK_PLANT(TK_PLANT_LATE_RECORD) ? tk_keyattr_store(file->fd, &file->record) : 0;
}

/*
 * Within the file a write holds its blocks. One that makes it longer may write whole tag pages:
 * it holds whole groups. The first bytes of a file bring its header, which goes with block 0.
 */
static uint64_t first_to_hold(const struct write *write, bool grows)
{
        if (!write->file->has_header)
                return 0;
        return grows ? write->first - tk_slot_of_block(write->first) : write->first;
}

static uint64_t last_to_hold(const struct write *write, bool grows)
{
        return grows ? write->last + TK_GROUP_BLOCKS - 1 - tk_slot_of_block(write->last)
                     : write->last;
}

/* Once more if the file was cut meanwhile. */
static void hold_for_write(const struct write *write, struct tk_range *range)
{
        struct tk_openfile *file = write->file;
        uint64_t end = write->off + write->len;
        bool grows;

        do {
                tk_range_release(range);
                grows = end > file->size;
                tk_range_hold(&file->ranges, range, first_to_hold(write, grows),
                              last_to_hold(write, grows), true);
        } while (first_to_hold(write, end > file->size) < range->first ||
                 (end > file->size && !grows));
}

/* @data is written to: through the struct, where clang-tidy does not look. */
int tk_content_write(struct tk_fs *fs, struct tk_openfile *file, uint64_t off,
                     uint8_t *data, /* NOLINT(readability-non-const-parameter) */
                     size_t len)
{
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        struct write write = {.fs = fs, .file = file, .off = off, .data = data, .len = len};
        int r;

        if (len == 0)
                return 0;
        if (len > TK_REQUEST_MAX)
                return -EINVAL;
        if (off > TK_SIZE_MAX - len)
                return -EFBIG;
        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        write.scratch = scratch;
        write.first = tk_block_of(off);
        write.last = tk_block_of(off + len - 1);

        tk_creds_charge(file->owner);
        tk_content_relieve(fs, file);
        r = seal_ahead(&write);
        if (r < 0)
                return r;
        {
                TK_RANGE_SCOPE(range);

                hold_for_write(&write, &range);
                r = write_held(&write);
        }
        if (r < 0) {
                undo_growth(fs, file);
                return r;
        }
        tk_stats_count(&fs->stats, TK_STATS_WRITE, len);
        return 0;
}

int tk_content_store_block(struct tk_fs *fs, struct tk_openfile *file, struct tk_scratch *scratch,
                           uint64_t block, uint8_t *data, uint32_t len)
{
        uint8_t cell[TK_CELL_LEN];
        int r;

        r = tk_random_bytes(scratch->ivs, TK_AEAD_IV_LEN);
        if (r < 0)
                return r;
        r = tk_block_use_group(scratch, file->dek, tk_group_of_block(block));
        if (r < 0)
                return r;
        r = tk_block_seal(scratch, block, fs->mount_number, scratch->ivs, data, len, cell);
        if (r < 0)
                return r;
        if (block < file->durable)
                return len > 0 ? tk_content_journal_block(fs, file, block, cell, data)
                               : tk_content_journal_hole(fs, file, block, cell, true);
        file->unsynced = true;
        if (len > 0) {
                r = tk_backing_pwrite(file->fd, data, len, file->base + tk_data_off(block));
                if (r < 0)
                        return r;
        }
        return tk_backing_pwrite(file->fd, cell, TK_CELL_LEN, file->base + tk_cell_off(block));
}

ssize_t tk_content_copy(struct tk_fs *fs, struct tk_openfile *from, uint64_t from_off,
                        struct tk_openfile *to, uint64_t to_off, uint64_t len)
{
        uint64_t done = 0;

        while (done < len) {
                uint64_t left = len - done;
                const uint8_t *data;
                ssize_t n;
                int r;

                n = tk_content_read(fs, from, from_off + done,
                                    left < TK_REQUEST_MAX ? left : TK_REQUEST_MAX, &data);
                if (n <= 0)
                        return done > 0 ? (ssize_t)done : n;
                /* The data lies in our own scratch: it may be encrypted where it is. */
                r = tk_content_write(fs, to, to_off + done, (uint8_t *)(uintptr_t)data, (size_t)n);
                if (r < 0)
                        return done > 0 ? (ssize_t)done : r;
                done += (uint64_t)n;
        }
        return (ssize_t)done;
}
