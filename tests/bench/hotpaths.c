/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The operations that applications wait for, without FUSE, each counted by itself by callgrind:
 * hotpaths.py. Each is done twice, and the second counts: what is made once is there then.
 */

#include "tests/unit/support_fs.h"

#include "fs/content.h"
#include <valgrind/callgrind.h>

enum { KIB = 1024, MIB = 1024 * KIB, READ = 128 * KIB, ENTRIES = 1000, SMALL = 4 * KIB };

/* Counts what @call takes, under its name for hotpaths.py. */
#define COUNT(name, call)                                                                          \
        do {                                                                                       \
                CALLGRIND_ZERO_STATS;                                                              \
                call;                                                                              \
                CALLGRIND_DUMP_STATS_AT(name);                                                     \
        } while (0)

static struct tk_test_fs test;
static uint8_t bytes[MIB];

static void content_of(const char *name, size_t len)
{
        struct tk_inode *inode;
        struct tk_openfile *file = tk_test_create(&test, name, &inode);

        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, len), 0);
        tk_test_close(&test, file, inode);
}

static struct tk_entry look_up(const char *name)
{
        struct tk_entry entry;

        assert_int_equal(tk_op_lookup(test.fs, test.root, name, &entry), 0);
        return entry;
}

static void forget(const struct tk_entry *entry)
{
        tk_inode_forget(test.fs->inodes, entry->inode, 1);
}

/* Content --------------------------------------------------------------------------- */

static void read_128k(struct tk_openfile *file)
{
        const uint8_t *data;

        assert_int_equal(tk_content_read(test.fs, file, READ, READ, &data), READ);
}

static void write_1m(struct tk_openfile *file)
{
        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, MIB), 0);
}

/* Of a block that an earlier open wrote: it goes through the journal. */
static void overwrite_4k(struct tk_openfile *file, uint64_t off)
{
        assert_int_equal(tk_content_write(test.fs, file, off, bytes, SMALL), 0);
}

static void read_and_overwrite(uint64_t off)
{
        struct tk_entry entry = look_up("large");
        struct tk_openfile *file;

        assert_int_equal(tk_op_open(test.fs, entry.inode, O_RDWR, &file), 0);
        COUNT("read_128k", read_128k(file));
        COUNT("overwrite_4k", overwrite_4k(file, off));
        tk_op_release(test.fs, file, O_RDWR);
        forget(&entry);
}

static void write_new(const char *name)
{
        struct tk_inode *inode;
        struct tk_openfile *file = tk_test_create(&test, name, &inode);

        COUNT("write_1m", write_1m(file));
        tk_test_close(&test, file, inode);
}

/* Names and attributes ---------------------------------------------------------------- */

static void create_write_close(const char *name)
{
        content_of(name, SMALL);
}

/* Of a file that the kernel does not know. */
static void lookup(const char *name)
{
        struct tk_entry entry = look_up(name);

        forget(&entry);
}

static void getattr(struct tk_inode *inode)
{
        struct stat st;

        assert_int_equal(tk_op_getattr(test.fs, inode, &st), 0);
}

struct listing {
        struct tk_dir *dir;
        unsigned count;
};

/* As ops.c does for readdirplus; what it found is forgotten at once. */
static int take(void *context, const struct tk_dir_entry *found)
{
        struct listing *listing = context;
        struct tk_entry entry;

        if (strcmp(found->name, ".") == 0 || strcmp(found->name, "..") == 0)
                return 0;
        assert_int_equal(tk_op_lookup_in(test.fs, listing->dir, found->backing, &entry), 0);
        forget(&entry);
        listing->count++;
        return 0;
}

static void readdirplus_1000(struct tk_inode *inode)
{
        struct listing listing = {0};

        assert_int_equal(tk_op_opendir(test.fs, inode, &listing.dir), 0);
        assert_int_equal(tk_op_readdir(listing.dir, 0, take, &listing), 0);
        assert_int_equal(listing.count, ENTRIES);
        tk_op_releasedir(listing.dir);
}

static struct tk_inode *make_directory(void)
{
        struct tk_openfile *file;
        struct tk_entry dir;
        struct tk_entry entry;
        char name[32];

        assert_int_equal(tk_op_mkdir(test.fs, test.root, "many", 0755, &tk_test_caller, &dir), 0);
        for (int i = 0; i < ENTRIES; i++) {
                snprintf(name, sizeof(name), "file number %04d", i);
                assert_int_equal(tk_op_create(test.fs, dir.inode, name, 0644, O_RDWR,
                                              &tk_test_caller, &entry, &file),
                                 0);
                tk_op_release(test.fs, file, O_RDWR);
                forget(&entry);
        }
        return dir.inode;
}

/* All of it ---------------------------------------------------------------------------- */

static void work(void)
{
        struct tk_inode *many = make_directory();

        content_of("large", MIB);
        for (int round = 0; round < 2; round++) {
                read_and_overwrite(round == 0 ? MIB / 2 : MIB / 4);
                write_new(round == 0 ? "first large" : "second large");
                COUNT("create_write_close",
                      create_write_close(round == 0 ? "first small" : "second small"));
                COUNT("lookup", lookup("first small"));
                COUNT("getattr", getattr(many));
                COUNT("readdirplus_1000", readdirplus_1000(many));
        }
        tk_inode_forget(test.fs->inodes, many, 1);
}

int main(void)
{
        void *directory = NULL;

        test.names = TK_NAMES_ENCRYPTED;
        if (tk_test_dir_enter(&directory) < 0)
                return 1;
        tk_test_fs_start(&test);
        work();
        tk_test_fs_stop(&test);
        return tk_test_dir_leave(&directory) == 0 ? 0 : 1;
}
