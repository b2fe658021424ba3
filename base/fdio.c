/* SPDX-License-Identifier: Apache-2.0 */

/* Whole-buffer I/O on descriptors. */

#include "base/fdio.h"

#include "base/plant.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Drop the first @done bytes of the spans. Returns how many spans are left, from *@iov on. */
static int iov_advance(struct iovec **iov, int count, size_t done)
{
        while (count > 0 && done >= (*iov)->iov_len) {
                done -= (*iov)->iov_len;
                (*iov)++;
                count--;
        }
        if (count > 0) {
                (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + done;
                (*iov)->iov_len -= done;
        }
        return count;
}

ssize_t tk_fdio_preadv(int fd, struct iovec *iov, int count, off_t off)
{
        ssize_t total = 0;

        while ((count = iov_advance(&iov, count, 0)) > 0) {
                ssize_t n = preadv(fd, iov, count, off + total);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                total += n;
                count = iov_advance(&iov, count, (size_t)n);
        }
        return total;
}

ssize_t tk_fdio_pread(int fd, void *buf, size_t len, off_t off)
{
        struct iovec iov = {.iov_base = buf, .iov_len = len};

        return tk_fdio_preadv(fd, &iov, 1, off);
}

int tk_fdio_pwritev(int fd, struct iovec *iov, int count, off_t off)
{
        while ((count = iov_advance(&iov, count, 0)) > 0) {
                ssize_t n = pwritev(fd, iov, count, off);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -EIO;
                off += n;
                count = iov_advance(&iov, count, (size_t)n);
        }
        return 0;
}

int tk_fdio_pwrite(int fd, const void *buf, size_t len, off_t off)
{
        struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

        return tk_fdio_pwritev(fd, &iov, 1, off);
}

bool tk_fdio_file_says(const char *path, const char *text)
{
        char line[32] = "";
        TK_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0 || tk_fdio_pread(fd, line, sizeof(line) - 1, 0) <= 0)
                return false;
        line[strcspn(line, "\n")] = '\0';
        return strcmp(line, text) == 0;
}

int tk_fdio_read_file(int dirfd, const char *name, size_t max, char **ret_text, size_t *ret_len)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        TK_AUTOCLOSE int fd = -1;
        struct stat st;
        ssize_t n;

        /* What is a fifo, though it should be a file, is empty: nobody waits for a writer. */
        fd = openat(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISDIR(st.st_mode))
                return -EISDIR;
        if ((size_t)st.st_size > max)
                return -EFBIG;

        text = malloc((size_t)st.st_size + 1);
        if (!text)
                return -ENOMEM;
        n = tk_fdio_pread(fd, text, (size_t)st.st_size, 0);
        if (n < 0)
                return (int)n;
        text[n] = '\0';
        *ret_len = (size_t)n;
        *ret_text = TK_TAKE(text);
        return 0;
}

static int sync_fully(int fd)
{
        int rc;

        do {
                rc = fsync(fd);
        } while (rc < 0 && errno == EINTR);
        return rc < 0 ? -errno : 0;
}

static int write_sibling(int dirfd, const char *name, const void *bytes, size_t len, mode_t mode)
{
        TK_AUTOCLOSE int fd = -1;
        int r;

        fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;
        if (fchmod(fd, mode) < 0)
                return -errno;
        r = tk_fdio_pwrite(fd, bytes, len, 0);
        if (r < 0 || TK_PLANT(TK_PLANT_RENAME_UNSYNCED))
                return r;
        return sync_fully(fd);
}

int tk_fdio_replace(int dirfd, const char *name, const void *bytes, size_t len, mode_t mode)
{
        char sibling[256];
        int r;

        if (snprintf(sibling, sizeof(sibling), "%s.new", name) >= (int)sizeof(sibling))
                return -ENAMETOOLONG;

        r = write_sibling(dirfd, sibling, bytes, len, mode);
        if (r == 0 && renameat(dirfd, sibling, dirfd, name) < 0)
                r = -errno;
        if (r < 0) {
                unlinkat(dirfd, sibling, 0);
                return r;
        }
        return sync_fully(dirfd);
}
