/* SPDX-License-Identifier: Apache-2.0 */

/* Workloads: files with holes, and who writes while a flush is under way. */

#include "calls.h"
#include "sched.h"
#include "workloads_internal.h"
#include <pthread.h>

/* A writer beside a flush --------------------------------------------------------------- */

/* What the other thread does while a flush is under way: one block, until none is left. */
static struct {
        struct tk_work *work;
        int file;
        unsigned left;
        uint64_t from; /* the blocks that are being flushed, or lie beside them */
        uint64_t count;
        uint64_t seed;
        pthread_t syncing;
        pthread_t thread;
        bool running;
        _Atomic bool finished;
} beside;

static void *write_beside(void *context)
{
        uint64_t off = beside.from + chance(&beside.seed, beside.count) * BLOCK;

        tk_work_write(beside.work, beside.file, off, BLOCK, 500 + beside.left);
        beside.finished = true;
        return context;
}

static void join_beside(void)
{
        if (beside.running)
                pthread_join(beside.thread, NULL);
        beside.running = false;
}

/*
 * The other thread may wait for what the flush holds: then it goes on afterwards. Flushes of the
 * journal's thread go by: they don't end when the fsync does.
 */
static void during_sync(void)
{
        if (beside.running || beside.left == 0 || !pthread_equal(beside.syncing, pthread_self()))
                return;
        beside.left--;
        beside.finished = false;
        beside.running = pthread_create(&beside.thread, NULL, write_beside, NULL) == 0;
        tk_sched_settle();
        if (beside.finished)
                join_beside();
}

/* An fsync of @file, meanwhile up to @writes writes of one of @count blocks from @from on. */
static void sync_beside(struct tk_work *work, int file, unsigned writes, uint64_t from,
                        uint64_t count)
{
        beside.work = work;
        beside.file = file;
        beside.left = writes;
        beside.from = from;
        beside.count = count;
        beside.syncing = pthread_self();
        tk_calls.during_sync = during_sync;
        tk_work_fsync(work, file);
        tk_calls.during_sync = NULL;
        join_beside();
}

/* What is in the journal comes in place, and the journal empties. */
static void go_idle(void)
{
        for (unsigned i = 0; i < 4; i++) {
                tk_sched_pass(6);
                tk_sched_settle();
        }
}

/* Space asked for beforehand, and filled at random by who opens the file next. */
void tk_workload_preallocated(struct tk_work *work, uint64_t seed)
{
        int file = tk_work_create(work, "data");

        tk_work_write(work, file, 0, 2 * BLOCK, 1);
        for (unsigned i = 0; i < 10; i++) {
                uint64_t off = chance(&seed, 2) * (GROUP - 4 * BLOCK);

                tk_work_fallocate(work, file, 0, 0, GROUP + 8 * BLOCK);
                if (i % 2)
                        tk_work_fsync(work, file);
                tk_work_close(work, file);
                if (i == 5)
                        tk_work_remount(work);
                go_idle(); /* the journal lets go of the file */
                file = tk_work_open(work, "data");
                for (unsigned j = 0; j < 4; j++)
                        tk_work_write(work, file, off + chance(&seed, 7) * BLOCK,
                                      BLOCK + chance(&seed, 2) * 3000, i * 10 + j);
                if (i % 3 == 1)
                        tk_work_truncate(work, file, GROUP - chance(&seed, 8) * BLOCK);
                if (i % 3 == 2)
                        tk_work_fallocate(work, file, punch, off + chance(&seed, 7) * BLOCK,
                                          2 * BLOCK);
                tk_work_write(work, file, off + chance(&seed, 8) * BLOCK, 700, i * 10 + 5);
                if (i % 2 == 0)
                        tk_work_fdatasync(work, file);
        }
}

/* The same in order, each block once, also while a sync is under way that another one follows. */
void tk_workload_fill_during_sync(struct tk_work *work, uint64_t seed)
{
        int file = tk_work_create(work, "data");

        tk_work_fallocate(work, file, 0, 0, 40 * BLOCK);
        beside.seed = seed;
        for (unsigned i = 0; i < 8; i++) {
                tk_work_close(work, file);
                file = tk_work_open(work, "data");
                tk_work_write(work, file, UINT64_C(3) * i * BLOCK, BLOCK, i);
                sync_beside(work, file, 1, (UINT64_C(3) * i + 1) * BLOCK, 1);
                if (i % 2)
                        tk_work_write(work, file, (3 * i + 2) * BLOCK, BLOCK, 100 + i);
                tk_work_fsync(work, file);
        }
}

/* One write for a hole and for data behind it, within a group and over the end of one. */
void tk_workload_fill_before_data(struct tk_work *work, uint64_t seed)
{
        static const char *names[] = {"a", "b"};

        (void)seed;
        for (unsigned i = 0; i < 2; i++) {
                uint64_t hole = i ? GROUP - BLOCK : 4 * BLOCK;
                int file = tk_work_create(work, names[i]);

                tk_work_fallocate(work, file, 0, 0, GROUP + 4 * BLOCK);
                tk_work_write(work, file, hole + BLOCK, 2 * BLOCK, 1);
                tk_work_fsync(work, file);
                tk_work_fsyncdir(work, "");
                tk_work_remount(work);
                file = tk_work_open(work, names[i]);
                tk_work_write(work, file, hole, 2 * BLOCK, 2);
                tk_work_fsync(work, file);
                tk_work_close(work, file);
        }
}

/* Each block of a hole once, the daemon killed now and then: what is in place stays. */
void tk_workload_fill_killed(struct tk_work *work, uint64_t seed)
{
        bool used[24] = {false};
        bool journaled = true; /* what is written from now on */
        int file = tk_work_create(work, "data");

        tk_work_fallocate(work, file, 0, 0, sizeof(used) * BLOCK);
        tk_work_fsync(work, file);
        tk_work_fsyncdir(work, "");
        for (unsigned i = 0; i < 24; i++) {
                uint64_t block = chance(&seed, 3) ? chance(&seed, sizeof(used)) : 0;

                while (block < sizeof(used) && used[block])
                        block++;
                if (block < sizeof(used)) {
                        used[block] = true;
                        tk_work_write(work, file, block * BLOCK, BLOCK, i + 1);
                }
                switch (chance(&seed, 6)) {
                case 0:
                        if (journaled)
                                tk_work_fsync(work, file);
                        tk_work_kill(work, -1);
                        file = tk_work_open(work, "data");
                        journaled = false;
                        break;
                case 1:
                        tk_work_close(work, file);
                        file = tk_work_open(work, "data");
                        break;
                case 2:
                        tk_work_fdatasync(work, file);
                        tk_work_fsync(work, file);
                        journaled = true;
                        break;
                default:
                        break;
                }
        }
}

/* Anything ---------------------------------------------------------------------------------- */

static void change_size(struct tk_work *work, int file, uint64_t span, uint64_t *seed)
{
        switch (chance(seed, 4)) {
        case 0:
                tk_work_truncate(work, file, 0);
                break;
        case 1:
                tk_work_truncate(work, file, 1 + chance(seed, span));
                break;
        case 2:
                tk_work_truncate(work, file, span - chance(seed, 5000));
                break;
        default:
                tk_work_fallocate(work, file, 0, 0, span - chance(seed, 5000));
                break;
        }
}

/* Two sparse files, and whatever comes to mind. */
void tk_workload_anything(struct tk_work *work, uint64_t seed)
{
        static const char *names[] = {"a", "b"};
        static const uint64_t span[] = {GROUP + 12 * BLOCK, 14 * BLOCK};
        int file[2];

        for (unsigned f = 0; f < 2; f++) {
                file[f] = tk_work_create(work, names[f]);
                tk_work_write(work, file[f], 0, 1 + chance(&seed, 3 * BLOCK), f);
                tk_work_fallocate(work, file[f], 0, 0, span[f]);
                tk_work_fsync(work, file[f]);
        }
        tk_work_fsyncdir(work, "");
        beside.seed = seed;
        for (unsigned i = 0; i < 40; i++) {
                unsigned f = chance(&seed, 4) == 0;
                uint64_t base = f == 0 ? chance(&seed, 2) * (GROUP - 4 * BLOCK) : 0;
                uint64_t off = base + chance(&seed, 9) * BLOCK;

                switch (chance(&seed, 12)) {
                case 0:
                case 1:
                        tk_work_close(work, file[f]);
                        if (chance(&seed, 2))
                                go_idle();
                        file[f] = tk_work_open(work, names[f]);
                        break;
                case 2:
                        change_size(work, file[f], span[f], &seed);
                        break;
                case 3:
                        tk_work_fallocate(work, file[f],
                                          chance(&seed, 3) ? punch : FALLOC_FL_ZERO_RANGE, off,
                                          (1 + chance(&seed, 4)) * BLOCK);
                        break;
                case 4:
                        tk_work_fdatasync(work, file[f]);
                        break;
                case 5:
                        sync_beside(work, file[f], 1 + (unsigned)chance(&seed, 3), off, 3);
                        break;
                case 6:
                        if (chance(&seed, 3))
                                break;
                        tk_work_remount(work);
                        for (unsigned g = 0; g < 2; g++)
                                file[g] = tk_work_open(work, names[g]);
                        break;
                case 7:
                case 8:
                        tk_work_write(work, file[f], off + chance(&seed, 4000),
                                      1 + chance(&seed, 9000), 100 + i);
                        break;
                default:
                        tk_work_write(work, file[f], off, (1 + chance(&seed, 3)) * BLOCK, 100 + i);
                        break;
                }
        }
}

void tk_workload_write_during_sync(struct tk_work *work, uint64_t seed)
{
        int file = durable_file(work, "data", 3 * BLOCK);

        beside.seed = seed;
        for (unsigned i = 0; i < 8; i++) {
                uint64_t from = (3 + UINT64_C(2) * i) * BLOCK;

                tk_work_write(work, file, from, 2 * BLOCK, i);
                if (i % 2)
                        tk_work_write(work, file, chance(&seed, 3) * BLOCK, BLOCK, 100 + i);
                sync_beside(work, file, 3, from, 2);
        }
}
