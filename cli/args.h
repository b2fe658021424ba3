/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The command line of one command. */

#include "cli/command.h"

/*
 * Parse @argv, whose first word is the command's name. Options and paths may
 * stand in any order. Strings are borrowed from @argv but for mount_options.
 * -EINVAL with a usage fault; free @ret_args with tk_args_done in any case.
 */
TK_MUST_USE int tk_args_parse(const struct tk_command *command, int argc, char **argv,
                              struct tk_args *ret_args, struct tk_fault *fault);
void tk_args_done(struct tk_args *args);
