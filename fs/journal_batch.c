/* SPDX-License-Identifier: Apache-2.0 */

/* One batch of the journal: made and checked. */

#include "fs/journal_batch.h"

#include "base/bytes.h"
#include "base/crc.h"
#include "crypto/mac.h"
#include "fs/block.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
        OFF_MAGIC = 0,
        OFF_CHAIN = 8,
        OFF_SEQUENCE = 16,
        OFF_PAGES = 24,
        OFF_DESCRIPTOR_LEN = 28,
        OFF_MOUNT = 32,
        OFF_FILES = 34,
        OFF_ENTRIES = 36,
        OFF_TREE = 40,
        OFF_MAC = 96,
};
_Static_assert(OFF_MAC + TK_MAC_LEN == TK_JOURNAL_HEAD_LEN, "docs/format.md: batch head");

static const char magic[8] = {'T', 'K', 'J', 'R', 'N', 'L', '0', '1'};

uint32_t tk_journal_item_len(const struct tk_journal_item *item)
{
        return tk_block_cell_len(item->cell);
}

/* Making -------------------------------------------------------------------------- */

static uint8_t *extend(struct tk_journal_writer *writer, size_t len)
{
        uint8_t *at = writer->bytes + writer->len;

        assert(writer->len + len <= TK_JOURNAL_DESCRIPTOR_MAX);
        writer->len += len;
        memset(at, 0, len);
        return at;
}

/* @bytes is written to: through the struct, where clang-tidy does not look. */
void tk_journal_write_begin(struct tk_journal_writer *writer,
                            uint8_t *bytes) /* NOLINT(readability-non-const-parameter) */
{
        *writer = (struct tk_journal_writer){.bytes = bytes};
        extend(writer, TK_JOURNAL_HEAD_LEN);
}

void tk_journal_write_file(struct tk_journal_writer *writer, const struct tk_journal_file *file)
{
        uint8_t *p = extend(writer, TK_JOURNAL_FILE_LEN + file->path_len);

        assert(writer->entries == 0 && file->path_len <= TK_JOURNAL_PATH_MAX);
        memcpy(p, file->proof, TK_JOURNAL_PROOF_LEN);
        tk_put_be64(p + 16, file->identity.ino);
        tk_put_be32(p + 24, (uint32_t)file->identity.handle_type);
        tk_put_be16(p + 28, file->identity.handle_len);
        tk_put_be16(p + 30, file->path_len);
        memcpy(p + 32, file->identity.handle, TK_IDENTITY_HANDLE_MAX);
        if (file->path_len > 0)
                memcpy(p + TK_JOURNAL_FILE_LEN, file->path, file->path_len);
        writer->files++;
}

void tk_journal_write_item(struct tk_journal_writer *writer, const struct tk_journal_item *item)
{
        uint8_t *p = extend(writer, TK_JOURNAL_ENTRY_LEN);

        assert(item->file < writer->files);
        p[0] = item->type;
        p[1] = item->flags;
        tk_put_be16(p + 2, item->file);
        tk_put_be32(p + 4, item->crc);
        tk_put_be64(p + 8, item->at);
        memcpy(p + 16, item->cell, TK_CELL_LEN);
        writer->entries++;
        writer->pages += item->type == TK_JOURNAL_BLOCK;
}

/* The MAC of a descriptor in which the MAC's own field is zero. */
static int make_mac(const struct tk_secret *mac_key, uint8_t *descriptor, size_t len,
                    uint8_t ret_mac[TK_MAC_LEN])
{
        memset(descriptor + OFF_MAC, 0, TK_MAC_LEN);
        return tk_mac_hmac(mac_key, descriptor, len, ret_mac);
}

int tk_journal_write_end(struct tk_journal_writer *writer, const struct tk_journal_head *head,
                         const struct tk_secret *mac_key)
{
        uint8_t *p = writer->bytes;
        uint8_t mac[TK_MAC_LEN];
        int r;

        if (writer->len % TK_BLOCK_LEN != 0)
                extend(writer, TK_BLOCK_LEN - writer->len % TK_BLOCK_LEN);
        memcpy(p + OFF_MAGIC, magic, sizeof(magic));
        tk_put_be64(p + OFF_CHAIN, head->chain);
        tk_put_be64(p + OFF_SEQUENCE, head->sequence);
        tk_put_be32(p + OFF_PAGES, (uint32_t)(writer->len / TK_BLOCK_LEN) + writer->pages);
        tk_put_be32(p + OFF_DESCRIPTOR_LEN, (uint32_t)writer->len);
        tk_put_be16(p + OFF_MOUNT, head->mount);
        tk_put_be16(p + OFF_FILES, writer->files);
        tk_put_be16(p + OFF_ENTRIES, writer->entries);
        tk_put_be64(p + OFF_TREE, head->tree);
        r = make_mac(mac_key, p, writer->len, mac);
        if (r < 0)
                return r;
        memcpy(p + OFF_MAC, mac, sizeof(mac));
        return 0;
}

/* Checking ------------------------------------------------------------------------ */

int tk_journal_parse_head(const uint8_t page[TK_BLOCK_LEN], struct tk_journal_head *ret_head)
{
        struct tk_journal_head head = {
                .chain = tk_get_be64(page + OFF_CHAIN),
                .sequence = tk_get_be64(page + OFF_SEQUENCE),
                .pages = tk_get_be32(page + OFF_PAGES),
                .descriptor_len = tk_get_be32(page + OFF_DESCRIPTOR_LEN),
                .mount = tk_get_be16(page + OFF_MOUNT),
                .files = tk_get_be16(page + OFF_FILES),
                .entries = tk_get_be16(page + OFF_ENTRIES),
                .tree = tk_get_be64(page + OFF_TREE),
        };

        if (memcmp(page + OFF_MAGIC, magic, sizeof(magic)) != 0) /* not secret */
                return -EBADMSG;
        if (head.descriptor_len == 0 || head.descriptor_len % TK_BLOCK_LEN != 0 ||
            head.descriptor_len > TK_JOURNAL_DESCRIPTOR_MAX ||
            head.pages < head.descriptor_len / TK_BLOCK_LEN ||
            head.pages > TK_JOURNAL_BATCH_MAX / TK_BLOCK_LEN || head.files > TK_JOURNAL_FILES_MAX ||
            head.entries > TK_JOURNAL_ENTRIES_MAX)
                return -EBADMSG;
        *ret_head = head;
        return 0;
}

static size_t file_len(const uint8_t *p)
{
        return TK_JOURNAL_FILE_LEN + (size_t)tk_get_be16(p + 30);
}

/* Where the entries begin; 0 if the files don't fit into the descriptor. */
static size_t entries_off(const uint8_t *batch, const struct tk_journal_head *head)
{
        size_t off = TK_JOURNAL_HEAD_LEN;

        for (unsigned i = 0; i < head->files; i++) {
                if (off + TK_JOURNAL_FILE_LEN > head->descriptor_len)
                        return 0;
                if (tk_get_be16(batch + off + 28) > TK_IDENTITY_HANDLE_MAX ||
                    tk_get_be16(batch + off + 30) > TK_JOURNAL_PATH_MAX)
                        return 0;
                off += file_len(batch + off);
        }
        return off + (size_t)head->entries * TK_JOURNAL_ENTRY_LEN <= head->descriptor_len ? off : 0;
}

static bool item_holds(const struct tk_journal_item *item, const struct tk_journal_head *head)
{
        if (item->file >= head->files)
                return false;
        switch (item->type) {
        case TK_JOURNAL_BLOCK:
                return item->at <= TK_SIZE_MAX / TK_BLOCK_LEN && tk_journal_item_len(item) > 0 &&
                       tk_journal_item_len(item) <= TK_BLOCK_LEN &&
                       tk_crc32(item->page, tk_journal_item_len(item)) == item->crc;
        case TK_JOURNAL_HOLE:
                return item->at <= TK_SIZE_MAX / TK_BLOCK_LEN;
        case TK_JOURNAL_SIZE:
                return item->at <= TK_SIZE_MAX;
        case TK_JOURNAL_MTIME:
                return tk_get_be32(item->cell) < 1000000000;
        case TK_JOURNAL_SEAL:
                return item->at < 2;
        default:
                return false;
        }
}

static int check_items(const uint8_t *batch, const struct tk_journal_head *head)
{
        struct tk_journal_cursor cursor = {0};
        struct tk_journal_item item;
        uint32_t pages = head->descriptor_len / TK_BLOCK_LEN;
        size_t off = entries_off(batch, head);

        if (off == 0)
                return -EBADMSG;
        for (unsigned i = 0; i < head->entries; i++)
                pages += batch[off + (size_t)i * TK_JOURNAL_ENTRY_LEN] == TK_JOURNAL_BLOCK;
        if (pages != head->pages)
                return -EBADMSG;
        while (tk_journal_next_item(batch, head, &cursor, &item))
                if (!item_holds(&item, head))
                        return -EBADMSG;
        return 0;
}

int tk_journal_check(const uint8_t *batch, const struct tk_journal_head *head,
                     const struct tk_secret *mac_key)
{
        TK_CLEANUP(tk_freep) uint8_t *descriptor = malloc(head->descriptor_len);
        uint8_t mac[TK_MAC_LEN];
        int r;

        if (!descriptor)
                return -ENOMEM;
        memcpy(descriptor, batch, head->descriptor_len);
        r = make_mac(mac_key, descriptor, head->descriptor_len, mac);
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(mac, batch + OFF_MAC, TK_MAC_LEN))
                return -EBADMSG;
        return check_items(batch, head);
}

struct tk_journal_file tk_journal_file_at(const uint8_t *batch, const struct tk_journal_head *head,
                                          unsigned i)
{
        const uint8_t *p = batch + TK_JOURNAL_HEAD_LEN;
        struct tk_journal_file file;

        assert(i < head->files);
        while (i-- > 0)
                p += file_len(p);
        memcpy(file.proof, p, TK_JOURNAL_PROOF_LEN);
        file.identity.ino = tk_get_be64(p + 16);
        file.identity.handle_type = (int32_t)tk_get_be32(p + 24);
        file.identity.handle_len = tk_get_be16(p + 28);
        file.path_len = tk_get_be16(p + 30);
        memcpy(file.identity.handle, p + 32, TK_IDENTITY_HANDLE_MAX);
        file.path = (const char *)p + TK_JOURNAL_FILE_LEN;
        return file;
}

bool tk_journal_next_item(const uint8_t *batch, const struct tk_journal_head *head,
                          struct tk_journal_cursor *cursor, struct tk_journal_item *ret_item)
{
        const uint8_t *p;

        if (cursor->entry == head->entries)
                return false;
        if (cursor->entry++ == 0)
                cursor->off = entries_off(batch, head);
        p = batch + cursor->off;
        cursor->off += TK_JOURNAL_ENTRY_LEN;
        *ret_item = (struct tk_journal_item){.type = p[0],
                                             .flags = p[1],
                                             .file = tk_get_be16(p + 2),
                                             .crc = tk_get_be32(p + 4),
                                             .at = tk_get_be64(p + 8)};
        memcpy(ret_item->cell, p + 16, TK_CELL_LEN);
        if (ret_item->type == TK_JOURNAL_BLOCK)
                ret_item->page =
                        batch + head->descriptor_len + (size_t)cursor->page++ * TK_BLOCK_LEN;
        return true;
}
