/* SPDX-License-Identifier: Apache-2.0 */

/* The keystore's passphrase: read(2) straight into locked memory. */

#include "cli/passphrase.h"

#include "cli/tty.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* Without its newline, if it has one. Empty and overlong ones are refused. */
static int check(struct tk_secret *passphrase, const char *from, struct tk_fault *fault)
{
        size_t len = tk_secret_len(passphrase);

        if (len > 0 && tk_secret_bytes(passphrase)[len - 1] == '\n')
                tk_secret_truncate(passphrase, --len);
        if (len == 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EINVAL,
                                    "the passphrase from %s is empty", from);
        if (len > TK_PASSPHRASE_MAX)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EINVAL,
                                    "the passphrase from %s is longer than %d bytes", from,
                                    TK_PASSPHRASE_MAX);
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

static int from_fd(int fd, const char *from, struct tk_secret **ret_passphrase,
                   struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        int r;

        /* Room for the newline, and for one byte that shows it is too long. */
        r = tk_secret_new(TK_PASSPHRASE_MAX + 2, &passphrase);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot get locked memory for the passphrase: %s",
                                    strerror(-r));
        r = read_all(fd, passphrase);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, r,
                                    "cannot read the passphrase from %s: %s", from, strerror(-r));
        r = check(passphrase, from, fault);
        if (r < 0)
                return r;
        *ret_passphrase = TK_TAKE(passphrase);
        return 0;
}

static int from_file(const char *path, struct tk_secret **ret_passphrase, struct tk_fault *fault)
{
        TK_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

        if (fd < 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -errno,
                                    "cannot read the passphrase from %s: %s", path,
                                    strerror(errno));
        return from_fd(fd, path, ret_passphrase, fault);
}

/* Closed afterwards: the descriptor was opened for this. */
static int from_inherited_fd(int number, struct tk_secret **ret_passphrase, struct tk_fault *fault)
{
        TK_AUTOCLOSE int fd = number;
        char from[32];

        snprintf(from, sizeof(from), "descriptor %d", fd);
        return from_fd(fd, from, ret_passphrase, fault);
}

static int from_credential(const char *name, struct tk_secret **ret_passphrase,
                           struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *path = NULL;
        const char *dir = getenv("CREDENTIALS_DIRECTORY");

        if (!dir || dir[0] != '/')
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -ENOENT,
                                    "the passphrase is the systemd credential '%s', but "
                                    "$CREDENTIALS_DIRECTORY is not set; run from a unit with "
                                    "LoadCredential= or LoadCredentialEncrypted=",
                                    name);
        if (asprintf(&path, "%s/%s", dir, name) < 0)
                return -ENOMEM;
        return from_file(path, ret_passphrase, fault);
}

static int ask(const char *prompt, struct tk_secret **ret_passphrase, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        int r;

        r = tk_tty_ask(prompt, TK_PASSPHRASE_MAX + 2, &passphrase);
        if (r == -ENXIO || r == -ENOENT || r == -ENOTTY)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, r,
                                    "the passphrase has to be typed, but there is no terminal; "
                                    "use another source in [local] passphrase, such as file:/PATH");
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, r,
                                    "cannot read the passphrase from the terminal: %s",
                                    strerror(-r));
        r = check(passphrase, "the terminal", fault);
        if (r < 0)
                return r;
        *ret_passphrase = TK_TAKE(passphrase);
        return 0;
}

static int from_prompt(const char *label, bool confirm, struct tk_secret **ret_passphrase,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        char prompt[512];
        int r;

        snprintf(prompt, sizeof(prompt), "%s for %s: ", confirm ? "New passphrase" : "Passphrase",
                 label);
        r = ask(prompt, &passphrase, fault);
        if (r < 0)
                return r;
        if (confirm) {
                r = ask("Once more: ", &again, fault);
                if (r < 0)
                        return r;
                if (!tk_secret_equal(passphrase, again))
                        return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EINVAL,
                                            "the two passphrases differ; nothing was made");
        }
        *ret_passphrase = TK_TAKE(passphrase);
        return 0;
}

int tk_passphrase_get(const struct tk_conf *conf, const char *label, bool confirm,
                      struct tk_secret **ret_passphrase, struct tk_fault *fault)
{
        const char *arg = conf->local.passphrase_arg;

        switch (conf->local.passphrase) {
        case TK_CONF_PASSPHRASE_PROMPT:
                return from_prompt(label, confirm, ret_passphrase, fault);
        case TK_CONF_PASSPHRASE_FILE:
                return from_file(arg, ret_passphrase, fault);
        case TK_CONF_PASSPHRASE_FD:
                return from_inherited_fd(tk_passphrase_fd(conf), ret_passphrase, fault);
        case TK_CONF_PASSPHRASE_CREDENTIAL:
                return from_credential(arg, ret_passphrase, fault);
        default:
                *ret_passphrase = NULL;
                return 0;
        }
}

bool tk_passphrase_is_interactive(const struct tk_conf *conf)
{
        return conf->local.passphrase == TK_CONF_PASSPHRASE_PROMPT ||
               conf->local.passphrase == TK_CONF_PASSPHRASE_FD;
}

int tk_passphrase_fd(const struct tk_conf *conf)
{
        if (conf->local.passphrase != TK_CONF_PASSPHRASE_FD)
                return -1;
        return (int)strtol(conf->local.passphrase_arg, NULL, 10);
}
