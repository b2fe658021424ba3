/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Journal entries put in place.
 *
 * Between two changes of size the blocks are sorted, so that neighbours are one call, and
 * a block that has several entries is written once.
 * Data goes before its cells.
 */

#include "fs/journal_apply.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "fs/backing.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

enum { RUN_MAX = 64 };

/* Neighbouring blocks of one group and one type. */
struct run {
        const struct tk_journal_item **items;
        size_t count;
};

static int write_cells(const struct tk_journal_target *target, const struct run *run)
{
        uint8_t cells[RUN_MAX * TK_CELL_LEN];

        for (size_t i = 0; i < run->count; i++)
                memcpy(cells + i * TK_CELL_LEN, run->items[i]->cell, TK_CELL_LEN);
        return tk_backing_pwrite(target->fd, cells, run->count * TK_CELL_LEN,
                                 target->base + tk_cell_off(run->items[0]->at));
}

static int put_blocks(const struct tk_journal_target *target, const struct run *run)
{
        struct iovec iov[RUN_MAX];
        int r;

        for (size_t i = 0; i < run->count; i++)
                iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)run->items[i]->page,
                                        .iov_len = tk_journal_item_len(run->items[i])};
        r = tk_backing_pwritev(target->fd, iov, (int)run->count,
                               target->base + tk_data_off(run->items[0]->at));
        return r < 0 ? r : write_cells(target, run);
}

/* The space of blocks that are holes now is given back, as far as the file reaches. */
static int put_holes(const struct tk_journal_target *target, const struct run *run)
{
        uint64_t from = target->base + tk_data_off(run->items[0]->at);
        uint64_t to = from + run->count * TK_BLOCK_LEN;
        struct stat st;
        int r;

        r = write_cells(target, run);
        if (r < 0 || run->items[0]->flags & TK_JOURNAL_KEEP)
                return r;
        if (fstat(target->fd, &st) < 0)
                return -errno;
        if (to > (uint64_t)st.st_size)
                to = (uint64_t)st.st_size;
        if (from >= to)
                return 0;
        r = tk_backing_fallocate(target->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from,
                                 to - from);
        return r == -EOPNOTSUPP ? 0 : r;
}

static bool joins(const struct tk_journal_item *a, const struct tk_journal_item *b)
{
        return b->at == a->at + 1 && a->type == b->type && a->flags == b->flags &&
               tk_group_of_block(a->at) == tk_group_of_block(b->at) &&
               (a->type == TK_JOURNAL_HOLE || tk_journal_item_len(a) == TK_BLOCK_LEN);
}

/* By block; entries for the same block in their order, which is that of their places. */
static int compare(const void *left, const void *right)
{
        const struct tk_journal_item *a = *(const struct tk_journal_item *const *)left;
        const struct tk_journal_item *b = *(const struct tk_journal_item *const *)right;

        if (a->at != b->at)
                return a->at < b->at ? -1 : 1;
        return a < b ? -1 : a > b;
}

/*
 * Of entries for the same block only the last counts, but for a block that becomes a hole:
 * the hole does not make the file as long as the block did. Returns how many are left.
 */
static size_t drop_superseded(const struct tk_journal_item **items, size_t count)
{
        size_t kept = 0;

        for (size_t i = 0; i < count; i++)
                if (i + 1 == count || items[i + 1]->at != items[i]->at ||
                    items[i + 1]->type != items[i]->type)
                        items[kept++] = items[i];
        return kept;
}

static int put_sorted(const struct tk_journal_target *target, const struct tk_journal_item **items,
                      size_t count)
{
        qsort(items, count, sizeof(struct tk_journal_item *), compare);
        count = drop_superseded(items, count);
        for (size_t i = 0; i < count;) {
                struct run run = {.items = items + i, .count = 1};
                int r;

                while (i + run.count < count && run.count < RUN_MAX &&
                       joins(items[i + run.count - 1], items[i + run.count]))
                        run.count++;
                r = items[i]->type == TK_JOURNAL_BLOCK ? put_blocks(target, &run)
                                                       : put_holes(target, &run);
                if (r < 0)
                        return r;
                i += run.count;
        }
        return 0;
}

/* Cells behind the last block of a file that was cut are zero, as for every file. */
static int clear_cells_behind(const struct tk_journal_target *target, uint64_t size)
{
        uint8_t cells[TK_GROUP_BLOCKS * TK_CELL_LEN];
        uint64_t first = tk_block_of(size - 1) + 1;
        uint64_t off = target->base + tk_cell_off(first);
        ssize_t n;

        if (tk_slot_of_block(first) == 0)
                return 0;
        n = tk_fdio_pread(target->fd, cells,
                          (size_t)(TK_GROUP_BLOCKS - tk_slot_of_block(first)) * TK_CELL_LEN,
                          (off_t)off);
        if (n < 0)
                return (int)n;
        if (tk_bytes_are_zero(cells, (size_t)n))
                return 0;
        memset(cells, 0, (size_t)n);
        return tk_backing_pwrite(target->fd, cells, (size_t)n, off);
}

static int put_size(const struct tk_journal_target *target, const struct tk_journal_item *item)
{
        uint64_t size = tk_backing_size_at(target->base, item->at);
        struct stat st;
        int r;

        if (fstat(target->fd, &st) < 0)
                return -errno;
        if ((uint64_t)st.st_size != size &&
            (!(item->flags & TK_JOURNAL_GROW) || (uint64_t)st.st_size < size)) {
                r = tk_backing_truncate(target->fd, size);
                if (r < 0)
                        return r;
        }
        if (item->flags & TK_JOURNAL_GROW || item->at == 0)
                return 0;
        return clear_cells_behind(target, item->at);
}

static bool is_block(const struct tk_journal_item *item)
{
        return item->type == TK_JOURNAL_BLOCK || item->type == TK_JOURNAL_HOLE;
}

static int put_items(const struct tk_journal_target *target, const struct tk_journal_item **items,
                     size_t count, struct timespec *mtime)
{
        for (size_t i = 0; i < count;) {
                const struct tk_journal_item *item = items[i];
                size_t end = i;
                int r = 0;

                while (end < count && is_block(items[end]))
                        end++;
                if (end > i) {
                        r = put_sorted(target, items + i, end - i);
                } else {
                        end++;
                        if (item->type == TK_JOURNAL_SIZE)
                                r = put_size(target, item);
                        else if (item->type == TK_JOURNAL_SEAL)
                                r = tk_backing_pwrite(target->fd, item->cell, TK_SEAL_LEN,
                                                      target->base +
                                                              tk_seal_off((unsigned)item->at));
                        else
                                *mtime = (struct timespec){.tv_sec = (time_t)item->at,
                                                           .tv_nsec = tk_get_be32(item->cell)};
                }
                if (r < 0)
                        return r;
                i = end;
        }
        return 0;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
        return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

int tk_journal_apply(const struct tk_journal_target *target, const struct tk_journal_item **items,
                     size_t count)
{
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
        struct stat st;
        int r;

        if (fstat(target->fd, &st) < 0)
                return -errno;
        times[1] = is_later(&target->touched, &st.st_mtim) ? target->touched : st.st_mtim;
        r = put_items(target, items, count, &times[1]);
        if (r < 0)
                return r;
        r = tk_backing_utimens(target->fd, times);
        /* An ordinary user may not set the times of others' files: theirs move on then. */
        return r == -EPERM || r == -EACCES ? 0 : r;
}
