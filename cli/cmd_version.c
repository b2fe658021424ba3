/* SPDX-License-Identifier: Apache-2.0 */

/* `version`: this program and the libraries that it runs with. */

#include "cli/command.h"
#include "crypto/aead.h"
#include "fs/mount.h"
#include <stdio.h>

int tk_cmd_version(const struct tk_args *args, struct tk_fault *fault)
{
        (void)args;
        (void)fault;
        printf("turnkeyfs %s\nlibfuse %s\n%s\n", TK_VERSION, tk_mount_library(), tk_aead_library());
        return 0;
}
