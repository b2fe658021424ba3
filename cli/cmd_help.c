/* SPDX-License-Identifier: Apache-2.0 */

/* `help`: the commands, one command, or the configuration. */

#include "cli/command.h"
#include "conf/schema.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void print_one(const struct tk_command *command)
{
        printf("  turnkeyfs %-7s %s\n      %s\n", command->name, command->synopsis,
               command->summary);
}

void tk_help_print(const struct tk_command *command)
{
        printf("usage: turnkeyfs %s%s%s\n\n%s\n", command->name, command->synopsis[0] ? " " : "",
               command->synopsis, command->summary);
        if (command->help[0])
                printf("\n%s", command->help);
        if (command->verbs)
                printf("\n");
        for (const struct tk_command *verb = command->verbs; verb && verb->name; verb++)
                print_one(verb);
        if (strchr(command->options, 'c'))
                printf("\n  -c, --config CONF   the configuration ('turnkeyfs help config')\n");
}

static void print_commands(void)
{
        const struct tk_command *command;

        printf("turnkeyfs keeps a directory encrypted at rest.\n\n");
        for (size_t i = 0; (command = tk_command_at(i)); i++)
                print_one(command);
}

static void print_configuration(void)
{
        const struct tk_conf_option *option;
        const char *section = "";

        printf("The configuration is an INI file. Every option has a default.\n");
        for (size_t i = 0; (option = tk_conf_option_at(i)); i++) {
                if (strcmp(option->section, section) != 0)
                        printf("\n[%s]\n", option->section);
                section = option->section;
                printf("%s = %s\n      %s\n      default: %s\n", option->name, option->type,
                       option->help, option->fallback);
        }
}

int tk_cmd_help(const struct tk_args *args, struct tk_fault *fault)
{
        const struct tk_command *command;

        if (args->path_count == 0) {
                print_commands();
                return 0;
        }
        if (strcmp(args->paths[0], "config") == 0) {
                print_configuration();
                return 0;
        }
        command = tk_command_find(args->paths[0]);
        if (!command)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "unknown command '%s'; 'turnkeyfs help' lists them",
                                    args->paths[0]);
        if (args->path_count > 1) {
                command = tk_command_find_verb(command, args->paths[1]);
                if (!command)
                        return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                            "'%s' has no '%s'; 'turnkeyfs help %s' lists what it "
                                            "has",
                                            args->paths[0], args->paths[1], args->paths[0]);
        }
        tk_help_print(command);
        return 0;
}
