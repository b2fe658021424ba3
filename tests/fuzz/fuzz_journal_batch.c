/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as a batch of the journal. As they are, only the batch that was written holds.
 * With their MAC put right, as if they came from us, everything that is read out of a
 * batch that holds lies inside it.
 *
 * The first byte of the input chooses: changes to a good batch, or a descriptor and pages
 * with the MAC put right.
 */

#include "base/bytes.h"
#include "base/crc.h"
#include "crypto/mac.h"
#include "fs/journal_batch.h"
#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum {
        PAGES_MAX = 40, /* of a batch here */
        BLOCKS = 2,
        LAST_LEN = 100, /* what counts of the last block's page */
        MAC_OFF = TK_JOURNAL_HEAD_LEN - TK_MAC_LEN,
};

static struct {
        struct tk_secret *key;
        uint8_t batch[TK_JOURNAL_DESCRIPTOR_MAX + BLOCKS * TK_BLOCK_LEN];
        size_t len;
} good;

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void write_items(struct tk_journal_writer *writer, const uint8_t pages[BLOCKS][TK_BLOCK_LEN])
{
        struct tk_journal_item item = {.type = TK_JOURNAL_SIZE, .at = 5000};

        tk_journal_write_item(writer, &item);
        for (unsigned i = 0; i < BLOCKS; i++) {
                uint16_t len = i + 1 == BLOCKS ? LAST_LEN : TK_BLOCK_LEN;

                item = (struct tk_journal_item){
                        .type = TK_JOURNAL_BLOCK, .at = i, .file = (uint16_t)i, .page = pages[i]};
                memset(item.cell, 'c', TK_CELL_LEN);
                tk_put_be16(item.cell + 28, len);
                item.crc = tk_crc32(pages[i], len);
                tk_journal_write_item(writer, &item);
        }
        item = (struct tk_journal_item){.type = TK_JOURNAL_HOLE, .flags = TK_JOURNAL_KEEP};
        tk_journal_write_item(writer, &item);
        item = (struct tk_journal_item){.type = TK_JOURNAL_MTIME, .at = 9};
        tk_journal_write_item(writer, &item);
        item = (struct tk_journal_item){.type = TK_JOURNAL_SEAL, .at = 1};
        tk_journal_write_item(writer, &item);
}

static void make_good(void)
{
        struct tk_journal_head head = {.chain = 11, .sequence = 22, .mount = 3, .tree = 44};
        struct tk_journal_file file = {.path = "a/b", .path_len = 3};
        uint8_t pages[BLOCKS][TK_BLOCK_LEN];
        struct tk_journal_writer writer;

        if (good.key)
                return;
        require(tk_secret_new(TK_KEY_LEN, &good.key) == 0);
        memset(pages, 'p', sizeof(pages));
        memset(file.proof, 'f', sizeof(file.proof));
        file.identity = (struct tk_identity){.ino = 5, .handle_type = 1, .handle_len = 8};
        tk_journal_write_begin(&writer, good.batch);
        tk_journal_write_file(&writer, &file);
        file.path_len = 0;
        tk_journal_write_file(&writer, &file);
        write_items(&writer, pages);
        require(tk_journal_write_end(&writer, &head, good.key) == 0);
        memcpy(good.batch + writer.len, pages, sizeof(pages));
        good.len = writer.len + sizeof(pages);
}

/* Read all that a batch holds: the sanitizer sees whether it is inside. */
static void walk(const uint8_t *batch, const struct tk_journal_head *head)
{
        struct tk_journal_cursor cursor = {0};
        struct tk_journal_item item;
        unsigned count = 0;

        for (unsigned i = 0; i < head->files; i++) {
                struct tk_journal_file file = tk_journal_file_at(batch, head, i);
                char path[TK_JOURNAL_PATH_MAX];

                require(file.path_len <= TK_JOURNAL_PATH_MAX);
                require(file.identity.handle_len <= TK_IDENTITY_HANDLE_MAX);
                memcpy(path, file.path, file.path_len);
        }
        while (tk_journal_next_item(batch, head, &cursor, &item)) {
                count++;
                require(item.file < head->files);
                require(item.type != TK_JOURNAL_SEAL || item.at < 2);
                if (item.type == TK_JOURNAL_BLOCK)
                        require(tk_journal_item_len(&item) <= TK_BLOCK_LEN &&
                                tk_crc32(item.page, tk_journal_item_len(&item)) == item.crc);
        }
        require(count == head->entries);
}

static int check(const uint8_t *batch, size_t batch_len)
{
        struct tk_journal_head head;
        int r = tk_journal_parse_head(batch, &head);

        if (r == 0 && (size_t)head.pages * TK_BLOCK_LEN > batch_len)
                return -EBADMSG; /* who reads the journal sees to that */
        if (r == 0)
                r = tk_journal_check(batch, &head, good.key);
        require(r == 0 || r == -EBADMSG);
        if (r == 0)
                walk(batch, &head);
        return r;
}

/* Changes to the good batch: where 3, what to flip 1. */
static void try_changed(const uint8_t *bytes, size_t len)
{
        uint8_t *batch = malloc(good.len);
        size_t counts = good.len - TK_BLOCK_LEN + LAST_LEN;
        bool same;

        require(batch);
        memcpy(batch, good.batch, good.len);
        for (; len >= 4; bytes += 4, len -= 4)
                batch[((size_t)bytes[0] << 16 | (size_t)bytes[1] << 8 | bytes[2]) % good.len] ^=
                        bytes[3];
        same = memcmp(batch, good.batch, counts) == 0;
        require(check(batch, good.len) == (same ? 0 : -EBADMSG));
        free(batch);
}

/* A descriptor that begins with @bytes, and pages behind it, of one batch in its own memory. */
static void try_forged(const uint8_t *bytes, size_t len)
{
        uint8_t page[TK_BLOCK_LEN] = {0};
        uint8_t mac[TK_MAC_LEN];
        struct tk_journal_head head;
        size_t batch_len;
        uint8_t *batch;

        memcpy(page, bytes, len < sizeof(page) ? len : sizeof(page));
        memcpy(page, good.batch, 8); /* the magic */
        if (tk_journal_parse_head(page, &head) < 0 || head.pages > PAGES_MAX)
                return;
        batch_len = (size_t)head.pages * TK_BLOCK_LEN;
        batch = calloc(1, batch_len);
        require(batch);
        memcpy(batch, bytes, len < batch_len ? len : batch_len);
        memcpy(batch, good.batch, 8);
        memset(batch + MAC_OFF, 0, TK_MAC_LEN);
        require(tk_mac_hmac(good.key, batch, head.descriptor_len, mac) == 0);
        memcpy(batch + MAC_OFF, mac, TK_MAC_LEN);
        (void)check(batch, batch_len);
        free(batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        make_good();
        if (len < 1)
                return 0;
        if (bytes[0] & 1)
                try_forged(bytes + 1, len - 1);
        else
                try_changed(bytes + 1, len - 1);
        return 0;
}
