/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any text as /proc/self/mountinfo, whose paths are anybody's: the search comes to an end,
 * and what it finds is what was asked for. The first two lines of the input are the
 * mountpoint and the CIPHERDIR that are asked for.
 */

#include "cli/mountinfo.h"
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void search(const char *text, const char *mountpoint, const char *cipherdir)
{
        struct tk_mountinfo info;
        char *copy = strdup(text);
        int r;

        require(copy);
        r = tk_mountinfo_search(copy, mountpoint, cipherdir, &info);
        require(r == 0 || r == 1);
        require((r == 1) == (info.mountpoint != NULL) && (r == 1) == (info.cipherdir != NULL));
        if (r == 1)
                require(mountpoint ? strcmp(info.mountpoint, mountpoint) == 0
                                   : strcmp(info.cipherdir, cipherdir) == 0);
        tk_mountinfo_done(&info);
        free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        char *input = strndup((const char *)bytes, len);
        char *text = input;
        const char *mountpoint;
        const char *cipherdir;

        require(input);
        mountpoint = strsep(&text, "\n");
        cipherdir = text ? strsep(&text, "\n") : "";
        search(text ? text : "", mountpoint, NULL);
        search(text ? text : "", NULL, cipherdir);
        free(input);
        return 0;
}
