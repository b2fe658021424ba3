/* SPDX-License-Identifier: Apache-2.0 */

/* What applications do: one function each. */

#include "workloads_internal.h"

#include "calls.h"
#include "sched.h"
#include "states.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A log: append and sync. */
static void append(struct tk_work *work, uint64_t seed)
{
        int log = tk_work_create(work, "log");
        uint64_t size = 0;

        for (unsigned i = 0; i < 24; i++) {
                size_t len = 1 + chance(&seed, 1500);

                tk_work_write(work, log, size, len, i);
                tk_work_fdatasync(work, log);
                size += len;
        }
        for (unsigned i = 0; i < 4; i++) {
                tk_work_write(work, log, size, 9000, 100 + i);
                size += 9000;
                tk_work_write(work, log, size, 700, 200 + i);
                tk_work_fsync(work, log);
                size += 700;
        }
}

/* A log across the end of a group, and two logs at once. */
static void append_two(struct tk_work *work, uint64_t seed)
{
        int a = durable_file(work, "a", GROUP - 3000);
        int b = tk_work_create(work, "b");
        uint64_t size_a = GROUP - 3000;
        uint64_t size_b = 0;

        for (unsigned i = 0; i < 8; i++) {
                size_t len = 1 + chance(&seed, 2000);

                tk_work_write(work, a, size_a, len, i);
                size_a += len;
                tk_work_write(work, b, size_b, 4096 + len, i);
                size_b += 4096 + len;
                if (i % 3 != 1)
                        tk_work_fsync(work, a);
                if (i % 3 != 2)
                        tk_work_fdatasync(work, b);
        }
}

/* A database: whole blocks of a file, overwritten and synced. */
static void overwrite(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 8 * BLOCK);

        for (unsigned i = 0; i < 12; i++) {
                for (unsigned j = 0; j <= chance(&seed, 3); j++)
                        tk_work_write(work, file, chance(&seed, 8) * BLOCK, BLOCK, i * 10 + j);
                tk_work_fdatasync(work, file);
        }
}

/* The same of ranges that are no blocks, over the end of a group, not always synced. */
static void overwrite_unaligned(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", GROUP + 3 * BLOCK + 77);

        for (unsigned i = 0; i < 16; i++) {
                uint64_t off = GROUP - 2 * BLOCK + chance(&seed, 4 * BLOCK);

                tk_work_write(work, file, off, 1 + chance(&seed, 2 * BLOCK), i);
                if (i % 2)
                        tk_work_fsync(work, file);
        }
}

/* Written over and over without a sync: what goes in place meanwhile must be journaled first. */
static void overwrite_unsynced(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 64 * BLOCK);

        for (unsigned i = 0; i < 40; i++)
                tk_work_write(work, file, chance(&seed, 56) * BLOCK, 8 * BLOCK, i);
        tk_work_fsync(work, file);
        for (unsigned i = 0; i < 10; i++)
                tk_work_write(work, file, chance(&seed, 64) * BLOCK, BLOCK, 100 + i);
}

/* More than the journal holds: it is used again and again. */
static void overwrite_much(struct tk_work *work, uint64_t seed)
{
        int a = durable_file(work, "a", 100 * BLOCK);
        int b = durable_file(work, "b", 100 * BLOCK);

        for (unsigned i = 0; i < 24; i++) {
                tk_work_write(work, i % 2 ? a : b, chance(&seed, 60) * BLOCK, 40 * BLOCK, i);
                if (i % 3 == 0)
                        tk_work_fdatasync(work, i % 2 ? a : b);
                if (i == 11)
                        tk_work_close(work, a), a = tk_work_open(work, "a");
        }
}

/* Cut and extended: an old journal entry must not come back. */
static void shrink_extend(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 6 * BLOCK + 100);

        for (unsigned i = 0; i < 10; i++) {
                tk_work_write(work, file, chance(&seed, 5 * BLOCK), 3000, i * 10);
                if (chance(&seed, 2))
                        tk_work_fsync(work, file);
                tk_work_truncate(work, file, chance(&seed, 5 * BLOCK));
                if (chance(&seed, 2))
                        tk_work_fsync(work, file);
                tk_work_truncate(work, file, 5 * BLOCK + chance(&seed, 2 * BLOCK));
                tk_work_write(work, file, chance(&seed, 5 * BLOCK), 5000, i * 10 + 1);
                if (chance(&seed, 2))
                        tk_work_fdatasync(work, file);
        }
}

/* Holes punched into what was overwritten, and filled again. */
static void punch_rewrite(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 12 * BLOCK);

        for (unsigned i = 0; i < 12; i++) {
                uint64_t off = chance(&seed, 10 * BLOCK);

                tk_work_write(work, file, off, 2 * BLOCK, i * 10);
                if (chance(&seed, 2))
                        tk_work_fsync(work, file);
                tk_work_fallocate(work, file, i % 3 ? punch : FALLOC_FL_ZERO_RANGE,
                                  chance(&seed, 8) * BLOCK + chance(&seed, 2) * 100,
                                  1 + chance(&seed, 3 * BLOCK));
                if (chance(&seed, 2))
                        tk_work_fsync(work, file);
                tk_work_write(work, file, off + BLOCK / 2, BLOCK, i * 10 + 1);
                if (chance(&seed, 2))
                        tk_work_fdatasync(work, file);
        }
}

/* A tail that was cut, written again, and punched: the file stays as long as it was made. */
static void punch_tail(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 9 * BLOCK);

        for (unsigned i = 0; i < 8; i++) {
                uint64_t kept = 2 + chance(&seed, 4);
                uint64_t tail = kept + 1 + chance(&seed, 3);

                tk_work_truncate(work, file, kept * BLOCK + chance(&seed, 2) * 700);
                tk_work_write(work, file, tail * BLOCK, 1 + chance(&seed, BLOCK), i * 10);
                tk_work_fallocate(work, file, punch, tail * BLOCK, 2 * BLOCK);
                if (chance(&seed, 2))
                        tk_work_fsync(work, file);
                tk_work_write(work, file, chance(&seed, 2 * BLOCK), 300, i * 10 + 1);
                if (i % 3 == 2) {
                        tk_work_close(work, file);
                        tk_work_remount(work);
                        file = tk_work_open(work, "data");
                }
        }
}

/* Whole groups go and come. */
static void punch_groups(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 2 * GROUP + 5 * BLOCK);

        for (unsigned i = 0; i < 4; i++) {
                tk_work_write(work, file, GROUP + chance(&seed, 4) * BLOCK, BLOCK, i * 10);
                tk_work_fallocate(work, file, punch, GROUP, GROUP + (i % 2 ? 5 * BLOCK : 0));
                if (i % 2)
                        tk_work_fsync(work, file);
                tk_work_write(work, file, GROUP + BLOCK, 2 * BLOCK, i * 10 + 1);
                tk_work_fsync(work, file);
                tk_work_truncate(work, file, GROUP - 500);
                tk_work_truncate(work, file, 2 * GROUP + 300);
                if (i == 2)
                        tk_work_fsync(work, file);
        }
}

/* Cut to nothing and written again, as compilers and shells do. */
static void rewrite_whole(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "out", 5 * BLOCK);

        for (unsigned i = 0; i < 6; i++) {
                tk_work_truncate(work, file, 0);
                tk_work_write(work, file, 0, 1 + chance(&seed, 4 * BLOCK), i * 10);
                tk_work_write(work, file, 4 * BLOCK, 100 + chance(&seed, 4 * BLOCK), i * 10 + 1);
                if (i % 2)
                        tk_work_fsync(work, file);
        }
}

/* The same, never synced, while another file is: the journal's flush is for all of them. */
static void rewrite_beside(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "out", 9 * BLOCK);
        int log = durable_file(work, "log", 100);

        for (unsigned i = 0; i < 8; i++) {
                tk_work_truncate(work, file, 0);
                tk_work_write(work, file, 0, 1 + chance(&seed, 5 * BLOCK), i * 10);
                if (i % 4 == 3)
                        tk_work_write(work, file, 5 * BLOCK, 1 + chance(&seed, 8 * BLOCK),
                                      1000 + i);
                tk_work_write(work, log, 100 + i * 50, 50, i * 10 + 1);
                tk_work_fsync(work, log);
                if (i == 4)
                        tk_work_fdatasync(work, file);
        }
}

/* Cut to nothing, written, and opened anew, all without a sync; another file's flushes the journal.
 */
static void rewrite_reopen(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "out", 10 * BLOCK);
        int other = durable_file(work, "other", 2 * BLOCK);

        for (unsigned i = 0; i < 3; i++) {
                struct tk_inode *known = NULL; /* to the kernel, which has just written it */

                if (tk_work_lookup(&work->stand, "out", &known) < 0)
                        abort();
                tk_work_truncate(work, file, 0);
                tk_work_write(work, file, 0, 10 * BLOCK, i * 10);
                if (i == 2)
                        tk_work_fallocate(work, file, 0, 0, 12 * BLOCK);
                tk_work_close(work, file);
                file = tk_work_open(work, "out");
                tk_work_write(work, file, chance(&seed, 9) * BLOCK, BLOCK, i * 10 + 1);
                tk_work_write(work, other, 0, BLOCK, i * 10 + 2);
                tk_work_fdatasync(work, other);
                tk_work_forget(&work->stand, known);
                tk_work_remount(work);
                file = tk_work_open(work, "out");
                other = tk_work_open(work, "other");
        }
}

/* An editor: write beside, sync, rename over. */
static void editor(struct tk_work *work, uint64_t seed)
{
        tk_work_close(work, durable_file(work, "text", 3000));
        for (unsigned i = 0; i < 6; i++) {
                int file = tk_work_create(work, "text.new");

                tk_work_write(work, file, 0, 1 + chance(&seed, 9000), i);
                tk_work_fsync(work, file);
                tk_work_close(work, file);
                tk_work_rename(work, "text.new", "text", 0);
                if (i % 2)
                        tk_work_fsyncdir(work, "");
        }
}

/* Directories, and a flush of the one above. */
static void directories(struct tk_work *work, uint64_t seed)
{
        char path[64];

        (void)seed;
        for (unsigned i = 0; i < 4; i++) {
                snprintf(path, sizeof(path), "d%u", i);
                tk_work_mkdir(work, path);
                if (i % 2)
                        tk_work_fsyncdir(work, "");
                snprintf(path, sizeof(path), "d%u/f", i);
                tk_work_close(work, tk_work_create(work, path));
                snprintf(path, sizeof(path), "d%u/link", i);
                tk_work_symlink(work, "f", path);
                snprintf(path, sizeof(path), "d%u", i);
                tk_work_fsyncdir(work, path);
        }
        tk_work_rename(work, "d1", "d0/moved", 0);
        tk_work_unlink(work, "d2/f");
        tk_work_unlink(work, "d2/link");
        tk_work_fsyncdir(work, "d2");
        tk_work_rmdir(work, "d2");
        tk_work_fsyncdir(work, "");
}

/* Several names of one file, and other files in its place. */
static void links(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "a", 2 * BLOCK);
        int other;

        (void)seed;
        tk_work_link(work, "a", "b");
        tk_work_write(work, file, 100, BLOCK, 1);
        tk_work_fsync(work, file);
        tk_work_unlink(work, "a");
        tk_work_write(work, file, 200, BLOCK, 2);
        tk_work_fsync(work, file);
        tk_work_fsyncdir(work, "");
        tk_work_close(work, file);
        /* The number of a removed file is given to a new one. */
        tk_work_unlink(work, "b");
        other = tk_work_create(work, "a");
        tk_work_write(work, other, 0, 2 * BLOCK, 3);
        tk_work_fsync(work, other);
        tk_work_write(work, other, BLOCK, BLOCK, 4);
        tk_work_fdatasync(work, other);
        tk_work_unlink(work, "a");
        tk_work_close(work, other);
        tk_work_close(work, durable_file(work, "a", 3000));
}

/* Overwritten, then renamed: replay must find it by other means than its name. */
static void rename_journaled(struct tk_work *work, uint64_t seed)
{
        int a = durable_file(work, "a", 3 * BLOCK);
        int b = durable_file(work, "b", 3 * BLOCK);

        tk_work_mkdir(work, "d");
        for (unsigned i = 0; i < 4; i++) {
                tk_work_write(work, a, chance(&seed, 2 * BLOCK), BLOCK, i * 10);
                tk_work_fdatasync(work, a);
                tk_work_write(work, b, chance(&seed, 2 * BLOCK), BLOCK, i * 10 + 1);
                tk_work_fdatasync(work, b);
                if (i == 0)
                        tk_work_rename(work, "a", "d/a", 0);
                if (i == 1)
                        tk_work_rename(work, "d", "e", 0);
                if (i == 2)
                        tk_work_rename(work, "e/a", "b", RENAME_EXCHANGE);
        }
        tk_work_fsyncdir(work, "e");
        tk_work_rename(work, "b", "e/a", 0);
        tk_work_write(work, a, 0, BLOCK, 99);
        tk_work_fdatasync(work, a);
}

/* Attributes and content of a file that others replace. */
static void attributes(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "a", 500);

        (void)seed;
        tk_work_setxattr(work, "a", "user.tk", "one");
        tk_work_chmod(work, "a", 0600);
        tk_work_write(work, file, 500, 500, 1);
        tk_work_setxattr(work, "a", "user.tk", "two");
        tk_work_fsync(work, file);
        tk_work_chmod(work, "a", 0640);
        tk_work_fsync(work, file);
}

/* Unmounted and mounted again: what an unmount acknowledged, and old numbers of mounts. */
static void remount(struct tk_work *work, uint64_t seed)
{
        int file;

        tk_work_close(work, tk_work_create(work, "a"));
        file = tk_work_create(work, "holes");
        tk_work_write(work, file, 2 * BLOCK, BLOCK, 99);
        tk_work_close(work, file);
        for (unsigned i = 0; i < 4; i++) {
                tk_work_close(work, tk_work_open(work, "holes"));
                file = tk_work_open(work, "a");
                tk_work_write(work, file, chance(&seed, 3 * BLOCK), 2 * BLOCK, i * 10);
                if (i % 2)
                        tk_work_fsync(work, file);
                tk_work_write(work, file, chance(&seed, 3 * BLOCK), BLOCK, i * 10 + 1);
                tk_work_remount(work);
        }
}

/* Rotation while files are in use. */
static void rotation(struct tk_work *work, uint64_t seed)
{
        int a = durable_file(work, "a", 3 * BLOCK);

        tk_work_close(work, durable_file(work, "b", 100));
        tk_work_close(work, tk_work_create(work, "empty"));
        tk_work_write(work, a, chance(&seed, BLOCK), BLOCK, 1);
        tk_work_rotate(work);
        tk_work_write(work, a, chance(&seed, BLOCK), BLOCK, 2);
        tk_work_fdatasync(work, a);
        tk_work_rename(work, "b", "c", 0);
        tk_work_rotate(work);
        tk_work_close(work, tk_work_create(work, "b"));
}

/* From now on every write to "a" fails below, or every flush. */
static void break_a(uint64_t *seed)
{
        const struct tk_disk *disk = &tk_calls.disk;
        uint32_t root = tk_disk_lookup(disk, tk_disk_lookup(disk, TK_DISK_ROOT, "c"), "root");

        tk_calls.broken_syncs = chance(seed, 2);
        tk_calls.broken = tk_disk_lookup(disk, root, "a");
}

/*
 * An operation on "a", which may fail while it is broken. Whether more may follow: not behind one
 * that failed, which may have been carried out, nor behind a cut, where blocks would be new: those
 * a flush that fails may lose, and tells of it once.
 */
static bool try_a(struct tk_work *work, int a, uint64_t *seed, unsigned tag)
{
        switch (chance(seed, 5)) {
        case 0:
                (void)!tk_work_truncate(work, a, (6 + chance(seed, 14)) * BLOCK + chance(seed, 99));
                return false;
        case 1:
                return tk_work_fallocate(work, a, punch, chance(seed, 20) * BLOCK, 2 * BLOCK) >= 0;
        default:
                return tk_work_write(work, a, chance(seed, 17 * BLOCK), 3 * BLOCK, tag) >= 0;
        }
}

/*
 * A file that can't be written for a while, and another one that goes on meanwhile. All its blocks
 * are durable before.
 */
static void held(struct tk_work *work, uint64_t seed)
{
        int a = durable_file(work, "a", 20 * BLOCK);
        int b = durable_file(work, "b", 100 * BLOCK);

        for (unsigned i = 0; i < 5; i++) {
                bool sure = true;

                tk_work_write(work, a, chance(&seed, 16 * BLOCK), 3 * BLOCK, i * 100);
                if (chance(&seed, 2))
                        tk_work_fsync(work, a);
                break_a(&seed);
                for (unsigned j = 1; j < 10; j++) {
                        tk_work_write(work, b, chance(&seed, 60) * BLOCK, 40 * BLOCK, i * 100 + j);
                        if (j % 3 == 0)
                                tk_work_fdatasync(work, b);
                        work->forgive = true;
                        work->faulty = true;
                        if (sure && chance(&seed, 3) == 0)
                                sure = try_a(work, a, &seed, i * 100 + 50 + j);
                        if (chance(&seed, 6) == 0)
                                (void)!tk_work_fsync(work, a);
                        work->faulty = false;
                        work->forgive = false;
                        if (i == 4 && j == 5)
                                return;
                }
                tk_calls.broken = 0;
                work->forgive = true;
                (void)!tk_work_fsync(work, a); /* which may tell of a flush that failed */
                work->forgive = false;
                tk_work_fsync(work, a);
                if (sure)
                        continue;
                tk_work_write(work, a, 0, 20 * BLOCK, i * 100 + 90);
                tk_work_truncate(work, a, 20 * BLOCK);
                tk_work_fsync(work, a);
        }
}

/* A file whose key is refused when the journal is replayed, and had again later. */
static void refused(struct tk_work *work, uint64_t seed)
{
        int a = durable_file(work, "a", 20 * BLOCK);
        int b = durable_file(work, "b", 100 * BLOCK);

        for (unsigned i = 0; i < 3; i++) {
                for (unsigned j = 0; j < 3; j++)
                        tk_work_write(work, a, chance(&seed, 16 * BLOCK), 3 * BLOCK, i * 100 + j);
                if (i > 0)
                        tk_work_truncate(work, a, (14 + chance(&seed, 6)) * BLOCK + 50);
                tk_work_fsync(work, a);
                tk_work_fsync(work, b);
                tk_work_kill(work, a);
                work->forgive = true;
                if (tk_work_open(work, "a") >= 0)
                        abort(); /* then nothing is tried here */
                work->forgive = false;
                b = tk_work_open(work, "b");
                for (unsigned j = 0; j < 8; j++)
                        tk_work_write(work, b, chance(&seed, 60) * BLOCK, 40 * BLOCK, i * 100 + j);
                tk_work_fsync(work, b);
                tk_stand_options.refuses = false;
                if (chance(&seed, 2)) {
                        tk_work_kill(work, -1);
                        b = tk_work_open(work, "b");
                }
                a = tk_work_open(work, "a");
        }
}

/* Sparse files: what was never written stays zeros. */
static void sparse(struct tk_work *work, uint64_t seed)
{
        int file = tk_work_create(work, "data");

        for (unsigned i = 0; i < 8; i++) {
                tk_work_write(work, file, chance(&seed, 3 * GROUP), 1 + chance(&seed, 6000), i);
                if (i % 2)
                        tk_work_fsync(work, file);
                if (i == 4)
                        tk_work_truncate(work, file, 4 * GROUP);
                if (i == 5)
                        tk_work_fallocate(work, file, 0, GROUP / 2, 3 * BLOCK);
        }
}

/* Many files, as an archive is unpacked. */
static void unpack(struct tk_work *work, uint64_t seed)
{
        char path[32];

        tk_work_mkdir(work, "d");
        for (unsigned i = 0; i < 8; i++) {
                int file;

                snprintf(path, sizeof(path), "d/f%u", i);
                file = tk_work_create(work, path);
                tk_work_write(work, file, 0, 1 + chance(&seed, 3 * BLOCK), i);
                if (i % 3 == 2)
                        tk_work_fsync(work, file);
                tk_work_close(work, file);
        }
        tk_work_fsyncdir(work, "d");
}

/* Names that the backing filesystem may not hold. */
static void long_names(struct tk_work *work, uint64_t seed)
{
        char a[240];
        char b[240];

        (void)seed;
        memset(a, 'a', sizeof(a));
        memset(b, 'b', sizeof(b));
        a[239] = b[239] = '\0';
        tk_work_close(work, durable_file(work, a, 100));
        tk_work_mkdir(work, b);
        tk_work_fsyncdir(work, "");
        tk_work_rmdir(work, b);
        tk_work_rename(work, a, b, 0);
        tk_work_link(work, b, a);
        tk_work_fsyncdir(work, "");
        tk_work_unlink(work, b);
        tk_work_rename(work, a, "short", 0);
        tk_work_symlink(work, a, b);
        tk_work_fsyncdir(work, "");
        tk_work_close(work, tk_work_create(work, a));
        tk_work_rename(work, a, b, 0);
}

/* Times ---------------------------------------------------------------------------------- */

/* What the kernel does for an fsync of a file that was written to. */
static void time_and_sync(struct tk_work *work, int file, uint64_t *seconds)
{
        tk_work_utimens(work, file, ++*seconds);
        tk_work_fsync(work, file);
}

/* All writes that are not the application's: from the journal, of seals, at a rotation, at mounts.
 */
static void times(struct tk_work *work, uint64_t seed)
{
        uint64_t seconds = 1000000000;
        int other = durable_file(work, "other", BLOCK);
        int file = durable_file(work, "data", 5 * BLOCK);

        time_and_sync(work, file, &seconds);
        tk_work_write(work, other, 0, 100, 1);
        tk_work_fsync(work, other);
        for (unsigned i = 0; i < 14; i++) {
                switch (i % 7) {
                case 0:
                case 3:
                        tk_work_write(work, file, chance(&seed, 5) * BLOCK, BLOCK, 10 + i);
                        break;
                case 1: /* a time, and nothing else */
                        break;
                case 2:
                        tk_work_write(work, file, (5 + i) * BLOCK, BLOCK + 100, 10 + i);
                        break;
                case 4:
                        tk_work_truncate(work, file, (3 + chance(&seed, 3)) * BLOCK + 50);
                        break;
                case 5:
                        tk_work_fallocate(work, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                          BLOCK, BLOCK);
                        break;
                default:
                        tk_work_write(work, file, 70, 3000, 10 + i);
                        break;
                }
                time_and_sync(work, file, &seconds);
                /* Meanwhile the library does its part; nobody writes to the file. */
                tk_work_write(work, other, 0, BLOCK, 50 + i);
                tk_work_fsync(work, other);
                if (i == 6)
                        tk_work_rotate(work);
                if (i == 4 || i == 9) {
                        tk_work_close(work, file);
                        file = tk_work_open(work, "data");
                }
                if (i == 11) {
                        /* Its close seals it. */
                        tk_work_write(work, file, 20 * BLOCK, BLOCK, 70);
                        tk_work_utimens(work, file, ++seconds);
                        tk_work_remount(work);
                        tk_work_rotate(work); /* no journal puts the mtime right */
                        file = tk_work_open(work, "data");
                        other = tk_work_open(work, "other");
                }
                tk_work_write(work, other, BLOCK, BLOCK, 80 + i);
                tk_work_fsync(work, other);
        }
}

/* The table --------------------------------------------------------------------------------- */

const struct tk_workload tk_workloads[] = {
        {"append", append},
        {"append-two", append_two},
        {"overwrite", overwrite},
        {"overwrite-unaligned", overwrite_unaligned},
        {"overwrite-unsynced", overwrite_unsynced},
        {"overwrite-much", overwrite_much},
        {"shrink-extend", shrink_extend},
        {"punch-rewrite", punch_rewrite},
        {"punch-groups", punch_groups},
        {"punch-tail", punch_tail},
        {"rewrite-whole", rewrite_whole},
        {"rewrite-beside", rewrite_beside},
        {"rewrite-reopen", rewrite_reopen},
        {"editor", editor},
        {"directories", directories},
        {"links", links},
        {"rename-journaled", rename_journaled},
        {"attributes", attributes},
        {"remount", remount},
        {"rotation", rotation},
        {"held", held},
        {"refused-kms", refused, .dek_wrap = TK_DEK_WRAP_KMS},
        {"sparse", sparse},
        {"unpack", unpack},
        {"long-names", long_names},
        {"write-during-sync", tk_workload_write_during_sync},
        {"preallocated", tk_workload_preallocated},
        {"fill-during-sync", tk_workload_fill_during_sync},
        {"fill-before-data", tk_workload_fill_before_data},
        {"fill-killed", tk_workload_fill_killed},
        {"anything", tk_workload_anything},
        {"anything-kms", tk_workload_anything, .dek_wrap = TK_DEK_WRAP_KMS},
        {"times", times},
        {"append-kms", append, .dek_wrap = TK_DEK_WRAP_KMS},
        {"shrink-extend-kms", shrink_extend, .dek_wrap = TK_DEK_WRAP_KMS},
        {"rename-journaled-kms", rename_journaled, .dek_wrap = TK_DEK_WRAP_KMS},
        {"editor-encrypted", editor, .names = TK_NAMES_ENCRYPTED},
        {"directories-encrypted", directories, .names = TK_NAMES_ENCRYPTED},
        {"links-encrypted", links, .names = TK_NAMES_ENCRYPTED},
        {"rename-journaled-encrypted", rename_journaled, .names = TK_NAMES_ENCRYPTED},
        {"attributes-encrypted", attributes, .names = TK_NAMES_ENCRYPTED},
        {"rotation-encrypted", rotation, .names = TK_NAMES_ENCRYPTED},
        {"long-names-encrypted", long_names, .names = TK_NAMES_ENCRYPTED},
        {"long-names-encrypted-kms", long_names, .names = TK_NAMES_ENCRYPTED,
         .dek_wrap = TK_DEK_WRAP_KMS},
        {"long-names-encrypted-by-place", long_names, .names = TK_NAMES_ENCRYPTED,
         .by_place = true},
        {"rename-journaled-by-place", rename_journaled, .by_place = true},
        {"links-by-place", links, .by_place = true},
        {"times-encrypted", times, .names = TK_NAMES_ENCRYPTED},
};

const size_t tk_workload_count = sizeof(tk_workloads) / sizeof(tk_workloads[0]);

void tk_workload_record(const struct tk_workload *workload, uint64_t seed, struct tk_work *work)
{
        tk_stand_options.dek_wrap = workload->dek_wrap;
        tk_stand_options.names = workload->names;
        tk_calls.by_place = workload->by_place;
        tk_calls_seed(tk_mix(seed, 3, 4));
        tk_work_begin(work, workload->name);
        workload->run(work, tk_mix(seed, 5, 6));
        tk_work_end(work);
        tk_calls.broken = 0;
}
