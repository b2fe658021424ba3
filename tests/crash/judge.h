/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Recordings of real mounts, and what is to be expected of their crash states.
 *
 * What was acknowledged is said by marks, which the program that drove the mount wrote
 * into the recording:
 *   go                   states are made from here on
 *   begin FILE BLOCK TAG, done FILE BLOCK TAG
 *                        a block of 4096 bytes was about to be written, was durable; it
 *                        holds 512 times the little-endian word TAG << 32 | BLOCK
 *   rows N               the SQLite database `db` has rows 1 to N of table t, committed; with
 *                        a program to ask, it is asked about the tree and N instead
 */

#include "check.h"

struct tk_judge; /* opaque: judge.c */

/* Find out what the recorder does not know: what grows, and which flush began where. */
void tk_judge_prepare(struct tk_recording *recording);

/* The index of the first mark `go`; the length of the recording if there is none. */
size_t tk_judge_start(const struct tk_recording *recording);

/* @program: the command that judges instead of SQLite (program.h), borrowed; or NULL. */
struct tk_judge *tk_judge_new(const struct tk_recording *recording, const char *program);
struct tk_judge *tk_judge_free(struct tk_judge *judge);

/* For struct tk_check: @context is a struct tk_judge. */
int tk_judge_state(const struct tk_disk *plain, size_t at, void *context, char why[TK_CHECK_WHY]);
