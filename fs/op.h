/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The operations of the filesystem: one function each, without FUSE.
 *
 * All return 0, a descriptor-like count or a negative errno, and are
 * thread-safe. An entry that is returned carries one kernel look-up, which the
 * caller gives back with tk_inode_forget if it can't hand it on.
 */

#include "fs/creds.h"
#include "fs/inode.h"
#include "fs/openfile.h"
#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

struct tk_entry {
        struct tk_inode *inode;
        struct stat st; /* as applications see it */
};

/* op_name.c: names --------------------------------------------------------- */

TK_MUST_USE int tk_op_lookup(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                             struct tk_entry *ret_entry);

/* A regular file, open as by tk_op_open with @flags; an existing one is -EEXIST. */
TK_MUST_USE int tk_op_create(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                             mode_t mode, int flags, const struct tk_caller *caller,
                             struct tk_entry *ret_entry, struct tk_openfile **ret_file);

/* A file of the type in @mode: regular, fifo, socket or device. */
TK_MUST_USE int tk_op_mknod(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                            mode_t mode, dev_t dev, const struct tk_caller *caller,
                            struct tk_entry *ret_entry);
TK_MUST_USE int tk_op_mkdir(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                            mode_t mode, const struct tk_caller *caller,
                            struct tk_entry *ret_entry);
TK_MUST_USE int tk_op_symlink(struct tk_fs *fs, const char *target, struct tk_inode *parent,
                              const char *name, const struct tk_caller *caller,
                              struct tk_entry *ret_entry);
TK_MUST_USE int tk_op_link(struct tk_fs *fs, struct tk_inode *inode, struct tk_inode *parent,
                           const char *name, struct tk_entry *ret_entry);
TK_MUST_USE int tk_op_unlink(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                             bool directory);

/* @flags as renameat2(2). */
TK_MUST_USE int tk_op_rename(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                             struct tk_inode *new_parent, const char *new_name, unsigned flags);

/* op_symlink.c: symlinks ------------------------------------------------------ */

/*
 * The target, NUL-terminated. -ENAMETOOLONG if @max is too small; -EBADMSG if it is
 * damaged (logged, counted).
 */
TK_MUST_USE int tk_op_readlink(struct tk_fs *fs, struct tk_inode *inode, char *target, size_t max);

/* op_dir.c: directories ------------------------------------------------------ */

struct tk_dir; /* an open directory: one reader at a time, which its lock sees to */

TK_MUST_USE int tk_op_opendir(struct tk_fs *fs, struct tk_inode *inode, struct tk_dir **ret_dir);
struct tk_dir *tk_op_releasedir(struct tk_dir *dir);

/* The kernel is gone: let go of what it left open. */
void tk_op_releasedir_all(struct tk_fs *fs);
TK_MUST_USE int tk_op_fsyncdir(struct tk_dir *dir, bool data_only);

/* Texts are borrowed until @take returns. */
struct tk_dir_entry {
        const char *name;    /* as applications see it */
        const char *backing; /* as the backing directory has it */
        uint64_t ino;
        unsigned char type; /* DT_... */
        off_t next_off;     /* where to go on behind this entry */
};

/*
 * Hand the entries from @off on to @take until it returns other than 0 (positive:
 * full, the entry was not taken) or they end. Returns 0 or @take's negative; -EIO if the
 * directory's names can't be had. Entries whose names don't authenticate are left out,
 * logged and counted. @take looks no names up, but for tk_op_lookup_in.
 */
typedef int (*tk_dir_take)(void *context, const struct tk_dir_entry *entry);
TK_MUST_USE int tk_op_readdir(struct tk_dir *dir, off_t off, tk_dir_take take, void *context);

/*
 * All of them, without names (NULL but for "." and ".."): for who wants every file, also
 * one whose name can't be read, and needs no key.
 */
TK_MUST_USE int tk_op_readdir_backing(struct tk_dir *dir, tk_dir_take take, void *context);

/* The entry of @dir whose backing name is @backing, looked up as by tk_op_lookup. */
TK_MUST_USE int tk_op_lookup_in(struct tk_fs *fs, struct tk_dir *dir, const char *backing,
                                struct tk_entry *ret_entry);

/* op_attr.c: attributes -------------------------------------------------------- */

enum tk_setattr_what {
        TK_SETATTR_MODE = 1,
        TK_SETATTR_UID = 2,
        TK_SETATTR_GID = 4,
        TK_SETATTR_SIZE = 8,
        TK_SETATTR_ATIME = 16,
        TK_SETATTR_MTIME = 32,
};

/* A caller without CAP_FSETID changed content: how to tell which groups it belongs to. */
struct tk_kill_setid {
        bool (*in_group)(void *context, gid_t gid);
        void *context;
};

struct tk_setattr {
        unsigned what; /* of tk_setattr_what */
        mode_t mode;
        uid_t uid;
        gid_t gid;
        uint64_t size;
        struct timespec atime; /* tv_nsec may be UTIME_NOW */
        struct timespec mtime;
        const struct tk_kill_setid *kill_setid; /* with TK_SETATTR_SIZE; NULL: leave them */
};

TK_MUST_USE int tk_op_getattr(struct tk_fs *fs, struct tk_inode *inode, struct stat *ret_st);
TK_MUST_USE int tk_op_setattr(struct tk_fs *fs, struct tk_inode *inode,
                              const struct tk_setattr *set, struct stat *ret_st);

/*
 * Clear the set-id bits of the backing file @fd as a write by such a caller does. Returns 0, or
 * TK_SETID_KILLED if there were some.
 */
enum { TK_SETID_KILLED = 1 };
TK_MUST_USE int tk_op_kill_setid(int fd, const struct tk_kill_setid *caller);
TK_MUST_USE int tk_op_statfs(struct tk_fs *fs, struct statvfs *ret_st);

/*
 * A descriptor, of O_PATH kind at least, for the attributes of an inode. An open file lends its
 * own: it is reached whatever has become of its name, and when there is none left.
 */
struct tk_reach {
        struct tk_fs *fs;
        struct tk_openfile *file; /* a counted reference if it is open; NULL */
        int fd;                   /* the open file's, or our own; -1: not reached */
};

/* To be ended in any case. */
TK_MUST_USE int tk_op_reach(struct tk_fs *fs, struct tk_inode *inode, struct tk_reach *ret_reach);
void tk_op_reach_end(struct tk_reach *reach);

/* Ended with its scope. */
#define TK_REACH_SCOPE(name) TK_CLEANUP(tk_op_reach_end) struct tk_reach name = {.fd = -1}

/* Turn what the backing filesystem says into what applications see: the size. */
void tk_op_present(const struct tk_fs *fs, struct stat *st);

/* The same for an entry, whose file may be open: then the open file knows the size. Returns 0. */
TK_MUST_USE int tk_op_entry_present(struct tk_fs *fs, struct tk_entry *entry);

/* op_xattr.c: extended attributes --------------------------------------------- */

/* The value's size, -ERANGE if @max (not 0) is too small. */
TK_MUST_USE ssize_t tk_op_getxattr(struct tk_fs *fs, struct tk_inode *inode, const char *name,
                                   void *value, size_t max);
TK_MUST_USE ssize_t tk_op_listxattr(struct tk_fs *fs, struct tk_inode *inode, char *list,
                                    size_t max);
TK_MUST_USE int tk_op_setxattr(struct tk_fs *fs, struct tk_inode *inode, const char *name,
                               const void *value, size_t len, int flags);
TK_MUST_USE int tk_op_removexattr(struct tk_fs *fs, struct tk_inode *inode, const char *name);

/* op_io.c: open files ----------------------------------------------------------- */

/* @flags as open(2): the access mode counts. */
TK_MUST_USE int tk_op_open(struct tk_fs *fs, struct tk_inode *inode, int flags,
                           struct tk_openfile **ret_file);

/* Count a handle that was opened with @flags; release takes it back. */
void tk_op_count_handle(struct tk_fs *fs, struct tk_openfile *file, int flags);
void tk_op_release(struct tk_fs *fs, struct tk_openfile *file, int flags);

/* Whether a handle that may write is open: then the kernel may hold bytes that we have not seen. */
bool tk_op_has_writers(struct tk_fs *fs, struct tk_openfile *file);
TK_MUST_USE int tk_op_fsync(struct tk_fs *fs, struct tk_openfile *file, bool data_only);
