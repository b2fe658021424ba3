/* SPDX-License-Identifier: Apache-2.0 */

/* Set-id bits, where libfuse passes on what the kernel says of them. */

#include "fs/killpriv.h"

int tk_killpriv_enable(struct fuse_session *session)
{
        (void)session;
        return 0;
}

unsigned tk_killpriv_capability(void)
{
        return FUSE_CAP_HANDLE_KILLPRIV_V2;
}

bool tk_killpriv_wanted_by_write(const struct fuse_file_info *fi)
{
        return fi->kill_suidgid;
}

/* The kernel's FATTR_KILL_SUIDGID has this bit. */
bool tk_killpriv_wanted_by_setattr(int to_set)
{
        return to_set & FUSE_SET_ATTR_KILL_SUID;
}
