/* SPDX-License-Identifier: Apache-2.0 */

/* The key record of a file: attribute and copy lost, damaged, exchanged; the blocks decide. */

#include "support_fs.h"

#include "base/fdio.h"
#include "fs/content.h"
#include "fs/format.h"
#include "fs/keyattr.h"
#include <sys/xattr.h>

static struct tk_test_fs test;

/* A backing file, and what was put into it. */
struct backing {
        int fd;
        uint64_t size;
        struct tk_record attribute;
        size_t record_len;
        struct tk_secret *dek; /* a copy */
};

/* Write @blocks blocks from block @first on into a new file @name, and open its backing file. */
static struct backing make_backing(const char *name, uint64_t first, unsigned blocks)
{
        struct tk_inode *inode;
        struct tk_openfile *file = tk_test_create(&test, name, &inode);
        struct backing backing = {0};
        uint8_t block[TK_BLOCK_LEN];
        char path[128];
        struct stat st;

        for (unsigned i = 0; i < blocks; i++) {
                memset(block, 'a' + (int)i % 26, sizeof(block));
                assert_int_equal(tk_content_write(test.fs, file, (first + i) * TK_BLOCK_LEN, block,
                                                  sizeof(block)),
                                 0);
        }
        assert_int_equal(tk_secret_dup_bytes(tk_secret_bytes(file->dek), TK_KEY_LEN, &backing.dek),
                         0);
        tk_test_close(&test, file, inode);

        snprintf(path, sizeof(path), "c/root/%s", name);
        backing.fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(backing.fd >= 0);
        assert_int_equal(fstat(backing.fd, &st), 0);
        backing.size = (uint64_t)st.st_size;
        backing.record_len = (size_t)fgetxattr(backing.fd, TK_KEYATTR_NAME, backing.attribute.bytes,
                                               TK_RECORD_MAX);
        assert_int_equal(backing.record_len, tk_record_len(&backing.attribute));
        return backing;
}

static void done_backing(struct backing *backing)
{
        close(backing->fd);
        backing->dek = tk_secret_free(backing->dek);
}

static void set_attribute(const struct backing *backing, const void *bytes, size_t len)
{
        assert_int_equal(fsetxattr(backing->fd, TK_KEYATTR_NAME, bytes, len, 0), 0);
}

static void drop_attribute(const struct backing *backing)
{
        assert_int_equal(fremovexattr(backing->fd, TK_KEYATTR_NAME), 0);
}

static void set_copy(const struct backing *backing, const void *bytes, size_t len)
{
        assert_int_equal(tk_fdio_pwrite(backing->fd, bytes, len, 0), 0);
}

static void drop_copy(const struct backing *backing)
{
        static const uint8_t zeros[TK_RECORD_MAX];

        set_copy(backing, zeros, backing->record_len);
}

/* Put both back as they were. */
static void restore(const struct backing *backing)
{
        set_attribute(backing, backing->attribute.bytes, backing->record_len);
        set_copy(backing, backing->attribute.bytes, backing->record_len);
}

static void check_load(const struct backing *backing, bool attribute_bad, bool copy_bad)
{
        struct tk_keyattr keyattr;

        assert_int_equal(tk_keyattr_load(test.fs, backing->fd, backing->size, &keyattr), 0);
        assert_true(tk_secret_equal(keyattr.dek, backing->dek));
        assert_int_equal(keyattr.attribute_bad, attribute_bad);
        assert_int_equal(keyattr.copy_bad, copy_bad);
        tk_secret_free(keyattr.dek);
}

/* It loads as said, and after healing both places are good and the mtime is what it was. */
static void check_heals(const struct backing *backing, bool attribute_bad, bool copy_bad)
{
        const struct timespec times[2] = {{.tv_sec = 1000, .tv_nsec = 1},
                                          {.tv_sec = 2000, .tv_nsec = 2}};
        struct tk_keyattr keyattr;
        struct stat st;

        check_load(backing, attribute_bad, copy_bad);
        assert_int_equal(futimens(backing->fd, times), 0);
        assert_int_equal(tk_keyattr_load(test.fs, backing->fd, backing->size, &keyattr), 0);
        assert_int_equal(tk_keyattr_heal(backing->fd, &keyattr), 0);
        tk_secret_free(keyattr.dek);
        check_load(backing, false, false);
        assert_int_equal(fstat(backing->fd, &st), 0);
        assert_int_equal(st.st_mtim.tv_sec, 2000);
        assert_int_equal(st.st_mtim.tv_nsec, 2);
        assert_int_equal(st.st_size, backing->size);
}

static void check_fails(const struct backing *backing, int error)
{
        struct tk_keyattr keyattr;

        assert_int_equal(tk_keyattr_load(test.fs, backing->fd, backing->size, &keyattr), error);
        assert_null(keyattr.dek);
}

static void run_lost(void)
{
        struct backing backing = make_backing("f", 0, 1);

        check_heals(&backing, false, false);
        drop_attribute(&backing);
        check_heals(&backing, true, false);
        drop_copy(&backing);
        check_heals(&backing, false, true);
        drop_attribute(&backing);
        drop_copy(&backing);
        check_fails(&backing, -EBADMSG);
        restore(&backing);
        done_backing(&backing);
}

static void run_damaged(void)
{
        struct backing backing = make_backing("f", 0, 1);
        struct tk_record record;

        for (size_t bit = 0; bit < backing.record_len * 8; bit += 5) {
                record = backing.attribute;
                tk_test_flip(record.bytes, bit);
                set_attribute(&backing, record.bytes, backing.record_len);
                check_load(&backing, true, false);
                restore(&backing);
                set_copy(&backing, record.bytes, backing.record_len);
                check_load(&backing, false, true);
                set_attribute(&backing, record.bytes, backing.record_len);
                check_fails(&backing, -EBADMSG);
                restore(&backing);
        }
        for (size_t len = 0; len < backing.record_len; len += 7) {
                set_attribute(&backing, backing.attribute.bytes, len);
                check_load(&backing, true, false);
        }
        memset(record.bytes, 0xFF, sizeof(record.bytes));
        set_attribute(&backing, record.bytes, 1000 < TK_RECORD_MAX ? 1000 : TK_RECORD_MAX);
        check_heals(&backing, true, false);
        done_backing(&backing);
}

/* Records of two files exchanged: whatever is wrong, each file's own blocks find its key. */
static void run_exchanged(uint64_t first)
{
        struct backing a = make_backing("a", first, 2);
        struct backing b = make_backing("b", first, 2);

        set_attribute(&a, b.attribute.bytes, b.record_len);
        set_copy(&b, a.attribute.bytes, a.record_len);
        check_heals(&a, true, false);
        check_heals(&b, false, true);
        done_backing(&a);
        done_backing(&b);
        assert_int_equal(unlink("c/root/a"), 0);
        assert_int_equal(unlink("c/root/b"), 0);
}

/* Both places hold another file's record: it opens, and no block of it does. */
static void run_both_exchanged(void)
{
        struct backing a = make_backing("a", 0, 1);
        struct backing b = make_backing("b", 0, 1);
        struct tk_keyattr keyattr;

        set_attribute(&a, b.attribute.bytes, b.record_len);
        set_copy(&a, b.attribute.bytes, b.record_len);
        assert_int_equal(tk_keyattr_load(test.fs, a.fd, a.size, &keyattr), 0);
        assert_true(tk_secret_equal(keyattr.dek, b.dek));
        assert_false(keyattr.attribute_bad || keyattr.copy_bad);
        tk_secret_free(keyattr.dek);
        done_backing(&a);
        done_backing(&b);
}

static void damage_block(const struct backing *backing, uint64_t block)
{
        off_t off = (off_t)(test.fs->base + tk_data_off(block));
        uint8_t byte = 0;

        assert_int_equal(tk_fdio_pread(backing->fd, &byte, 1, off), 1);
        byte ^= 1;
        assert_int_equal(tk_fdio_pwrite(backing->fd, &byte, 1, off), 0);
}

/* A damaged first block says nothing: the next one that opens decides. */
static void run_first_block_damaged(void)
{
        struct backing a = make_backing("a", 0, 4);
        struct backing b = make_backing("b", 0, 4);

        damage_block(&a, 0);
        damage_block(&a, 2);
        damage_block(&b, 0);
        set_attribute(&a, b.attribute.bytes, b.record_len);
        set_copy(&b, a.attribute.bytes, a.record_len);
        check_heals(&a, true, false);
        check_heals(&b, false, true);
        done_backing(&a);
        done_backing(&b);
}

/* Without a seal, which would tell. */
static void clear_seals(const struct backing *backing)
{
        static const uint8_t zeros[TK_SEAL_SLOTS * TK_SEAL_LEN];

        assert_int_equal(tk_fdio_pwrite(backing->fd, zeros, sizeof(zeros),
                                        (off_t)(test.fs->base + tk_seal_off(0))),
                         0);
}

/* The seal tells whose a file is, whatever has become of its blocks. */
static void run_seal_decides(void)
{
        struct backing a = make_backing("a", 0, 2);
        struct backing b = make_backing("b", 0, 2);
        struct tk_keyattr keyattr;

        damage_block(&a, 0);
        damage_block(&a, 1);
        set_attribute(&a, b.attribute.bytes, b.record_len);
        assert_int_equal(tk_keyattr_load(test.fs, a.fd, a.size, &keyattr), 0);
        assert_true(tk_secret_equal(keyattr.dek, a.dek));
        assert_true(keyattr.attribute_bad);
        assert_false(keyattr.copy_bad);
        tk_secret_free(keyattr.dek);
        done_backing(&a);
        done_backing(&b);
}

/* No block opens under either: nothing is overwritten that may be all there is of the key. */
static void run_no_block_opens(void)
{
        struct backing a = make_backing("a", 0, 2);
        struct backing b = make_backing("b", 0, 2);
        struct tk_keyattr keyattr;

        damage_block(&a, 0);
        damage_block(&a, 1);
        clear_seals(&a);
        set_attribute(&a, b.attribute.bytes, b.record_len);
        assert_int_equal(tk_keyattr_load(test.fs, a.fd, a.size, &keyattr), 0);
        assert_false(keyattr.attribute_bad || keyattr.copy_bad);
        tk_secret_free(keyattr.dek);
        done_backing(&a);
        done_backing(&b);
}

/* A file of holes alone has nothing to tell by: the attribute counts. */
static void run_holes_only(void)
{
        struct tk_inode *inode;
        struct tk_openfile *file = tk_test_create(&test, "a", &inode);
        struct backing a;
        struct backing b = make_backing("b", 0, 1);
        struct tk_keyattr keyattr;

        assert_int_equal(tk_content_truncate(test.fs, file, 3 * (uint64_t)TK_GROUP_LEN), 0);
        tk_test_close(&test, file, inode);
        a = (struct backing){.fd = open("c/root/a", O_RDWR | O_CLOEXEC),
                             .size = tk_backing_size_at(test.fs->base, 3 * (uint64_t)TK_GROUP_LEN)};
        clear_seals(&a);
        set_attribute(&a, b.attribute.bytes, b.record_len);
        assert_int_equal(tk_keyattr_load(test.fs, a.fd, a.size, &keyattr), 0);
        assert_true(tk_secret_equal(keyattr.dek, b.dek));
        assert_false(keyattr.attribute_bad);
        assert_true(keyattr.copy_bad);
        tk_secret_free(keyattr.dek);
        done_backing(&a);
        done_backing(&b);
}

static void run_empty_file(void)
{
        struct backing backing = make_backing("f", 0, 0);

        assert_int_equal(backing.size, 0);
        check_load(&backing, false, false);
        drop_attribute(&backing);
        check_fails(&backing, -ENODATA);
        set_attribute(&backing, "not a record", 12);
        check_fails(&backing, -EBADMSG);
        done_backing(&backing);
}

static void run_make_and_store(void)
{
        struct backing backing = make_backing("f", 0, 0);
        struct tk_secret *dek = NULL;
        struct tk_record record;

        assert_int_equal(tk_keyattr_make(test.fs, &dek, &record), 0);
        assert_false(tk_secret_equal(dek, backing.dek));
        assert_int_equal(tk_keyattr_store(backing.fd, &record), 0);
        tk_secret_free(backing.dek);
        backing.dek = dek;
        check_load(&backing, false, false);
        done_backing(&backing);
}

static void in_both_kinds(void (*run)(void))
{
        for (int i = 0; i < 2; i++) {
                memset(&test, 0, sizeof(test));
                test.dek_wrap = i == 0 ? TK_DEK_WRAP_KEK : TK_DEK_WRAP_KMS;
                tk_test_fs_start(&test);
                run();
                tk_test_fs_stop(&test);
                tk_test_remove("c");
        }
}

static void run_exchanged_anywhere(void)
{
        run_exchanged(0);
        run_exchanged(TK_GROUP_BLOCKS - 1);
        run_exchanged(5 * (uint64_t)TK_GROUP_BLOCKS + 7);
}

#define IN_BOTH_KINDS(name, run)                                                                   \
        static void name(void **state)                                                             \
        {                                                                                          \
                in_both_kinds(run);                                                                \
        }
IN_BOTH_KINDS(test_load__lost, run_lost)
IN_BOTH_KINDS(test_load__damaged, run_damaged)
IN_BOTH_KINDS(test_load__exchanged, run_exchanged_anywhere)
IN_BOTH_KINDS(test_load__both_exchanged, run_both_exchanged)
IN_BOTH_KINDS(test_load__first_block_damaged, run_first_block_damaged)
IN_BOTH_KINDS(test_load__seal_decides, run_seal_decides)
IN_BOTH_KINDS(test_load__no_block_opens, run_no_block_opens)
IN_BOTH_KINDS(test_load__holes_only, run_holes_only)
IN_BOTH_KINDS(test_load__empty_file, run_empty_file)
IN_BOTH_KINDS(test_store__made_record, run_make_and_store)

/* The KMS out of reach is no damage: nothing is healed by the other place meanwhile. */
static void test_load__kms_refuses(void **state)
{
        static const int answers[] = {-ENOKEY, -EKEYREVOKED, -EKEYEXPIRED};
        struct backing backing;

        memset(&test, 0, sizeof(test));
        test.dek_wrap = TK_DEK_WRAP_KMS;
        tk_test_fs_start(&test);
        backing = make_backing("f", 0, 1);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test); /* with nothing cached */
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
                test.fake.refuse = answers[i];
                check_fails(&backing, answers[i]);
        }
        test.fake.refuse = 0;
        test.fake.unwraps = 0;
        check_load(&backing, false, false);
        check_load(&backing, false, false);
        assert_int_equal(test.fake.unwraps, 1);
        done_backing(&backing);
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_load__lost),
                TK_TEST_IN_DIR(test_load__damaged),
                TK_TEST_IN_DIR(test_load__exchanged),
                TK_TEST_IN_DIR(test_load__both_exchanged),
                TK_TEST_IN_DIR(test_load__first_block_damaged),
                TK_TEST_IN_DIR(test_load__seal_decides),
                TK_TEST_IN_DIR(test_load__no_block_opens),
                TK_TEST_IN_DIR(test_load__holes_only),
                TK_TEST_IN_DIR(test_load__empty_file),
                TK_TEST_IN_DIR(test_store__made_record),
                TK_TEST_IN_DIR(test_load__kms_refuses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
