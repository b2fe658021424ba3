/* SPDX-License-Identifier: Apache-2.0 */

/* Open files: one entry for all, made once, upgraded to writing, healed where it can be. */

#include "support_fs.h"

#include "support_backing.h"

#include "base/fdio.h"
#include "fs/content.h"
#include "fs/keyattr.h"
#include "fs/seal.h"

static struct tk_test_fs test;

/*
 * fs/openfile.c with a seam: what others do just before the open-file lock is taken, or just
 * after it was let go of.
 */
static unsigned locks_left;
static void (*at_lock)(void);
static unsigned unlocks_left;
static void (*at_unlock)(void);

static int hooked_lock(pthread_mutex_t *lock)
{
        if (locks_left > 0 && --locks_left == 0)
                at_lock();
        return pthread_mutex_lock(lock);
}

static int hooked_unlock(pthread_mutex_t *lock)
{
        int r = pthread_mutex_unlock(lock);

        if (unlocks_left > 0 && --unlocks_left == 0)
                at_unlock();
        return r;
}

#define pthread_mutex_lock hooked_lock
#define pthread_mutex_unlock hooked_unlock
#include "fs/openfile.c" /* NOLINT(bugprone-suspicious-include) */
#undef pthread_mutex_lock
#undef pthread_mutex_unlock

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

/* A file with 10000 bytes of 'x', closed. */
static struct tk_inode *make_file(const char *name)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = tk_test_create(&test, name, &inode);
        uint8_t bytes[10000];

        memset(bytes, 'x', sizeof(bytes));
        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, sizeof(bytes)), 0);
        tk_op_release(test.fs, file, O_RDWR);
        return inode;
}

/* But for what the journal holds open for a while. */
static uint64_t open_files(void)
{
        assert_int_equal(tk_journal_finish(test.fs->journal), 0);
        return tk_fs_stats(test.fs)->open_files;
}

static void check_content(struct tk_openfile *file)
{
        const uint8_t *data = NULL;

        assert_int_equal(tk_content_read(test.fs, file, 0, 20000, &data), 10000);
        for (int i = 0; i < 10000; i++)
                assert_int_equal(data[i], 'x');
}

static void test_get__one_entry_for_all(void **state)
{
        struct tk_openfile *a = NULL;
        struct tk_openfile *b = NULL;
        struct tk_inode *inode;

        tk_test_fs_start(&test);
        inode = make_file("f");
        assert_int_equal(open_files(), 0);
        assert_null(tk_openfile_peek(test.fs, inode));
        assert_int_equal(tk_openfile_get(test.fs, inode, false, &a), 0);
        assert_int_equal(tk_openfile_get(test.fs, inode, true, &b), 0);
        assert_ptr_equal(a, b);
        assert_int_equal(open_files(), 1);
        assert_ptr_equal(tk_openfile_peek(test.fs, inode), a);
        check_content(a);
        for (int i = 0; i < 3; i++)
                tk_openfile_put(test.fs, a);
        assert_int_equal(open_files(), 0);
        tk_inode_forget(test.fs->inodes, inode, 1);
        tk_test_fs_stop(&test);
}

static void test_get__fails_for_everybody(void **state)
{
        struct tk_openfile *file = NULL;
        struct tk_inode *inode;
        int fd;

        tk_test_fs_start(&test);
        inode = make_file("f");
        fd = open("c/root/f", O_RDWR | O_CLOEXEC);
        assert_int_equal(fsetxattr(fd, TK_KEYATTR_NAME, "broken", 6, 0), 0);
        assert_int_equal(tk_fdio_pwrite(fd, "broken", 6, 0), 0);
        close(fd);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(tk_openfile_get(test.fs, inode, i > 0, &file), -EBADMSG);
                assert_null(tk_openfile_peek(test.fs, inode));
        }
        assert_int_equal(tk_fs_stats(test.fs)->record_failures, 3);
        assert_int_equal(open_files(), 0);
        assert_int_equal(unlink("c/root/f"), 0);
        assert_int_equal(tk_openfile_get(test.fs, inode, false, &file), -ESTALE);
        tk_inode_forget(test.fs->inodes, inode, 1);
        tk_test_fs_stop(&test);
}

/* Closed and opened again and again by many threads: the bytes are always there. */
enum { THREADS = 6, ROUNDS = 400 };

static void *open_main(void *context)
{
        struct tk_inode *inode = context;
        unsigned seed = (unsigned)(uintptr_t)pthread_self();

        for (int i = 0; i < ROUNDS; i++) {
                struct tk_openfile *file = NULL;
                const uint8_t *data = NULL;
                bool writable = (seed = seed * 1103515245 + 12345) >> 20 & 1;
                uint8_t byte = 'x';

                if (tk_openfile_get(test.fs, inode, writable, &file) < 0)
                        abort();
                if (writable && tk_content_write(test.fs, file, (uint64_t)i, &byte, 1) < 0)
                        abort();
                if (tk_content_read(test.fs, file, 0, 20000, &data) != 10000 || data[i] != 'x')
                        abort();
                if ((seed >> 22 & 3) == 0) {
                        struct tk_openfile *peeked = tk_openfile_peek(test.fs, inode);

                        if (peeked != file)
                                abort();
                        tk_openfile_put(test.fs, peeked);
                }
                tk_openfile_put(test.fs, file);
        }
        return NULL;
}

static void run_threads(enum tk_dek_wrap dek_wrap)
{
        pthread_t threads[THREADS];
        struct tk_inode *inode;

        test.dek_wrap = dek_wrap;
        tk_test_fs_start(&test);
        inode = make_file("f");
        for (int i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, open_main, inode), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(open_files(), 0);
        assert_int_equal(tk_fs_stats(test.fs)->block_failures, 0);
        tk_inode_forget(test.fs->inodes, inode, 1);
        tk_test_fs_stop(&test);
        tk_test_remove("c");
}

static void test_get__threads(void **state)
{
        run_threads(TK_DEK_WRAP_KEK);
        memset(&test, 0, sizeof(test));
        run_threads(TK_DEK_WRAP_KMS);
}

/* Opened read-only because it can't be otherwise; later it can, while others go on reading. */
static atomic_bool stop_reading;

static void *read_main(void *context)
{
        struct tk_openfile *file = context;

        while (!stop_reading) {
                const uint8_t *data = NULL;

                if (tk_content_read(test.fs, file, 0, 20000, &data) != 10000)
                        abort();
        }
        return NULL;
}

static void upgrade(void)
{
        struct tk_openfile *file = NULL;
        struct tk_openfile *again = NULL;
        struct tk_inode *inode;
        pthread_t reader;
        uint8_t byte = 'y';

        /* As an ordinary user: root may write anything. */
        if (geteuid() == 0)
                TK_CHILD_REQUIRE(setresgid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0 &&
                                 setresuid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0);
        tk_test_fs_start(&test);
        inode = make_file("f");
        TK_CHILD_REQUIRE(chmod("c/root/f", 0400) == 0);
        TK_CHILD_REQUIRE(tk_openfile_get(test.fs, inode, false, &file) == 0);
        TK_CHILD_REQUIRE(!file->writable);
        TK_CHILD_REQUIRE(tk_openfile_get(test.fs, inode, true, &again) == -EACCES);
        stop_reading = false;
        TK_CHILD_REQUIRE(pthread_create(&reader, NULL, read_main, file) == 0);
        TK_CHILD_REQUIRE(chmod("c/root/f", 0600) == 0);
        TK_CHILD_REQUIRE(tk_openfile_get(test.fs, inode, true, &again) == 0);
        TK_CHILD_REQUIRE(again == file && file->writable);
        TK_CHILD_REQUIRE(tk_content_write(test.fs, again, 9999, &byte, 1) == 0);
        stop_reading = true;
        pthread_join(reader, NULL);
        tk_openfile_put(test.fs, again);
        tk_openfile_put(test.fs, file);

        /* Write only: the mode is lifted for the moment, and comes back. */
        TK_CHILD_REQUIRE(chmod("c/root/f", 0200) == 0);
        TK_CHILD_REQUIRE(tk_openfile_get(test.fs, inode, true, &file) == 0);
        TK_CHILD_REQUIRE(file->size == 10000);
        TK_CHILD_REQUIRE(test.fs->stats.records_restored == 0);
        {
                struct stat st;

                TK_CHILD_REQUIRE(stat("c/root/f", &st) == 0 && (st.st_mode & 07777) == 0200);
        }
        tk_openfile_put(test.fs, file);
        tk_inode_forget(test.fs->inodes, inode, 1);
        tk_test_fs_stop(&test);
        TK_CHILD_REQUIRE(tk_secret_alive() == 0);
}

static void test_get__upgrade_to_writing(void **state)
{
        assert_int_equal(chmod(".", 0777), 0);
        tk_test_in_child(upgrade);
}

/* A file made and looked up by somebody else at once: one entry serves both. */
static void test_adopt__joins_what_is_open(void **state)
{
        struct tk_openfile *mine = NULL;
        struct stat st;
        struct tk_openfile *theirs = NULL;
        struct tk_inode *inode;
        struct tk_record record;
        struct tk_secret *dek = NULL;

        tk_test_fs_start(&test);
        inode = make_file("f");
        assert_int_equal(tk_openfile_get(test.fs, inode, false, &theirs), 0);
        assert_int_equal(tk_keyattr_make(test.fs, &dek, &record), 0);
        assert_int_equal(stat("c/root/f", &st), 0);
        assert_int_equal(tk_openfile_adopt(test.fs, inode, open("c/root/f", O_RDWR | O_CLOEXEC),
                                           dek, &record, &st, &mine),
                         0);
        assert_ptr_equal(mine, theirs);
        if (!mine || !theirs)
                return; /* not reached, which clang-tidy does not see */
        check_content(mine);
        tk_openfile_put(test.fs, mine);
        tk_openfile_put(test.fs, theirs);
        tk_inode_forget(test.fs->inodes, inode, 1);
        tk_test_fs_stop(&test);
}

/* A crash between creation and record: the file gets a key when it is first opened. */
static void test_get__empty_without_record(void **state)
{
        struct tk_openfile *file = NULL;
        struct tk_entry entry;
        uint8_t bytes[100];
        struct tk_inode *inode;

        tk_test_fs_start(&test);
        inode = make_file("other");
        tk_inode_forget(test.fs->inodes, inode, 1);
        close(open("c/root/f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        assert_int_equal(tk_op_lookup(test.fs, test.root, "f", &entry), 0);
        assert_int_equal(tk_openfile_get(test.fs, entry.inode, true, &file), 0);
        memset(bytes, 'z', sizeof(bytes));
        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, sizeof(bytes)), 0);
        tk_openfile_put(test.fs, file);
        assert_int_equal(getxattr("c/root/f", TK_KEYATTR_NAME, NULL, 0), TK_RECORD_LEN);
        assert_int_equal(tk_openfile_get(test.fs, entry.inode, false, &file), 0);
        assert_int_equal(file->size, 100);
        tk_openfile_put(test.fs, file);
        tk_inode_forget(test.fs->inodes, entry.inode, 1);
        tk_test_fs_stop(&test);
}

/* One good record opens a file, also where the other can't be rewritten: disk full, say. */
static void test_get__heals_or_not(void **state)
{
        static const uint8_t zeros[TK_RECORD_LEN];

        for (int attribute = 0; attribute < 2; attribute++) {
                struct tk_openfile *file = NULL;
                struct tk_inode *inode;

                tk_test_fs_start(&test);
                inode = make_file("f");
                if (attribute) {
                        assert_int_equal(removexattr("c/root/f", TK_KEYATTR_NAME), 0);
                } else {
                        TK_AUTOCLOSE int fd = open("c/root/f", O_WRONLY | O_CLOEXEC);

                        assert_int_equal(tk_fdio_pwrite(fd, zeros, sizeof(zeros), 0), 0);
                }
                faulty = (__typeof__(faulty)){.fail_at = 1, .fail_with = -ENOSPC};
                assert_int_equal(tk_openfile_get(test.fs, inode, true, &file), 0);
                assert_int_equal(faulty.calls, 1);
                faulty_reset();
                check_content(file);
                tk_openfile_put(test.fs, file);
                assert_int_equal(tk_openfile_get(test.fs, inode, true, &file), 0);
                check_content(file);
                tk_openfile_put(test.fs, file);
                assert_int_equal(getxattr("c/root/f", TK_KEYATTR_NAME, NULL, 0), TK_RECORD_LEN);
                tk_inode_forget(test.fs->inodes, inode, 1);
                tk_test_fs_stop(&test);
                tk_test_remove("c");
        }
}

/* The kernel is gone and left files open: nothing of them stays. */
static void test_put_all__at_the_end(void **state)
{
        struct tk_openfile *file = NULL;
        struct tk_inode *inodes[5];
        char name[8];

        tk_test_fs_start(&test);
        for (int i = 0; i < 5; i++) {
                snprintf(name, sizeof(name), "f%d", i);
                inodes[i] = make_file(name);
                for (int k = 0; k <= i; k++)
                        assert_int_equal(tk_openfile_get(test.fs, inodes[i], true, &file), 0);
        }
        assert_int_equal(open_files(), 5);
        tk_openfile_put_all(test.fs);
        assert_int_equal(open_files(), 0);
        tk_test_fs_stop(&test);
}

static struct tk_openfile *shared;
static struct tk_inode *shared_inode;

static void put_the_other(void)
{
        tk_openfile_put(test.fs, shared);
}

static void write_meanwhile(void)
{
        struct tk_openfile *file = NULL;
        uint8_t byte = 'y';

        assert_int_equal(tk_openfile_get(test.fs, shared_inode, true, &file), 0);
        assert_int_equal(tk_content_write(test.fs, file, file->size, &byte, 1), 0);
        tk_openfile_put(test.fs, file);
}

/* The last two references go at once, or somebody writes while the last one goes. */
static void test_put__seals_whoever_is_last(void **state)
{
        const uint64_t fresh = 3 * (uint64_t)TK_BLOCK_LEN;
        struct tk_openfile *file = NULL;
        uint8_t byte = 'y';

        for (unsigned at = 1; at <= 2; at++) {
                tk_test_fs_start(&test);
                shared_inode = make_file("f");
                assert_int_equal(tk_openfile_get(test.fs, shared_inode, true, &shared), 0);
                if (at == 1)
                        assert_int_equal(tk_openfile_get(test.fs, shared_inode, true, &file), 0);
                /* A fresh block: of others the journal holds the file. */
                assert_int_equal(tk_content_write(test.fs, shared, fresh, &byte, 1), 0);
                at_lock = at == 1 ? put_the_other : write_meanwhile;
                locks_left = at;
                tk_openfile_put(test.fs, shared);
                assert_int_equal(locks_left, 0);
                assert_int_equal(open_files(), 0);
                assert_int_equal(tk_openfile_get(test.fs, shared_inode, true, &file), 0);
                assert_int_equal(file->size, fresh + at);
                assert_int_equal(file->sealed, file->size);
                tk_openfile_put(test.fs, file);
                tk_inode_forget(test.fs->inodes, shared_inode, 1);
                tk_test_fs_stop(&test);
                tk_test_remove("c");
        }
}

static struct tk_openfile *others;
static struct tk_range others_range;
static atomic_bool has_put;

static void hold_meanwhile(void)
{
        if (tk_openfile_get(test.fs, shared_inode, true, &others) < 0)
                abort();
        tk_range_hold(&others->ranges, &others_range, 0, TK_RANGE_END, true);
}

static void *put_main(void *context)
{
        tk_openfile_put(test.fs, shared);
        has_put = true;
        return context;
}

static bool somebody_waits(struct tk_openfile *file)
{
        TK_LOCK_SCOPE(&file->ranges.lock);
        return file->ranges.queue && file->ranges.queue->next;
}

/*
 * Somebody opens the file just when the last reference goes, and holds it while they wait for
 * whoever drops that reference: as the journal's thread does, which all wait for.
 */
static void test_put__waits_for_nobody(void **state)
{
        bool waited = false;
        uint8_t byte = 'y';
        pthread_t thread;

        tk_test_fs_start(&test);
        shared_inode = make_file("f");
        assert_int_equal(tk_openfile_get(test.fs, shared_inode, true, &shared), 0);
        /* A fresh block: of others the journal holds the file. */
        assert_int_equal(tk_content_write(test.fs, shared, 3 * (uint64_t)TK_BLOCK_LEN, &byte, 1),
                         0);
        has_put = false;
        at_unlock = hold_meanwhile;
        unlocks_left = 1;
        assert_int_equal(pthread_create(&thread, NULL, put_main, NULL), 0);
        while (!has_put && !waited) {
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
                waited = somebody_waits(shared);
        }
        tk_range_release(&others_range);
        pthread_join(thread, NULL);
        assert_false(waited);
        /* So the seal is left to the other. */
        tk_openfile_put(test.fs, others);
        assert_int_equal(open_files(), 0);
        assert_int_equal(tk_openfile_get(test.fs, shared_inode, true, &others), 0);
        assert_true(others->sealed == others->size);
        tk_openfile_put(test.fs, others);
        tk_inode_forget(test.fs->inodes, shared_inode, 1);
        tk_test_fs_stop(&test);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, leave)
        const struct CMUnitTest tests[] = {
                TEST(test_get__one_entry_for_all),
                TEST(test_get__fails_for_everybody),
                TEST(test_get__threads),
                TEST(test_get__upgrade_to_writing),
                TEST(test_get__empty_without_record),
                TEST(test_get__heals_or_not),
                TEST(test_adopt__joins_what_is_open),
                TEST(test_put_all__at_the_end),
                TEST(test_put__seals_whoever_is_last),
                TEST(test_put__waits_for_nobody),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
