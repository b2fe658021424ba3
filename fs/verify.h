/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Verify: authenticate every block of every file of a volume that is not mounted.
 */

#include "fs/fs.h"

enum tk_verify_kind {
        TK_VERIFY_BLOCK,       /* blocks that do not authenticate, or can't be read */
        TK_VERIFY_RECORD,      /* no usable key record: the file can't be opened */
        TK_VERIFY_RECORD_LOST, /* attribute or copy missing or damaged; the other one serves */
        TK_VERIFY_ATTRIBUTE,   /* an encrypted attribute that does not authenticate */
        TK_VERIFY_TARGET,      /* a symlink's target that does not authenticate */
        TK_VERIFY_UNREADABLE,  /* the backing filesystem refuses the file or directory */
};

struct tk_verify_finding {
        enum tk_verify_kind kind;
        const char *path; /* below CIPHERDIR/root, without a leading slash */
        uint64_t offset;  /* plaintext range, for TK_VERIFY_BLOCK */
        uint64_t length;
        const char *attribute; /* its name, or what it is stored as; for TK_VERIFY_ATTRIBUTE */
        int error;             /* negative errno */
};

struct tk_verify_totals {
        uint64_t files;
        uint64_t directories;
        uint64_t others;
        uint64_t bytes; /* plaintext */
        uint64_t bad_blocks;
        uint64_t findings;
};

struct tk_verify_callbacks {
        void (*finding)(void *context, const struct tk_verify_finding *finding);
        void (*progress)(void *context,
                         const struct tk_verify_totals *so_far); /* often; may be NULL */
        void *context;
};

/* Returns 0 if the walk came to its end, whatever it found; the totals say. */
TK_MUST_USE int tk_verify_run(struct tk_fs *fs, const struct tk_verify_callbacks *callbacks,
                              struct tk_verify_totals *ret_totals, struct tk_fault *fault);
