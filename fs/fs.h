/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One filesystem: an unlocked volume, the table of inodes and the counters.
 *
 * The operations (op_*.h) work on it without knowing FUSE; `verify` uses it
 * without a mount.
 */

#include "fs/stats.h"
#include "fs/volume.h"
#include <limits.h>

struct tk_fs; /* fs.c; fields in fs_internal.h for fs/ itself */

struct tk_fs_options {
        bool read_only;
        bool relaxed;         /* durability = relaxed: overwrites are not journaled */
        bool keep_journal;    /* nothing is replayed: for who writes no content */
        uint64_t journal_len; /* bytes of a journal that has to be made; 0: the default */
};

/*
 * @volume is borrowed and must be unlocked (tk_volume_unlock). What an earlier mount left
 * in its journal is put in place, also if @options say read_only; but for keep_journal.
 */
TK_MUST_USE int tk_fs_new(struct tk_volume *volume, const struct tk_fs_options *options,
                          struct tk_fs **ret_fs, struct tk_fault *fault);

/*
 * The end of a mount: make everything durable where it belongs. After an error the mount has
 * not ended cleanly, nor after TK_FS_UNSEALED: a file could not be sealed, since its key is
 * gone. The next mount makes up for it.
 */
enum { TK_FS_UNSEALED = 1 };
TK_MUST_USE int tk_fs_finish(struct tk_fs *fs, struct tk_fault *fault);
struct tk_fs *tk_fs_free(struct tk_fs *fs);
TK_DEFINE_CLEANUP(struct tk_fs *, tk_fs_free)

const struct tk_stats *tk_fs_stats(const struct tk_fs *fs);

/*
 * Files whose overwrites wait in the journal: how many of those in use can't be written or synced
 * now, where the first of them lies below and why (errno, negative); and how many are to have what
 * is kept of them put in place before they are served again.
 */
struct tk_held_status {
        unsigned held;
        unsigned kept;
        char path[PATH_MAX];
        int error;
};
void tk_fs_held_status(struct tk_fs *fs, struct tk_held_status *ret_status);

/* How a journal is, for people and machines. */
struct tk_journal_status {
        uint64_t len;            /* bytes that it has on disk */
        uint64_t waiting_bytes;  /* of blocks that are not in place yet */
        uint64_t waiting;        /* entries that are not in place yet */
        unsigned batches;        /* that they are in */
        int64_t oldest_ms;       /* since the oldest of them came; 0: there is none */
        uint64_t flush_failures; /* since the mount began */
        bool stuck;              /* entries can't be put in place: overwrites wait */
};

/* How full the mount is and how its journal is. */
struct tk_fs_load {
        size_t cached_deks;               /* with dek_wrap = kms */
        bool has_journal;                 /* no: read-only, or durability = relaxed */
        struct tk_journal_status journal; /* if there is one */
};
void tk_fs_look(struct tk_fs *fs, struct tk_fs_load *ret_load);

/* What the mount's keeper says (keeper.h); false: there is none now. */
struct tk_keeper_status;
bool tk_fs_keeper_status(struct tk_fs *fs, struct tk_keeper_status *ret_status);

/* As tk_keeper_set_windows, of the mount's keeper, if there is one. */
void tk_fs_set_windows(struct tk_fs *fs, int64_t grace_ms, int64_t rotation_window_ms);
