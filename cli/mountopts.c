/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The comma list of `mount -o`: ours, the kernel's, and those that mount(8),
 * systemd or users of fstab put there for themselves.
 */

#include "cli/mountopts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Those that libfuse and fusermount3 know. */
static const char *const kernel_options[] = {
        "nosuid", "nodev",   "noexec", "suid",  "dev",     "exec",
        "atime",  "noatime", "sync",   "async", "dirsync",
};

/* Labels of SELinux: the kernel's. */
static const char *const kernel_prefixes[] = {
        "context=", "fscontext=", "defcontext=", "rootcontext="};

/* For others, or without a meaning on FUSE. */
static const char *const dropped_options[] = {
        "_netdev",   "nofail",     "auto",        "noauto",        "defaults", "user",
        "users",     "nouser",     "owner",       "group",         "relatime", "norelatime",
        "diratime",  "nodiratime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
        "iversion",  "noiversion", "mand",        "nomand",        "silent",   "loud",
        "symfollow", "noowner",    "nogroup",     "nousers",
};

static const char *const dropped_prefixes[] = {"x-", "X-", "comment=", "uhelper=", "helper="};

#define IN_LIST(word, list) is_in_list(word, list, sizeof(list) / sizeof((list)[0]))
#define BEGINS_AS(word, list) begins_as(word, list, sizeof(list) / sizeof((list)[0]))

static bool is_in_list(const char *word, const char *const *list, size_t count)
{
        for (size_t i = 0; i < count; i++)
                if (strcmp(word, list[i]) == 0)
                        return true;
        return false;
}

static bool begins_as(const char *word, const char *const *prefixes, size_t count)
{
        for (size_t i = 0; i < count; i++)
                if (strncmp(word, prefixes[i], strlen(prefixes[i])) == 0)
                        return true;
        return false;
}

static bool is_kernel(const char *word)
{
        return IN_LIST(word, kernel_options) || BEGINS_AS(word, kernel_prefixes);
}

static bool is_dropped(const char *word)
{
        return word[0] == '\0' || IN_LIST(word, dropped_options) ||
               BEGINS_AS(word, dropped_prefixes);
}

static int add_kernel(struct tk_mountopts *opts, const char *word)
{
        char *joined;

        if (asprintf(&joined, "%s%s%s", opts->kernel ? opts->kernel : "", opts->kernel ? "," : "",
                     word) < 0)
                return -ENOMEM;
        free(opts->kernel);
        opts->kernel = joined;
        return 0;
}

static int set_config(struct tk_mountopts *opts, const char *path, struct tk_fault *fault)
{
        if (opts->config || path[0] == '\0')
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "mount option 'config=%s': give one path to a configuration",
                                    path);
        opts->config = strdup(path);
        return opts->config ? 0 : -ENOMEM;
}

static int set_threads(struct tk_mountopts *opts, const char *number, struct tk_fault *fault)
{
        size_t len = strlen(number);
        unsigned long threads = strtoul(number, NULL, 10);

        if (len == 0 || len > 2 || strspn(number, "0123456789") != len || threads < 1 ||
            threads > 64)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "mount option 'threads=%s': give a number from 1 to 64",
                                    number);
        opts->threads = (unsigned)threads;
        return 0;
}

static int apply_word(struct tk_mountopts *opts, const char *word, struct tk_fault *fault)
{
        if (strncmp(word, "config=", 7) == 0)
                return set_config(opts, word + 7, fault);
        if (strncmp(word, "threads=", 8) == 0)
                return set_threads(opts, word + 8, fault);
        if (strcmp(word, "ro") == 0 || strcmp(word, "rw") == 0) {
                opts->read_only = word[1] == 'o';
                opts->read_write = !opts->read_only;
                return 0;
        }
        if (strcmp(word, "allow_other") == 0) {
                opts->allow_other = true;
                return 0;
        }
        if (strcmp(word, "nonempty") == 0) {
                opts->nonempty = true;
                return 0;
        }
        if (is_kernel(word))
                return add_kernel(opts, word);
        if (is_dropped(word))
                return 0;
        if (strcmp(word, "remount") == 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "mount option 'remount': a mount can't change its options; "
                                    "unmount it and mount it again");
        if (strcmp(word, "nosymfollow") == 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "mount option 'nosymfollow': libfuse does not pass it on, so "
                                    "links would be followed; leave it out");
        return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                            "unknown mount option '%s'; 'turnkeyfs help mount' lists them", word);
}

int tk_mountopts_parse(const char *list, struct tk_mountopts *ret_opts, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *copy = strdup(list);
        char *rest = copy;
        char *word;
        int r;

        memset(ret_opts, 0, sizeof(*ret_opts));
        if (!copy)
                return -ENOMEM;
        while ((word = strsep(&rest, ","))) {
                r = apply_word(ret_opts, word, fault);
                if (r < 0)
                        return r;
        }
        return 0;
}

void tk_mountopts_apply(const struct tk_mountopts *opts, struct tk_conf *conf)
{
        if (opts->allow_other)
                conf->mount.allow_other = true;
        if (opts->read_only || opts->read_write)
                conf->mount.read_only = opts->read_only;
        if (opts->threads > 0)
                conf->mount.threads = opts->threads;
}

void tk_mountopts_done(struct tk_mountopts *opts)
{
        free(opts->config);
        free(opts->kernel);
        memset(opts, 0, sizeof(*opts));
}
