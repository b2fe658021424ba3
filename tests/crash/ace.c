/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sequences of operations.
 *
 * The tree: directories A and B, files A/foo (three blocks, the last one short) and
 * A/bar (100 bytes), both durable and open. What is done to a file goes through its open
 * handle, whatever has become of its name. An operation that can't be done is left out.
 */

#include "ace.h"

#include "calls.h"
#include "states.h"
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

#define BLOCK UINT64_C(4096)
#define FOO_LEN (2 * BLOCK + 1000)

enum kind {
        NOTHING,
        WRITE,
        TRUNCATE,
        FALLOCATE,
        FALLOCATE_KEEP,
        PUNCH,
        ZERO,
        CREATE,
        MKDIR,
        SYMLINK,
        LINK,
        UNLINK,
        RENAME,
        EXCHANGE,
        SETXATTR,
        CHMOD,
        REMOUNT,
        FSYNC,
        FDATASYNC,
        FSYNCDIR,
};

struct operation {
        const char *text;
        enum kind kind;
        const char *path; /* a file's handle, or a name */
        const char *other;
        uint64_t off;
        uint64_t len;
};

static const struct operation operations[] = {
        {"nothing", NOTHING},
        {"overwrite a block", WRITE, "foo", .off = BLOCK, .len = BLOCK},
        {"overwrite across blocks", WRITE, "foo", .off = 100, .len = BLOCK},
        {"append", WRITE, "foo", .off = FOO_LEN, .len = 500},
        {"append blocks", WRITE, "foo", .off = FOO_LEN, .len = 2 * BLOCK},
        {"write behind a hole", WRITE, "foo", .off = 5 * BLOCK, .len = 50},
        {"append to bar", WRITE, "bar", .off = 100, .len = 100},
        {"overwrite bar", WRITE, "bar", .off = 0, .len = 100},
        {"fill bar", WRITE, "bar", .off = BLOCK, .len = 2 * BLOCK},
        {"fill bar in part", WRITE, "bar", .off = 2 * BLOCK + 10, .len = BLOCK + 190},
        {"fill bar with data", WRITE, "bar", .off = 50, .len = 2 * BLOCK},
        {"fill bar over groups", WRITE, "bar", .off = 123 * BLOCK, .len = 2 * BLOCK},
        {"fill bar and more", WRITE, "bar", .off = 125 * BLOCK + 100, .len = 3 * BLOCK},
        {"cut bar in its hole", TRUNCATE, "bar", .len = 2 * BLOCK + 5},
        {"punch bar", PUNCH, "bar", .off = BLOCK, .len = 124 * BLOCK},
        {"cut to nothing", TRUNCATE, "foo", .len = 0},
        {"cut in a block", TRUNCATE, "foo", .len = BLOCK + 10},
        {"cut at a block", TRUNCATE, "foo", .len = BLOCK},
        {"extend", TRUNCATE, "foo", .len = 4 * BLOCK},
        {"cut bar", TRUNCATE, "bar", .len = 50},
        {"punch a block", PUNCH, "foo", .off = BLOCK, .len = BLOCK},
        {"punch across blocks", PUNCH, "foo", .off = 50, .len = BLOCK},
        {"zero to the end", ZERO, "foo", .off = 10, .len = FOO_LEN},
        {"allocate behind", FALLOCATE, "foo", .off = FOO_LEN, .len = BLOCK},
        {"allocate only", FALLOCATE_KEEP, "foo", .off = FOO_LEN, .len = BLOCK},
        {"create", CREATE, "A/new"},
        {"create elsewhere", CREATE, "B/new"},
        {"mkdir", MKDIR, "A/C"},
        {"symlink", SYMLINK, "A/symlink", "foo"},
        {"link", LINK, "A/foo", "B/foo"},
        {"unlink", UNLINK, "A/foo"},
        {"unlink bar", UNLINK, "A/bar"},
        {"rename", RENAME, "A/foo", "A/foo2"},
        {"rename over", RENAME, "A/foo", "A/bar"},
        {"rename elsewhere", RENAME, "A/foo", "B/foo"},
        {"rename the directory", RENAME, "A", "D"},
        {"exchange", EXCHANGE, "A/foo", "A/bar"},
        {"set an attribute", SETXATTR, "A/foo"},
        {"chmod", CHMOD, "A/foo"},
        {"remount", REMOUNT},
};

static const struct operation flushes[] = {
        {"nothing", NOTHING},
        {"fsync", FSYNC, "foo"},
        {"fdatasync", FDATASYNC, "foo"},
        {"fsync bar", FSYNC, "bar"},
        {"fsync the directory", FSYNCDIR, "A"},
};

enum {
        OPERATIONS = sizeof(operations) / sizeof(operations[0]),
        FLUSHES = sizeof(flushes) / sizeof(flushes[0]),
};

/* A sequence: two operations, each with a flush. */
struct sequence {
        const struct operation *steps[4];
};

static struct sequence sequence_at(unsigned index)
{
        struct sequence sequence;

        sequence.steps[3] = &flushes[index % FLUSHES];
        index /= FLUSHES;
        sequence.steps[2] = &operations[index % OPERATIONS];
        index /= OPERATIONS;
        sequence.steps[1] = &flushes[index % FLUSHES];
        index /= FLUSHES;
        sequence.steps[0] = &operations[index % OPERATIONS];
        return sequence;
}

unsigned tk_ace_count(void)
{
        return OPERATIONS * FLUSHES * OPERATIONS * FLUSHES;
}

void tk_ace_describe(unsigned index, char *text, size_t max)
{
        struct sequence sequence = sequence_at(index);

        snprintf(text, max, "%s; %s; %s; %s", sequence.steps[0]->text, sequence.steps[1]->text,
                 sequence.steps[2]->text, sequence.steps[3]->text);
}

static int allocate(struct tk_work *work, const struct operation *op, int handle)
{
        int mode = op->kind == PUNCH            ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                   : op->kind == ZERO           ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
                   : op->kind == FALLOCATE_KEEP ? FALLOC_FL_KEEP_SIZE
                                                : 0;

        return tk_work_fallocate(work, handle, mode, op->off, op->len);
}

static int do_file(struct tk_work *work, const struct operation *op, int handle, unsigned tag)
{
        switch (op->kind) {
        case WRITE:
                return tk_work_write(work, handle, op->off, op->len, tag);
        case TRUNCATE:
                return tk_work_truncate(work, handle, op->len);
        case FSYNC:
                return tk_work_fsync(work, handle);
        case FDATASYNC:
                return tk_work_fdatasync(work, handle);
        default:
                return allocate(work, op, handle);
        }
}

static int do_name(struct tk_work *work, const struct operation *op, struct tk_ace_handles *handles)
{
        int r;

        switch (op->kind) {
        case CREATE:
                r = tk_work_create(work, op->path);
                return r < 0 ? r : tk_work_close(work, r);
        case MKDIR:
                return tk_work_mkdir(work, op->path);
        case SYMLINK:
                return tk_work_symlink(work, op->other, op->path);
        case LINK:
                return tk_work_link(work, op->path, op->other);
        case UNLINK:
                return tk_work_unlink(work, op->path);
        case RENAME:
                return tk_work_rename(work, op->path, op->other, 0);
        case EXCHANGE:
                return tk_work_rename(work, op->path, op->other, RENAME_EXCHANGE);
        case SETXATTR:
                return tk_work_setxattr(work, op->path, "user.tk", "value");
        case CHMOD:
                return tk_work_chmod(work, op->path, 0600);
        case FSYNCDIR:
                return tk_work_fsyncdir(work, op->path);
        default:
                tk_work_remount(work);
                handles->foo = tk_work_open(work, "A/foo");
                handles->bar = tk_work_open(work, "A/bar");
                return 0;
        }
}

static int do_step(struct tk_work *work, const struct operation *op, struct tk_ace_handles *handles,
                   unsigned tag)
{
        bool on_file = op->path && (strcmp(op->path, "foo") == 0 || strcmp(op->path, "bar") == 0);
        int handle = !on_file ? -1 : op->path[0] == 'f' ? handles->foo : handles->bar;

        if (op->kind == NOTHING || (on_file && handle < 0))
                return 0;
        return on_file ? do_file(work, op, handle, tag) : do_name(work, op, handles);
}

/* The tree, on a disk of its own; made when the last one was another. */
static void make_tree(enum tk_names names, struct tk_disk *ret_disk, struct tk_disk *ret_plain)
{
        static struct tk_disk disk;
        static struct tk_disk plain;
        static enum tk_names made;

        if (disk.count > 0 && made != names) {
                tk_disk_done(&disk);
                tk_disk_done(&plain);
        }
        if (disk.count == 0) {
                struct tk_work work;
                int handle;

                made = names;
                tk_stand_options = (struct tk_stand_options){.names = names};
                tk_calls_seed(1);
                tk_work_begin(&work, "the tree of ace");
                tk_work_mkdir(&work, "A");
                tk_work_mkdir(&work, "B");
                handle = tk_work_create(&work, "A/foo");
                tk_work_write(&work, handle, 0, FOO_LEN, 1000);
                handle = tk_work_create(&work, "A/bar");
                tk_work_write(&work, handle, 0, 100, 1001);
                tk_work_truncate(&work, handle, 126 * BLOCK + 200);
                tk_disk_clone(&work.plain, &plain);
                tk_work_settle(&work, &disk);
                tk_work_done(&work);
        }
        tk_disk_clone(&disk, ret_disk);
        tk_disk_clone(&plain, ret_plain);
}

void tk_ace_begin(uint64_t seed, struct tk_work *work, struct tk_ace_handles *ret_handles)
{
        struct tk_disk plain;
        struct tk_disk disk;

        make_tree(seed % 2 ? TK_NAMES_ENCRYPTED : TK_NAMES_PLAIN, &disk, &plain);
        tk_calls_seed(seed);
        tk_work_begin_on(work, "ace", &disk, &plain);
        ret_handles->foo = tk_work_open(work, "A/foo");
        ret_handles->bar = tk_work_open(work, "A/bar");
        work->forgive = true;
}

void tk_ace_record(unsigned index, uint64_t seed, struct tk_work *work)
{
        struct sequence sequence = sequence_at(index);
        struct tk_ace_handles handles;

        tk_ace_begin((tk_mix(seed, index, 20) << 1) | (seed & 1), work, &handles);
        for (unsigned i = 0; i < 4; i++)
                (void)do_step(work, sequence.steps[i], &handles, i);
        tk_work_end(work);
}

/* Single operations ------------------------------------------------------------------ */

static const struct operation *operation_at(unsigned op)
{
        return op < OPERATIONS ? &operations[op] : &flushes[op - OPERATIONS];
}

unsigned tk_ace_operations(void)
{
        return OPERATIONS + FLUSHES;
}

const char *tk_ace_operation_text(unsigned op)
{
        return operation_at(op)->text;
}

bool tk_ace_is_flush(unsigned op)
{
        return op >= OPERATIONS;
}

int tk_ace_do(struct tk_work *work, unsigned op, struct tk_ace_handles *handles, unsigned tag)
{
        return do_step(work, operation_at(op), handles, tag);
}
