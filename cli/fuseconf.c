/* SPDX-License-Identifier: Apache-2.0 */

/* What /etc/fuse.conf allows: read as fusermount3 reads it, which decides in the end. */

#include "cli/fuseconf.h"

#include "base/cleanup.h"
#include "base/fdio.h"
#include <fcntl.h>
#include <string.h>

enum { CONF_MAX = 65536 };

bool tk_fuseconf_allows_other(void)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        char *rest;
        char *line;
        size_t len;

        if (tk_fdio_read_file(AT_FDCWD, "/etc/fuse.conf", CONF_MAX, &text, &len) < 0)
                return false;
        rest = text;
        while ((line = strsep(&rest, "\n"))) {
                line += strspn(line, " \t");
                line[strcspn(line, " \t#\r")] = '\0';
                if (strcmp(line, "user_allow_other") == 0)
                        return true;
        }
        return false;
}
