/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as the list of `mount -o`: what goes on to the kernel is what it may be given. */

#include "cli/mountopts.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

/* Words and labels, with one comma between two: nothing that libfuse would take for its own. */
static void check_kernel(const char *list)
{
        static const char *const known[] = {"nosuid", "nodev", "noexec",  "suid",  "dev",    "exec",
                                            "atime",  "sync",  "noatime", "async", "dirsync"};
        static const char *const labels[] = {
                "context=", "fscontext=", "defcontext=", "rootcontext="};

        while (list) {
                size_t len = strcspn(list, ",");
                bool found = false;

                for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
                        found |= strlen(known[i]) == len && strncmp(known[i], list, len) == 0;
                for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++)
                        found |= strncmp(labels[i], list, strlen(labels[i])) == 0;
                require(found);
                list = list[len] ? list + len + 1 : NULL;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        struct tk_fault fault = {0};
        struct tk_conf conf = {0};
        struct tk_mountopts opts;
        char *list = strndup((const char *)bytes, len);
        int r;

        require(list);
        r = tk_mountopts_parse(list, &opts, &fault);
        require(r == 0 || (r == -EINVAL && fault.kind == TK_FAULT_USAGE && fault.text[0]));
        if (r == 0) {
                check_kernel(opts.kernel);
                require(opts.threads <= 64);
                require(!(opts.read_only && opts.read_write));
                require(!opts.config || (opts.config[0] && !strchr(opts.config, ',')));
                tk_mountopts_apply(&opts, &conf);
                require(conf.mount.threads == opts.threads);
        }
        tk_mountopts_done(&opts);
        free(list);
        return 0;
}
