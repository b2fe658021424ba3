/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The fields of struct tk_fs, for fs/ only. */

#include "fs/epoch.h"
#include "fs/fs.h"
#include "fs/inode.h"

enum { TK_SIBLING_STRIPES = 64 };

struct tk_fs {
        struct tk_volume *volume;   /* borrowed */
        struct tk_keyring *keyring; /* the volume's */
        int rootfd;                 /* CIPHERDIR/root */
        bool read_only;
        uint16_t mount_number; /* written into every cell */
        uint64_t base;         /* backing offset of group 0: 0, or a page with dek_wrap = kms */
        struct tk_stats stats;
        struct tk_inode_table *inodes;
        bool names_encrypted; /* the volume's */
        bool sync_siblings;   /* the backing filesystem does not order them by itself */
        struct tk_dirkeys *dirkeys;
        bool ended;                   /* open files are only let go of */
        atomic_bool seals_missing;    /* a file could not be sealed: no clean end */
        struct tk_journal *journal;   /* NULL: overwrites are not journaled */
        struct tk_journal_kept *kept; /* NULL: no file is held back (journal_kept.h) */
        pthread_mutex_t sibling_locks[TK_SIBLING_STRIPES];

        pthread_mutex_t lift_lock; /* lift.h */

        pthread_mutex_t keeper_lock;
        struct tk_keeper *keeper; /* under keeper_lock: while mounted */

        _Atomic int64_t lease_until_ms; /* by tk_clock_ms: requests wait for the keeper after it */
        _Atomic int gate;               /* what requests are refused with; 0: they are served */
        atomic_bool gate_draining;      /* but writeback still passes */

        struct tk_epoch changes;       /* what makes key records, or moves names */
        atomic_bool rotating;          /* a pass over the tree is under way */
        _Atomic uint64_t rotate_moves; /* what moved unseen meanwhile: the pass must be repeated */

        pthread_mutex_t openfiles_lock; /* guards inode -> open file and the counts in it */
        pthread_cond_t openfiles_loaded;
        struct tk_openfile *openfiles; /* under openfiles_lock: all of them */
        struct tk_dir *dirs;           /* under openfiles_lock: all open directories */
};

/*
 * Whether backing paths stay out of the log: with names = plain they are what applications call
 * their files, which is said only where [log] names allows it.
 */
bool tk_fs_hides_paths(const struct tk_fs *fs);

/* What the log calls the backing file @fd: its path, or else its inode. */
void tk_fs_log_path(const struct tk_fs *fs, int fd, char *path, size_t max);
