/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whole-buffer I/O on descriptors, and small files read or replaced at once.
 *
 * EINTR is retried and short transfers are continued. All return 0 or a
 * negative errno unless they say otherwise.
 */

#include "base/cleanup.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Bytes read into @buf, fewer than @len only at the end of the file. */
TK_MUST_USE ssize_t tk_fdio_pread(int fd, void *buf, size_t len, off_t off);

/* As tk_fdio_pread into @count spans. @iov is changed. */
TK_MUST_USE ssize_t tk_fdio_preadv(int fd, struct iovec *iov, int count, off_t off);

TK_MUST_USE int tk_fdio_pwrite(int fd, const void *buf, size_t len, off_t off);

/* All bytes of all @count spans, contiguous from @off. @iov is changed. */
TK_MUST_USE int tk_fdio_pwritev(int fd, struct iovec *iov, int count, off_t off);

/*
 * The whole file as a NUL-terminated heap text that the caller frees; the length
 * leaves the NUL out. -EFBIG above @max bytes.
 */
TK_MUST_USE int tk_fdio_read_file(int dirfd, const char *name, size_t max, char **ret_text,
                                  size_t *ret_len);

/* Whether the first line of @path is @text, of fewer than 32 bytes: the kernel's switches are such.
 */
bool tk_fdio_file_says(const char *path, const char *text);

/*
 * Replace the file @name in @dirfd by @len bytes, atomically and durably: written
 * to a temporary sibling with @mode, fsynced, renamed over, directory fsynced.
 * On failure the old file is untouched and the sibling removed.
 */
TK_MUST_USE int tk_fdio_replace(int dirfd, const char *name, const void *bytes, size_t len,
                                mode_t mode);
