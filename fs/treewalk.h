/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A walk over the backing tree in a fixed order, for those who compare it with
 * something in the same order.
 *
 * Every directory comes before what is in it, and siblings come by the bytes of
 * their names: the order of tk_treewalk_compare. The names of one directory are in
 * memory at a time, for each level of depth, and a descriptor. The tree may change meanwhile.
 */

#include "base/cleanup.h"
#include <stddef.h>
#include <sys/stat.h>

struct tk_treewalk_entry {
        const char *path; /* relative to the root; "" for the root itself */
        size_t path_len;
        int dirfd;        /* borrowed: where @name is */
        const char *name; /* "." for the root itself */
        struct stat st;   /* as of before the call */
};

struct tk_treewalk_callbacks {
        /* A file or directory; a negative return ends the walk with it. */
        int (*visit)(void *context, const struct tk_treewalk_entry *entry);
        /* Something can't be looked at (@error), nor what is below it; the same. */
        int (*failed)(void *context, const char *path, int error);
        void *context;
};

/* Walk the tree of @rootfd, an open directory. What is gone when it is reached is left out. */
TK_MUST_USE int tk_treewalk_run(int rootfd, const struct tk_treewalk_callbacks *callbacks);

/* The order of two paths: less than, equal to or greater than 0. */
int tk_treewalk_compare(const char *a, const char *b);

/* Whether @path lies below @dir ("": the root), both relative. */
bool tk_treewalk_is_below(const char *path, const char *dir);
