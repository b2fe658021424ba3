/* SPDX-License-Identifier: Apache-2.0 */

/* One batch of the journal: what was written comes back, and anything else does not. */

#include "support.h"

#include "base/crc.h"
#include "fs/journal_batch.h"
#include <errno.h>

enum { BLOCKS = 3 };

static uint8_t batch[TK_JOURNAL_DESCRIPTOR_MAX + BLOCKS * TK_BLOCK_LEN];
static size_t batch_len;
static struct tk_journal_head head;

static struct tk_secret *mac_key(char fill)
{
        uint8_t bytes[TK_KEY_LEN];

        memset(bytes, fill, sizeof(bytes));
        return tk_test_secret(bytes, sizeof(bytes));
}

static struct tk_journal_item block_item(uint64_t at, const uint8_t *page, uint16_t len)
{
        struct tk_journal_item item = {.type = TK_JOURNAL_BLOCK, .at = at, .page = page};

        memset(item.cell, (int)at, TK_CELL_LEN);
        tk_put_be16(item.cell + 28, len);
        item.crc = tk_crc32(page, len);
        return item;
}

/* Two files, BLOCKS blocks, and one entry of each other type. */
static void make_batch(void)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = mac_key('k');
        struct tk_journal_head wanted = {.chain = 11, .sequence = 22, .mount = 33, .tree = 44};
        struct tk_journal_file file = {.path = "a/b", .path_len = 3};
        struct tk_journal_item item = {.type = TK_JOURNAL_SIZE, .at = 777};
        uint8_t pages[BLOCKS][TK_BLOCK_LEN];
        struct tk_journal_writer writer;

        memset(file.proof, 'p', sizeof(file.proof));
        file.identity = (struct tk_identity){.ino = 5, .handle_type = 1, .handle_len = 8};
        tk_journal_write_begin(&writer, batch);
        tk_journal_write_file(&writer, &file);
        file.path_len = 0;
        file.identity.ino = 6;
        tk_journal_write_file(&writer, &file);
        for (int i = 0; i < BLOCKS; i++) {
                struct tk_journal_item block;

                memset(pages[i], 'A' + i, TK_BLOCK_LEN);
                block = block_item((uint64_t)i, pages[i], i == 2 ? 100 : TK_BLOCK_LEN);
                block.file = (uint16_t)(i % 2);
                tk_journal_write_item(&writer, &block);
                if (i == 0)
                        tk_journal_write_item(&writer, &item);
        }
        item.type = TK_JOURNAL_HOLE;
        item.flags = TK_JOURNAL_KEEP;
        tk_journal_write_item(&writer, &item);
        item = (struct tk_journal_item){.type = TK_JOURNAL_MTIME, .at = 9};
        tk_journal_write_item(&writer, &item);
        item = (struct tk_journal_item){.type = TK_JOURNAL_SEAL, .at = 1};
        tk_journal_write_item(&writer, &item);
        assert_int_equal(tk_journal_write_end(&writer, &wanted, key), 0);
        memcpy(batch + writer.len, pages, sizeof(pages));
        batch_len = writer.len + sizeof(pages);
}

static int check(const uint8_t *bytes)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = mac_key('k');
        int r = tk_journal_parse_head(bytes, &head);

        if (r == 0 && (size_t)head.pages * TK_BLOCK_LEN > batch_len)
                r = -EBADMSG;
        return r < 0 ? r : tk_journal_check(bytes, &head, key);
}

static void test_check__round_trip(void **state)
{
        static const uint8_t types[] = {TK_JOURNAL_BLOCK, TK_JOURNAL_SIZE, TK_JOURNAL_BLOCK,
                                        TK_JOURNAL_BLOCK, TK_JOURNAL_HOLE, TK_JOURNAL_MTIME,
                                        TK_JOURNAL_SEAL};
        struct tk_journal_cursor cursor = {0};
        struct tk_journal_item item;
        struct tk_journal_file file;
        size_t count = 0;
        int blocks = 0;

        make_batch();
        assert_int_equal(check(batch), 0);
        assert_int_equal(head.chain, 11);
        assert_int_equal(head.sequence, 22);
        assert_int_equal(head.mount, 33);
        assert_int_equal(head.tree, 44);
        assert_int_equal(head.pages * TK_BLOCK_LEN, batch_len);
        file = tk_journal_file_at(batch, &head, 0);
        assert_int_equal(file.identity.ino, 5);
        assert_int_equal(file.path_len, 3);
        assert_memory_equal(file.path, "a/b", 3);
        assert_int_equal(tk_journal_file_at(batch, &head, 1).identity.ino, 6);
        while (tk_journal_next_item(batch, &head, &cursor, &item)) {
                assert_int_equal(item.type, types[count++]);
                if (item.type != TK_JOURNAL_BLOCK)
                        continue;
                assert_int_equal(item.at, blocks);
                assert_int_equal(item.page[50], 'A' + blocks);
                blocks++;
        }
        assert_int_equal(count, sizeof(types));
        assert_int_equal(blocks, BLOCKS);
}

/* Written over by something else in any of its sectors, it does not hold. */
static void test_check__torn_at_every_sector(void **state)
{
        static uint8_t torn[sizeof(batch)];

        make_batch();
        for (size_t sector = 0; sector * 512 < batch_len; sector++) {

                memcpy(torn, batch, batch_len);
                memset(torn + sector * 512, 0x5A, 512);
                /* Of the last page only 100 bytes count; a descriptor's all do. */
                if (sector * 512 >= batch_len - TK_BLOCK_LEN + 512)
                        assert_int_equal(check(torn), 0);
                else
                        assert_int_equal(check(torn), -EBADMSG);
        }
}

/* As a power cut leaves it: a prefix, or a suffix, over what was there. */
static void test_check__prefixes_and_suffixes(void **state)
{
        static uint8_t torn[sizeof(batch)];
        size_t end;

        make_batch();
        end = batch_len - TK_BLOCK_LEN + 512; /* behind what counts of the last page */
        for (size_t cut = 512; cut < end; cut += 512) {
                memset(torn, 0, sizeof(torn));
                memcpy(torn, batch, cut);
                assert_int_equal(check(torn), -EBADMSG);
                memset(torn, 0, sizeof(torn));
                memcpy(torn + cut, batch + cut, batch_len - cut);
                assert_int_equal(check(torn), -EBADMSG);
        }
}

static void test_check__sectors_swapped(void **state)
{
        static uint8_t torn[sizeof(batch)];

        make_batch();
        memcpy(torn, batch, batch_len);
        /* Two data pages: what each says is right, for the other one. */
        memcpy(torn + batch_len - 3UL * TK_BLOCK_LEN, batch + batch_len - 2UL * TK_BLOCK_LEN,
               TK_BLOCK_LEN);
        memcpy(torn + batch_len - 2UL * TK_BLOCK_LEN, batch + batch_len - 3UL * TK_BLOCK_LEN,
               TK_BLOCK_LEN);
        assert_int_equal(check(torn), -EBADMSG);
}

static void test_check__any_bit_of_the_descriptor(void **state)
{
        make_batch();
        for (size_t bit = 0; bit < (TK_JOURNAL_HEAD_LEN + 600) * 8UL; bit++) {
                tk_test_flip(batch, bit);
                assert_true(check(batch) == -EBADMSG);
                tk_test_flip(batch, bit);
        }
        assert_int_equal(check(batch), 0);
}

static void test_check__wrong_key(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *other = mac_key('o');

        make_batch();
        assert_int_equal(tk_journal_parse_head(batch, &head), 0);
        assert_int_equal(tk_journal_check(batch, &head, other), -EBADMSG);
}

static void test_crc32__known_answer(void **state)
{
        assert_int_equal(tk_crc32("123456789", 9), 0xCBF43926);
        assert_int_equal(tk_crc32("", 0), 0);
        assert_int_equal(tk_crc32("The quick brown fox jumps over the lazy dog", 43), 0x414FA339);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_crc32__known_answer),
                TK_TEST(test_check__round_trip),
                TK_TEST(test_check__torn_at_every_sector),
                TK_TEST(test_check__prefixes_and_suffixes),
                TK_TEST(test_check__sectors_swapped),
                TK_TEST(test_check__any_bit_of_the_descriptor),
                TK_TEST(test_check__wrong_key),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
