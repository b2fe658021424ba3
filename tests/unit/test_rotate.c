/* SPDX-License-Identifier: Apache-2.0 */

/* Rotation: everything is found, what fails is counted, old versions go last. */

#include "support_fs.h"

#include "support_backing.h"

#include "base/clock.h"
#include "base/thread.h"
#include "fs/content.h"
#include "fs/keyattr.h"
#include "fs/rotate.h"
#include <sched.h>
#include <sys/xattr.h>
#include <time.h>

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

/* The record of the directory @fd, made if @make: as with encrypted names. */
static uint8_t dir_version(int fd, bool make)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_record record;

        if (make) {
                assert_int_equal(tk_keyattr_make(test.fs, &dek, &record), 0);
                assert_int_equal(tk_keyattr_store(fd, &record), 0);
        }
        assert_int_equal(fgetxattr(fd, TK_KEYATTR_NAME, record.bytes, sizeof(record.bytes)),
                         TK_RECORD_LEN);
        return record.bytes[3];
}

static void test_rotate__directories_are_rewrapped_and_counted(void **state)
{
        struct tk_rotate_progress progress;
        struct tk_entry entries[3];
        struct tk_inode *parent;
        int fds[3];

        tk_test_fs_start(&test);
        parent = test.root;
        make_files(2);
        assert_int_equal(dir_version(test.fs->rootfd, true), 1);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(
                        tk_op_mkdir(test.fs, parent, "d", 0755, &tk_test_caller, &entries[i]), 0);
                parent = entries[i].inode;
                fds[i] = tk_inode_open(test.fs->inodes, parent, O_RDONLY | O_DIRECTORY);
                assert_true(fds[i] >= 0);
                assert_int_equal(dir_version(fds[i], true), 1);
        }
        assert_int_equal(rotate(&progress), 0);
        assert_true(progress.done);
        assert_int_equal(progress.files, 6);
        assert_int_equal(progress.rewrapped, 6);
        assert_int_equal(dir_version(test.fs->rootfd, false), 2);
        for (int i = 0; i < 3; i++)
                assert_int_equal(dir_version(fds[i], false), 2);

        /* One that can't be rewrapped keeps the version that it is under. */
        assert_int_equal(fsetxattr(fds[1], TK_KEYATTR_NAME, "damaged", 7, 0), 0);
        assert_int_equal(rotate(&progress), 0);
        assert_false(progress.done);
        assert_int_equal(progress.failed, 1);
        assert_int_equal(progress.older[0].files, 1);
        assert_int_equal(progress.older[0].version, 0); /* nobody knows */
        assert_int_equal(progress.older[1].files, 0);
        assert_int_equal(tk_volume_active_count(test.volume), 2);
        assert_int_equal(dir_version(fds[2], false), 3);
        assert_int_equal(fremovexattr(fds[1], TK_KEYATTR_NAME), 0);
        assert_int_equal(rotate_with(&(struct tk_rotate_options){0}, &progress), 0);
        assert_true(progress.done);
        for (int i = 0; i < 3; i++) {
                close(fds[i]);
                tk_inode_forget(test.fs->inodes, entries[i].inode, 1);
        }
        tk_test_fs_stop(&test);
}

/* What a progress call does: moves a directory, once. */
static void move_dir(void *context, const struct tk_rotate_progress *progress)
{
        unsigned *moved = context;
        char from[16];
        char to[16];

        if (progress->passes != 2 || *moved >= 2)
                return;
        snprintf(from, sizeof(from), "dir%u", *moved);
        snprintf(to, sizeof(to), "dir%u", ++*moved);
        assert_int_equal(tk_op_rename(test.fs, test.root, from, test.root, to, 0), 0);
}

static void test_rotate__a_directory_that_moves_makes_a_pass_incomplete(void **state)
{
        struct tk_rotate_progress progress;
        struct tk_entry entry;
        unsigned moved = 0;

        tk_test_fs_start(&test);
        make_files(2);
        assert_int_equal(tk_op_mkdir(test.fs, test.root, "dir0", 0755, &tk_test_caller, &entry), 0);
        assert_int_equal(rotate_with(&(struct tk_rotate_options){.even_if_current = true,
                                                                 .progress = move_dir,
                                                                 .context = &moved},
                                     &progress),
                         0);
        assert_int_equal(moved, 2);
        assert_true(progress.done);
        assert_int_equal(progress.passes, 3); /* the second does not count */
        tk_inode_forget(test.fs->inodes, entry.inode, 1);
        tk_test_fs_stop(&test);
}

/* One that makes a file: it has its record, under the old version, but not yet its name. */
static atomic_bool made;

static void *make_slowly(void *context)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct timespec pause = {.tv_nsec = 300000000};
        struct tk_record record;
        int fd;

        (void)context;
        {
                TK_EPOCH_SCOPE(&test.fs->changes);

                assert_int_equal(tk_keyattr_make(test.fs, &dek, &record), 0);
                made = true;
                nanosleep(&pause, NULL);
                fd = openat(test.fs->rootfd, "late", O_RDWR | O_CREAT | O_EXCL, 0644);
                assert_true(fd >= 0);
                assert_int_equal(tk_keyattr_store(fd, &record), 0);
        }
        close(fd);
        return NULL;
}

static void test_rotate__waits_for_files_that_are_being_made(void **state)
{
        struct tk_rotate_progress progress;
        uint8_t record[TK_RECORD_MAX];
        pthread_t thread;

        tk_test_fs_start(&test);
        made = false;
        assert_int_equal(tk_thread_start(make_slowly, NULL, &thread), 0);
        while (!made)
                sched_yield();
        assert_int_equal(rotate(&progress), 0);
        pthread_join(thread, NULL);
        assert_true(progress.done);
        assert_int_equal(progress.rewrapped, 1);
        assert_int_equal(getxattr("c/root/late", TK_KEYATTR_NAME, record, sizeof(record)),
                         TK_RECORD_LEN);
        assert_int_equal(record[3], 2);
        tk_test_fs_stop(&test);
}

static int64_t rotate_ms(unsigned files_per_s)
{
        struct tk_rotate_progress progress;
        int64_t began = tk_clock_ms();

        assert_int_equal(rotate_with(&(struct tk_rotate_options){.even_if_current = true,
                                                                 .files_per_s = files_per_s},
                                     &progress),
                         0);
        assert_true(progress.done);
        return tk_clock_ms() - began;
}

static void test_rotate__keeps_to_its_rate(void **state)
{
        tk_test_fs_start(&test);
        make_files(20);
        assert_true(rotate_ms(100) >= 350); /* two passes */
        assert_true(rotate_ms(20) >= 1900);
        tk_test_fs_stop(&test);
}

/* At one file per second: the pace is no reason to wait. */
static void *stop_soon(void *context)
{
        struct timespec pause = {.tv_nsec = 100000000};

        nanosleep(&pause, NULL);
        atomic_store((atomic_bool *)context, true);
        return NULL;
}

static void test_rotate__stopped_at_once(void **state)
{
        struct tk_rotate_options options = {.even_if_current = true, .files_per_s = 1};
        struct tk_rotate_progress progress;
        int64_t began = tk_clock_ms();
        atomic_bool stop = false;
        pthread_t thread;

        tk_test_fs_start(&test);
        make_files(20);
        options.stop = &stop;
        assert_int_equal(tk_thread_start(stop_soon, &stop, &thread), 0);
        assert_int_equal(rotate_with(&options, &progress), -ECANCELED);
        assert_true(tk_clock_ms() - began < 900);
        pthread_join(thread, NULL);
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
                cmocka_unit_test_setup_teardown(test_rotate__directories_are_rewrapped_and_counted,
                                                enter, leave),
                cmocka_unit_test_setup_teardown(
                        test_rotate__a_directory_that_moves_makes_a_pass_incomplete, enter, leave),
                cmocka_unit_test_setup_teardown(test_rotate__waits_for_files_that_are_being_made,
                                                enter, leave),
                cmocka_unit_test_setup_teardown(test_rotate__keeps_to_its_rate, enter, leave),
                cmocka_unit_test_setup_teardown(test_rotate__stopped_at_once, enter, leave),
                cmocka_unit_test_setup_teardown(test_rotate__stopped, enter, leave),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
