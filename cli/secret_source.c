/* SPDX-License-Identifier: Apache-2.0 */

/* Secrets from configured sources: read(2) straight into locked memory. */

#include "cli/secret_source.h"

#include "cli/tty.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Without its newline, if it has one. Empty and overlong ones are refused. */
static int check(struct tk_secret *secret, const struct tk_secret_ask *ask, const char *from,
                 struct tk_fault *fault)
{
        size_t len = tk_secret_len(secret);

        if (len > 0 && tk_secret_bytes(secret)[len - 1] == '\n')
                tk_secret_truncate(secret, --len);
        if (len == 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EINVAL,
                                    "the %s from %s is empty; write it there, or change %s",
                                    ask->what, from, ask->option);
        if (len > TK_SECRET_SOURCE_MAX)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EINVAL,
                                    "the %s from %s is longer than %d bytes", ask->what, from,
                                    TK_SECRET_SOURCE_MAX);
        return 0;
}

static int read_all(int fd, struct tk_secret *secret)
{
        size_t size = tk_secret_len(secret);
        size_t len = 0;

        while (len < size) {
                ssize_t n = read(fd, tk_secret_bytes_mutable(secret) + len, size - len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                len += (size_t)n;
        }
        tk_secret_truncate(secret, len);
        return 0;
}

int tk_secret_source_file(const char *path, size_t max, struct tk_secret **ret_secret)
{
        TK_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        int r;

        if (fd < 0)
                return -errno;
        r = tk_secret_new(max + 1, &secret); /* one byte more shows that it is too long */
        if (r == 0)
                r = read_all(fd, secret);
        if (r < 0)
                return r;
        if (tk_secret_len(secret) > max)
                return -EFBIG;
        *ret_secret = TK_TAKE(secret);
        return 0;
}

static int from_fd(int fd, const struct tk_secret_ask *ask, const char *from,
                   struct tk_secret **ret_secret, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        int r;

        /* Room for the newline, and for one byte that shows it is too long. */
        r = tk_secret_new(TK_SECRET_SOURCE_MAX + 2, &secret);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot get locked memory for the %s: %s", ask->what,
                                    strerror(-r));
        r = read_all(fd, secret);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, r, "cannot read the %s from %s: %s",
                                    ask->what, from, strerror(-r));
        r = check(secret, ask, from, fault);
        if (r < 0)
                return r;
        *ret_secret = TK_TAKE(secret);
        return 0;
}

static int from_file(const char *path, const struct tk_secret_ask *ask,
                     struct tk_secret **ret_secret, struct tk_fault *fault)
{
        TK_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

        if (fd < 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -errno,
                                    "cannot read the %s from %s: %s; put it there, or change %s",
                                    ask->what, path, strerror(errno), ask->option);
        return from_fd(fd, ask, path, ret_secret, fault);
}

/* Closed afterwards: the descriptor was opened for this. */
static int from_inherited_fd(int number, const struct tk_secret_ask *ask,
                             struct tk_secret **ret_secret, struct tk_fault *fault)
{
        TK_AUTOCLOSE int fd = number;
        char from[32];

        snprintf(from, sizeof(from), "descriptor %d", fd);
        return from_fd(fd, ask, from, ret_secret, fault);
}

static int from_credential(const char *name, const struct tk_secret_ask *ask,
                           struct tk_secret **ret_secret, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *path = NULL;
        const char *dir = getenv("CREDENTIALS_DIRECTORY");

        if (!dir || dir[0] != '/')
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -ENOENT,
                                    "the %s is the systemd credential '%s', but "
                                    "$CREDENTIALS_DIRECTORY is not set; run from a unit with "
                                    "LoadCredential= or LoadCredentialEncrypted=",
                                    ask->what, name);
        if (asprintf(&path, "%s/%s", dir, name) < 0)
                return -ENOMEM;
        return from_file(path, ask, ret_secret, fault);
}

static int ask_for(const char *prompt, const struct tk_secret_ask *ask,
                   struct tk_secret **ret_secret, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        int r;

        r = tk_tty_ask(prompt, TK_SECRET_SOURCE_MAX + 2, &secret);
        if (r == -ENXIO || r == -ENOENT || r == -ENOTTY)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, r,
                                    "the %s has to be typed, but there is no terminal; use "
                                    "another source in %s, such as file:/PATH",
                                    ask->what, ask->option);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, r,
                                    "cannot read the %s from the terminal: %s", ask->what,
                                    strerror(-r));
        r = check(secret, ask, "the terminal", fault);
        if (r < 0)
                return r;
        *ret_secret = TK_TAKE(secret);
        return 0;
}

static int from_prompt(const struct tk_secret_ask *ask, struct tk_secret **ret_secret,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        char prompt[512];
        int r;

        snprintf(prompt, sizeof(prompt), "%s%s for %s: ", ask->confirm ? "New " : "", ask->what,
                 ask->label);
        prompt[0] = (char)toupper((unsigned char)prompt[0]);
        r = ask_for(prompt, ask, &secret, fault);
        if (r < 0)
                return r;
        if (ask->confirm) {
                r = ask_for("Once more: ", ask, &again, fault);
                if (r < 0)
                        return r;
                if (!tk_secret_equal(secret, again))
                        return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EINVAL,
                                            "the two %ss differ; nothing was made", ask->what);
        }
        *ret_secret = TK_TAKE(secret);
        return 0;
}

int tk_secret_source_read(const struct tk_conf_secret *source, const struct tk_secret_ask *ask,
                          struct tk_secret **ret_secret, struct tk_fault *fault)
{
        switch (source->source) {
        case TK_CONF_SOURCE_PROMPT:
                return from_prompt(ask, ret_secret, fault);
        case TK_CONF_SOURCE_FILE:
                return from_file(source->arg, ask, ret_secret, fault);
        case TK_CONF_SOURCE_FD:
                return from_inherited_fd(tk_secret_source_fd(source), ask, ret_secret, fault);
        case TK_CONF_SOURCE_CREDENTIAL:
                return from_credential(source->arg, ask, ret_secret, fault);
        default:
                *ret_secret = NULL;
                return 0;
        }
}

bool tk_secret_source_is_interactive(const struct tk_conf_secret *source)
{
        return source->source == TK_CONF_SOURCE_PROMPT || source->source == TK_CONF_SOURCE_FD;
}

const char *tk_secret_source_exposed(const struct tk_conf_secret *source)
{
        struct stat st;

        if (source->source != TK_CONF_SOURCE_FILE || stat(source->arg, &st) < 0 ||
            !S_ISREG(st.st_mode) || !(st.st_mode & (S_IRGRP | S_IROTH)))
                return NULL;
        return source->arg;
}

int tk_secret_source_fd(const struct tk_conf_secret *source)
{
        if (source->source != TK_CONF_SOURCE_FD)
                return -1;
        return (int)strtol(source->arg, NULL, 10);
}
