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

static void stop(void)
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
        stop();
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
        stop();
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
        stop();
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
        stop();
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
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
