/* SPDX-License-Identifier: Apache-2.0 */

/* The seal: its bytes, and what it covers when. */

#include "support_fs.h"

#include "fs/content.h"
#include "fs/content_sync.h"
#include "fs/seal.h"

static const uint64_t block_len = TK_BLOCK_LEN;

static struct tk_test_fs test;

static int enter(void **state)
{
        memset(&test, 0, sizeof(test));
        return tk_test_dir_enter(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, tk_test_dir_leave)

static void crash(void)
{
        test.fs = tk_fs_free(test.fs);
        test.volume = tk_volume_free(test.volume);
        test.kms = tk_kms_free(test.kms);
        tk_scratch_drop();
}

static void test_parse__any_bit(void **state)
{
        struct tk_seal seal = {.length = 12345, .mount = 7, .sequence = 65535, .close = true};
        struct tk_secret *dek = tk_test_secret("0123456789abcdef0123456789abcdef", TK_KEY_LEN);
        struct tk_secret *other = tk_test_secret("0123456789abcdef0123456789abcdeF", TK_KEY_LEN);
        uint8_t zeros[TK_SEAL_LEN] = {0};
        uint8_t slot[TK_SEAL_LEN];
        struct tk_seal found = {0};

        assert_int_equal(tk_seal_make(dek, &seal, slot), 0);
        assert_int_equal(tk_seal_parse(dek, slot, &found), 1);
        assert_int_equal(found.length, 12345);
        assert_int_equal(found.mount, 7);
        assert_int_equal(found.sequence, 65535);
        assert_true(found.close);
        assert_int_equal(tk_seal_parse(other, slot, &found), 0);
        assert_int_equal(tk_seal_parse(dek, zeros, &found), 0);
        for (size_t bit = 0; bit < (size_t)TK_SEAL_LEN * 8; bit++) {
                tk_test_flip(slot, bit);
                assert_int_equal(tk_seal_parse(dek, slot, &found), 0);
                tk_test_flip(slot, bit);
        }
        tk_secret_free(dek);
        tk_secret_free(other);
}

static void append(struct tk_openfile *file, size_t len)
{
        uint8_t bytes[TK_BLOCK_LEN];

        if (len == 0)
                return;
        assert_true(len <= sizeof(bytes));
        memset(bytes, 'x', len);
        assert_int_equal(tk_content_write(test.fs, file, file->size, bytes, len), 0);
}

static struct tk_openfile *reopen(struct tk_inode **ret_inode)
{
        struct tk_openfile *file = NULL;
        struct tk_entry entry;

        assert_int_equal(tk_op_lookup(test.fs, test.root, "f", &entry), 0);
        assert_int_equal(tk_op_open(test.fs, entry.inode, O_RDWR, &file), 0);
        *ret_inode = entry.inode;
        return file;
}

/* An fsync seals what the one before it made durable; after a crash that binds. */
static void test_sync__seals_the_one_before(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        for (int i = 0; i < 3; i++) {
                append(file, TK_BLOCK_LEN);
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
                assert_int_equal(file->seal.binding_length, (uint64_t)i * block_len);
        }
        tk_test_close(&test, file, inode);
        crash();
        tk_test_fs_start(&test);
        file = reopen(&inode);
        assert_int_equal(file->size, 3 * block_len);
        assert_int_equal(file->sealed, 2 * block_len);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* A close seals everything, for a mount that ends cleanly and for no other. */
static void test_close__binds_after_a_clean_end(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        for (int clean = 0; clean < 2; clean++) {
                tk_test_fs_start(&test);
                file = tk_test_create(&test, "f", &inode);
                append(file, TK_BLOCK_LEN);
                append(file, 100);
                tk_test_close(&test, file, inode);
                file = reopen(&inode);
                assert_int_equal(file->sealed, TK_BLOCK_LEN + 100); /* within the mount */
                tk_test_close(&test, file, inode);
                if (clean)
                        tk_test_fs_stop(&test);
                else
                        crash();
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->sealed, clean ? TK_BLOCK_LEN + 100 : 0);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                assert_int_equal(unlink("c/root/f"), 0);
        }
}

/* Lowered before a cut: no crash leaves a file shorter than its seal. */
static void test_truncate__lowers_the_seal(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        for (int i = 0; i < 10; i++)
                append(file, TK_BLOCK_LEN);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        for (uint64_t size = 9 * block_len; size > 0; size -= 3 * block_len) {
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->sealed, file->size);
                assert_int_equal(tk_content_truncate(test.fs, file, size), 0);
                assert_int_equal(file->seal.binding_length, size);
                tk_test_close(&test, file, inode);
                crash();
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->size, size);
                assert_int_equal(file->sealed, size);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
        }
}

/* A file that is cut and grows to its old length is not what was sealed. */
static void test_close__cut_and_grown(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        for (int closed = 0; closed < 2; closed++) {
                tk_test_fs_start(&test);
                file = tk_test_create(&test, "f", &inode);
                for (int i = 0; i < 10; i++)
                        append(file, TK_BLOCK_LEN);
                if (closed) {
                        tk_test_close(&test, file, inode);
                        file = reopen(&inode);
                }
                assert_int_equal(tk_content_truncate(test.fs, file, 5 * block_len), 0);
                assert_int_equal(tk_content_truncate(test.fs, file, 10 * block_len), 0);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->sealed, 5 * block_len);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                assert_int_equal(unlink("c/root/f"), 0);
        }
}

/* A file whose first block is missing gets a seal over nothing: it says that the seal is not lost.
 */
static void test_close__first_block_missing(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        assert_int_equal(tk_content_truncate(test.fs, file, 3 * block_len), 0);
        append(file, 100);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        file = reopen(&inode);
        assert_int_equal(file->sealed, 0);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* It stops at the first block that has no cell, and passes holes that were made. */
static void test_close__stops_at_a_missing_block(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        for (int i = 0; i < 6; i++)
                append(file, TK_BLOCK_LEN);
        assert_int_equal(tk_content_fallocate(test.fs, file,
                                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                              TK_BLOCK_LEN, TK_BLOCK_LEN),
                         0);
        assert_int_equal(tk_content_truncate(test.fs, file, 8 * block_len), 0);
        append(file, TK_BLOCK_LEN);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        file = reopen(&inode);
        assert_int_equal(file->sealed, 6 * block_len);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

static void flip_data(uint64_t block)
{
        off_t off = (off_t)(test.fs->base + tk_data_off(block));
        int fd = open("c/root/f", O_RDWR | O_CLOEXEC);
        uint8_t byte;

        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &byte, 1, off), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, off), 1);
        close(fd);
}

/* What a crash left is sealed by the next mount that writes, as far as it is good. */
static void check_what_a_crash_left(bool appends)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        for (int torn = 0; torn < 2; torn++) {
                uint64_t more = appends ? 100 : 0;

                tk_test_fs_start(&test);
                file = tk_test_create(&test, "f", &inode);
                for (int i = 0; i < 5; i++)
                        append(file, TK_BLOCK_LEN);
                tk_test_close(&test, file, inode);
                if (torn)
                        flip_data(3);
                crash();
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->sealed, 0);
                append(file, more);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->sealed, torn ? 3 * block_len : 5 * block_len + more);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                assert_int_equal(unlink("c/root/f"), 0);
        }
}

static void test_close__what_a_crash_left(void **state)
{
        check_what_a_crash_left(true);
}

/* So it does if the file is opened only. */
static void test_open__what_a_crash_left(void **state)
{
        check_what_a_crash_left(false);
}

/* A file that begins with a hole is sealed, too: over nothing, but it has a seal. */
static void test_close__hole_at_the_beginning(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        for (int synced = 0; synced < 2; synced++) {
                tk_test_fs_start(&test);
                file = tk_test_create(&test, "f", &inode);
                assert_int_equal(tk_content_truncate(test.fs, file, 8 * block_len), 0);
                append(file, TK_BLOCK_LEN);
                if (synced)
                        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                tk_test_fs_start(&test);
                file = reopen(&inode);
                assert_int_equal(file->size, 9 * block_len);
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
                assert_int_equal(unlink("c/root/f"), 0);
        }
}

/* Where a seal can't go on, a sync does not write the same one again. */
static void test_sync__same_seal_once(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        uint16_t sequence;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        append(file, TK_BLOCK_LEN);
        assert_int_equal(tk_content_truncate(test.fs, file, 8 * block_len), 0);
        for (int i = 0; i < 2; i++) {
                append(file, TK_BLOCK_LEN);
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        }
        assert_int_equal(file->seal.binding_length, block_len);
        sequence = file->seal.sequence;
        for (int i = 0; i < 3; i++) {
                append(file, TK_BLOCK_LEN);
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        }
        assert_int_equal(file->seal.sequence, sequence);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* The seal of an fsync leaves out a hole that is filled, but not in place yet. */
static void test_sync__not_ahead_of_the_journal(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        uint8_t bytes[TK_BLOCK_LEN];

        memset(bytes, 'x', sizeof(bytes));
        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        append(file, TK_BLOCK_LEN);
        assert_int_equal(tk_content_truncate(test.fs, file, 8 * block_len), 0);
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        assert_int_equal(tk_content_write(test.fs, file, TK_BLOCK_LEN, bytes, TK_BLOCK_LEN), 0);
        assert_true(file->journal.overlay > 0);
        assert_int_equal(tk_seal_write(test.fs, file, file->synced_len, false), 0);
        assert_int_equal(file->seal.binding_length, TK_BLOCK_LEN);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_parse__any_bit),
                TEST(test_sync__seals_the_one_before),
                TEST(test_close__binds_after_a_clean_end),
                TEST(test_truncate__lowers_the_seal),
                TEST(test_close__cut_and_grown),
                TEST(test_close__stops_at_a_missing_block),
                TEST(test_close__first_block_missing),
                TEST(test_close__what_a_crash_left),
                TEST(test_open__what_a_crash_left),
                TEST(test_sync__same_seal_once),
                TEST(test_close__hole_at_the_beginning),
                TEST(test_sync__not_ahead_of_the_journal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
