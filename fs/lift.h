/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Without privilege, a mode that forbids its owner something forbids it to the daemon,
 * too: it is lifted for the moment. One mode at a time, so that what is put back is
 * what was there. Thread-safe; the lock is the last one taken.
 */

#include "fs/fs.h"
#include <sys/types.h>

struct tk_lift {
        struct tk_fs *fs;
        int fd;
        mode_t mode; /* what it was */
};

/*
 * Add @bits to the mode of the backing file @fd, until tk_lift_end. -EACCES if it is
 * another user's, -EROFS on a read-only filesystem: then there is nothing to end.
 */
TK_MUST_USE int tk_lift_begin(struct tk_fs *fs, int fd, mode_t bits, struct tk_lift *ret_lift);
TK_MUST_USE int tk_lift_end(struct tk_lift *lift);

/* As tk_backing_getxattr, where the mode may forbid its owner to read. */
TK_MUST_USE ssize_t tk_lift_getxattr(struct tk_fs *fs, int fd, const char *name, void *value,
                                     size_t max);
