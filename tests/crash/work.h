/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A workload: what applications do, on a volume on the simulated disk.
 *
 * Each operation is carried out by the filesystem and, in plain, on a disk of its own:
 * the version of the tree that applications have been shown. Versions are kept with the
 * place in the recording where they began, and so are acknowledgements. That is all the
 * check needs to say what a crash must have left.
 *
 * Paths are relative to the root, without a leading slash. An operation that fails ends
 * the program, unless `forgive` is set; then the errno is returned as a negative number.
 */

#include "disk.h"
#include "fs/openfile.h"
#include "stand.h"

enum { TK_WORK_FILES = 16 };

/* The tree as applications see it, from the operation that began at `begin` on. */
struct tk_version {
        size_t begin;
        struct tk_disk plain;
        struct tk_event event; /* what made it; names and data are not kept */
        bool doubtful;         /* an operation that failed, done; or, behind it, undone */
};

struct tk_ack {
        size_t at;      /* acknowledged when the recording had this many events */
        uint32_t node;  /* whose content; 0: everybody's */
        size_t content; /* is at least that of this version */
        size_t names;   /* and so are names and attributes */
};

struct tk_work {
        const char *name;
        struct tk_stand stand;
        struct tk_recording recording;
        struct tk_disk start; /* the backing disk where the recording begins */
        struct tk_disk plain;
        struct tk_version *versions;
        size_t version_count;
        struct tk_ack *acks;
        size_t ack_count;
        uint32_t next_node;
        bool forgive;
        bool faulty; /* an operation that fails may have been carried out, in part or whole */
        struct {
                struct tk_openfile *file; /* NULL: free */
                struct tk_inode *inode;
                uint32_t node;
        } open[TK_WORK_FILES];
};

/* A new volume is mounted, and the recording begins. */
void tk_work_begin(struct tk_work *work, const char *name);

/* The same on a volume that there is, whose tree is @plain; both are taken over. */
void tk_work_begin_on(struct tk_work *work, const char *name, struct tk_disk *disk,
                      struct tk_disk *plain);

/* The recording ends with an unmount and a sync; the disk is the caller's. */
void tk_work_settle(struct tk_work *work, struct tk_disk *ret_disk);

/* The recording ends; the filesystem is dropped as by a crash. */
void tk_work_end(struct tk_work *work);
void tk_work_done(struct tk_work *work);

/* Files are open until tk_work_close: their handle is returned. */
int tk_work_create(struct tk_work *work, const char *path);
int tk_work_open(struct tk_work *work, const char *path);
int tk_work_close(struct tk_work *work, int handle);

/* @len bytes that @tag tells apart from others. */
int tk_work_write(struct tk_work *work, int handle, uint64_t off, size_t len, unsigned tag);
int tk_work_truncate(struct tk_work *work, int handle, uint64_t size);
int tk_work_fallocate(struct tk_work *work, int handle, int mode, uint64_t off, uint64_t len);

/* The modification time, as the kernel sets it before an fsync: @seconds, before TK_DISK_NOW. */
int tk_work_utimens(struct tk_work *work, int handle, uint64_t seconds);
int tk_work_fsync(struct tk_work *work, int handle);
int tk_work_fdatasync(struct tk_work *work, int handle);

int tk_work_mkdir(struct tk_work *work, const char *path);
int tk_work_symlink(struct tk_work *work, const char *target, const char *path);
int tk_work_link(struct tk_work *work, const char *from, const char *to);
int tk_work_unlink(struct tk_work *work, const char *path);
int tk_work_rmdir(struct tk_work *work, const char *path);
int tk_work_rename(struct tk_work *work, const char *from, const char *to, unsigned flags);
int tk_work_setxattr(struct tk_work *work, const char *path, const char *name, const char *value);
int tk_work_chmod(struct tk_work *work, const char *path, mode_t mode);
int tk_work_fsyncdir(struct tk_work *work, const char *path);

/* Unmount and mount again. */
void tk_work_remount(struct tk_work *work);

/*
 * The daemon is killed, when all that was done was synced, and the volume mounted again. From then
 * on the key of the file @handle is refused, if it is not negative, or else no key.
 */
void tk_work_kill(struct tk_work *work, int handle);

/* A rotation of the KEK. */
void tk_work_rotate(struct tk_work *work);

/* Look @path up; the entry's count is the caller's. */
int tk_work_lookup(struct tk_stand *stand, const char *path, struct tk_inode **ret_inode);
void tk_work_forget(struct tk_stand *stand, struct tk_inode *inode);
