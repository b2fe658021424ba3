/* SPDX-License-Identifier: Apache-2.0 */

/* From argv to a command; the one place that prints a failure and exits by its kind. */

#include "base/log.h"
#include "cli/args.h"
#include "cli/exitcode.h"
#include "crypto/openssl_memory.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The command that @argv names, and how many words name it. */
static int choose(int argc, char **argv, const struct tk_command **ret_command, int *ret_words,
                  struct tk_fault *fault)
{
        const struct tk_command *command = tk_command_find(argv[1]);
        const struct tk_command *verb;

        if (!command)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "unknown command '%s'; 'turnkeyfs help' lists them", argv[1]);
        *ret_command = command;
        *ret_words = 1;
        if (!command->verbs)
                return 0;
        if (argc < 3)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "%s: a word is missing; 'turnkeyfs help %s' lists what it can "
                                    "do",
                                    command->name, command->name);
        if (strcmp(argv[2], "-h") == 0 || strcmp(argv[2], "--help") == 0)
                return 0;
        verb = tk_command_find_verb(command, argv[2]);
        if (!verb)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "%s: unknown word '%s'; 'turnkeyfs help %s' lists what it can "
                                    "do",
                                    command->name, argv[2], command->name);
        *ret_command = verb;
        *ret_words = 2;
        return 0;
}

static int run(int argc, char **argv, struct tk_fault *fault)
{
        const struct tk_command *command;
        struct tk_args args;
        int words;
        int r;

        if (argc < 2)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "no command; 'turnkeyfs help' lists them");
        r = choose(argc, argv, &command, &words, fault);
        if (r < 0)
                return r;
        r = tk_args_parse(command, argc - words, argv + words, &args, fault);
        if (r == 0 && args.help)
                tk_help_print(command);
        else if (r == 0)
                r = command->run(&args, fault);
        tk_args_done(&args);
        return r;
}

int main(int argc, char **argv)
{
        struct tk_fault fault = {0};
        int r;

        if (tk_openssl_wipe_memory() < 0)
                tk_log(TK_LOG_DEBUG, "OpenSSL was in use before its memory could be made to be "
                                     "wiped; a core could hold keys");
        r = run(argc, argv, &fault);
        if (r == 0 && (fflush(stdout) != 0 || ferror(stdout)))
                r = tk_fault_set(&fault, TK_FAULT_INTERNAL, -errno, "cannot write the output: %s",
                                 strerror(errno));
        if (r < 0)
                fprintf(stderr, "turnkeyfs: %s\n",
                        fault.kind != TK_FAULT_NONE ? fault.text : strerror(-r));
        return tk_exit_code(r, &fault);
}
