/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Identity of a backing file: what finds it again after a crash, whatever became of its
 * name. A file handle where this process may use them, and the inode number always.
 */

#include "base/cleanup.h"
#include <stdint.h>

enum { TK_IDENTITY_HANDLE_MAX = 32 };

struct tk_identity {
        uint64_t ino;
        int32_t handle_type;
        uint16_t handle_len; /* 0: there is no handle */
        uint8_t handle[TK_IDENTITY_HANDLE_MAX];
};

/* The identity of the file that @fd is open on; without a handle unless @with_handle. */
TK_MUST_USE int tk_identity_read(int fd, bool with_handle, struct tk_identity *ret_identity);

/* Whether this process may open by handle in the filesystem of @rootfd. */
bool tk_identity_handles_work(int rootfd);

/* A descriptor by handle, in the filesystem of @rootfd; -ESTALE: the file is gone. */
TK_MUST_USE int tk_identity_open(int rootfd, const struct tk_identity *identity, int flags);

/*
 * A number for the tree below @rootfd, so that handles and inode numbers are used in it alone:
 * in a copy on the same filesystem they lead to the files of the original. 0: no number.
 */
uint64_t tk_identity_tree(int rootfd);
