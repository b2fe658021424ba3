/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The seam to the backing directory.
 *
 * Calls that the kernel does not offer for O_PATH descriptors are made once more through
 * /proc/self/fd, whose links lead to the open file itself, not to a path: that takes five
 * times as long.
 */

#include "fs/backing.h"

#include "base/fdio.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

struct fd_path {
        char text[32];
};

static struct fd_path path_of(int fd)
{
        struct fd_path path;

        snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
        return path;
}

static int outcome(int rc)
{
        return rc < 0 ? -errno : 0;
}

/* Whether the call that returned @rc is not offered for its descriptor, as it is an O_PATH one. */
static bool needs_path(ssize_t rc)
{
        return rc < 0 && errno == EBADF;
}

int tk_backing_pwritev(int fd, struct iovec *iov, int count, uint64_t off)
{
        return tk_fdio_pwritev(fd, iov, count, (off_t)off);
}

int tk_backing_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
        return tk_fdio_pwrite(fd, buf, len, (off_t)off);
}

int tk_backing_truncate(int fd, uint64_t size)
{
        int rc;

        do {
                rc = ftruncate(fd, (off_t)size);
        } while (rc < 0 && errno == EINTR);
        return outcome(rc);
}

int tk_backing_fallocate(int fd, int mode, uint64_t off, uint64_t len)
{
        int rc;

        do {
                rc = fallocate(fd, mode, (off_t)off, (off_t)len);
        } while (rc < 0 && errno == EINTR);
        return outcome(rc);
}

int tk_backing_sync(int fd, bool data_only)
{
        int rc;

        do {
                rc = data_only ? fdatasync(fd) : fsync(fd);
        } while (rc < 0 && errno == EINTR);
        return outcome(rc);
}

int tk_backing_sync_all(int fd)
{
        int rc;

        do {
                rc = syncfs(fd);
        } while (rc < 0 && errno == EINTR);
        return outcome(rc);
}

int tk_backing_create(int dirfd, const char *name, mode_t mode)
{
        int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);

        return fd < 0 ? -errno : fd;
}

int tk_backing_mkdir(int dirfd, const char *name, mode_t mode)
{
        return outcome(mkdirat(dirfd, name, mode));
}

int tk_backing_mknod(int dirfd, const char *name, mode_t mode, dev_t dev)
{
        return outcome(mknodat(dirfd, name, mode, dev));
}

int tk_backing_symlink(const char *target, int dirfd, const char *name)
{
        return outcome(symlinkat(target, dirfd, name));
}

int tk_backing_link(int fd, int dirfd, const char *name)
{
        return outcome(linkat(AT_FDCWD, path_of(fd).text, dirfd, name, AT_SYMLINK_FOLLOW));
}

int tk_backing_unlink(int dirfd, const char *name, bool directory)
{
        return outcome(unlinkat(dirfd, name, directory ? AT_REMOVEDIR : 0));
}

int tk_backing_rename(int dirfd, const char *name, int new_dirfd, const char *new_name,
                      unsigned flags)
{
        return outcome(renameat2(dirfd, name, new_dirfd, new_name, flags));
}

int tk_backing_chmod(int fd, mode_t mode)
{
        int rc = fchmod(fd, mode);

        if (needs_path(rc))
                rc = chmod(path_of(fd).text, mode);
        return outcome(rc);
}

int tk_backing_chown(int fd, uid_t uid, gid_t gid)
{
        return outcome(fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
}

int tk_backing_utimens(int fd, const struct timespec times[2])
{
        int rc = futimens(fd, times);

        if (needs_path(rc))
                rc = utimensat(fd, "", times, AT_EMPTY_PATH);
        if (rc < 0 && errno == EINVAL) /* a kernel before 5.8 */
                rc = utimensat(AT_FDCWD, path_of(fd).text, times, 0);
        return outcome(rc);
}

int tk_backing_setxattr(int fd, const char *name, const void *value, size_t len, int flags)
{
        int rc = fsetxattr(fd, name, value, len, flags);

        if (needs_path(rc))
                rc = setxattr(path_of(fd).text, name, value, len, flags);
        return outcome(rc);
}

int tk_backing_removexattr(int fd, const char *name)
{
        return outcome(removexattr(path_of(fd).text, name));
}

ssize_t tk_backing_getxattr(int fd, const char *name, void *value, size_t max)
{
        ssize_t n = fgetxattr(fd, name, value, max);

        if (needs_path(n))
                n = getxattr(path_of(fd).text, name, value, max);
        return n < 0 ? -errno : n;
}

ssize_t tk_backing_listxattr(int fd, char *list, size_t max)
{
        ssize_t n = listxattr(path_of(fd).text, list, max);
        return n < 0 ? -errno : n;
}

void tk_backing_path(int fd, char *path, size_t max)
{
        ssize_t n = readlink(path_of(fd).text, path, max - 1);

        path[n < 0 ? 0 : n] = '\0';
}

int tk_backing_open_beneath(int dirfd, const char *path, int flags)
{
        struct open_how how = {
                .flags = (uint64_t)(flags | O_CLOEXEC),
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };
        long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

        return fd < 0 ? -errno : (int)fd;
}

int tk_backing_reopen(int fd, int flags)
{
        /* The link in /proc is to be followed; what it leads to is the file itself. */
        int opened = open(path_of(fd).text, (flags & ~O_NOFOLLOW) | O_CLOEXEC);

        return opened < 0 ? -errno : opened;
}
