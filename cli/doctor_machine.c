/* SPDX-License-Identifier: Apache-2.0 */

/* What the machine has for a mount: FUSE, the CPU, memory that can be locked, swap. */

#include "cli/doctor.h"
#include "cli/fuseconf.h"
#include "cli/harden.h"
#include "cli/hygiene.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void check_device(struct tk_doctor *doctor)
{
        TK_AUTOCLOSE int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

        if (fd >= 0)
                tk_doctor_ok(doctor, "FUSE", "/dev/fuse can be opened");
        else if (errno == EACCES || errno == EPERM)
                tk_doctor_fail(doctor, TK_FAULT_PERMISSION, "FUSE",
                               "give your user access to /dev/fuse (mode 0666, or its group)",
                               "cannot open /dev/fuse: %s", strerror(errno));
        else
                tk_doctor_fail(doctor, TK_FAULT_MOUNT, "FUSE",
                               "run 'modprobe fuse' as root; in a container, pass the device in",
                               "cannot open /dev/fuse: %s", strerror(errno));
}

/* The first program of that name in PATH. */
static bool find_program(const char *name, char ret_path[PATH_MAX])
{
        const char *dirs = getenv("PATH");
        char copy[PATH_MAX];
        char *rest = copy;
        char *dir;

        snprintf(copy, sizeof(copy), "%s", dirs ? dirs : "/usr/bin:/bin");
        while ((dir = strsep(&rest, ":")))
                if (snprintf(ret_path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX &&
                    access(ret_path, X_OK) == 0)
                        return true;
        return false;
}

static void check_fusermount(struct tk_doctor *doctor)
{
        char path[PATH_MAX];
        struct stat st;

        if (geteuid() == 0)
                return;
        if (!find_program("fusermount3", path))
                tk_doctor_fail(doctor, TK_FAULT_MOUNT, "fusermount3", "install the package fuse3",
                               "it is not in PATH, and users other than root can't mount without "
                               "it");
        else if (stat(path, &st) < 0 || !(st.st_mode & S_ISUID) || st.st_uid != 0)
                tk_doctor_warn(doctor, "fusermount3", "reinstall the package fuse3",
                               "%s is not set-user-id root, so it can't mount for users", path);
        else
                tk_doctor_ok(doctor, "fusermount3", "%s", path);
}

static void check_allow_other(struct tk_doctor *doctor)
{
        if (!doctor->conf->mount.allow_other || geteuid() == 0)
                return;
        if (tk_fuseconf_allows_other())
                tk_doctor_ok(doctor, "allow_other", "/etc/fuse.conf has user_allow_other");
        else
                tk_doctor_fail(doctor, TK_FAULT_CONFIG, "allow_other",
                               "add that line, or set [mount] allow_other = no",
                               "/etc/fuse.conf lacks the line user_allow_other");
}

/* Whether a line of /proc/cpuinfo that begins with @key lists @flag. */
static bool cpu_has(const char *key, const char *flag)
{
        FILE *file = fopen("/proc/cpuinfo", "re");
        char line[8192];
        bool found = false;

        while (file && !found && fgets(line, sizeof(line), file)) {
                char *rest = strchr(line, ':');
                char *word;

                if (!rest || strncmp(line, key, strlen(key)) != 0)
                        continue;
                rest++;
                while (!found && (word = strsep(&rest, " \n")))
                        found = strcmp(word, flag) == 0;
        }
        if (file)
                fclose(file);
        return found;
}

static void check_cpu(struct tk_doctor *doctor)
{
        if (cpu_has("flags", "aes") || cpu_has("Features", "aes"))
                tk_doctor_ok(doctor, "AES", "the CPU has instructions for it");
        else
                tk_doctor_warn(doctor, "AES",
                               "use another machine type, or switch them on in the hypervisor",
                               "the CPU shows no AES instructions: encryption will be slow");
}

static void check_locking(struct tk_doctor *doctor)
{
        static const char todo[] = "run as root, or raise the limit of locked memory to unlimited "
                                   "(ulimit -l, LimitMEMLOCK=)";
        struct rlimit limit = {0, 0};
        uintmax_t kib;

        (void)getrlimit(RLIMIT_MEMLOCK, &limit);
        kib = (uintmax_t)limit.rlim_cur / 1024;
        if (tk_hygiene_can_lock_all())
                tk_doctor_ok(doctor, "memory lock", "the whole process can be locked");
        else if (doctor->conf->memory.require_lock)
                tk_doctor_fail(doctor, TK_FAULT_PERMISSION, "memory lock", todo,
                               "[memory] lock = require, but only %ju KiB may be locked", kib);
        else
                tk_doctor_warn(doctor, "memory lock", todo,
                               "only %ju KiB may be locked: keys will be, file content will not",
                               kib);
}

/* Whether what is written to the swap device /dev/@name stays in RAM or is encrypted. */
static bool swap_is_safe(const char *name)
{
        char path[PATH_MAX];
        char uuid[16] = "";
        FILE *file;

        if (strncmp(name, "zram", 4) == 0)
                return true;
        snprintf(path, sizeof(path), "/sys/block/%.255s/dm/uuid", name);
        file = fopen(path, "re");
        if (!file)
                return false;
        if (!fgets(uuid, sizeof(uuid), file))
                uuid[0] = '\0';
        fclose(file);
        return strncmp(uuid, "CRYPT-", 6) == 0;
}

/* The kernel's name of a swap device, such as dm-1 for /dev/mapper/swap. */
static const char *device_name(const char *path, char resolved[PATH_MAX])
{
        const char *real = realpath(path, resolved);
        const char *slash = strrchr(real ? real : path, '/');

        return slash ? slash + 1 : path;
}

static void check_swap(struct tk_doctor *doctor)
{
        FILE *file = fopen("/proc/swaps", "re");
        char resolved[PATH_MAX];
        char line[PATH_MAX + 128];
        bool any = false;
        bool unsafe = false;

        while (file && fgets(line, sizeof(line), file)) {
                line[strcspn(line, " \t\n")] = '\0';
                if (line[0] != '/')
                        continue; /* the heading */
                any = true;
                if (swap_is_safe(device_name(line, resolved)))
                        continue;
                unsafe = true;
                tk_doctor_warn(doctor, "swap", "encrypt it (crypttab), or switch it off (swapoff)",
                               "%s does not look encrypted: file content may reach it in the clear",
                               line);
        }
        if (file)
                fclose(file);
        if (!unsafe)
                tk_doctor_ok(doctor, "swap", "%s", any ? "encrypted, or in RAM" : "none");
}

static void check_hardening(struct tk_doctor *doctor)
{
        unsigned landlock = tk_harden_landlock();

        if (!doctor->conf->mount.hardening)
                tk_doctor_warn(doctor, "hardening", "leave out [mount] hardening = no",
                               "it is switched off: a mount keeps all rights");
        else if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0)
                tk_doctor_warn(doctor, "hardening", "use a kernel with CONFIG_SECCOMP_FILTER",
                               "system calls can't be filtered here");
        else if (landlock == 0)
                tk_doctor_ok(doctor, "hardening", "system calls are filtered; no Landlock here");
        else
                tk_doctor_ok(doctor, "hardening", "system calls are filtered; Landlock version %u",
                             landlock);
}

void tk_doctor_check_machine(struct tk_doctor *doctor)
{
        check_device(doctor);
        check_fusermount(doctor);
        check_allow_other(doctor);
        check_cpu(doctor);
        check_locking(doctor);
        check_swap(doctor);
        check_hardening(doctor);
}
