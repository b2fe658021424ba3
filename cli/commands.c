/* SPDX-License-Identifier: Apache-2.0 */

/* The table of commands. */

#include "cli/command.h"

#include <limits.h>
#include <string.h>

static const struct tk_command commands[] = {
        {.name = "init",
         .synopsis = "[-c CONF] CIPHERDIR",
         .summary = "make an encrypted directory",
         .options = "c:",
         .min_paths = 1,
         .max_paths = 1,
         .run = tk_cmd_init,
         .help = "CIPHERDIR is made if it is missing; otherwise it must be empty. The keystore "
                 "with\n"
                 "the root key is made if it is missing, and used if it is there. Back it up.\n"},
        {.name = "mount",
         .synopsis = "[-c CONF] [-f] [-o OPTS] CIPHERDIR MOUNTPOINT",
         .summary = "mount an encrypted directory",
         .options = "c:fo:",
         .min_paths = 2,
         .max_paths = 2,
         .run = tk_cmd_mount,
         .help = "Returns when the mount can be used, or with the error. The mount then goes on "
                 "in\n"
                 "the background and writes to syslog.\n"
                 "\n"
                 "  -f, --foreground    stay in the foreground, log to the terminal\n"
                 "  -o, --options OPTS  comma-separated:\n"
                 "        config=FILE   as -c FILE\n"
                 "        allow_other   other users may use the mount, each with their own rights\n"
                 "        ro, rw        read-only or not\n"
                 "        threads=N     serve requests with N threads, 1 to 64\n"
                 "        nonempty      mount over a directory that holds something\n"
                 "        nosuid nodev noexec suid dev exec noatime atime sync async dirsync\n"
                 "                      passed on to the kernel\n"},
        {.name = "umount",
         .synopsis = "[--dead] MOUNTPOINT",
         .summary = "unmount, and wait until everything is written",
         .options = "X",
         .min_paths = 1,
         .max_paths = 1,
         .run = tk_cmd_umount,
         .help = "Returns when the daemon has written everything out and let go of the volume.\n"
                 "\n"
                 "      --dead          only what a killed daemon left; a living mount is left "
                 "alone\n"},
        {.name = "status",
         .synopsis = "[--json] [--watch] [--interval SECONDS] PATH",
         .summary = "show a volume and its mount",
         .options = "jwI",
         .min_paths = 1,
         .max_paths = 1,
         .run = tk_cmd_status,
         .help = "PATH is the mountpoint or the CIPHERDIR.\n"
                 "\n"
                 "  -w, --watch         again and again, with rates, until Ctrl-C\n"
                 "      --interval SECONDS\n"
                 "                      between two looks: 1 by default, 0.1 to 3600\n"
                 "  -j, --json          the JSON that docs/cli.md describes; with --watch a line "
                 "for "
                 "each look\n"},
        {.name = "reload",
         .synopsis = "PATH",
         .summary = "have a mount read its configuration again",
         .options = "",
         .min_paths = 1,
         .max_paths = 1,
         .run = tk_cmd_reload,
         .help = "PATH is the mountpoint or the CIPHERDIR. Prints which changed options are in "
                 "force\n"
                 "from now on, and which from the next mount on only. A configuration with an "
                 "error\n"
                 "changes nothing.\n"},
        {.name = "verify",
         .synopsis = "[-c CONF] [--json] [--repair] [--salvage DIR] PATH",
         .summary = "authenticate every name and every block of every file",
         .options = "c:jRV",
         .min_paths = 1,
         .max_paths = 1,
         .run = tk_cmd_verify,
         .help = "PATH is the mountpoint or the CIPHERDIR. A mount does it beside its work, with "
                 "its own\n"
                 "configuration; without a mount it is done with -c. One line for each damage "
                 "found.\n"
                 "Exits with 0 if there is none, with 14 otherwise.\n"
                 "\n"
                 "      --repair        give entries whose names are damaged new ones, and restore "
                 "lost\n"
                 "                      key records from their twins\n"
                 "      --salvage DIR   write what is readable of damaged files there, in "
                 "plaintext\n"
                 "  -j, --json          the JSON that docs/cli.md describes\n"},
        {.name = "rotate",
         .synopsis = "[-c CONF] [--wait] [--to CONF] PATH",
         .summary = "rewrap all file keys under a new key",
         .options = "c:WT",
         .min_paths = 1,
         .max_paths = 1,
         .run = tk_cmd_rotate,
         .help = "PATH is the mountpoint or the CIPHERDIR. A mount does it in the background, "
                 "with\n"
                 "its own configuration; without a mount it is done at once, with -c. Content is "
                 "not\n"
                 "encrypted again. 'turnkeyfs status' shows how far it is.\n"
                 "\n"
                 "      --to CONF       to the root key of that configuration: another keystore, "
                 "key\n"
                 "                      or provider\n"
                 "      --wait          return when it is done\n"},
        {.name = "key",
         .synopsis = "VERB [-c CONF] ... [CIPHERDIR]",
         .summary = "manage the root key: create, list, rotate, disable ...",
         .options = "",
         .help = "",
         .verbs = tk_key_verbs},
        {.name = "protector",
         .synopsis = "add | remove | list ...",
         .summary = "several root keys for one volume, each of which opens it",
         .options = "",
         .help = "",
         .verbs = tk_protector_verbs},
        {.name = "escrow",
         .synopsis = "export | restore ...",
         .summary = "save all key records in one file, or put them back",
         .options = "",
         .help = "",
         .verbs = tk_escrow_verbs},
        {.name = "path",
         .synopsis = "[-c CONF] [--json] [-0] [--cipherdir DIR] PATH...",
         .summary = "show where a file lies in the encrypted directory, or what it is there",
         .options = "c:j0D",
         .min_paths = 1,
         .max_paths = INT_MAX,
         .run = tk_cmd_path,
         .help = "For a PATH below a mountpoint: the path of its backing file. For a PATH below a "
                 "CIPHERDIR,\n"
                 "or below a copy of one: the path in the mount, or relative to it where it is not "
                 "mounted.\n"
                 "The file itself need not be there, but its directory.\n"
                 "\n"
                 "      --cipherdir DIR each PATH is one in the mount of the CIPHERDIR DIR, which "
                 "need not\n"
                 "                      be mounted\n"
                 "  -0, --null          end each path with NUL instead of a newline, and escape "
                 "nothing\n"
                 "  -j, --json          the JSON that docs/cli.md describes\n"},
        {.name = "doctor",
         .synopsis = "[-c CONF] [CIPHERDIR]",
         .summary = "check the machine, the configuration and a volume",
         .options = "c:",
         .max_paths = 1,
         .run = tk_cmd_doctor,
         .help = "Changes nothing. Exits with 0 if no check failed, otherwise with the exit code\n"
                 "that the first failed check would give to a command.\n"},
        {.name = "bench",
         .synopsis = "[--json] [--quick] [DIR]",
         .summary = "compare the speed of a mount and of the plain directory",
         .options = "jQ",
         .max_paths = 1,
         .run = tk_cmd_bench,
         .help = "Makes an encrypted directory with a key of its own in DIR, or in the working "
                 "directory,\n"
                 "works in it and in a plain directory beside it for about a minute, and prints "
                 "what both\n"
                 "did. It needs 700 MiB, and takes everything away again, also after Ctrl-C.\n"
                 "\n"
                 "      --quick         a few seconds: to try it, not to judge by\n"
                 "  -j, --json          the JSON that docs/cli.md describes\n"},
        {.name = "help",
         .synopsis = "[COMMAND [VERB] | config]",
         .summary = "show this, a command's options, or 'config': the configuration",
         .options = "",
         .max_paths = 2,
         .run = tk_cmd_help,
         .help = ""},
        {.name = "version",
         .synopsis = "",
         .summary = "show the version",
         .options = "",
         .run = tk_cmd_version,
         .help = ""},
};

const struct tk_command *tk_command_at(size_t i)
{
        return i < sizeof(commands) / sizeof(commands[0]) ? &commands[i] : NULL;
}

const struct tk_command *tk_command_find(const char *name)
{
        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
                if (strcmp(commands[i].name, name) == 0)
                        return &commands[i];
        if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
                return tk_command_find("help");
        if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
                return tk_command_find("version");
        return NULL;
}

const struct tk_command *tk_command_find_verb(const struct tk_command *command, const char *verb)
{
        size_t len = strlen(command->name) + 1;

        for (const struct tk_command *found = command->verbs; found && found->name; found++)
                if (strcmp(found->name + len, verb) == 0)
                        return found;
        return NULL;
}
