/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The escrow's file: key records by backing path, and the volume file behind them.
 *
 * Layout: docs/format.md, "Escrow". Entries come in the order of fs/treewalk.h and go
 * through one at a time. The checksum finds damage and proves nothing: a record proves
 * itself. For one thread.
 */

#include "crypto/record.h"
#include <stddef.h>
#include <stdint.h>

/* A file's or a directory's key record. */
struct tk_escrow_entry {
        const char *path; /* relative to CIPHERDIR/root; "" for the root itself */
        uint64_t inode;   /* with the ctime: whether the file is still as it was read */
        int64_t ctime_s;
        uint32_t ctime_ns;
        uint16_t record_len; /* 1 to TK_RECORD_MAX */
        bool directory;
        struct tk_record record;
};

struct tk_escrow_reader; /* opaque: escrow_file.c */
struct tk_escrow_writer;

/*
 * Read the escrow @fd, which is taken over, also on failure. -EINVAL if it is none,
 * -ENOTSUP if a newer release wrote it, -EBADMSG if it is damaged.
 */
TK_MUST_USE int tk_escrow_reader_new(int fd, struct tk_escrow_reader **ret_reader);
struct tk_escrow_reader *tk_escrow_reader_free(struct tk_escrow_reader *reader);
TK_DEFINE_CLEANUP(struct tk_escrow_reader *, tk_escrow_reader_free)

/*
 * The next entry, borrowed until the next call: 1 and the entry, or 0 at the end, which
 * is reached only if everything before it was undamaged. -EBADMSG otherwise.
 */
TK_MUST_USE int tk_escrow_reader_next(struct tk_escrow_reader *reader,
                                      const struct tk_escrow_entry **ret_entry);

/* Begin again. */
TK_MUST_USE int tk_escrow_reader_rewind(struct tk_escrow_reader *reader);

/* Borrowed from @reader. The volume file is a text, known at the end; NULL before. */
const uint8_t *tk_escrow_reader_id(const struct tk_escrow_reader *reader);
int64_t tk_escrow_reader_created(const struct tk_escrow_reader *reader); /* Unix seconds */
const char *tk_escrow_reader_volume_file(const struct tk_escrow_reader *reader);

/* Write a new escrow of the volume @id into the empty @fd, which is borrowed. */
TK_MUST_USE int tk_escrow_writer_new(int fd, const uint8_t id[TK_VOLUME_ID_LEN], int64_t created,
                                     struct tk_escrow_writer **ret_writer);
struct tk_escrow_writer *tk_escrow_writer_free(struct tk_escrow_writer *writer);
TK_DEFINE_CLEANUP(struct tk_escrow_writer *, tk_escrow_writer_free)

/* Entries must come in order. */
TK_MUST_USE int tk_escrow_writer_add(struct tk_escrow_writer *writer,
                                     const struct tk_escrow_entry *entry);

/* The end, with the volume file. Everything has been written then, and nothing synced. */
TK_MUST_USE int tk_escrow_writer_end(struct tk_escrow_writer *writer, const char *volume_file);
