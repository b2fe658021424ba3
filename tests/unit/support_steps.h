/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The seam to the backing directory in steps: included once by a test program, it takes
 * the place of fs/backing.c. Before the change of that number, the process ends as by a
 * crash.
 */

// clang-format off
#define tk_backing_chmod real_chmod
#define tk_backing_mkdir real_mkdir
#define tk_backing_pwrite real_pwrite
#define tk_backing_setxattr real_setxattr
#define tk_backing_symlink real_symlink
#define tk_backing_unlink real_unlink
#define tk_backing_utimens real_utimens
#include "fs/backing.c"
#undef tk_backing_chmod
#undef tk_backing_mkdir
#undef tk_backing_pwrite
#undef tk_backing_setxattr
#undef tk_backing_symlink
#undef tk_backing_unlink
#undef tk_backing_utimens
// clang-format on

#include <unistd.h>

int tk_backing_chmod(int fd, mode_t mode);
int tk_backing_mkdir(int dirfd, const char *name, mode_t mode);
int tk_backing_pwrite(int fd, const void *buf, size_t len, uint64_t off);
int tk_backing_setxattr(int fd, const char *name, const void *value, size_t len, int flags);
int tk_backing_symlink(const char *target, int dirfd, const char *name);
int tk_backing_unlink(int dirfd, const char *name, bool directory);
int tk_backing_utimens(int fd, const struct timespec times[2]);

enum { DIED = 77 }; /* the exit status */

static unsigned die_at; /* before this change of the backing directory; 0: never */
static unsigned changes;

static void step(void)
{
        if (++changes == die_at)
                _exit(DIED);
}

int tk_backing_chmod(int fd, mode_t mode)
{
        step();
        return real_chmod(fd, mode);
}

int tk_backing_mkdir(int dirfd, const char *name, mode_t mode)
{
        step();
        return real_mkdir(dirfd, name, mode);
}

int tk_backing_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
        step();
        return real_pwrite(fd, buf, len, off);
}

int tk_backing_setxattr(int fd, const char *name, const void *value, size_t len, int flags)
{
        step();
        return real_setxattr(fd, name, value, len, flags);
}

int tk_backing_symlink(const char *target, int dirfd, const char *name)
{
        step();
        return real_symlink(target, dirfd, name);
}

int tk_backing_unlink(int dirfd, const char *name, bool directory)
{
        step();
        return real_unlink(dirfd, name, directory);
}

int tk_backing_utimens(int fd, const struct timespec times[2])
{
        step();
        return real_utimens(fd, times);
}
