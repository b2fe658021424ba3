/* SPDX-License-Identifier: Apache-2.0 */

/* Identity of a thread towards the backing directory. */

#include "fs/creds.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static atomic_bool switchable;

static _Thread_local struct {
        bool own_umask; /* this thread no longer shares its umask */
        uid_t uid;
        gid_t gid;
        mode_t umask;
} current;

static int drop_capability(unsigned capability)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];
        uint32_t mask = ~(UINT32_C(1) << (capability % 32));

        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        data[capability / 32].effective &= mask;
        data[capability / 32].permitted &= mask;
        data[capability / 32].inheritable &= mask;
        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int tk_creds_init(void)
{
        int r;

        if (geteuid() != 0)
                return 0;
        if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0)
                return -EPERM;
        r = drop_capability(CAP_SYS_RESOURCE);
        if (r < 0)
                return r;
        atomic_store(&switchable, true);
        return 0;
}

static void set_ids(uid_t uid, gid_t gid)
{
        if (!atomic_load_explicit(&switchable, memory_order_relaxed))
                return;
        if (current.gid != gid)
                syscall(SYS_setfsgid, gid);
        if (current.uid != uid)
                syscall(SYS_setfsuid, uid);
        current.gid = gid;
        current.uid = uid;
}

void tk_creds_become(const struct tk_caller *caller)
{
        if (!current.own_umask) {
                if (unshare(CLONE_FS) < 0)
                        abort(); /* needs no privilege and fails only without memory */
                umask(caller->umask);
                current.own_umask = true;
                current.umask = caller->umask;
        }
        if (current.umask != caller->umask)
                umask(caller->umask);
        current.umask = caller->umask;
        set_ids(caller->uid, caller->gid);
}

void tk_creds_charge(uid_t uid)
{
        set_ids(uid, current.gid);
}
