/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Verify, inside: the walk (verify.c) and what it does with each inode (verify_file.c). */

#include "fs/op.h"
#include "fs/verify.h"
#include "fs/verify_names.h"

struct tk_verify_walk {
        struct tk_fs *fs;
        const struct tk_verify_callbacks *callbacks;
        struct tk_verify_totals totals;
        struct tk_fault *fault; /* why, if it is more than `end` says */
        struct tk_scratch *scratch;
        char *path; /* of the file in hand, grown as needed */
        size_t path_max;
        int end; /* negative errno: the walk can't go on */
};

/* A directory in hand. */
struct tk_verify_dir {
        struct tk_verify_names names;
        struct tk_dir *served; /* beside a live mount: the same as the mount serves it; or NULL */
        struct tk_verify_bad_name {
                char backing[NAME_MAX + 1];
                int error;
        } * bad; /* entries whose names could not be read */
        size_t bad_count;
};

/* verify.c: findings about what is in hand --------------------------------------- */

void tk_verify_report(struct tk_verify_walk *walk, enum tk_verify_kind kind, uint64_t off,
                      uint64_t len, int error);

/* The file or directory @name in @dirfd has no usable key record. */
void tk_verify_report_record(struct tk_verify_walk *walk, enum tk_verify_kind kind, int dirfd,
                             const char *name, int error);

void tk_verify_hand_out(struct tk_verify_walk *walk, const struct tk_verify_finding *finding);

/*
 * Whether @error, beside a live mount, is no finding: something was removed or replaced
 * meanwhile, or the keys are withdrawn, which ends the walk.
 */
bool tk_verify_is_none(struct tk_verify_walk *walk, int error);

/* 0; -ECANCELED when the walk is to stop; what requests get while the keys are withdrawn. */
TK_MUST_USE int tk_verify_may_go_on(struct tk_verify_walk *walk);

/* Tell how far it is. */
void tk_verify_progress(const struct tk_verify_walk *walk);

/* verify_file.c: one inode ---------------------------------------------------------- */

void tk_verify_file(struct tk_verify_walk *walk, const struct tk_verify_dir *dir,
                    const char *backing);
void tk_verify_symlink(struct tk_verify_walk *walk, int dirfd, const char *backing);

/* verify_salvage.c: write @file, which is in hand, to the salvage directory. -EEXIST if it is
 * there. */
TK_MUST_USE int tk_verify_salvage(struct tk_verify_walk *walk, struct tk_openfile *file);

/* The encrypted attributes of a file or directory whose key is @dek. */
void tk_verify_attributes(struct tk_verify_walk *walk, int fd, const struct tk_secret *dek);
