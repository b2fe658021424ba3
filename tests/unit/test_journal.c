/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Journal and replay on a real filesystem. A crash: what lies in place is put back to what
 * it was before, which is what a power cut may leave of unsynced writes; the journal stays.
 */

#include "support_backing.h"

#include "support_fs.h"

#include "base/fdio.h"
#include "crypto/random.h"
#include "fs/content.h"
#include "fs/content_sync.h"
#include "fs/journal_internal.h"
#include "fs/journal_replay.h"
#include <dirent.h>
#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* Reading the file with this inode number fails with EIO; 0: none. Takes the place of libc's. */
static ino_t unreadable;

ssize_t preadv(int fd, const struct iovec *iov, int count, off_t off)
{
        struct stat st;

        if (unreadable != 0 && fstat(fd, &st) == 0 && st.st_ino == unreadable) {
                errno = EIO;
                return -1;
        }
        return syscall(SYS_preadv, fd, iov, (long)count, (long)off, 0L);
}

/* Directories that were listed. */
static unsigned listed;

DIR *fdopendir(int fd)
{
        static DIR *(*real)(int);

        if (!real)
                *(void **)&real = dlsym(RTLD_NEXT, "fdopendir");
        listed++;
        return real(fd);
}

enum { FILE_LEN = 10 * TK_BLOCK_LEN + 100, IMAGE_MAX = 4 * 1024 * 1024 };

static struct tk_test_fs test;

/* The bytes of a file below, to be put back into the same inode. */
struct image {
        const char *path;
        uint8_t *bytes;
        size_t len;
};

static void image_take(struct image *image, const char *path)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        image->path = path;
        image->bytes = malloc(IMAGE_MAX);
        assert_non_null(image->bytes);
        assert_true(fd >= 0);
        n = tk_fdio_pread(fd, image->bytes, IMAGE_MAX, 0);
        assert_true(n >= 0 && n < IMAGE_MAX);
        image->len = (size_t)n;
        close(fd);
}

static void image_put(const struct image *image, size_t len)
{
        int fd = open(image->path, O_RDWR | O_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(tk_fdio_pwrite(fd, image->bytes, len, 0), 0);
        assert_int_equal(ftruncate(fd, (off_t)image->len), 0);
        close(fd);
}

static void image_drop(struct image *image)
{
        free(image->bytes);
        image->bytes = NULL;
}

static int enter(void **state)
{
        faulty_reset();
        memset(&test, 0, sizeof(test));
        return tk_test_dir_enter(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, tk_test_dir_leave)

/* A mount that goes on without its end: nothing is flushed, the mount stays unclean. */
static void crash(void)
{
        test.fs = tk_fs_free(test.fs);
        test.volume = tk_volume_free(test.volume);
        test.kms = tk_kms_free(test.kms);
        tk_scratch_drop();
}

static void fill(uint8_t *bytes, size_t len, uint8_t with)
{
        memset(bytes, with, len);
}

static struct tk_openfile *open_file(const char *name, struct tk_inode **ret_inode)
{
        struct tk_openfile *file = NULL;
        struct tk_entry entry;

        assert_int_equal(tk_op_lookup(test.fs, test.root, name, &entry), 0);
        assert_int_equal(tk_op_open(test.fs, entry.inode, O_RDWR, &file), 0);
        *ret_inode = entry.inode;
        return file;
}

static void write_at(struct tk_openfile *file, uint64_t off, size_t len, uint8_t with)
{
        uint8_t bytes[FILE_LEN];

        assert_true(len <= sizeof(bytes));
        fill(bytes, len, with);
        assert_int_equal(tk_content_write(test.fs, file, off, bytes, len), 0);
}

static bool holds(struct tk_openfile *file, uint64_t off, size_t len, uint8_t with)
{
        const uint8_t *data = NULL;
        ssize_t n = tk_content_read(test.fs, file, off, len, &data);

        if (n != (ssize_t)len)
                return false;
        for (size_t i = 0; i < len; i++)
                if (data[i] != with)
                        return false;
        return true;
}

/* A volume with the file "f" full of 'a', durable, unmounted cleanly. */
static void make_volume(void)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        write_at(file, 0, FILE_LEN, 'a');
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* The file "f" of such a volume, mounted. */
static struct tk_openfile *open_in_new_volume(struct tk_inode **ret_inode)
{
        make_volume();
        tk_test_fs_start(&test);
        return open_file("f", ret_inode);
}

static void check_file(uint64_t off, size_t len, uint8_t with, uint64_t size)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = open_file("f", &inode);

        assert_int_equal(file->size, size);
        assert_true(holds(file, off, len, with));
        tk_test_close(&test, file, inode);
}

static void check_named(const char *name, uint64_t off, size_t len, uint8_t with)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = open_file(name, &inode);

        assert_true(holds(file, off, len, with));
        tk_test_close(&test, file, inode);
}

/* Overwrite in a mount that crashes; what was in place before goes to @ret_place. */
static void overwrite_and_crash(struct image *ret_place, struct image *ret_journal,
                                struct image *ret_volume)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        tk_test_fs_start(&test);
        image_take(ret_place, "c/root/f");
        file = open_file("f", &inode);
        write_at(file, 2UL * TK_BLOCK_LEN, 3UL * TK_BLOCK_LEN, 'b');
        write_at(file, FILE_LEN - 50, 500, 'b');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        write_at(file, 0, 10, 'c'); /* nobody waited for this one */
        tk_test_close(&test, file, inode);
        image_take(ret_journal, "c/journal/journal");
        image_take(ret_volume, "c/turnkeyfs.volume");
        crash();
        image_put(ret_place, ret_place->len);
}

static void check_overwritten(void)
{
        check_file(2UL * TK_BLOCK_LEN, 3UL * TK_BLOCK_LEN, 'b', FILE_LEN + 450);
        check_file(FILE_LEN - 50, 500, 'b', FILE_LEN + 450);
        check_file(0, 2UL * TK_BLOCK_LEN, 'a', FILE_LEN + 450);
        check_file(5UL * TK_BLOCK_LEN, 5UL * TK_BLOCK_LEN, 'a', FILE_LEN + 450);
}

static void test_replay__brings_what_was_acknowledged(void **state)
{
        struct image place;
        struct image journal;
        struct image volume;

        make_volume();
        overwrite_and_crash(&place, &journal, &volume);
        tk_test_fs_start(&test);
        check_overwritten();
        tk_test_fs_stop(&test);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&volume);
}

/* A crash during replay, after it, and once more: always the same. */
static void test_replay__again_and_again(void **state)
{
        struct image place;
        struct image journal;
        struct image volume;

        make_volume();
        overwrite_and_crash(&place, &journal, &volume);
        for (int i = 0; i < 3; i++) {
                tk_test_fs_start(&test);
                check_overwritten();
                crash();
                image_put(&journal, journal.len);
                image_put(&volume, volume.len);
                if (i == 1)
                        image_put(&place, place.len);
        }
        tk_test_fs_start(&test);
        check_overwritten();
        tk_test_fs_stop(&test);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&volume);
}

/* The journal's only batch torn at every sector: all of it, or nothing. */
static void test_replay__torn_batch(void **state)
{
        struct image place;
        struct image journal;
        struct image volume;
        unsigned complete = 0;

        make_volume();
        overwrite_and_crash(&place, &journal, &volume);
        for (size_t cut = 0; cut <= 6UL * TK_BLOCK_LEN; cut += 512) {
                bool old;

                image_put(&place, place.len);
                image_put(&journal, cut);
                image_put(&volume, volume.len);
                tk_test_fs_start(&test);
                {
                        struct tk_inode *inode = NULL;
                        struct tk_openfile *file = open_file("f", &inode);

                        old = file->size == FILE_LEN;
                        tk_test_close(&test, file, inode);
                }
                if (old)
                        check_file(0, FILE_LEN, 'a', FILE_LEN);
                else
                        check_overwritten();
                complete += !old;
                crash();
        }
        assert_true(complete > 0 && complete < 20);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&volume);
}

/* What a mount left that ended cleanly later is not believed again. */
static void test_replay__not_of_a_clean_mount(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct image journal;

        file = open_in_new_volume(&inode);
        write_at(file, 0, TK_BLOCK_LEN, 'b');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        image_take(&journal, "c/journal/journal");
        write_at(file, 0, TK_BLOCK_LEN, 'c');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        image_put(&journal, journal.len);
        tk_test_fs_start(&test);
        check_file(0, TK_BLOCK_LEN, 'c', FILE_LEN);
        tk_test_fs_stop(&test);
        image_drop(&journal);
}

static void test_replay__file_is_gone(void **state)
{
        struct image place;
        struct image journal;
        struct image volume;

        make_volume();
        overwrite_and_crash(&place, &journal, &volume);
        assert_int_equal(unlink("c/root/f"), 0);
        tk_test_fs_start(&test);
        tk_test_fs_stop(&test);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&volume);
}

static void test_replay__file_was_renamed(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct image place;
        struct image journal;
        struct image volume;

        make_volume();
        overwrite_and_crash(&place, &journal, &volume);
        assert_int_equal(mkdir("c/root/d", 0755), 0);
        assert_int_equal(rename("c/root/f", "c/root/d/g"), 0);
        tk_test_fs_start(&test);
        assert_int_equal(tk_op_rename(test.fs, test.root, "d", test.root, "e", 0), 0);
        tk_test_fs_stop(&test);
        assert_int_equal(rename("c/root/e/g", "c/root/f"), 0);
        tk_test_fs_start(&test);
        check_overwritten();
        file = open_file("f", &inode);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&volume);
}

static void test_replay__garbage_and_missing(void **state)
{
        static uint8_t noise[TK_JOURNAL_LEN_MIN];
        int fd;

        make_volume();
        assert_int_equal(tk_random_bytes(noise, sizeof(noise)), 0);
        fd = open("c/journal/journal", O_RDWR | O_CLOEXEC);
        assert_int_equal(tk_fdio_pwrite(fd, noise, sizeof(noise), 0), 0);
        tk_test_fs_start(&test);
        check_file(0, FILE_LEN, 'a', FILE_LEN);
        tk_test_fs_stop(&test);
        assert_int_equal(ftruncate(fd, 5000), 0);
        close(fd);
        tk_test_fs_start(&test);
        check_file(0, FILE_LEN, 'a', FILE_LEN);
        tk_test_fs_stop(&test);
        assert_int_equal(unlink("c/journal/journal"), 0);
        tk_test_fs_start(&test);
        check_file(0, FILE_LEN, 'a', FILE_LEN);
        tk_test_fs_stop(&test);
}

/* An old entry must not come back over what was written after a cut. */
static void test_replay__cut_and_written_again(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        make_volume();
        for (uint64_t size = 0; size < FILE_LEN; size += 3000) {
                tk_test_fs_start(&test);
                file = open_file("f", &inode);
                write_at(file, 0, FILE_LEN, 'b');
                assert_int_equal(tk_content_sync(test.fs, file, true), 0);
                assert_int_equal(tk_content_truncate(test.fs, file, size), 0);
                assert_int_equal(tk_content_truncate(test.fs, file, FILE_LEN), 0);
                if (size > 0)
                        assert_true(holds(file, 0, size, 'b'));
                assert_true(holds(file, size, FILE_LEN - size, 0));
                write_at(file, FILE_LEN - 5000, 5000, 'd');
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
                tk_test_close(&test, file, inode);
                crash();
                tk_test_fs_start(&test);
                check_file(FILE_LEN - 5000, 5000, 'd', FILE_LEN);
                if (size > 0 && size < FILE_LEN - 5000)
                        check_file(0, size, 'b', FILE_LEN);
                if (size < FILE_LEN - 5000)
                        check_file(size, FILE_LEN - 5000 - size, 0, FILE_LEN);
                tk_test_fs_stop(&test);
        }
}

static void test_replay__punched_and_written_again(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        file = open_in_new_volume(&inode);
        write_at(file, 0, FILE_LEN, 'b');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        assert_int_equal(tk_content_fallocate(test.fs, file,
                                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000,
                                              20000),
                         0);
        assert_true(holds(file, 5000, 20000, 0));
        write_at(file, 9000, 100, 'e');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        tk_test_close(&test, file, inode);
        crash();
        tk_test_fs_start(&test);
        check_file(0, 5000, 'b', FILE_LEN);
        check_file(5000, 4000, 0, FILE_LEN);
        check_file(9000, 100, 'e', FILE_LEN);
        check_file(9100, 15900, 0, FILE_LEN);
        check_file(25000, FILE_LEN - 25000, 'b', FILE_LEN);
        tk_test_fs_stop(&test);
}

/* The block made the file longer, and the hole in its place must not take that back. */
static void test_settle__new_tail_that_became_a_hole(void **state)
{
        const uint64_t tail = FILE_LEN / TK_BLOCK_LEN * TK_BLOCK_LEN + TK_BLOCK_LEN;
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        file = open_in_new_volume(&inode);
        write_at(file, tail - TK_BLOCK_LEN, TK_BLOCK_LEN + 904, 'b');
        assert_int_equal(tk_content_fallocate(test.fs, file,
                                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, tail,
                                              TK_BLOCK_LEN),
                         0);
        assert_int_equal(tk_journal_settle(test.fs->journal, file), 0);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);

        tk_test_fs_start(&test);
        check_file(tail - TK_BLOCK_LEN, TK_BLOCK_LEN, 'b', tail + 904);
        check_file(tail, 904, 0, tail + 904);
        tk_test_fs_stop(&test);
}

enum { HOLE_OFF = 2 * TK_BLOCK_LEN, HOLE_LEN = 4 * TK_BLOCK_LEN };

static void punch(struct tk_openfile *file)
{
        assert_int_equal(tk_content_fallocate(test.fs, file,
                                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HOLE_OFF,
                                              HOLE_LEN),
                         0);
}

/*
 * What is punched and written again keeps its space: others may have taken it otherwise when
 * the second entry comes in place. If it is gone already, the write fails, and nothing else.
 */
static void test_append__block_over_a_hole_on_a_full_disk(void **state)
{
        uint8_t bytes[HOLE_LEN];
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        int r;

        make_volume();
        for (int flushed = 0; flushed < 2; flushed++) {
                tk_test_fs_start(&test);
                file = open_file("f", &inode);
                write_at(file, 0, FILE_LEN, 'b');
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
                assert_int_equal(tk_journal_settle(test.fs->journal, file), 0);
                punch(file);
                if (flushed)
                        assert_int_equal(tk_journal_commit(test.fs->journal, file), 0);
                faulty.full = true;
                fill(bytes, sizeof(bytes), 'c');
                r = tk_content_write(test.fs, file, HOLE_OFF, bytes, sizeof(bytes));
                assert_true(r == 0 || (flushed && r == -ENOSPC));
                assert_int_equal(tk_journal_settle(test.fs->journal, file), 0);
                assert_true(holds(file, HOLE_OFF, HOLE_LEN, r == 0 ? 'c' : 0));
                faulty.full = false;
                tk_test_close(&test, file, inode);
                tk_test_fs_stop(&test);
        }
}

enum { MANY = 40 };

/* Many files with a block in the journal, by handle or not. */
static void journal_many_files(bool by_handle)
{
        char name[16];

        tk_test_fs_start(&test);
        test.fs->journal->by_handle = by_handle;
        for (unsigned i = 0; i < MANY; i++) {
                struct tk_inode *inode = NULL;
                struct tk_openfile *file;

                snprintf(name, sizeof(name), "g%u", i);
                file = tk_test_create(&test, name, &inode);
                write_at(file, 0, TK_BLOCK_LEN, 'a');
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
                write_at(file, 0, TK_BLOCK_LEN, (uint8_t)i);
                assert_int_equal(tk_content_sync(test.fs, file, true), 0);
                tk_test_close(&test, file, inode);
        }
}

static void journal_many(bool by_handle)
{
        journal_many_files(by_handle);
        crash();
}

static void check_many(unsigned from)
{
        char name[16];

        for (unsigned i = from; i < MANY; i++) {
                struct tk_inode *inode = NULL;
                struct tk_openfile *file;

                snprintf(name, sizeof(name), "g%u", i);
                file = open_file(name, &inode);
                assert_true(holds(file, 0, TK_BLOCK_LEN, (uint8_t)i));
                tk_test_close(&test, file, inode);
        }
}

/* Many files are made durable together when the journal is emptied. */
static void test_finish__few_flushes_for_many_files(void **state)
{
        unsigned before;

        journal_many_files(true);
        before = faulty.syncs;
        assert_int_equal(tk_journal_finish(test.fs->journal), 0);
        assert_in_range(faulty.syncs - before, 1, MANY / 4);
        crash();
        tk_test_fs_start(&test);
        check_many(0);
        tk_test_fs_stop(&test);
}

/* Replay holds few descriptors, however many files the journal names. */
static void test_replay__few_descriptors(void **state)
{
        struct rlimit before;
        struct rlimit few;

        journal_many(true);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        few = before;
        few.rlim_cur = MANY;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        tk_test_fs_start(&test);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        check_many(0);
        tk_test_fs_stop(&test);
}

/* Without handles all files that are gone are looked for in one walk of the tree. */
static void test_replay__one_walk(void **state)
{
        char name[32];

        journal_many(false);
        for (unsigned i = 0; i < MANY / 2; i++) {
                snprintf(name, sizeof(name), "c/root/g%u", i);
                assert_int_equal(unlink(name), 0);
        }
        for (unsigned i = 0; i < 10; i++) {
                snprintf(name, sizeof(name), "c/root/d%u", i);
                assert_int_equal(mkdir(name, 0755), 0);
        }
        assert_int_equal(rename("c/root/g30", "c/root/d3/moved"), 0);
        tk_test_fs_open(&test);
        listed = 0;
        assert_int_equal(tk_fs_new(test.volume, &(struct tk_fs_options){.read_only = false},
                                   &test.fs, &(struct tk_fault){0}),
                         0);
        assert_in_range(listed, 11, 15);
        test.root = tk_inode_root(test.fs->inodes);
        assert_int_equal(rename("c/root/d3/moved", "c/root/g30"), 0);
        check_many(MANY / 2);
        tk_test_fs_stop(&test);
}

static int try_open(const char *name)
{
        struct tk_openfile *file = NULL;
        struct tk_entry entry;
        int r;

        assert_int_equal(tk_op_lookup(test.fs, test.root, name, &entry), 0);
        r = tk_op_open(test.fs, entry.inode, O_RDWR, &file);
        if (r == 0)
                tk_op_release(test.fs, file, O_RDWR);
        tk_inode_forget(test.fs->inodes, entry.inode, 1);
        return r;
}

/* A mount that can't have the key of the file in its journal. */
static void start_refused(void)
{
        tk_test_fs_open(&test);
        test.fake.refuse = -EKEYREVOKED;
        assert_int_equal(tk_fs_new(test.volume, &(struct tk_fs_options){.read_only = false},
                                   &test.fs, &(struct tk_fault){0}),
                         0);
        test.root = tk_inode_root(test.fs->inodes);
        assert_true(try_open("f") < 0);
        test.fake.refuse = 0;
}

/*
 * A file whose key can't be had does not keep the volume from mounting; it is served when
 * its entries are in place, be it in this mount, or after more crashes.
 */
static void test_replay__key_refused(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct image place;
        struct image journal;
        struct image volume;

        test.dek_wrap = TK_DEK_WRAP_KMS;
        for (int crashes = 0; crashes < 3; crashes++) {
                make_volume();
                overwrite_and_crash(&place, &journal, &volume);
                for (int i = 0; i < crashes; i++) {
                        start_refused();
                        crash();
                }
                start_refused();
                check_overwritten();
                assert_int_equal(tk_volume_kept(test.volume), 0);
                /* What is written from now on is not undone by what was kept. */
                file = open_file("f", &inode);
                write_at(file, 0, FILE_LEN, 'n');
                assert_int_equal(tk_content_sync(test.fs, file, false), 0);
                tk_test_close(&test, file, inode);
                crash();
                tk_test_fs_start(&test);
                check_file(0, FILE_LEN, 'n', FILE_LEN + 450);
                tk_test_fs_stop(&test);
                image_drop(&place);
                image_drop(&journal);
                image_drop(&volume);
                tk_test_remove("c");
        }
}

/* A journal that can't be read is none that is empty: the mount fails, and the next one replays. */
static void test_replay__journal_cant_be_read(void **state)
{
        struct tk_fault fault = {0};
        struct image place;
        struct image journal;
        struct image volume;
        struct stat st;

        make_volume();
        overwrite_and_crash(&place, &journal, &volume);
        assert_int_equal(stat("c/journal/journal", &st), 0);
        tk_test_fs_open(&test);
        unreadable = st.st_ino;
        assert_int_equal(tk_fs_new(test.volume, &(struct tk_fs_options){.read_only = false},
                                   &test.fs, &fault),
                         -EIO);
        assert_non_null(strstr(fault.text, "journal"));
        unreadable = 0;
        crash();
        tk_test_fs_start(&test);
        check_overwritten();
        tk_test_fs_stop(&test);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&volume);
}

/* Replay on a full disk says what to do; with some space the volume mounts. */
static void test_replay__full_disk(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct tk_fault fault = {0};

        file = open_in_new_volume(&inode);
        punch(file);
        assert_int_equal(tk_journal_commit(test.fs->journal, file), 0);
        write_at(file, HOLE_OFF, HOLE_LEN, 'c');
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        tk_test_close(&test, file, inode);
        crash();
        tk_test_fs_open(&test);
        faulty.full = true;
        assert_int_equal(tk_fs_new(test.volume, &(struct tk_fs_options){.read_only = false},
                                   &test.fs, &fault),
                         -ENOSPC);
        assert_non_null(strstr(fault.text, "free some space"));
        faulty.full = false;
        crash();
        tk_test_fs_start(&test);
        check_file(HOLE_OFF, HOLE_LEN, 'c', FILE_LEN);
        tk_test_fs_stop(&test);
}

/* Much more than the journal holds: areas are used again and again. */
static void test_append__more_than_the_journal(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        file = open_in_new_volume(&inode);
        for (unsigned i = 0; i < 1000; i++) {
                write_at(file, (uint64_t)i % 10 * TK_BLOCK_LEN, TK_BLOCK_LEN,
                         (uint8_t)('a' + i % 26));
                if (i % 7 == 0)
                        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
                assert_true(holds(file, (uint64_t)i % 10 * TK_BLOCK_LEN, TK_BLOCK_LEN,
                                  (uint8_t)('a' + i % 26)));
        }
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        tk_test_close(&test, file, inode);
        crash();
        tk_test_fs_start(&test);
        for (unsigned i = 990; i < 1000; i++)
                check_file((uint64_t)i % 10 * TK_BLOCK_LEN, TK_BLOCK_LEN, (uint8_t)('a' + i % 26),
                           FILE_LEN);
        tk_test_fs_stop(&test);
}

/* A flush that fails: who waits hears of it, and later flushes go elsewhere. */
static void test_commit__write_fails_once(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        file = open_in_new_volume(&inode);
        write_at(file, 0, TK_BLOCK_LEN, 'b');
        faulty.fail_with = -EIO;
        faulty.fail_at = faulty.calls + 1;
        assert_int_equal(tk_content_sync(test.fs, file, true), -EIO);
        assert_true(holds(file, 0, TK_BLOCK_LEN, 'b'));
        write_at(file, TK_BLOCK_LEN, TK_BLOCK_LEN, 'c');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        tk_test_close(&test, file, inode);
        crash();
        tk_test_fs_start(&test);
        check_file(0, TK_BLOCK_LEN, 'b', FILE_LEN);
        check_file(TK_BLOCK_LEN, TK_BLOCK_LEN, 'c', FILE_LEN);
        tk_test_fs_stop(&test);
}

/* Syncs of a file, by several threads. */
struct syncer {
        struct tk_openfile *file;
        pthread_t thread;
        atomic_bool ended;
        int r;
};

static void *run_sync(void *context)
{
        struct syncer *syncer = context;

        syncer->r = tk_content_sync(test.fs, syncer->file, true);
        tk_scratch_drop();
        syncer->ended = true;
        return NULL;
}

static void sync_start(struct syncer *syncer, struct tk_openfile *file)
{
        syncer->file = file;
        syncer->ended = false;
        assert_int_equal(pthread_create(&syncer->thread, NULL, run_sync, syncer), 0);
}

static void sync_both(struct tk_openfile *file, int error, struct syncer syncers[2])
{
        unsigned before = faulty.syncs;

        faulty.sync_waits = true;
        faulty.sync_fails = error;
        sync_start(&syncers[0], file);
        while (faulty.syncs == before)
                usleep(1000);
        sync_start(&syncers[1], file);
        usleep(100 * 1000);
        assert_false(syncers[0].ended);
        assert_false(syncers[1].ended);
        faulty.sync_waits = false;
        for (int i = 0; i < 2; i++)
                pthread_join(syncers[i].thread, NULL);
}

/* Nobody hears that a file is durable before the flush that makes it so has ended. */
static void test_sync__waits_for_the_one_that_runs(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct syncer syncers[2];

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        write_at(file, 0, TK_BLOCK_LEN, 'a');
        sync_both(file, 0, syncers);
        assert_int_equal(syncers[0].r, 0);
        assert_int_equal(syncers[1].r, 0);
        write_at(file, TK_BLOCK_LEN, TK_BLOCK_LEN, 'b');
        sync_both(file, -EIO, syncers);
        assert_int_equal(syncers[0].r, -EIO);
        assert_int_equal(syncers[1].r, -EIO);
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* The kernel tells of a write that failed only once, and it was the journal that asked. */
static void test_sync__hears_of_the_journals_failure(void **state)
{
        char said[4096] = "";
        int kept;
        int log;
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;

        file = open_in_new_volume(&inode);
        write_at(file, 0, TK_BLOCK_LEN, 'b');
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        assert_int_equal(tk_journal_settle(test.fs->journal, file), 0);
        faulty.sync_fails = -EIO;
        fflush(stderr);
        log = open("log", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        kept = dup(STDERR_FILENO);
        assert_true(log >= 0 && kept >= 0 && dup2(log, STDERR_FILENO) >= 0);
        assert_int_equal(tk_journal_finish(test.fs->journal), -EIO);
        fflush(stderr);
        assert_true(dup2(kept, STDERR_FILENO) >= 0);
        close(kept);
        assert_true(tk_fdio_pread(log, said, sizeof(said) - 1, 0) > 0);
        close(log);
        assert_non_null(strstr(said, "/root/f: ")); /* the log names the file */
        assert_int_equal(tk_content_sync(test.fs, file, true), -EIO);
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        tk_test_close(&test, file, inode);
        crash();
}

/* A new name becomes durable with its file, also if the file itself is already. */
static void test_sync__covers_the_name(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct tk_entry entry;
        unsigned before;

        file = open_in_new_volume(&inode);
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        before = faulty.syncs;
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        assert_int_equal(faulty.syncs, before);
        assert_int_equal(tk_op_rename(test.fs, test.root, "f", test.root, "g", 0), 0);
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        assert_int_equal(faulty.syncs, before + 1);
        assert_int_equal(tk_op_link(test.fs, inode, test.root, "h", &entry), 0);
        tk_inode_forget(test.fs->inodes, entry.inode, 1);
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        assert_int_equal(faulty.syncs, before + 2);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* A batch that was written to area 1, failed there, and was written to area 0 with more behind. */
static void test_replay__areas_that_begin_alike(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct image journal;
        struct image place;
        struct image later;
        size_t half;

        make_volume();
        tk_test_fs_start(&test);
        image_take(&place, "c/root/f");
        file = open_file("f", &inode);
        write_at(file, 0, TK_BLOCK_LEN, 'b');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        image_take(&journal, "c/journal/journal");
        half = journal.len / 2;
        memcpy(journal.bytes + half, journal.bytes, half);
        write_at(file, 0, TK_BLOCK_LEN, 'c');
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        image_take(&later, "c/journal/journal");
        memcpy(journal.bytes, later.bytes, half);
        tk_test_close(&test, file, inode);
        crash();
        image_put(&place, place.len);
        image_put(&journal, journal.len);
        tk_test_fs_start(&test);
        check_file(0, TK_BLOCK_LEN, 'c', FILE_LEN);
        tk_test_fs_stop(&test);
        image_drop(&place);
        image_drop(&journal);
        image_drop(&later);
}

/* A file that is cut to nothing and written again costs no flush and no journal, however often. */
static void test_truncate__rewriting_needs_no_journal(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        unsigned syncs;

        file = open_in_new_volume(&inode);
        syncs = faulty.syncs;
        for (unsigned with = 'b'; with < 'z'; with++) {
                assert_int_equal(tk_content_truncate(test.fs, file, 0), 0);
                write_at(file, 0, 6000, (uint8_t)with);
                assert_false(tk_journal_is_live(test.fs->journal, file));
                assert_true(holds(file, 0, 6000, (uint8_t)with));
        }
        assert_int_equal(faulty.syncs, syncs);
        /* What an fsync covers goes through the journal again. */
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        write_at(file, 0, TK_BLOCK_LEN, 'z');
        assert_true(tk_journal_is_live(test.fs->journal, file));
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* A file with data in block @data, and holes; the mount is new. */
static struct tk_openfile *holes_and(uint64_t data, struct tk_inode **ret_inode)
{
        struct tk_openfile *file;

        file = open_in_new_volume(ret_inode);
        assert_int_equal(tk_content_fallocate(test.fs, file, 0, 0, 300UL * TK_BLOCK_LEN), 0);
        write_at(file, data * TK_BLOCK_LEN, TK_BLOCK_LEN, 'd');
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        tk_test_close(&test, file, *ret_inode);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        return open_file("f", ret_inode);
}

/* Space that was asked for: who opens the file later fills it without the journal, until a sync. */
static void test_write__holes_of_a_file_that_was_there(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = holes_and(200, &inode);

        write_at(file, 122UL * TK_BLOCK_LEN, 4UL * TK_BLOCK_LEN, 'b'); /* over the end of a group */
        write_at(file, 20UL * TK_BLOCK_LEN + 7, 50, 'c');
        assert_false(tk_journal_is_live(test.fs->journal, file));
        assert_true(holds(file, 122UL * TK_BLOCK_LEN, 4UL * TK_BLOCK_LEN, 'b'));
        assert_true(holds(file, 20UL * TK_BLOCK_LEN + 7, 50, 'c'));
        assert_true(holds(file, 20UL * TK_BLOCK_LEN, 7, 0));
        assert_int_equal(tk_content_sync(test.fs, file, false), 0);
        assert_false(tk_journal_is_live(test.fs->journal, file));
        write_at(file, 40UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'd');
        assert_true(tk_journal_is_live(test.fs->journal, file));
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        check_file(40UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'd', 300UL * TK_BLOCK_LEN);
        check_file(122UL * TK_BLOCK_LEN, 4UL * TK_BLOCK_LEN, 'b', 300UL * TK_BLOCK_LEN);
        tk_test_fs_stop(&test);
}

/* A hole and the data behind it in one write: all of it goes through the journal. */
static void write_over_both(uint64_t data)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = holes_and(data, &inode);

        assert_false(tk_journal_is_live(test.fs->journal, file));
        write_at(file, (data - 1) * TK_BLOCK_LEN, 2UL * TK_BLOCK_LEN, 'b');
        assert_true(tk_journal_is_live(test.fs->journal, file));
        assert_true(holds(file, (data - 1) * TK_BLOCK_LEN, 2UL * TK_BLOCK_LEN, 'b'));
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

static void test_write__hole_and_data(void **state)
{
        write_over_both(20);
}

static void test_write__hole_and_data_of_the_next_group(void **state)
{
        write_over_both(TK_GROUP_BLOCKS);
}

/* A hole that the journal fills already is written there again: the newer bytes count. */
static void test_write__hole_in_the_journal(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = holes_and(20, &inode);

        write_at(file, 19UL * TK_BLOCK_LEN, 2UL * TK_BLOCK_LEN, 'b');
        write_at(file, 19UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'c');
        assert_true(holds(file, 19UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'c'));
        assert_int_equal(tk_journal_settle(test.fs->journal, file), 0);
        assert_true(holds(file, 19UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'c'));
        assert_true(holds(file, 20UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'b'));
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

/* A cut to nothing is on the disk before the journal holds anything of what came after it. */
static void test_append__after_a_cut(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file;
        struct tk_entry known;
        unsigned syncs;

        make_volume();
        tk_test_fs_start(&test);
        assert_int_equal(tk_op_lookup(test.fs, test.root, "f", &known), 0);
        file = open_file("f", &inode);
        assert_int_equal(tk_content_truncate(test.fs, file, 0), 0);
        write_at(file, 0, FILE_LEN, 'b');
        tk_test_close(&test, file, inode);
        file = open_file("f", &inode);
        syncs = faulty.syncs;
        write_at(file, TK_BLOCK_LEN, TK_BLOCK_LEN, 'c');
        assert_int_equal(faulty.syncs, syncs + 1);
        write_at(file, 2UL * TK_BLOCK_LEN, TK_BLOCK_LEN, 'c');
        assert_int_equal(faulty.syncs, syncs + 1);
        tk_test_close(&test, file, inode);
        tk_inode_forget(test.fs->inodes, known.inode, 1);
        tk_test_fs_stop(&test);
}

/* Files that fail below ------------------------------------------------------------ */

static void break_file(const struct tk_openfile *file, int writes, int syncs)
{
        struct stat st;

        assert_int_equal(fstat(file->fd, &st), 0);
        faulty.broken_with = writes;
        faulty.broken_sync = syncs;
        faulty.broken = st.st_ino;
}

/* Overwrite much more than the journal holds. */
static void churn(struct tk_openfile *file, uint8_t with)
{
        for (unsigned i = 0; i < 1200; i++) {
                write_at(file, 0, 8UL * TK_BLOCK_LEN, (uint8_t)(with + i % 2));
                if (i % 8 == 0)
                        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        }
        assert_int_equal(tk_journal_settle(test.fs->journal, file), 0);
        assert_true(holds(file, 0, 8UL * TK_BLOCK_LEN, (uint8_t)(with + 1)));
}

/* "f" is overwritten with 'b' and flushed, and can't be written any more; "g" goes on. */
static void hold(struct tk_openfile **ret_file, struct tk_inode **ret_inode, int writes, int syncs)
{
        struct tk_inode *other_inode = NULL;
        struct tk_openfile *other;

        tk_test_fs_start(&test);
        other = tk_test_create(&test, "g", &other_inode);
        write_at(other, 0, FILE_LEN, 'g');
        assert_int_equal(tk_content_sync(test.fs, other, false), 0);
        *ret_file = open_file("f", ret_inode);
        write_at(*ret_file, TK_BLOCK_LEN, 3UL * TK_BLOCK_LEN, 'b');
        assert_int_equal(tk_content_sync(test.fs, *ret_file, true), 0);
        write_at(*ret_file, FILE_LEN - 50, 500, 'b');
        assert_int_equal(tk_content_sync(test.fs, *ret_file, true), 0);
        break_file(*ret_file, writes, syncs);
        churn(other, 'g');
        tk_test_close(&test, other, other_inode);
}

static bool is_overwritten(struct tk_openfile *file)
{
        return file->size == FILE_LEN + 450 && holds(file, 0, TK_BLOCK_LEN, 'a') &&
               holds(file, TK_BLOCK_LEN, 3UL * TK_BLOCK_LEN, 'b') &&
               holds(file, FILE_LEN - 50, 500, 'b');
}

/* Only the file that fails suffers, and what was acknowledged of it is read. */
static void check_held(int writes, int syncs)
{
        int error = writes < 0 ? writes : syncs;
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = NULL;
        uint8_t byte = 'x';

        make_volume();
        hold(&file, &inode, writes, syncs);
        assert_true(is_overwritten(file));
        assert_int_equal(tk_content_write(test.fs, file, 0, &byte, 1), error);
        assert_int_equal(tk_content_sync(test.fs, file, true), error);
        assert_int_equal(tk_content_truncate(test.fs, file, 0), error);
        assert_true(is_overwritten(file));
        assert_true(tk_volume_kept(test.fs->volume) != 0);
        faulty.broken = 0;
        assert_int_equal(tk_content_write(test.fs, file, 0, &byte, 1), 0);
        (void)!tk_content_sync(test.fs, file, true); /* which may tell of the flush that failed */
        assert_int_equal(tk_content_sync(test.fs, file, true), 0);
        assert_true(holds(file, 0, 1, 'x'));
        assert_true(holds(file, TK_BLOCK_LEN, 3UL * TK_BLOCK_LEN, 'b'));
        assert_true(tk_volume_kept(test.fs->volume) == 0);
        assert_false(test.fs->journal->held);
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
        tk_test_fs_start(&test);
        check_file(TK_BLOCK_LEN, 3UL * TK_BLOCK_LEN, 'b', FILE_LEN + 450);
        check_file(0, 1, 'x', FILE_LEN + 450);
        tk_test_fs_stop(&test);
}

static void test_held__writes_that_fail(void **state)
{
        check_held(-EIO, 0);
}

static void test_held__a_quota_that_is_full(void **state)
{
        check_held(-EDQUOT, 0);
}

static void test_held__flushes_that_fail(void **state)
{
        check_held(0, -EIO);
}

/* A crash, a mount while it fails still, and one afterwards. */
static void check_held_after_crash(int writes, int syncs)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = NULL;
        struct tk_entry entry;
        struct image place;

        make_volume();
        image_take(&place, "c/root/f");
        hold(&file, &inode, writes, syncs);
        tk_test_close(&test, file, inode);
        crash();
        image_put(&place, place.len);
        tk_test_fs_start(&test);
        check_named("g", 0, 8UL * TK_BLOCK_LEN, 'h');
        assert_int_equal(tk_op_lookup(test.fs, test.root, "f", &entry), 0);
        assert_int_equal(tk_op_open(test.fs, entry.inode, O_RDWR, &file),
                         writes < 0 ? writes : syncs);
        faulty.broken = 0;
        assert_int_equal(tk_op_open(test.fs, entry.inode, O_RDWR, &file), 0);
        assert_true(is_overwritten(file));
        tk_test_close(&test, file, entry.inode);
        assert_true(tk_volume_kept(test.fs->volume) == 0);
        tk_test_fs_stop(&test);
        image_drop(&place);
}

static void test_held__crash(void **state)
{
        check_held_after_crash(-ENOSPC, 0);
}

static void test_held__crash_after_flushes_that_fail(void **state)
{
        check_held_after_crash(0, -EIO);
}

/* A file that nobody can see any more is let go of. */
static void test_held__removed(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = NULL;

        make_volume();
        hold(&file, &inode, -EIO, 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "f", NULL), 0);
        tk_test_close(&test, file, inode);
        assert_int_equal(tk_journal_finish(test.fs->journal), 0);
        assert_true(tk_volume_kept(test.fs->volume) == 0);
        assert_int_equal(test.fs->stats.open_files, 0);
        tk_test_fs_stop(&test);
}

/* An unmount says so; what it could not put in place, the next mount does. */
static void test_held__unmount(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = NULL;
        struct tk_fault fault = {0};

        make_volume();
        hold(&file, &inode, -EIO, 0);
        tk_test_close(&test, file, inode);
        assert_int_equal(tk_fs_finish(test.fs, &fault), -EIO);
        faulty.broken = 0;
        crash();
        tk_test_fs_start(&test);
        file = open_file("f", &inode);
        assert_true(is_overwritten(file));
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_replay__brings_what_was_acknowledged),
                TEST(test_replay__again_and_again),
                TEST(test_replay__torn_batch),
                TEST(test_replay__not_of_a_clean_mount),
                TEST(test_replay__areas_that_begin_alike),
                TEST(test_replay__file_is_gone),
                TEST(test_replay__file_was_renamed),
                TEST(test_replay__garbage_and_missing),
                TEST(test_replay__cut_and_written_again),
                TEST(test_replay__punched_and_written_again),
                TEST(test_settle__new_tail_that_became_a_hole),
                TEST(test_append__more_than_the_journal),
                TEST(test_append__block_over_a_hole_on_a_full_disk),
                TEST(test_replay__full_disk),
                TEST(test_replay__key_refused),
                TEST(test_replay__few_descriptors),
                TEST(test_replay__one_walk),
                TEST(test_finish__few_flushes_for_many_files),
                TEST(test_replay__journal_cant_be_read),
                TEST(test_commit__write_fails_once),
                TEST(test_sync__waits_for_the_one_that_runs),
                TEST(test_sync__hears_of_the_journals_failure),
                TEST(test_sync__covers_the_name),
                TEST(test_truncate__rewriting_needs_no_journal),
                TEST(test_write__holes_of_a_file_that_was_there),
                TEST(test_write__hole_and_data),
                TEST(test_write__hole_and_data_of_the_next_group),
                TEST(test_write__hole_in_the_journal),
                TEST(test_append__after_a_cut),
                TEST(test_held__writes_that_fail),
                TEST(test_held__a_quota_that_is_full),
                TEST(test_held__flushes_that_fail),
                TEST(test_held__crash),
                TEST(test_held__crash_after_flushes_that_fail),
                TEST(test_held__removed),
                TEST(test_held__unmount),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
