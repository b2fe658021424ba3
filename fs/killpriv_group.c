/* SPDX-License-Identifier: Apache-2.0 */

/* Set-id bits: who belongs to a group keeps its set-group-id bit. */

#include "fs/killpriv.h"

bool tk_killpriv_in_group(fuse_req_t req, gid_t gid)
{
        enum { GROUPS_MAX = 1024 };
        gid_t groups[GROUPS_MAX];
        int count;

        if (fuse_req_ctx(req)->gid == gid)
                return true;
        count = fuse_req_getgroups(req, GROUPS_MAX, groups);
        for (int i = 0; i < count && i < GROUPS_MAX; i++)
                if (groups[i] == gid)
                        return true;
        return false;
}
