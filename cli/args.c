/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of one command: getopt_long over the letters it accepts. */

#include "cli/args.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},
        {"foreground", no_argument, NULL, 'f'},
        {"options", required_argument, NULL, 'o'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {"yes", no_argument, NULL, 'Y'},
        {"wait", no_argument, NULL, 'W'},
        {"to", required_argument, NULL, 'T'},
        {"byok", no_argument, NULL, 'B'},
        {"type", required_argument, NULL, 'K'},
        {"bits", required_argument, NULL, 'S'},
        {"rotate-after", required_argument, NULL, '4'},
        {"rotate-before", required_argument, NULL, '5'},
        {"expiry", required_argument, NULL, '6'},
        {"notify-before", required_argument, NULL, '7'},
        {"force", no_argument, NULL, 'F'},
        {"repair", no_argument, NULL, 'R'},
        {"quick", no_argument, NULL, 'Q'},
        {"dead", no_argument, NULL, 'X'},
        {"salvage", required_argument, NULL, 'V'},
        {"watch", no_argument, NULL, 'w'},
        {"interval", required_argument, NULL, 'I'},
        {"null", no_argument, NULL, '0'},
        {"cipherdir", required_argument, NULL, 'D'},
        {NULL, 0, NULL, 0},
};

static int usage(const struct tk_command *command, struct tk_fault *fault, const char *what,
                 const char *word)
{
        return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                            "%s: %s%s%s; usage: turnkeyfs %s %s ('turnkeyfs help %s' says more)",
                            command->name, what, word ? " " : "", word ? word : "", command->name,
                            command->synopsis, command->name);
}

static int add_mount_options(struct tk_args *args, const char *more)
{
        char *joined;

        if (asprintf(&joined, "%s%s%s", args->mount_options ? args->mount_options : "",
                     args->mount_options ? "," : "", more) < 0)
                return -ENOMEM;
        free(args->mount_options);
        args->mount_options = joined;
        return 0;
}

static int apply(struct tk_args *args, int letter, const char *value)
{
        switch (letter) {
        case 'c':
                args->config = value;
                return 0;
        case 'o':
                return add_mount_options(args, value);
        case 'f':
                args->foreground = true;
                return 0;
        case 'j':
                args->json = true;
                return 0;
        case 'Y':
                args->yes = true;
                return 0;
        case 'W':
                args->wait = true;
                return 0;
        case 'B':
                args->byok = true;
                return 0;
        case 'F':
                args->force = true;
                return 0;
        case 'R':
                args->repair = true;
                return 0;
        case 'Q':
                args->quick = true;
                return 0;
        case 'X':
                args->dead = true;
                return 0;
        case 'w':
                args->watch = true;
                return 0;
        case 'I':
                args->interval = value;
                return 0;
        case 'V':
                args->salvage = value;
                return 0;
        case 'T':
                args->to = value;
                return 0;
        case 'K':
                args->type = value;
                return 0;
        case 'S':
                args->bits = value;
                return 0;
        case '0':
                args->null = true;
                return 0;
        case 'D':
                args->cipherdir = value;
                return 0;
        case '4':
        case '5':
        case '6':
        case '7':
                args->days[letter - '4'] = value;
                return 0;
        default:
                args->help = true;
                return 0;
        }
}

/* The letters that getopt is to know: capitals and digits but 0 stand for long options alone. */
static void short_letters(const char *options, char letters[32])
{
        size_t len = 2;

        memcpy(letters, ":h", 2);
        for (; *options && len < 31; options++)
                if (strchr("abcdefghijklmnopqrstuvwxyz0", *options) ||
                    (*options == ':' && len > 2 && letters[len - 1] != ':'))
                        letters[len++] = *options;
        letters[len] = '\0';
}

static int take_options(const struct tk_command *command, int argc, char **argv,
                        struct tk_args *args, struct tk_fault *fault)
{
        char letters[32];
        int letter;
        int r;

        short_letters(command->options, letters);
        opterr = 0;
        optind = 0; /* glibc: start anew */
        while ((letter = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
                if (letter == ':')
                        return usage(command, fault, "a value is missing after", argv[optind - 1]);
                /* A long option that only other commands know comes by its letter, too. */
                if (letter == '?' || (letter != 'h' && !strchr(command->options, letter)))
                        return usage(command, fault, "unknown option", argv[optind - 1]);
                r = apply(args, letter, optarg);
                if (r < 0)
                        return r;
        }
        return 0;
}

int tk_args_parse(const struct tk_command *command, int argc, char **argv, struct tk_args *ret_args,
                  struct tk_fault *fault)
{
        int count;
        int r;

        memset(ret_args, 0, sizeof(*ret_args));
        r = take_options(command, argc, argv, ret_args, fault);
        if (r < 0 || ret_args->help)
                return r;

        count = argc - optind;
        if (count < command->min_paths)
                return usage(command, fault, "a word is missing", NULL);
        if (count > command->max_paths)
                return usage(command, fault,
                             "one word too many:", argv[optind + command->max_paths]);
        for (int i = 0; i < count; i++)
                if (argv[optind + i][0] == '\0')
                        return usage(command, fault, "a path is empty", NULL);
        ret_args->paths = argv + optind;
        ret_args->path_count = count;
        return 0;
}

void tk_args_done(struct tk_args *args)
{
        free(args->mount_options);
        args->mount_options = NULL;
}
