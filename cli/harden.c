/* SPDX-License-Identifier: Apache-2.0 */

/* Hardening: capabilities, and all parts in their order. */

#include "cli/harden.h"

#include "base/log.h"
#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What serving a root's mount takes. */
static const unsigned char kept[] = {
        /* Every user's files, below permissions that the kernel has judged already; by handle. */
        CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_CHOWN, CAP_FSETID,
        /* New files belong to the caller: fs/creds.c. */
        CAP_SETUID, CAP_SETGID, CAP_MKNOD,
        /* security.capability, and the other attributes of `security` and `trusted`. */
        CAP_SETFCAP, CAP_SYS_ADMIN,
        /* Memory to come is locked, too. */
        CAP_IPC_LOCK,
#ifdef TK_SANITIZED
        CAP_SYS_PTRACE, /* the leak checker looks at our own threads */
#endif
};

static uint64_t kept_mask(void)
{
        uint64_t mask = 0;

        for (size_t i = 0; i < sizeof(kept); i++)
                mask |= UINT64_C(1) << kept[i];
        return mask;
}

/* What a program that is started could get back; without CAP_SETPCAP that is refused, and without
 * need: no_new_privs. */
static void bound_programs(uint64_t mask)
{
        for (unsigned capability = 0; capability < 64; capability++)
                if (!(mask >> capability & 1) && prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 &&
                    prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
                        return;
}

int tk_harden_capabilities(void)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];
        uint64_t mask = kept_mask();

        bound_programs(mask);
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        for (size_t i = 0; i < 2; i++) {
                data[i].permitted &= (uint32_t)(mask >> 32 * i);
                data[i].effective = data[i].permitted;
                data[i].inheritable = 0;
        }
        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* Only the Azure CLI is a program of somebody else's: the last resort of auth = default, too. */
static bool starts_programs(const struct tk_conf *conf)
{
        return strcmp(conf->kms.provider, "azure") == 0 &&
               (conf->azure.auth == TK_CONF_AUTH_DEFAULT ||
                conf->azure.auth == TK_CONF_AUTH_AZURE_CLI);
}

/* A token's module writes where it likes, and so does a program: nobody knows where. */
static bool writes_anywhere(const struct tk_conf *conf)
{
        return strcmp(conf->kms.provider, "pkcs11") == 0 || starts_programs(conf);
}

static const char *keystore_of(const struct tk_conf *conf, const char *place)
{
        return strcmp(conf->kms.provider, "local") == 0 ? place : NULL;
}

static bool in_force(int r, const char *what)
{
        if (r < 0)
                tk_log(TK_LOG_WARNING,
                       "hardening: %s: %s; the mount goes on without; '[mount] hardening = no' "
                       "turns it off",
                       what, strerror(-r));
        return r == 0;
}

void tk_harden(const struct tk_conf *conf, int cipherdir_fd, const char *place,
               struct tk_harden *ret_harden)
{
        struct tk_harden_calls calls = {.programs = starts_programs(conf),
                                        .io_uring = conf->mount.io_uring};
        int r;

        *ret_harden = (struct tk_harden){0};
        if (!conf->mount.hardening)
                return;
        ret_harden->capabilities =
                in_force(tk_harden_capabilities(), "capabilities can't be given up");
        r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
        ret_harden->no_new_privileges = in_force(r, "new privileges can't be refused");
        (void)in_force(tk_harden_files(writes_anywhere(conf) ? -1 : cipherdir_fd,
                                       keystore_of(conf, place), &ret_harden->files),
                       "Landlock can't be used");
        ret_harden->system_calls =
                in_force(tk_harden_calls(&calls), "system calls can't be filtered (seccomp)");
}
