/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * fsync of content: what has to be flushed, and what counts as durable afterwards.
 */

#include "fs/openfile.h"

/* As fsync(2), or fdatasync(2) if @data_only. Thread-safe. */
TK_MUST_USE int tk_content_sync(struct tk_fs *fs, struct tk_openfile *file, bool data_only);

/*
 * Flush the backing file. An error is returned, and once more by the next tk_content_sync()
 * unless that has returned it: the kernel reports it only once, whoever it was that asked.
 */
TK_MUST_USE int tk_content_flush(struct tk_openfile *file, bool data_only);
