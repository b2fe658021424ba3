/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The Azure CLI's account: for a person at a terminal, not for a service.
 *
 * The program is run by argument vector, never through a shell, with a small environment
 * of its own: nothing of ours that could be a secret gets into it.
 */

#include "kms/azure_credential.h"

#include "base/fdio.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum { OUTPUT_MAX = 64 * 1024, LIMIT_MS = 30000, QUICK_MS = 10000, VARIABLES_MAX = 24 };

/* What the program needs, and nothing else of our environment. */
static const char *const passed_on[] = {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
        "AZURE_CONFIG_DIR",
        "REQUESTS_CA_BUNDLE",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "XDG_CONFIG_HOME",
};

struct child {
        pid_t pid;
        int fd; /* its standard output */
};

static void environment_done(char *(*environment)[VARIABLES_MAX])
{
        for (size_t i = 0; i < VARIABLES_MAX; i++)
                free((*environment)[i]);
}

static int make_environment(char *environment[VARIABLES_MAX])
{
        size_t count = 0;

        for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++) {
                const char *value = getenv(passed_on[i]);

                if (value && asprintf(&environment[count++], "%s=%s", passed_on[i], value) < 0) {
                        environment[count - 1] = NULL;
                        return -ENOMEM;
                }
        }
        return 0;
}

static int spawn(char *const argv[], int output, pid_t *ret_pid)
{
        TK_CLEANUP(environment_done) char *environment[VARIABLES_MAX] = {NULL};
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none;
        int r = make_environment(environment);

        if (r < 0)
                return r;
        sigemptyset(&none);
        posix_spawnattr_init(&attributes);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
        posix_spawn_file_actions_init(&actions);
        r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, output, 1);
        if (r == 0)
                r = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
        if (r == 0)
                r = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        if (r == 0)
                r = posix_spawnp(ret_pid, argv[0], &actions, &attributes, argv, environment);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
        /* Not to be taken for a lack of locked memory. */
        return r == EPERM ? -ENOEXEC : -r;
}

static int start(char *const argv[], struct child *ret_child)
{
        int fds[2];
        int r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        r = spawn(argv, fds[1], &ret_child->pid);
        close(fds[1]);
        if (r < 0)
                close(fds[0]);
        else
                ret_child->fd = fds[0];
        return r;
}

/* Everything that the child writes until it ends or @deadline_ms comes: -ETIME then. */
static int collect(const struct tk_azure_net *net, int fd, int64_t deadline_ms,
                   struct tk_secret *text, size_t *ret_len)
{
        size_t len = 0;

        for (;;) {
                int64_t left = deadline_ms - tk_azure_net_now(net);
                struct pollfd ready = {.fd = fd, .events = POLLIN};
                ssize_t n;

                if (left <= 0)
                        return -ETIME;
                if (poll(&ready, 1, (int)left) < 0 && errno != EINTR)
                        return -errno;
                if (ready.revents == 0)
                        continue;
                if (len == OUTPUT_MAX)
                        return -EFBIG;
                n = read(fd, tk_secret_bytes_mutable(text) + len, OUTPUT_MAX - len);
                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n == 0)
                        break;
                len += n > 0 ? (size_t)n : 0;
        }
        *ret_len = len;
        return 0;
}

/* 0 if it ended well. */
static int reap(pid_t pid)
{
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EACCES;
}

static int run(const struct tk_azure_net *net, char *const argv[], int64_t deadline_ms,
               struct tk_secret **ret_text, size_t *ret_len)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        struct child child = {.fd = -1};
        int ended;
        int r;

        r = tk_secret_new(OUTPUT_MAX, &text);
        if (r == 0)
                r = start(argv, &child);
        if (r < 0)
                return r;
        r = collect(net, child.fd, deadline_ms, text, ret_len);
        close(child.fd);
        if (r < 0)
                (void)kill(child.pid, SIGKILL);
        ended = reap(child.pid);
        if (r == 0)
                r = ended;
        if (r == 0)
                *ret_text = TK_TAKE(text);
        return r;
}

static int say_failed(int r, struct tk_fault *fault)
{
        if (r == -ENOENT)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -ENODATA,
                                    "the Azure CLI is not installed: there is no program az in "
                                    "the search path");
        if (r == -EACCES)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -ENODATA,
                                    "the Azure CLI gives no token; log in with: az login");
        if (r == -ENOEXEC)
                return tk_fault_set(fault, TK_FAULT_CONFIG, -ENODATA,
                                    "this process may start no programs, so that it can't ask the "
                                    "Azure CLI: a mount may, if its own configuration has [azure] "
                                    "auth = azure-cli, or [mount] hardening = no");
        if (r == -ETIME)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the Azure CLI took too long; try: az account get-access-token "
                                    "--resource https://vault.azure.net");
        if (r == -ENOMEM || r == -EPERM)
                return r;
        return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY, "can't run the Azure CLI: %s",
                            strerror(-r));
}

int tk_azure_credential_cli(struct tk_azure_auth *auth, const struct tk_azure_want *want,
                            struct tk_azure_grant *ret_grant, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        const char *tenant = auth->tenant_id ? auth->tenant_id : want->tenant;
        const char *arguments[] = {
                "az",         "account",      "get-access-token",         "--output", "json",
                "--resource", want->audience, tenant ? "--tenant" : NULL, tenant,     NULL,
        };
        int64_t deadline = tk_azure_net_now(auth->net) + (want->quick ? QUICK_MS : LIMIT_MS);
        char *argv[sizeof(arguments) / sizeof(arguments[0])];
        size_t len = 0;
        int r;

        memcpy(argv, arguments, sizeof(argv));
        if (deadline > want->deadline_ms)
                deadline = want->deadline_ms;
        r = run(auth->net, argv, deadline, &text, &len);
        if (r < 0)
                return say_failed(r, fault);
        r = tk_azure_auth_parse_cli((const char *)tk_secret_bytes(text), len,
                                    tk_azure_net_unix_now(auth->net), &ret_grant->token,
                                    &ret_grant->lifetime_s);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the Azure CLI printed something else than a token; renew it "
                                    "(az upgrade) or log in again (az login)");
        return r;
}
