/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Commands: what each accepts, and the functions behind them.
 *
 * A command returns 0 or a negative errno with a fault; main.c prints the fault
 * and turns its kind into the exit code.
 */

#include "base/fault.h"
#include <stddef.h>

enum { TK_ARGS_DAYS = 4 };

/* A parsed command line. */
struct tk_args {
        const char *config;             /* -c; NULL: none */
        char *mount_options;            /* all -o, joined by commas; NULL: none */
        bool foreground;                /* -f */
        bool json;                      /* -j */
        bool help;                      /* -h */
        bool yes;                       /* --yes */
        bool wait;                      /* --wait */
        bool byok;                      /* --byok */
        bool force;                     /* --force */
        bool repair;                    /* --repair */
        bool quick;                     /* --quick */
        bool dead;                      /* --dead */
        bool watch;                     /* --watch */
        const char *interval;           /* --interval; NULL: not given */
        const char *salvage;            /* --salvage; NULL: not given */
        const char *to;                 /* --to; NULL: not given, as below */
        const char *type;               /* --type */
        const char *bits;               /* --bits */
        const char *days[TK_ARGS_DAYS]; /* --rotate-after, --rotate-before, --expiry, --notify */
        bool null;                      /* -0 */
        const char *cipherdir;          /* --cipherdir */
        char **paths;
        int path_count;
};

struct tk_command {
        const char *name;
        const char *synopsis; /* what follows the name */
        const char *summary;  /* one line */
        const char *help;     /* more lines, each ended */
        const char *options;  /* letters as for getopt(3); capitals have a long form only */
        int min_paths;
        int max_paths;
        int (*run)(const struct tk_args *args, struct tk_fault *fault);
        const struct tk_command *verbs; /* a second level, ended by one without name; or NULL */
};

/* The @i-th command; NULL after the last one. */
const struct tk_command *tk_command_at(size_t i);

/* NULL if there is no such command. */
const struct tk_command *tk_command_find(const char *name);

/* The second level of @command: "list" finds "key list". NULL if there is none. */
const struct tk_command *tk_command_find_verb(const struct tk_command *command, const char *verb);

/* `key readmit`: of all verbs of `key` the one that is about the volume. */
int tk_key_readmit(const struct tk_args *args, struct tk_fault *fault);

/* What `key`, `escrow` and `protector` can do. */
extern const struct tk_command tk_key_verbs[];
extern const struct tk_command tk_escrow_verbs[];
extern const struct tk_command tk_protector_verbs[];

int tk_cmd_init(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_mount(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_umount(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_status(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_verify(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_rotate(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_reload(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_path(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_bench(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_doctor(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_help(const struct tk_args *args, struct tk_fault *fault);
int tk_cmd_version(const struct tk_args *args, struct tk_fault *fault);

/* Print the help of one command. */
void tk_help_print(const struct tk_command *command);
