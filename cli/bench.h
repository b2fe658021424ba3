/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * `bench`: the same work in a plain directory and in an encrypted one, side by side.
 *
 * bench_place.c makes both and takes them away, bench_rows.c does the work.
 */

#include "base/fault.h"
#include <stdbool.h>
#include <stdint.h>

/* What is measured; its order is that of the work. */
enum tk_bench_row {
        TK_BENCH_SEQ_WRITE,
        TK_BENCH_SEQ_READ,
        TK_BENCH_SEQ_REREAD,
        TK_BENCH_RANDOM_READ,
        TK_BENCH_RANDOM_WRITE,
        TK_BENCH_SYNCED_WRITE,
        TK_BENCH_CREATE,
        TK_BENCH_STAT,
        TK_BENCH_READ_SMALL,
        TK_BENCH_REMOVE,
        TK_BENCH_ROWS,
};

/* A name for programs, a title for people, and the unit of its values, of which more is better. */
struct tk_bench_text {
        const char *name;
        const char *title;
        const char *unit;
};
extern const struct tk_bench_text tk_bench_texts[TK_BENCH_ROWS];

/* How much is done at most; a row also ends when its time is up. */
struct tk_bench_size {
        uint64_t file_len; /* of the large file: a multiple of 1 MiB */
        unsigned random;   /* reads or writes at random places */
        unsigned synced;   /* writes with an fdatasync each */
        unsigned files;    /* small ones */
        unsigned row_ms;
};

struct tk_bench_values {
        double of[TK_BENCH_ROWS];
};

/* Where to work, and how to make what was written so far cold. */
struct tk_bench_side {
        const char *root;
        int (*cold)(void *context, struct tk_fault *fault);
        void *context;
};

/* A signal asked for the end. */
bool tk_bench_stopped(void);

/*
 * All rows once, in the order of the enum, into @ret_values. Leaves nothing in @side's root.
 * -EINTR if tk_bench_stopped().
 */
TK_MUST_USE int tk_bench_run(const struct tk_bench_side *side, const struct tk_bench_size *size,
                             struct tk_bench_values *ret_values, struct tk_fault *fault);

/* The folders, and the mount of the encrypted one. */
struct tk_bench_place {
        char *disk;      /* in the directory that is measured */
        char *temporary; /* keystore, configuration, mountpoint */
        char *plain;
        char *cipherdir;
        char *mountpoint;
        char *conf;
        bool mounted;
};

/*
 * Make folders in @directory and in the one for temporary files, and a volume. To be
 * followed by tk_bench_place_remove in any case.
 */
TK_MUST_USE int tk_bench_place_make(const char *directory, struct tk_bench_place *ret_place,
                                    struct tk_fault *fault);

TK_MUST_USE int tk_bench_place_mount(struct tk_bench_place *place, struct tk_fault *fault);
TK_MUST_USE int tk_bench_place_unmount(struct tk_bench_place *place, struct tk_fault *fault);

/* Unmount and remove all of it, and free the paths. An error names what is left. */
TK_MUST_USE int tk_bench_place_remove(struct tk_bench_place *place, struct tk_fault *fault);

/* Write out what is in the files below @folder, and let the kernel forget their content. */
TK_MUST_USE int tk_bench_place_forget(const char *folder, struct tk_fault *fault);
