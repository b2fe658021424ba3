/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The seal of a file: an authenticated length. Below it every block is there and
 * authenticates, or reading fails (docs/format.md, "Seal").
 *
 * There are two slots; the one that binds is never overwritten. All functions want group 0
 * of the file held exclusively, or that nobody else has the file.
 */

#include "fs/openfile.h"

/* What a slot says. */
struct tk_seal {
        uint64_t length; /* plaintext bytes */
        uint32_t mount;  /* that wrote it */
        uint16_t sequence;
        bool close; /* written by a last close: binds if that mount ended cleanly */
};

/* A slot's bytes, authenticated under a subkey of @dek. */
TK_MUST_USE int tk_seal_make(const struct tk_secret *dek, const struct tk_seal *seal,
                             uint8_t ret_slot[TK_SEAL_LEN]);

/* What the slot says: 1; 0 if it is empty or not authentic under @dek; or a negative errno. */
TK_MUST_USE int tk_seal_parse(const struct tk_secret *dek, const uint8_t slot[TK_SEAL_LEN],
                              struct tk_seal *ret_seal);

/*
 * Read the slots of @file, which has @size plaintext bytes, and take what binds. -EUCLEAN if
 * the file is shorter than its seal, or has lost one that it must have had.
 */
TK_MUST_USE int tk_seal_load(struct tk_fs *fs, struct tk_openfile *file);

/*
 * The next slot and its number: a seal over @length bytes, or as far as no block is missing.
 * Nothing is written; tk_seal_take says that it was.
 */
TK_MUST_USE int tk_seal_prepare(struct tk_fs *fs, struct tk_openfile *file, uint64_t length,
                                bool close, uint8_t ret_slot[TK_SEAL_LEN]);

/* The same where nothing is missing below @length: such as in the tag page that goes with it. */
TK_MUST_USE int tk_seal_prepare_whole(struct tk_fs *fs, struct tk_openfile *file, uint64_t length,
                                      bool close, uint8_t ret_slot[TK_SEAL_LEN]);
unsigned tk_seal_next_slot(const struct tk_openfile *file);
void tk_seal_take(struct tk_fs *fs, struct tk_openfile *file, const uint8_t slot[TK_SEAL_LEN]);

/* Write a seal over @length bytes at most, in place, unless the newest one says the same. */
TK_MUST_USE int tk_seal_write(struct tk_fs *fs, struct tk_openfile *file, uint64_t length,
                              bool close);

/*
 * Seal a file that was changed, as its last close does: for a mount that ends cleanly. The
 * second one is for who holds everything; the third waits for nobody, and does nothing while
 * somebody is at work on the file. A failure is noted in @fs.
 */
void tk_seal_close(struct tk_fs *fs, struct tk_openfile *file);
void tk_seal_close_held(struct tk_fs *fs, struct tk_openfile *file);
void tk_seal_close_idle(struct tk_fs *fs, struct tk_openfile *file);

/* Before a cut to @size bytes: less is sealed and solid from now on, in memory. */
void tk_seal_lower(struct tk_openfile *file, uint64_t size);
