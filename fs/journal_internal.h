/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the parts of the journal share: journal.c (entries, overlay, life), journal_flush.c
 * (the leader) and journal_thread.c (in place, areas).
 */

#include "base/secret.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/openfile.h"
#include <limits.h>
#include <time.h>

enum {
        TK_JOURNAL_BATCHES = 4, /* one being filled, one being flushed, two on their way in place */
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

struct tk_journal_batch {
        uint64_t sequence;
        struct tk_journal_pending *entries;
        unsigned count;
        uint8_t *pages;
        unsigned page_count;
        struct tk_openfile *files[TK_JOURNAL_FILES_MAX]; /* counted */
        unsigned file_count;
        bool busy;
        bool applying; /* the thread puts it in place just now */
};

struct tk_journal_area {
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
        char root_path[PATH_MAX];             /* of CIPHERDIR/root, for path hints */
        uint8_t *descriptor;                  /* the leader's */
        const struct tk_journal_item **items; /* the thread's */
        pthread_t thread;

        pthread_mutex_t lock;
        pthread_cond_t changed;
        struct tk_journal_batch batches[TK_JOURNAL_BATCHES];
        struct tk_journal_batch *building;
        struct tk_journal_batch *unflushed; /* its flush failed: it goes first */
        struct tk_journal_batch
                *queue[TK_JOURNAL_BATCHES]; /* flushed, not in place, oldest first */
        bool flushing;                      /* there is a leader */
        bool stop;
        bool removed;     /* a file lost a name, and may be in a batch */
        bool finishing;   /* somebody waits for an empty journal */
        bool area_failed; /* the leader's: a write to the current area failed */
        unsigned queued;
        int finished; /* what came of it */
        int failure;
        int stuck;              /* putting in place fails with this */
        unsigned failures;      /* flushes that failed */
        unsigned current;       /* area */
        uint64_t last_sequence; /* handed out */
        uint64_t flushed;       /* sequences up to this are durable in the journal */
        uint64_t applied;       /* and up to this in place */
        _Atomic uint64_t dead;  /* and up to this not in the journal any more */
        uint64_t failed;        /* the sequence of the last flush that failed */
        int64_t filled_ms;      /* when the batch being filled got its first entry */
        int64_t active_ms;      /* when the last flush ended */
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
        struct tk_openfile *files[2 * TK_JOURNAL_AREA_FILES + TK_JOURNAL_FILES_MAX];
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

/* Whether somebody may become the leader. Called with the lock held, as those below. */
bool tk_journal_may_flush(struct tk_journal *journal);

/*
 * Become the leader for the oldest batch that is not durable; the lock is let go of
 * meanwhile.
 */
TK_MUST_USE int tk_journal_flush_next(struct tk_journal *journal);

/* Have every batch up to @sequence durable. */
TK_MUST_USE int tk_journal_commit_until(struct tk_journal *journal, uint64_t sequence);

/* The thread. @context is the journal. */
void *tk_journal_run(void *context);
