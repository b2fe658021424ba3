/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SEEK_DATA and SEEK_HOLE on files that somebody may be writing.
 *
 * With the writeback cache the kernel holds written bytes that we have not seen,
 * and does not send them before it asks where the holes are. So the kernel is
 * first made to write them out, by invalidating the inode's cache; and since that
 * waits for our own answers to its writes, it is done in a thread of its own.
 */

#include "fs/openfile.h"
#include "fs/reply.h"

struct tk_seeker;

TK_MUST_USE int tk_seeker_new(struct tk_fs *fs, struct fuse_session *session,
                              struct tk_seeker **ret_seeker);

/*
 * From now on the kernel is asked nothing, and what is asked of us fails: nobody will
 * serve what it would write back. Waits for a question that is under way, so call it
 * while requests are still served.
 */
void tk_seeker_halt(struct tk_seeker *seeker);

/* Waits for the thread; requests still queued are answered with EIO. */
struct tk_seeker *tk_seeker_free(struct tk_seeker *seeker);

/* Answer @req later: the position for @whence from @off in @file, which is open as @ino. */
void tk_seeker_ask(struct tk_seeker *seeker, fuse_req_t req, fuse_ino_t ino,
                   struct tk_openfile *file, uint64_t off, int whence);
