/* SPDX-License-Identifier: Apache-2.0 */

/* Rewrap: the DEK stays, attribute and copy follow; half of it is not taken for all. */

#include "support_fs.h"

#include "support_backing.h"

#include "base/fdio.h"
#include "fs/content.h"
#include "fs/keyattr.h"
#include "fs/rewrap.h"
#include <sys/xattr.h>

static struct tk_test_fs test;
static struct tk_inode *inode;
static struct tk_openfile *file;

static int enter(void **state)
{
        int r = tk_test_dir_enter(state);

        faulty_reset();
        memset(&test, 0, sizeof(test));
        return r;
}

static int leave(void **state)
{
        faulty_reset();
        return tk_test_dir_leave(state);
}

/* A file with content under KEK version 1, open, and KEK version 2 in use. */
static void start(void)
{
        struct tk_fault fault = {0};
        uint8_t bytes[10000];

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        memset(bytes, 'x', sizeof(bytes));
        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, sizeof(bytes)), 0);
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), 0);
}

static void finish(void)
{
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* The KEK version that a record on the disk names. */
static uint16_t attribute_version(void)
{
        uint8_t bytes[TK_RECORD_MAX];

        assert_int_equal(fgetxattr(file->fd, TK_KEYATTR_NAME, bytes, sizeof(bytes)), TK_RECORD_LEN);
        return (uint16_t)(bytes[2] << 8 | bytes[3]);
}

static uint16_t copy_version(void)
{
        uint8_t bytes[TK_RECORD_LEN];

        assert_int_equal(tk_fdio_pread(file->fd, bytes, sizeof(bytes), 0), TK_RECORD_LEN);
        return (uint16_t)(bytes[2] << 8 | bytes[3]);
}

static void check_content(void)
{
        const uint8_t *data = NULL;

        assert_int_equal(tk_content_read(test.fs, file, 0, 20000, &data), 10000);
        for (int i = 0; i < 10000; i++)
                assert_int_equal(data[i], 'x');
}

static void test_rewrap__attribute_and_copy(void **state)
{
        struct stat before;
        struct stat after;

        start();
        assert_int_equal(attribute_version(), 1);
        assert_int_equal(fstat(file->fd, &before), 0);
        assert_int_equal(tk_rewrap_inode(test.fs, inode), TK_REWRAP_DONE);
        assert_int_equal(attribute_version(), 2);
        assert_int_equal(copy_version(), 2);
        assert_int_equal(fstat(file->fd, &after), 0);
        assert_int_equal(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
        assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
        assert_int_equal(tk_rewrap_inode(test.fs, inode), TK_REWRAP_CURRENT);
        check_content();
        finish();
}

static void test_rewrap__half_of_it_is_done_again(void **state)
{
        start();
        for (int i = 0; i < 2; i++) {
                faulty = (__typeof__(faulty)){.fail_at = 2, .fail_with = -EIO};
                assert_int_equal(tk_rewrap_inode(test.fs, inode), -EIO);
                assert_int_equal(attribute_version(), 2);
                assert_int_equal(copy_version(), 1);
        }
        faulty_reset();
        assert_int_equal(tk_rewrap_inode(test.fs, inode), TK_REWRAP_DONE);
        assert_int_equal(copy_version(), 2);
        assert_int_equal(tk_rewrap_inode(test.fs, inode), TK_REWRAP_CURRENT);
        check_content();
        finish();
}

static void test_rewrap__a_file_without_bytes_has_no_copy(void **state)
{
        struct tk_openfile *empty;
        struct tk_inode *empty_inode;

        start();
        empty = tk_test_create(&test, "empty", &empty_inode);
        assert_int_equal(tk_rewrap_inode(test.fs, empty_inode), TK_REWRAP_CURRENT);
        assert_int_equal(empty->size, 0);
        tk_test_close(&test, empty, empty_inode);
        finish();
}

static void test_rewrap__without_keys(void **state)
{
        struct tk_fault fault = {0};

        start();
        tk_volume_close_keys(test.volume, -EKEYREVOKED);
        file->dek = tk_secret_free(file->dek);
        assert_int_equal(tk_rewrap_inode(test.fs, inode), -EKEYREVOKED);
        assert_int_equal(attribute_version(), 1);
        assert_int_equal(tk_volume_reopen_keys(test.volume, &fault), 0);
        assert_int_equal(tk_rewrap_inode(test.fs, inode), TK_REWRAP_DONE);
        check_content();
        finish();
}

/* A directory with a record under KEK version 1, as one with encrypted names has it. */
static struct tk_inode *make_dir(struct tk_secret **ret_dek, int *ret_fd)
{
        struct tk_record record;
        struct tk_entry entry;

        assert_int_equal(tk_op_mkdir(test.fs, test.root, "dir", 0755, &tk_test_caller, &entry), 0);
        *ret_fd = tk_inode_open(test.fs->inodes, entry.inode, O_RDONLY | O_DIRECTORY);
        assert_true(*ret_fd >= 0);
        assert_int_equal(tk_keyattr_make(test.fs, ret_dek, &record), 0);
        assert_int_equal(tk_keyattr_store(*ret_fd, &record), 0);
        return entry.inode;
}

static void test_rewrap__directories(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *found = NULL;
        struct tk_fault fault = {0};
        struct tk_record record;
        struct tk_inode *dir;
        struct stat before;
        struct stat after;
        TK_AUTOCLOSE int fd = -1;

        tk_test_fs_start(&test);
        dir = make_dir(&dek, &fd);
        assert_int_equal(tk_rewrap_inode(test.fs, dir), TK_REWRAP_CURRENT);
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), 0);
        assert_int_equal(fstat(fd, &before), 0);
        faulty = (__typeof__(faulty)){.fail_at = 1, .fail_with = -EIO};
        assert_int_equal(tk_rewrap_inode(test.fs, dir), -EIO);
        assert_int_equal(tk_rewrap_inode(test.fs, dir), TK_REWRAP_DONE);
        assert_int_equal(tk_rewrap_inode(test.fs, dir), TK_REWRAP_CURRENT);
        assert_int_equal(fstat(fd, &after), 0);
        assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
        assert_int_equal(fgetxattr(fd, TK_KEYATTR_NAME, record.bytes, sizeof(record.bytes)),
                         TK_RECORD_LEN);
        assert_int_equal(record.bytes[3], 2);
        assert_int_equal(tk_keyring_unwrap(test.fs->keyring, &record, &found), 0);
        assert_true(tk_secret_equal(found, dek));

        record.bytes[20] ^= 1;
        record.bytes[3] = 1;
        assert_int_equal(fsetxattr(fd, TK_KEYATTR_NAME, record.bytes, TK_RECORD_LEN, 0), 0);
        assert_int_equal(tk_rewrap_inode(test.fs, dir), -EBADMSG);
        assert_int_equal(fsetxattr(fd, TK_KEYATTR_NAME, record.bytes, 7, 0), 0);
        assert_int_equal(tk_rewrap_inode(test.fs, dir), -EBADMSG);
        assert_int_equal(fremovexattr(fd, TK_KEYATTR_NAME), 0);
        assert_int_equal(tk_rewrap_inode(test.fs, dir), TK_REWRAP_NONE);
        tk_inode_forget(test.fs->inodes, dir, 1);
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_rewrap__attribute_and_copy, enter, leave),
                cmocka_unit_test_setup_teardown(test_rewrap__half_of_it_is_done_again, enter,
                                                leave),
                cmocka_unit_test_setup_teardown(test_rewrap__a_file_without_bytes_has_no_copy,
                                                enter, leave),
                cmocka_unit_test_setup_teardown(test_rewrap__without_keys, enter, leave),
                cmocka_unit_test_setup_teardown(test_rewrap__directories, enter, leave),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
