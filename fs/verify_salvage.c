/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Verify: what is readable of a damaged file, written elsewhere in plaintext. What is not
 * stays a hole there.
 */

#include "fs/verify_internal.h"

#include "fs/backing.h"
#include "fs/content.h"
#include "fs/format.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Make the directories that lead to @path below @dirfd, for nobody else to enter. */
static int make_parents(int dirfd, const char *path)
{
        TK_CLEANUP(tk_freep) char *copy = strdup(path);

        if (!copy)
                return -ENOMEM;
        for (char *slash = strchr(copy, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                if (mkdirat(dirfd, copy, 0700) < 0 && errno != EEXIST)
                        return -errno;
                *slash = '/';
        }
        return 0;
}

/* Copy @len bytes at @off, which are one request, or block by block what can be read of them. */
static int salvage_range(struct tk_verify_walk *walk, struct tk_openfile *file, int fd,
                         uint64_t off, uint64_t len)
{
        const uint8_t *data;
        ssize_t n = tk_content_read(walk->fs, file, off, len, &data);
        int r = 0;

        if (n >= 0)
                return tk_backing_pwrite(fd, data, (size_t)n, off);
        for (uint64_t at = off; at < off + len && r == 0; at += TK_BLOCK_LEN) {
                n = tk_content_read(walk->fs, file, at, TK_BLOCK_LEN, &data);
                if (n > 0)
                        r = tk_backing_pwrite(fd, data, (size_t)n, at);
        }
        return r;
}

int tk_verify_salvage(struct tk_verify_walk *walk, struct tk_openfile *file)
{
        TK_AUTOCLOSE int fd = -1;
        uint64_t size = file->size;
        int r;

        r = make_parents(walk->callbacks->salvage_dirfd, walk->path);
        if (r < 0)
                return r;
        fd = openat(walk->callbacks->salvage_dirfd, walk->path,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                return -errno;
        for (uint64_t off = 0; off < size && r == 0; off += TK_REQUEST_MAX) {
                uint64_t left = size - off;

                r = salvage_range(walk, file, fd, off,
                                  left < TK_REQUEST_MAX ? left : TK_REQUEST_MAX);
        }
        return r < 0 ? r : fsync(fd) < 0 ? -errno : 0;
}
