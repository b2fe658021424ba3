/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inode table: every inode the kernel knows, and how to reach its backing file.
 *
 * No descriptor is kept per inode, but for a few directories. With the privilege for it
 * (root) an inode is reached by its file handle; otherwise by parent and name, with the
 * inode number checked. An inode that lost its last name keeps a descriptor, too.
 *
 * Two counts keep an inode: nlookup, which the kernel drives, and refs, which we
 * drive. Thread-safe.
 */

#include "fs/fs.h"
#include <stdatomic.h>
#include <sys/stat.h>

struct tk_inode; /* opaque: inode.c */
struct tk_inode_table;
struct tk_openfile;

/* The table for the tree at @rootfd, an open directory that the table borrows. */
TK_MUST_USE int tk_inode_table_new(int rootfd, struct tk_stats *stats,
                                   struct tk_inode_table **ret_table);

/* The kernel is gone: every inode goes with the table. No open file may be left. */
struct tk_inode_table *tk_inode_table_free(struct tk_inode_table *table);
TK_DEFINE_CLEANUP(struct tk_inode_table *, tk_inode_table_free)

/* The root's inode; never freed while the table lives. */
struct tk_inode *tk_inode_root(struct tk_inode_table *table);

/*
 * The inode of @name in @parent, whose descriptor is @parentfd, as @st describes
 * it; one more kernel look-up is counted.
 */
TK_MUST_USE int tk_inode_lookup(struct tk_inode_table *table, struct tk_inode *parent, int parentfd,
                                const char *name, const struct stat *st,
                                struct tk_inode **ret_inode);

/* The kernel drops @count look-ups. */
void tk_inode_forget(struct tk_inode_table *table, struct tk_inode *inode, uint64_t count);

struct tk_inode *tk_inode_ref(struct tk_inode_table *table, struct tk_inode *inode);
void tk_inode_unref(struct tk_inode_table *table, struct tk_inode *inode);

/* The inode of the backing file @st, with one more reference; NULL if it is not in use. */
struct tk_inode *tk_inode_find(struct tk_inode_table *table, const struct stat *st);

/*
 * A new descriptor for the inode's backing file, opened with @flags (O_CLOEXEC is
 * added). A negative errno; -ESTALE if the file is not there any more.
 */
TK_MUST_USE int tk_inode_open(struct tk_inode_table *table, struct tk_inode *inode, int flags);

/*
 * A descriptor of the directory @inode, of O_PATH kind at least, for the length of a
 * request: what is asked for again and again is kept open.
 */
struct tk_inode_dir {
        struct tk_inode_table *table;
        struct tk_inode *inode;
        int fd; /* borrowed; -1: there is nothing to put */
        bool owned;
};
TK_MUST_USE int tk_inode_dir_get(struct tk_inode_table *table, struct tk_inode *inode,
                                 struct tk_inode_dir *ret_dir);
void tk_inode_dir_put(struct tk_inode_dir *dir);

/*
 * Call @visit for every inode, removed ones that are in use included, without a lock
 * held; each is counted meanwhile. Inodes that come or go during the call may be left out.
 */
void tk_inode_for_each(struct tk_inode_table *table,
                       void (*visit)(void *context, struct tk_inode *inode), void *context);

/* The backing inode number, for messages and for striping. */
uint64_t tk_inode_number(const struct tk_inode *inode);
mode_t tk_inode_type(const struct tk_inode *inode); /* S_IFMT bits */

/* Tells @inode from one that had its inode number before. */
uint32_t tk_inode_serial(const struct tk_inode *inode);

/*
 * Whether the file was cut to nothing, and not flushed since: what was in it may come back in a
 * crash. Kept here, since it outlives the open file; the kernel forgets a file long after the
 * backing filesystem has written such a cut by itself.
 */
void tk_inode_note_cut(struct tk_inode *inode, bool cut);
bool tk_inode_is_cut(const struct tk_inode *inode);

/* The open file of this inode, for openfile.c, which guards it with its own lock. */
_Atomic(struct tk_openfile *) *tk_inode_openfile(struct tk_inode *inode);

/*
 * A name is about to lose its file (unlink, rmdir, rename over it). Between begin
 * and end no other removal of the same inode runs. What loses its last name while
 * it is in use keeps a descriptor, so that it can still be reached.
 */
struct tk_removal {
        struct tk_inode_table *table;
        struct tk_inode *inode; /* NULL: the kernel does not know it */
        pthread_mutex_t *lock;  /* held */
        int fd;
        bool last_name;
};
TK_MUST_USE int tk_inode_removal_begin(struct tk_inode_table *table, int parentfd, const char *name,
                                       struct tk_removal *removal);
void tk_inode_removal_end(struct tk_removal *removal, bool removed);

/*
 * Renaming moves inodes to other names. Between begin and end no path is
 * resolved; moved tells where an inode lies now.
 */
void tk_inode_rename_begin(struct tk_inode_table *table);
void tk_inode_moved(struct tk_inode_table *table, int parentfd, struct tk_inode *parent,
                    const char *name);
void tk_inode_rename_end(struct tk_inode_table *table);

/* Without file handles: nothing is renamed in between. The holder resolves no path. */
void tk_inode_places_hold(struct tk_inode_table *table);
void tk_inode_places_release(struct tk_inode_table *table);
