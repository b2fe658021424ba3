/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Without privilege, a mode that forbids its owner something forbids it to the daemon,
 * too: it is lifted for the moment. One mode at a time, so that what is put back is
 * what was there; and whatever crashes meanwhile, the next start puts it back.
 * Thread-safe; the lock is the last one taken.
 */

#include "fs/fs.h"
#include <sys/stat.h>

struct tk_lift {
        struct tk_fs *fs;
        int fd;        /* borrowed */
        mode_t mode;   /* what it was */
        int notes_fd;  /* where the note is; -1: there is none */
        char note[20]; /* its name */
};

/*
 * Add @bits to the mode of the backing file @fd, until tk_lift_end. -EACCES if it is
 * another user's, -EROFS on a read-only filesystem: then there is nothing to end.
 * Meanwhile no inode is renamed, and no other lock may be taken.
 */
TK_MUST_USE int tk_lift_begin(struct tk_fs *fs, int fd, mode_t bits, struct tk_lift *ret_lift);
TK_MUST_USE int tk_lift_end(struct tk_lift *lift);

/* At the start: put back what a crash left lifted. What can't be is logged, and tried again. */
void tk_lift_undo_all(struct tk_fs *fs);

/* fstatat(2), or fstat with the name "": never sees a mode that is lifted. 0 or -errno. */
TK_MUST_USE int tk_lift_stat(struct tk_fs *fs, int dirfd, const char *name, struct stat *ret_st);

/* As tk_backing_getxattr and setxattr, where the mode may forbid its owner to read or write. */
TK_MUST_USE ssize_t tk_lift_getxattr(struct tk_fs *fs, int fd, const char *name, void *value,
                                     size_t max);
TK_MUST_USE int tk_lift_setxattr(struct tk_fs *fs, int fd, const char *name, const void *value,
                                 size_t len, int flags);
