/* SPDX-License-Identifier: Apache-2.0 */

/* The escrow's file: what is written comes back, and no changed byte passes. */

#include "support.h"

#include "base/fdio.h"
#include "fs/escrow_file.h"
#include <errno.h>
#include <fcntl.h>

static const uint8_t id[TK_VOLUME_ID_LEN] = "sixteen byte id";

static const struct tk_escrow_entry entries[] = {
        {.directory = true, .path = "", .inode = 2, .record_len = 64},
        {.path = "a", .inode = 3, .ctime_s = 1700000000, .ctime_ns = 999999999, .record_len = 64},
        {.directory = true, .path = "dir", .inode = UINT64_MAX, .record_len = TK_RECORD_MAX},
        {.path = "dir/b", .inode = 4, .ctime_s = -1, .record_len = 1},
        {.path = "dir/bc", .inode = 5, .record_len = 64},
        {.path = "dir.x", .inode = 6, .record_len = 64},
};
enum { COUNT = sizeof(entries) / sizeof(entries[0]) };

static struct tk_escrow_entry entry_at(size_t i)
{
        struct tk_escrow_entry entry = entries[i];

        memset(entry.record.bytes, (int)i + 1, entry.record_len);
        return entry;
}

static int new_file(void)
{
        int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        return fd;
}

static int write_escrow(void)
{
        TK_CLEANUP(tk_escrow_writer_freep) struct tk_escrow_writer *writer = NULL;
        int fd = new_file();

        assert_int_equal(tk_escrow_writer_new(fd, id, 1700000001, &writer), 0);
        for (size_t i = 0; i < COUNT; i++) {
                struct tk_escrow_entry entry = entry_at(i);

                assert_int_equal(tk_escrow_writer_add(writer, &entry), 0);
        }
        assert_int_equal(tk_escrow_writer_end(writer, "the volume file\n"), 0);
        return fd;
}

/* Read to the end: 0, or what was returned on the way. */
static int read_all(int fd)
{
        TK_CLEANUP(tk_escrow_reader_freep) struct tk_escrow_reader *reader = NULL;
        const struct tk_escrow_entry *entry;
        int r = tk_escrow_reader_new(fd, &reader);

        while (r == 0 && (r = tk_escrow_reader_next(reader, &entry)) > 0)
                r = 0;
        return r;
}

static void expect_entries(struct tk_escrow_reader *reader)
{
        const struct tk_escrow_entry *found;

        for (size_t i = 0; i < COUNT; i++) {
                struct tk_escrow_entry wanted = entry_at(i);

                assert_int_equal(tk_escrow_reader_next(reader, &found), 1);
                assert_int_equal(found->directory, wanted.directory);
                assert_string_equal(found->path, wanted.path);
                assert_int_equal(found->inode, wanted.inode);
                assert_int_equal(found->ctime_s, wanted.ctime_s);
                assert_int_equal(found->ctime_ns, wanted.ctime_ns);
                assert_int_equal(found->record_len, wanted.record_len);
                assert_memory_equal(&found->record, &wanted.record, sizeof(wanted.record));
        }
        assert_int_equal(tk_escrow_reader_next(reader, &found), 0);
        assert_int_equal(tk_escrow_reader_next(reader, &found), 0);
        assert_string_equal(tk_escrow_reader_volume_file(reader), "the volume file\n");
}

static void test_reader__gives_what_was_written_twice(void **state)
{
        TK_CLEANUP(tk_escrow_reader_freep) struct tk_escrow_reader *reader = NULL;

        assert_int_equal(tk_escrow_reader_new(write_escrow(), &reader), 0);
        assert_memory_equal(tk_escrow_reader_id(reader), id, sizeof(id));
        assert_int_equal(tk_escrow_reader_created(reader), 1700000001);
        assert_null(tk_escrow_reader_volume_file(reader));
        expect_entries(reader);
        assert_int_equal(tk_escrow_reader_rewind(reader), 0);
        expect_entries(reader);
}

static void test_reader__no_changed_bit_passes(void **state)
{
        TK_AUTOCLOSE int fd = write_escrow();
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        for (off_t at = 0; at < st.st_size; at++) {
                uint8_t byte = 0;
                int r;

                assert_int_equal(tk_fdio_pread(fd, &byte, 1, at), 1);
                byte ^= (uint8_t)(1 << at % 8);
                assert_int_equal(tk_fdio_pwrite(fd, &byte, 1, at), 0);
                r = read_all(dup(fd));
                assert_true(r == -EBADMSG || (r == -EINVAL && at < 17) ||
                            (r == -ENOTSUP && at == 17));
                byte ^= (uint8_t)(1 << at % 8);
                assert_int_equal(tk_fdio_pwrite(fd, &byte, 1, at), 0);
        }
        assert_int_equal(read_all(dup(fd)), 0);
}

static void test_reader__no_other_length_passes(void **state)
{
        TK_AUTOCLOSE int fd = write_escrow();
        struct stat st;
        int r;

        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(tk_fdio_pwrite(fd, "", 1, st.st_size), 0);
        assert_int_equal(read_all(dup(fd)), -EBADMSG);
        while (st.st_size-- > 0) {
                assert_int_equal(ftruncate(fd, st.st_size), 0);
                r = read_all(dup(fd));
                assert_true(r == -EBADMSG || r == -EINVAL);
        }
}

/* Two entries in a file whose checksum is right. */
static int read_pair(const char *first, const char *second)
{
        TK_CLEANUP(tk_escrow_writer_freep) struct tk_escrow_writer *writer = NULL;
        struct tk_escrow_entry entry = entry_at(1);
        int fd = new_file();

        assert_int_equal(tk_escrow_writer_new(fd, id, 0, &writer), 0);
        entry.path = first;
        assert_int_equal(tk_escrow_writer_add(writer, &entry), 0);
        entry.path = second;
        assert_int_equal(tk_escrow_writer_add(writer, &entry), 0);
        assert_int_equal(tk_escrow_writer_end(writer, ""), 0);
        return read_all(fd);
}

static void test_reader__refuses_paths_out_of_order(void **state)
{
        assert_int_equal(read_pair("a", "b"), 0);
        assert_int_equal(read_pair("a/b", "a-b"), 0);
        assert_int_equal(read_pair("a-b", "a/b"), -EBADMSG);
        assert_int_equal(read_pair("b", "a"), -EBADMSG);
        assert_int_equal(read_pair("a", "a"), -EBADMSG);
        assert_int_equal(read_pair("a", ""), -EBADMSG);
}

static void test_reader__refuses_paths_that_lead_elsewhere(void **state)
{
        static const char *const bad[] = {"/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/."};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(read_pair(bad[i], "zz"), -EBADMSG);
        assert_int_equal(read_pair("...", "..a/.b"), 0);
}

static void test_reader__refuses_other_files(void **state)
{
        int fd = new_file();

        assert_int_equal(read_all(dup(fd)), -EINVAL);
        assert_int_equal(ftruncate(fd, 4096), 0);
        assert_int_equal(read_all(fd), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_reader__gives_what_was_written_twice),
                TK_TEST(test_reader__no_changed_bit_passes),
                TK_TEST(test_reader__no_other_length_passes),
                TK_TEST(test_reader__refuses_paths_out_of_order),
                TK_TEST(test_reader__refuses_paths_that_lead_elsewhere),
                TK_TEST(test_reader__refuses_other_files),
        };

        return cmocka_run_group_tests(tests, tk_test_dir_enter, tk_test_dir_leave);
}
