/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The one seam to the backing directory: every call that changes it.
 *
 * Each returns 0 (or a descriptor) or a negative errno, retries EINTR and
 * finishes short writes. Everything is reached by descriptor; no call follows a
 * symlink. Tests count, record and fail calls here.
 */

#include "base/cleanup.h"
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

/* Content. @iov is changed. */
TK_MUST_USE int tk_backing_pwritev(int fd, struct iovec *iov, int count, uint64_t off);
TK_MUST_USE int tk_backing_pwrite(int fd, const void *buf, size_t len, uint64_t off);
TK_MUST_USE int tk_backing_truncate(int fd, uint64_t size);
TK_MUST_USE int tk_backing_fallocate(int fd, int mode, uint64_t off, uint64_t len);
TK_MUST_USE int tk_backing_sync(int fd, bool data_only);

/* Everything in the filesystem of @fd. */
TK_MUST_USE int tk_backing_sync_all(int fd);

/* Names. A new file comes open for reading and writing: its descriptor is returned. */
TK_MUST_USE int tk_backing_create(int dirfd, const char *name, mode_t mode);
TK_MUST_USE int tk_backing_mkdir(int dirfd, const char *name, mode_t mode);
TK_MUST_USE int tk_backing_mknod(int dirfd, const char *name, mode_t mode, dev_t dev);
TK_MUST_USE int tk_backing_symlink(const char *target, int dirfd, const char *name);
TK_MUST_USE int tk_backing_link(int fd, int dirfd, const char *name);
TK_MUST_USE int tk_backing_unlink(int dirfd, const char *name, bool directory);
TK_MUST_USE int tk_backing_rename(int dirfd, const char *name, int new_dirfd, const char *new_name,
                                  unsigned flags);

/* Attributes, of descriptors of any kind, O_PATH too. */
TK_MUST_USE int tk_backing_chmod(int fd, mode_t mode);
TK_MUST_USE int tk_backing_chown(int fd, uid_t uid, gid_t gid);
TK_MUST_USE int tk_backing_utimens(int fd, const struct timespec times[2]);
TK_MUST_USE int tk_backing_setxattr(int fd, const char *name, const void *value, size_t len,
                                    int flags);
TK_MUST_USE int tk_backing_removexattr(int fd, const char *name);

/* Reading attributes of descriptors of any kind: the size, or a negative errno. */
TK_MUST_USE ssize_t tk_backing_getxattr(int fd, const char *name, void *value, size_t max);
TK_MUST_USE ssize_t tk_backing_listxattr(int fd, char *list, size_t max);

/* Where the file of @fd lies, for a log line: names there are as the volume stores them. */
void tk_backing_path(int fd, char *path, size_t max);

/* Open what is at @path below @dirfd, through no symbolic link and no ".." out of it. */
TK_MUST_USE int tk_backing_open_beneath(int dirfd, const char *path, int flags);

/* A new descriptor with @flags for the file that @fd, of any kind, refers to. */
TK_MUST_USE int tk_backing_reopen(int fd, int flags);
