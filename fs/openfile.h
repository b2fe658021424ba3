/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Open files: one entry per backing inode in use, shared by all its handles.
 *
 * It holds the backing descriptor, the DEK, the plaintext size and the range
 * lock. Thread-safe; the fields are for fs/ content code, under the locks named.
 */

#include "crypto/record.h"
#include "fs/inode.h"
#include "fs/journal_batch.h"
#include "fs/rangelock.h"
#include <stdatomic.h>

/* What the journal knows of an open file; under its lock, unless it says otherwise. */
struct tk_openfile_journal {
        _Atomic uint32_t overlay;       /* blocks whose newest content is not in place yet */
        _Atomic uint64_t overlay_gen;   /* counts blocks that came in place */
        _Atomic uint64_t sequence;      /* of the batch with the newest entry; 0: none */
        _Atomic uint64_t size_sequence; /* of the batch with the newest size entry */
        _Atomic int64_t touched_ns;     /* when the newest journaled write was, since the epoch */
        atomic_bool punched;            /* there was an entry of a hole */
        uint64_t batch;                 /* the batch that `index` is for */
        uint16_t index;
        uint8_t areas;     /* bits: which areas hold a reference */
        unsigned failures; /* the thread's and leader's: flush failures before these entries */
        atomic_int held;   /* why it can't be put in place (journal_held.c); 0: it can */
        bool proved;
        bool identified; /* the leader's, as identity */
        struct tk_identity identity;
        uint8_t proof[TK_JOURNAL_PROOF_LEN];
};

/* The seal slots of an open file (seal.c); under a range with block 0. */
struct tk_openfile_seal {
        int binding; /* the slot that binds after a crash now; -1: none */
        uint16_t binding_sequence;
        uint16_t sequence; /* the newest */
        bool found;        /* while loading: something binds */
        uint16_t found_sequence;
        uint64_t binding_length;
        uint64_t newest_length; /* TK_SEAL_STALE: none says anything of the file as it is */
        uint32_t newest_mount;  /* of a close; 0: the newest seal is an fsync's */
};

struct tk_openfile {
        struct tk_openfile *prev; /* under the open-file lock of fs: all open files */
        struct tk_openfile *next;
        struct tk_inode *inode; /* a counted reference */
        int fd;                 /* read-write if `writable` */
        bool writable;          /* under the open-file lock of fs */
        unsigned refs;          /* under the open-file lock of fs */
        bool loading;           /* under the open-file lock of fs */
        int load_error;         /* under the open-file lock of fs */

        uint64_t base; /* backing offset of group 0: the filesystem's, see fs_internal.h */
        _Atomic(struct tk_secret *) dek; /* NULL: wiped; dropped under a range of everything */
        pthread_mutex_t dek_lock;        /* one thread brings it back */
        struct tk_record record;         /* changed under block 0, exclusively, and dek_lock */
        bool twin_old;                   /* attribute and copy may differ; as record */
        _Atomic uid_t owner;             /* whom space is charged to */
        pthread_mutex_t times_lock;      /* setting times against writes of ours that keep them */
        struct timespec mtime;           /* as the kernel has it; under times_lock */

        struct tk_rangelock ranges; /* of blocks; block 0 stands for record and header as well */
        _Atomic uint64_t size;      /* plaintext bytes; changed under an exclusive range */
        atomic_bool has_header; /* group 0 exists; changed under an exclusive range with block 0 */
        unsigned writers;       /* under the open-file lock of fs: handles that may write */

        /*
         * Blocks below this go through the journal when they are written, but for holes of a file
         * that no fsync was begun of; it is raised when an fsync begins, under a range of
         * everything. TK_ALL_DURABLE: every block, since a change of size is in the journal.
         */
        _Atomic uint64_t durable;
        atomic_bool sync_begun;          /* since it was loaded; set as `durable` is raised */
        atomic_uint flush_failures;      /* of flushes of `fd`: the kernel tells only once */
        atomic_uint flush_reported;      /* of these, what a sync has returned */
        atomic_int flush_error;          /* the last */
        atomic_uint cuts;                /* how often it was cut */
        atomic_bool unsynced;            /* changed in place since the backing file was synced */
        atomic_bool attributes_unsynced; /* the same of what an fsync covers beside content */
        atomic_bool mtime_unsynced;
        struct tk_rangelock syncs;   /* held by a sync from its decision what to flush to the end */
        struct tk_rangelock flushes; /* around each flush of `fd`, and taking note of its outcome */
        struct tk_openfile_journal journal;

        _Atomic uint64_t sealed;     /* bytes that are sealed: no block below may be missing */
        _Atomic uint64_t tags_taken; /* the group whose tag page has space, and 1; 0: not known */
        _Atomic uint64_t solid;      /* blocks from the first on that have cells in place */
        _Atomic uint64_t synced_len; /* bytes that a finished sync made durable */
        atomic_bool unsealed;        /* changed since the newest seal */
        int seal_error;              /* of loading: -EUCLEAN if the seal does not hold */
        struct tk_openfile_seal seal;
};

#define TK_ALL_DURABLE UINT64_MAX
#define TK_SEAL_STALE UINT64_MAX

/*
 * The open file of @inode, for writing if @writable; one more reference. The
 * first opener reads the key record; others wait for it. -EIO if no usable
 * record is there (logged once).
 */
TK_MUST_USE int tk_openfile_get(struct tk_fs *fs, struct tk_inode *inode, bool writable,
                                struct tk_openfile **ret_file);

/*
 * The same for a file just made, whose descriptor @fd, record and status are at hand;
 * takes over @fd and @dek, also on failure.
 */
TK_MUST_USE int tk_openfile_adopt(struct tk_fs *fs, struct tk_inode *inode, int fd,
                                  struct tk_secret *dek, const struct tk_record *record,
                                  const struct stat *st, struct tk_openfile **ret_file);

void tk_openfile_put(struct tk_fs *fs, struct tk_openfile *file);

/* One more reference to a file that is held open already. */
struct tk_openfile *tk_openfile_ref(struct tk_fs *fs, struct tk_openfile *file);

/*
 * The backing file's mtime becomes what the kernel has, which decides with its writeback cache:
 * when it was written is not when we were given it. For the end of a handle, behind all that
 * was written through it.
 */
void tk_openfile_keep_mtime(struct tk_openfile *file);

/* What applications see of @file that its backing file does not show: size, and mtime. */
void tk_openfile_present(const struct tk_openfile *file, struct stat *st);

/* Whether there are only @count references. */
bool tk_openfile_is_last(struct tk_fs *fs, struct tk_openfile *file, unsigned count);

/* Attributes of @inode have changed: an fsync of it, if it is open, must sync them. */
void tk_openfile_note_attributes(struct tk_fs *fs, struct tk_inode *inode);

/* The open file if there is one, with one more reference; NULL otherwise. */
struct tk_openfile *tk_openfile_peek(struct tk_fs *fs, struct tk_inode *inode);

/*
 * Have the DEK in @file->dek, unwrapped again if it was wiped. The caller holds a
 * range of the file, so that it stays. What the keyring says if it can't be had.
 */
TK_MUST_USE int tk_openfile_need_dek(struct tk_fs *fs, struct tk_openfile *file);

/*
 * Every file that is open throughout, each with a reference; not those that are opened
 * meanwhile. Stops at the first @visit that does not return 0, and returns that.
 */
TK_MUST_USE int tk_openfile_for_each(struct tk_fs *fs,
                                     int (*visit)(void *context, struct tk_openfile *file),
                                     void *context);

/* Wipe the DEKs of all open files, each when no request uses it any more. */
void tk_openfile_wipe_all(struct tk_fs *fs);

/* The kernel is gone: let go of what it left open. */
void tk_openfile_put_all(struct tk_fs *fs);

/*
 * An open file outside the table, for verify: @fd is taken over, also on failure.
 */
TK_MUST_USE int tk_openfile_load_alone(struct tk_fs *fs, int fd, struct tk_openfile **ret_file);
struct tk_openfile *tk_openfile_free_alone(struct tk_openfile *file);
