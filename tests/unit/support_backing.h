/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The seam to the backing directory with faults: included once by a test program, it
 * takes the place of fs/backing.c. Calls are counted; one of them, or every write that
 * needs new space, fails.
 */

// clang-format off
#define tk_backing_pwritev real_pwritev
#define tk_backing_pwrite real_pwrite
#define tk_backing_truncate real_truncate
#define tk_backing_fallocate real_fallocate
#define tk_backing_setxattr real_setxattr
#define tk_backing_sync real_sync
#include "fs/backing.c"
#undef tk_backing_pwritev
#undef tk_backing_pwrite
#undef tk_backing_truncate
#undef tk_backing_fallocate
#undef tk_backing_setxattr
#undef tk_backing_sync
// clang-format on

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

int tk_backing_pwritev(int fd, struct iovec *iov, int count, uint64_t off);
int tk_backing_pwrite(int fd, const void *buf, size_t len, uint64_t off);
int tk_backing_truncate(int fd, uint64_t size);
int tk_backing_fallocate(int fd, int mode, uint64_t off, uint64_t len);
int tk_backing_setxattr(int fd, const char *name, const void *value, size_t len, int flags);
int tk_backing_sync(int fd, bool data_only);

static struct {
        atomic_uint calls; /* of those above */
        unsigned fail_at;  /* this call does nothing but fail, counted from 1; 0: none */
        int fail_with;
        atomic_uint syncs;      /* counted by themselves */
        atomic_int sync_fails;  /* the next one does, with this */
        atomic_bool sync_waits; /* they do not come to their end */
        bool full;              /* no page can be allocated: -ENOSPC where one would be needed */
        atomic_ulong broken;    /* the file with this inode number; 0: none */
        int broken_with;        /* what writing to it fails with; 0: nothing */
        int broken_sync;        /* and flushing it */
} faulty;

enum { FAULTY_PAGE = 4096 };

static inline void faulty_reset(void)
{
        memset(&faulty, 0, sizeof(faulty));
}

static inline bool faulty_is_broken(int fd)
{
        struct stat st;

        return faulty.broken != 0 && fstat(fd, &st) == 0 && st.st_ino == faulty.broken;
}

static inline int faulty_step(int fd)
{
        if (++faulty.calls == faulty.fail_at)
                return faulty.fail_with;
        return faulty.broken_with < 0 && faulty_is_broken(fd) ? faulty.broken_with : 0;
}

static inline bool faulty_has_page(int fd, uint64_t page)
{
        off_t off = (off_t)(page * FAULTY_PAGE);
        off_t at = lseek(fd, off, SEEK_DATA);

        return at >= 0 && at < off + FAULTY_PAGE;
}

/* Bytes of a write of @len at @off that lie in pages that are there. */
static inline size_t faulty_room(int fd, uint64_t off, size_t len)
{
        size_t room = 0;

        while (room < len && faulty_has_page(fd, (off + room) / FAULTY_PAGE))
                room += FAULTY_PAGE - (off + room) % FAULTY_PAGE;
        return room < len ? room : len;
}

int tk_backing_pwritev(int fd, struct iovec *iov, int count, uint64_t off)
{
        int r = faulty_step(fd);

        if (r < 0)
                return r;
        if (!faulty.full)
                return real_pwritev(fd, iov, count, off);
        for (int i = 0; i < count; i++) {
                size_t room = faulty_room(fd, off, iov[i].iov_len);

                r = real_pwrite(fd, iov[i].iov_base, room, off);
                if (r < 0)
                        return r;
                if (room < iov[i].iov_len)
                        return -ENOSPC;
                off += room;
        }
        return 0;
}

int tk_backing_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
        struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

        return tk_backing_pwritev(fd, &iov, 1, off);
}

int tk_backing_truncate(int fd, uint64_t size)
{
        int r = faulty_step(fd);

        return r < 0 ? r : real_truncate(fd, size);
}

int tk_backing_fallocate(int fd, int mode, uint64_t off, uint64_t len)
{
        int r = faulty_step(fd);

        if (r == 0 && faulty.full && !(mode & FALLOC_FL_PUNCH_HOLE) &&
            faulty_room(fd, off, len) < len)
                r = -ENOSPC;
        return r < 0 ? r : real_fallocate(fd, mode, off, len);
}

int tk_backing_setxattr(int fd, const char *name, const void *value, size_t len, int flags)
{
        int r = faulty_step(fd);

        return r < 0 ? r : real_setxattr(fd, name, value, len, flags);
}

int tk_backing_sync(int fd, bool data_only)
{
        int r = atomic_exchange(&faulty.sync_fails, 0);

        faulty.syncs++;
        while (faulty.sync_waits)
                usleep(1000);
        if (r == 0 && faulty.broken_sync < 0 && faulty_is_broken(fd))
                r = faulty.broken_sync;
        return r < 0 ? r : real_sync(fd, data_only);
}
