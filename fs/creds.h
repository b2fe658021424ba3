/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whose a new file is: the identity under which a thread touches the backing
 * directory.
 *
 * A root daemon serves every user. The kernel has judged permissions before a
 * request arrives (default_permissions), or lets in root only; what is left is that new files
 * belong to the caller, and that space is charged to the file's owner, quota and reserve included.
 * The identity is per thread and changed by raw system calls; libc's would change the whole
 * process.
 */

#include "base/cleanup.h"
#include <stdbool.h>
#include <sys/types.h>

struct tk_caller {
        uid_t uid;
        gid_t gid;
        mode_t umask;
};

/*
 * Prepare the process, before it has threads: capabilities survive a change of
 * fsuid, and CAP_SYS_RESOURCE is given up, so that ENOSPC and EDQUOT reach the
 * daemon as they would reach the application. Does nothing unless run by root.
 * -EPERM if the system does not allow it.
 */
TK_MUST_USE int tk_creds_init(void);

/*
 * Whether the backing directory refuses this process nothing for want of permission, so
 * that it can do whatever root may do. Asks the kernel.
 */
bool tk_creds_override(void);

/* Create as @caller until the next call: owner, group and umask. */
void tk_creds_become(const struct tk_caller *caller);

/* Take space as @uid, a file's owner, until the next call. */
void tk_creds_charge(uid_t uid);
