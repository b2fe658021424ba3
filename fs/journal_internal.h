/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the parts of the journal share: journal.c (entries, overlay, life), journal_flush.c
 * (the leader), journal_thread.c (in place, areas) and journal_held.c (files that fail).
 */

#include "base/secret.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/openfile.h"
#include <limits.h>
#include <stdatomic.h>
#include <time.h>

enum {
        TK_JOURNAL_BATCHES = 4, /* one being filled, the others full and on their way in place */
        TK_JOURNAL_BUCKETS = 2048,
        TK_JOURNAL_AREA_FILES = 512, /* files that an area may hold open, at most */
};

struct tk_journal_batch;

struct tk_journal_pending {
        struct tk_journal_item item; /* first: an array of these is one of items for apply */
        struct tk_openfile *file;
        struct tk_journal_batch *batch;
        struct tk_journal_pending *next; /* in its bucket, while linked */
        bool linked;                     /* the newest entry of its block: reads see it */
        bool keep_space;                 /* of a hole: its block is written again */
};

/* Where a file was when a batch was written; the leader's. */
struct tk_journal_hint {
        unsigned names; /* how often names had changed then; 0: not looked for */
        uint16_t len;
        char path[TK_JOURNAL_PATH_MAX];
};

/* What one flush makes durable: entries and pages, the first and the one behind the last. */
struct tk_journal_part {
        uint64_t sequence;
        unsigned first;
        unsigned end;
        unsigned first_page;
        unsigned end_page;
};

/*
 * Entries in memory. Each flush writes the part that is not durable yet, as a batch of its
 * own on disk; what follows is added behind it. In place it all goes at once, so that a block
 * that is overwritten again and again is written there once.
 */
struct tk_journal_batch {
        uint64_t id; /* no other has it: the sequence of its first part */
        struct tk_journal_pending *entries;
        unsigned count;
        uint8_t *pages;
        unsigned page_count;
        struct tk_openfile *files[TK_JOURNAL_FILES_MAX]; /* counted */
        struct tk_journal_hint *hints;                   /* of the files */
        unsigned file_count;
        struct tk_journal_part part; /* flushed last; entries below its end don't change */
        unsigned flushed;            /* entries below are durable in the journal */
        unsigned applied;            /* entries below are in place */
        int64_t began_ms;            /* when its first entry came */
        bool busy;
        bool applying; /* the thread puts it in place just now */
};

/* Entries of a file that is held: a batch of its own, with one file. */
struct tk_journal_held {
        struct tk_journal_held *next; /* of the same file or another, newer */
        struct tk_journal_batch batch;
};

struct tk_journal_area {
        uint64_t chain; /* of its batches */
        struct tk_openfile
                *files[TK_JOURNAL_AREA_FILES]; /* counted: in place, perhaps not durable there */
        unsigned file_count;
        uint64_t last_sequence; /* 0: no batch */
        bool checkpointed;      /* all in place and durable there; the first page is wiped */
        bool dead;              /* and the wiping is durable */
        int error;              /* a file could not be synced: the area must stay as it is */
};

struct tk_journal {
        struct tk_fs *fs;
        int fd;
        struct tk_secret *mac_key;
        uint64_t area_len;
        uint64_t tree;
        unsigned pages_max;  /* of data in a batch */
        unsigned files_max;  /* in a batch */
        unsigned area_files; /* in an area */
        bool by_handle;
        bool has_thread;
        char root_path[PATH_MAX];               /* of CIPHERDIR/root, for path hints */
        uint8_t *descriptor;                    /* the leader's */
        uint16_t numbers[TK_JOURNAL_FILES_MAX]; /* the leader's: of files in the part, or NO_FILE */
        const struct tk_journal_item **items;   /* the thread's */
        pthread_t thread;

        pthread_mutex_t lock;
        pthread_cond_t changed;
        pthread_cond_t due; /* the thread's: there is something to do for it */
        struct tk_journal_batch batches[TK_JOURNAL_BATCHES];
        struct tk_journal_batch *building;
        struct tk_journal_batch *unflushed; /* the flush of its part failed: that goes first */
        struct tk_journal_batch *queue[TK_JOURNAL_BATCHES]; /* full, not in place, oldest first */
        bool flushing;                                      /* there is a leader */
        bool idle;                                          /* the thread sleeps until called */
        bool stop;
        bool removed;     /* a file lost a name, and may be in a batch */
        bool finishing;   /* somebody waits for an empty journal */
        bool area_failed; /* the leader's: a write to the current area failed */
        unsigned queued;
        int finished; /* what came of it */
        int failure;
        int stuck;                    /* nothing can be put in place, because of this */
        struct tk_journal_held *held; /* oldest first; the thread changes it */
        size_t held_len;              /* the thread's: bytes of memory of that */
        unsigned held_files;
        unsigned tries;        /* how often all that is held was tried again */
        int64_t tried_ms;      /* the last time */
        bool retry;            /* somebody waits for the next */
        unsigned failures;     /* flushes that failed */
        unsigned current;      /* area */
        uint64_t filling;      /* the sequence of what is added now */
        uint64_t wanted;       /* somebody waits until everything up to this is in place */
        uint64_t flushed;      /* sequences up to this are durable in the journal */
        uint64_t applied;      /* and up to this in place */
        _Atomic uint64_t dead; /* and up to this not in the journal any more */
        uint64_t failed;       /* the sequence of the last flush that failed */
        atomic_uint names;     /* counts changes of names, from 1 */
        int64_t filled_ms;     /* when the first entry came that is not in a part */
        int64_t active_ms;     /* when the last flush ended */
        int64_t dropped_ms;    /* the thread's: when it last looked for removed files */
        struct tk_journal_pending *buckets[TK_JOURNAL_BUCKETS];
        struct tk_journal_area areas[2];
        uint64_t off;   /* the leader's: in the current area */
        uint64_t chain; /* the leader's */
};

/* When batches and resets are due: milliseconds of a clock that nobody sets. */
static inline int64_t tk_journal_now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* References that are to be given back without the journal's lock held. */
struct tk_journal_release {
        struct tk_openfile *files[2 * TK_JOURNAL_AREA_FILES + 2 * TK_JOURNAL_FILES_MAX];
        unsigned count;
};

/* Give references back, without the journal's lock held. */
void tk_journal_release_all(struct tk_journal *journal, struct tk_journal_release *release);

/* Area @i on the disk holds nothing any more. Called with the lock held. */
void tk_journal_bury(struct tk_journal *journal, unsigned i, struct tk_journal_release *release);

/* @entry is no longer what reads see of its block. Called with the lock held. */
void tk_journal_unlink_entry(struct tk_journal *journal, struct tk_journal_pending *entry);

static inline uint64_t tk_journal_area_base(const struct tk_journal *journal, unsigned area)
{
        return area * journal->area_len;
}

/* Wipe the first page of an area, without a flush. */
TK_MUST_USE int tk_journal_wipe_area(struct tk_journal *journal, unsigned area);

/* @batch, which is free, is the one being filled from now on. */
void tk_journal_start_building(struct tk_journal *journal, struct tk_journal_batch *batch);

/* Put entries up to @end of file @index of @batch in place. Without the lock. */
TK_MUST_USE int tk_journal_put_file(struct tk_journal *journal,
                                    const struct tk_journal_batch *batch, unsigned end,
                                    unsigned index);

/* From here on the space of holes goes, but of those whose block is written again. */
void tk_journal_begin_applying(struct tk_journal_batch *batch, unsigned end);

/* Entries up to @end are in place, or held: reads need them no more. */
void tk_journal_unlink_applied(struct tk_journal *journal, struct tk_journal_batch *batch,
                               unsigned end);

/* The newest entry of a block. Called with the lock held, as those below. */
struct tk_journal_pending *tk_journal_find(struct tk_journal *journal,
                                           const struct tk_openfile *file, uint64_t block);

/* @entry is the newest of its block from now on. */
void tk_journal_link_entry(struct tk_journal *journal, struct tk_journal_pending *entry);

/* A batch that is free; NULL if there is none. */
struct tk_journal_batch *tk_journal_free_batch(struct tk_journal *journal);

/* Whether the batch being filled holds what no flush has taken on. */
static inline bool tk_journal_has_new(const struct tk_journal *journal)
{
        return journal->building->count > journal->building->part.end;
}

/*
 * Become the leader, for what a flush failed to write or else for what is new; there is no
 * leader. The lock is let go of meanwhile.
 */
TK_MUST_USE int tk_journal_flush_next(struct tk_journal *journal);

/* Have every batch up to @sequence durable. */
TK_MUST_USE int tk_journal_commit_until(struct tk_journal *journal, uint64_t sequence);

/*
 * Files that are held. The thread calls these without the lock; only it holds files.
 *
 * Hold the file @index of @batch (whose entries up to @end are flushed and not in place), or
 * @file (whose entries are all in place or in memory), because of @error.
 */
TK_MUST_USE int tk_journal_hold_unput(struct tk_journal *journal, struct tk_journal_batch *batch,
                                      unsigned end, unsigned index, int error);
TK_MUST_USE int tk_journal_hold_unsynced(struct tk_journal *journal, struct tk_openfile *file,
                                         int error);

/* What area @i holds of such files is kept: the area may be wiped then. */
TK_MUST_USE int tk_journal_keep_held(struct tk_journal *journal, unsigned i);

/* Try all again. Called with the lock held, which is let go of meanwhile. */
void tk_journal_retry_held(struct tk_journal *journal, struct tk_journal_release *release);

/*
 * If @file is held, have it tried again now; 0 if it is not held any more, else why it is. Called
 * with the lock held, which is let go of meanwhile.
 */
TK_MUST_USE int tk_journal_await_held(struct tk_journal *journal, const struct tk_openfile *file);

/* Why the first file is held; 0: none is. Called with the lock held. */
int tk_journal_held_error(const struct tk_journal *journal);

/* Free what is held, with its references. The thread is gone. */
void tk_journal_drop_held(struct tk_journal *journal);

/* The thread. @context is the journal. */
void *tk_journal_run(void *context);
