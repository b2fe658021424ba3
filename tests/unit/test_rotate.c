/* SPDX-License-Identifier: Apache-2.0 */

/* Rotation: everything is found, what fails is counted, old versions go last. */

#include "support_fs.h"

#include "support_backing.h"

#include "fs/content.h"
#include "fs/rotate.h"

static struct tk_test_fs test;

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

static void write_x(struct tk_openfile *file)
{
        uint8_t bytes[5000];

        memset(bytes, 'x', sizeof(bytes));
        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, sizeof(bytes)), 0);
}

static void check_x(struct tk_openfile *file)
{
        const uint8_t *data = NULL;

        assert_int_equal(tk_content_read(test.fs, file, 0, 6000, &data), 5000);
        for (int i = 0; i < 5000; i++)
                assert_int_equal(data[i], 'x');
}

static void make_files(unsigned count)
{
        char name[16];

        for (unsigned i = 0; i < count; i++) {
                struct tk_inode *inode;
                struct tk_openfile *file;

                snprintf(name, sizeof(name), "f%u", i);
                file = tk_test_create(&test, name, &inode);
                write_x(file);
                tk_test_close(&test, file, inode);
        }
}

static int rotate_with(const struct tk_rotate_options *more, struct tk_rotate_progress *progress)
{
        struct tk_rotate_options options = *more;
        struct tk_fault fault = {0};

        options.kms = test.kms;
        *progress = (struct tk_rotate_progress){0};
        return tk_rotate_run(test.fs, &options, progress, &fault);
}

static int rotate(struct tk_rotate_progress *progress)
{
        return rotate_with(&(struct tk_rotate_options){.even_if_current = true}, progress);
}

static void test_rotate__all_files_then_retired(void **state)
{
        struct tk_rotate_progress progress;

        tk_test_fs_start(&test);
        make_files(10);
        assert_int_equal(rotate(&progress), 0);
        assert_true(progress.done);
        assert_int_equal(progress.files, 10);
        assert_int_equal(progress.rewrapped, 10);
        assert_int_equal(progress.passes, 2); /* the second found nothing old */
        assert_int_equal(progress.kek_version, 2);
        assert_int_equal(tk_volume_active_count(test.volume), 1);
        tk_test_fs_stop(&test);
}

static void test_rotate__an_open_file_without_a_name_keeps_its_key(void **state)
{
        struct tk_rotate_progress progress;
        struct tk_fault fault = {0};
        struct tk_openfile *file;
        struct tk_inode *inode;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        write_x(file);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "f", false), 0);
        assert_int_equal(rotate(&progress), 0);
        assert_true(progress.done);
        /* Its DEK is needed again from the record, whose KEK version must be live. */
        tk_volume_close_keys(test.volume, -EKEYREVOKED);
        tk_openfile_wipe_all(test.fs);
        assert_int_equal(tk_volume_reopen_keys(test.volume, &fault), 0);
        check_x(file);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* Each call to the backing directory fails once; whatever it was, nothing is retired too early. */
static void test_rotate__any_failure_is_made_up_for(void **state)
{
        tk_test_fs_start(&test);
        make_files(3);
        for (unsigned at = 1; at <= 8; at++) {
                struct tk_rotate_progress progress;
                unsigned before = (unsigned)tk_volume_active_count(test.volume);

                assert_int_equal(before, 1);
                faulty = (__typeof__(faulty)){.fail_at = at, .fail_with = -EIO};
                assert_int_equal(rotate(&progress), 0);
                if (faulty.calls >= at) {
                        /* It failed in the first pass, and was made up for in the second. */
                        assert_true(progress.done);
                        assert_true(progress.passes >= 2);
                }
                faulty_reset();
        }
        tk_test_fs_stop(&test);
}

static void test_rotate__stops_where_keys_are_gone(void **state)
{
        struct tk_rotate_progress progress;
        struct tk_fault fault = {0};

        tk_test_fs_start(&test);
        make_files(5);
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), 0);
        tk_volume_close_keys(test.volume, -EKEYREVOKED);
        assert_int_equal(rotate(&progress), -EKEYREVOKED);
        assert_int_equal(tk_volume_active_count(test.volume), 2);
        assert_int_equal(tk_volume_reopen_keys(test.volume, &fault), 0);
        assert_int_equal(rotate_with(&(struct tk_rotate_options){0}, &progress), 0);
        assert_true(progress.done);
        assert_int_equal(tk_volume_kek_count(test.volume), 2); /* no version was made in vain */
        tk_test_fs_stop(&test);
}

static void test_rotate__stopped(void **state)
{
        atomic_bool stop = true;
        struct tk_rotate_progress progress;

        tk_test_fs_start(&test);
        make_files(5);
        assert_int_equal(
                rotate_with(&(struct tk_rotate_options){.even_if_current = true, .stop = &stop},
                            &progress),
                -ECANCELED);
        assert_int_equal(tk_volume_active_count(test.volume), 2);
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_rotate__all_files_then_retired, enter, leave),
                cmocka_unit_test_setup_teardown(
                        test_rotate__an_open_file_without_a_name_keeps_its_key, enter, leave),
                cmocka_unit_test_setup_teardown(test_rotate__any_failure_is_made_up_for, enter,
                                                leave),
                cmocka_unit_test_setup_teardown(test_rotate__stops_where_keys_are_gone, enter,
                                                leave),
                cmocka_unit_test_setup_teardown(test_rotate__stopped, enter, leave),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
