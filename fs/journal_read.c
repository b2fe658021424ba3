/* SPDX-License-Identifier: Apache-2.0 */

/* Batches read one behind the other, up to the first that does not hold or does not follow. */

#include "fs/journal_read.h"

#include "base/fdio.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/journal_apply.h"
#include "fs/volume.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

int tk_journal_reader_init(struct tk_journal_reader *reader, struct tk_fs *fs)
{
        memset(reader, 0, sizeof(*reader));
        reader->volume = fs->volume;
        reader->batch = malloc(TK_JOURNAL_BATCH_MAX);
        reader->items = calloc(TK_JOURNAL_ENTRIES_MAX, sizeof(struct tk_journal_item *));
        reader->item_space = calloc(TK_JOURNAL_ENTRIES_MAX + 1, sizeof(struct tk_journal_item));
        if (!reader->batch || !reader->items || !reader->item_space)
                return -ENOMEM;
        return tk_journal_mac_key(fs, &reader->mac_key);
}

void tk_journal_reader_done(struct tk_journal_reader *reader)
{
        tk_secret_free(reader->mac_key);
        free(reader->batch);
        free(reader->items);
        free(reader->item_space);
}

void tk_journal_reader_begin(struct tk_journal_reader *reader,
                             const struct tk_journal_source *source)
{
        reader->source = source;
        reader->off = 0;
        reader->chain = 0;
        reader->sequence = 0;
}

/* @len bytes from where the reader is: 1, or 0 if they reach behind the end. */
static int read_bytes(struct tk_journal_reader *reader, size_t len)
{
        const struct tk_journal_source *source = reader->source;
        ssize_t n;

        if (len > source->len - reader->off)
                return 0;
        n = tk_fdio_pread(source->fd, reader->batch, len, (off_t)(source->begin + reader->off));
        return n < 0 ? (int)n : n == (ssize_t)len;
}

static bool counts(const struct tk_journal_reader *reader)
{
        uint64_t chain = reader->source->chain;

        return chain ? reader->head.chain == chain
                     : tk_volume_awaits_replay(reader->volume, reader->head.mount);
}

static int read_batch(struct tk_journal_reader *reader)
{
        int r;

        r = read_bytes(reader, TK_BLOCK_LEN);
        if (r <= 0)
                return r;
        if (tk_journal_parse_head(reader->batch, &reader->head) < 0)
                return 0;
        r = read_bytes(reader, (size_t)reader->head.pages * TK_BLOCK_LEN);
        if (r <= 0)
                return r;
        r = tk_journal_check(reader->batch, &reader->head, reader->mac_key);
        if (r < 0)
                return r == -EBADMSG ? 0 : r;
        if (counts(reader))
                return 1;
        reader->stale = true;
        return 0;
}

int tk_journal_reader_next(struct tk_journal_reader *reader)
{
        const struct tk_journal_head *head = &reader->head;
        int r = read_batch(reader);

        if (r <= 0)
                return r;
        if (reader->off > 0 &&
            (head->chain != reader->chain || head->sequence != reader->sequence + 1))
                return 0;
        reader->chain = head->chain;
        reader->sequence = head->sequence;
        reader->off += (uint64_t)head->pages * TK_BLOCK_LEN;
        return 1;
}

static bool gives_content(const struct tk_journal_item *item)
{
        return item->type == TK_JOURNAL_BLOCK || item->type == TK_JOURNAL_HOLE ||
               (item->type == TK_JOURNAL_SIZE && item->at > 0);
}

/* An empty file that gets content needs its header first. */
static int ensure_header(const struct tk_openfile *file, const struct tk_journal_item **items,
                         size_t count)
{
        struct stat st;
        size_t i = 0;

        while (i < count && !gives_content(items[i]))
                i++;
        if (i == count)
                return 0;
        if (fstat(file->fd, &st) < 0)
                return -errno;
        if (st.st_size > 0)
                return 0;
        return tk_backing_pwrite(file->fd, file->record.bytes, tk_record_len(&file->record), 0);
}

int tk_journal_reader_put(struct tk_journal_reader *reader, unsigned index,
                          const struct tk_openfile *file)
{
        struct tk_journal_target target = {.fd = file->fd, .base = file->base};
        struct tk_journal_item *space = reader->item_space;
        struct tk_journal_cursor cursor = {0};
        size_t count = 0;
        int r;

        while (tk_journal_next_item(reader->batch, &reader->head, &cursor, &space[count])) {
                if (space[count].file != index)
                        continue;
                reader->items[count] = &space[count];
                count++;
        }
        r = ensure_header(file, reader->items, count);
        if (r == 0)
                r = tk_journal_apply(&target, reader->items, count);
        return r < 0 ? r : (int)count;
}
