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

/* Capabilities of this thread, in the kernel's two halves. */
static int read_capabilities(struct __user_cap_header_struct *header,
                             struct __user_cap_data_struct data[2])
{
        *header = (struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3};
        return syscall(SYS_capget, header, data) < 0 ? -errno : 0;
}

static int drop_capability(unsigned capability)
{
        struct __user_cap_header_struct header;
        struct __user_cap_data_struct data[2];
        uint32_t mask = ~(UINT32_C(1) << (capability % 32));
        int r;

        r = read_capabilities(&header, data);
        if (r < 0)
                return r;
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

bool tk_creds_override(void)
{
        static const unsigned needed[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
                                          CAP_FOWNER, CAP_FSETID};
        struct __user_cap_header_struct header;
        struct __user_cap_data_struct data[2];

        if (geteuid() != 0 || read_capabilities(&header, data) < 0)
                return false;
        for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
                if (!(data[needed[i] / 32].effective & UINT32_C(1) << needed[i] % 32))
                        return false;
        return true;
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
