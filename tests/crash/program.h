/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Judging a tree by a program that is given it in a directory. */

#include "check.h"

/*
 * Write the tree @plain into a directory and run @command with the directory and @number
 * behind it. 0 if it ends with 0; else -1, and the last line that it printed.
 */
int tk_program_judge(const struct tk_disk *plain, const char *command, int64_t number,
                     char why[TK_CHECK_WHY]);
