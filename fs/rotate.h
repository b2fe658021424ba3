/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Rotation: a new KEK version, every DEK rewrapped under it, the old ones retired.
 *
 * The root key's new version (or another root key, of another provider) protects
 * the new KEK version. Works on a mount in use and on an unmounted volume, and
 * goes on where an interrupted rotation stopped.
 */

#include "fs/fs.h"
#include <stdatomic.h>

enum { TK_ROTATE_OLDER_MAX = 8 };

/* Files whose record names that KEK version; 0: any other, or one that can't be read. */
struct tk_rotate_older {
        uint16_t version;
        uint64_t files;
};

struct tk_rotate_progress {
        unsigned passes;      /* walks over the tree, the one under way included */
        uint64_t files;       /* seen in this pass; directories with a record count as files */
        uint64_t rewrapped;   /* in all passes */
        uint64_t failed;      /* in this pass: those whose record could not be rewrapped */
        uint16_t kek_version; /* that files are being rewrapped to */
        struct tk_rotate_older older[TK_ROTATE_OLDER_MAX]; /* the failed ones; unused: no files */
        bool done;                                         /* the old versions are retired */
};

struct tk_rotate_options {
        struct tk_kms *kms; /* protects the new KEK version; borrowed for the life of the volume */
        bool even_if_current;    /* a new KEK version although the root key's version is the same */
        unsigned files_per_s;    /* 0: as fast as it goes */
        const atomic_bool *stop; /* checked often; NULL: never */
        void (*progress)(void *context, const struct tk_rotate_progress *progress); /* or NULL */
        void *context;
};

/*
 * Returns 0 with @ret_progress: done, nothing to do (no pass) or incomplete, because
 * records could not be rewrapped: the first few are logged, the progress has their number.
 * -ECANCELED if it was stopped; what was done stays. One rotation at a time per filesystem.
 */
TK_MUST_USE int tk_rotate_run(struct tk_fs *fs, const struct tk_rotate_options *options,
                              struct tk_rotate_progress *ret_progress, struct tk_fault *fault);
