/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Content: byte ranges of plaintext to blocks of the backing file, and back.
 *
 * Thread-safe: each call holds the range of blocks it touches. Offsets and
 * lengths are plaintext bytes. -EIO stands for a block that does not
 * authenticate; it is logged and counted here.
 */

#include "fs/openfile.h"
#include "fs/scratch.h"

/*
 * Read up to @len bytes (at most TK_REQUEST_MAX) at @off. Returns the bytes there
 * are, 0 at the end of the file, and where they lie: in this thread's scratch,
 * good until its next use.
 */
TK_MUST_USE ssize_t tk_content_read(struct tk_fs *fs, struct tk_openfile *file, uint64_t off,
                                    size_t len, const uint8_t **ret_data);

/*
 * Write @len bytes (at most TK_REQUEST_MAX) at @off. @data is encrypted in place: it
 * is ciphertext afterwards. All or an error; after an error the range may hold
 * old or new bytes.
 */
TK_MUST_USE int tk_content_write(struct tk_fs *fs, struct tk_openfile *file, uint64_t off,
                                 uint8_t *data, size_t len);

/* Set the size; what is gained reads as zeros. */
TK_MUST_USE int tk_content_truncate(struct tk_fs *fs, struct tk_openfile *file, uint64_t size);

/*
 * As fallocate(2) with @mode 0, FALLOC_FL_KEEP_SIZE, or those with
 * FALLOC_FL_PUNCH_HOLE or FALLOC_FL_ZERO_RANGE. -EOPNOTSUPP for other modes.
 */
TK_MUST_USE int tk_content_fallocate(struct tk_fs *fs, struct tk_openfile *file, int mode,
                                     uint64_t off, uint64_t len);

/* As lseek(2) with SEEK_DATA or SEEK_HOLE, in blocks. -ENXIO as there. */
TK_MUST_USE int tk_content_seek(struct tk_fs *fs, struct tk_openfile *file, uint64_t off,
                                int whence, uint64_t *ret_off);

/* As copy_file_range(2) without its flags: bytes copied, fewer at the end of the source. */
TK_MUST_USE ssize_t tk_content_copy(struct tk_fs *fs, struct tk_openfile *from, uint64_t from_off,
                                    struct tk_openfile *to, uint64_t to_off, uint64_t len);
