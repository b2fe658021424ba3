/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `umount`: take the mount away, then wait until the daemon has let go of the
 * volume lock: only then is everything written.
 */

#include "cli/command.h"
#include "cli/mountinfo.h"
#include "cli/paths.h"
#include "fs/volume.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

enum { POLL_MS = 20, SAY_AFTER_MS = 3000, WAIT_MAX_MS = 10 * 60 * 1000, HELPER_OUTPUT_MAX = 512 };

static int fail_not_ours(const char *path, const char *resolved, struct tk_fault *fault)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo other = {0};

        if (tk_mountinfo_of(resolved, &other) > 0)
                return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, -EINVAL,
                                    "%s is an encrypted directory, mounted at %s; run 'turnkeyfs "
                                    "umount %s'",
                                    path, other.mountpoint, other.mountpoint);
        return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, -EINVAL,
                            "nothing of turnkeyfs is mounted at %s; /proc/self/mountinfo lists "
                            "what is mounted where",
                            path);
}

/* Without a look into what is there. */
static int find_mount(const char *path, struct tk_mountinfo *info, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *mountpoint = NULL;
        int r;

        r = tk_path_resolve_mountpoint(path, &mountpoint);
        if (r == 0)
                r = tk_mountinfo_at(mountpoint, info);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, r, "cannot find the mount %s: %s",
                                    path, strerror(-r));
        return info->mountpoint ? 0 : fail_not_ours(path, mountpoint, fault);
}

static int fail_busy(const char *mountpoint, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                            "%s is busy: a program has a file open or its working directory "
                            "there; end it ('fuser -m %s' finds it) and try again",
                            mountpoint, mountpoint);
}

static int unmount_as_root(const char *mountpoint, bool dead, struct tk_fault *fault)
{
        if (umount2(mountpoint, UMOUNT_NOFOLLOW | (dead ? MNT_DETACH : 0)) == 0)
                return 0;
        if (errno == EBUSY)
                return fail_busy(mountpoint, fault);
        return tk_fault_set(fault, errno == EPERM ? TK_FAULT_PERMISSION : TK_FAULT_MOUNT, -errno,
                            "cannot unmount %s: %s", mountpoint, strerror(errno));
}

_Noreturn static void run_fusermount(const char *mountpoint, bool dead, int output)
{
        char program[] = "fusermount3";
        char unmount[] = "-u";
        char detach[] = "-uz";
        char end[] = "--";
        char *path = strdup(mountpoint);
        char *const argv[] = {program, dead ? detach : unmount, end, path, NULL};

        (void)dup2(output, STDERR_FILENO);
        execvp(program, argv);
        dprintf(STDERR_FILENO, "cannot run fusermount3: %s; install the package fuse3\n",
                strerror(errno));
        _exit(127);
}

/* What the helper said, without its last newline. Reads to the end. */
static void read_output(int fd, char said[HELPER_OUTPUT_MAX])
{
        size_t len = 0;
        char spill[256];
        ssize_t n;

        for (;;) {
                bool full = len == HELPER_OUTPUT_MAX - 1;

                n = read(fd, full ? spill : said + len,
                         full ? sizeof(spill) : HELPER_OUTPUT_MAX - 1 - len);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                len += full ? 0 : (size_t)n;
        }
        while (len > 0 && said[len - 1] == '\n')
                len--;
        said[len] = '\0';
}

static int unmount_as_user(const char *mountpoint, bool dead, struct tk_fault *fault)
{
        char said[HELPER_OUTPUT_MAX];
        int status = -1;
        int fds[2];
        pid_t child;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        child = fork();
        if (child == 0)
                run_fusermount(mountpoint, dead, fds[1]);
        close(fds[1]);
        if (child > 0)
                read_output(fds[0], said);
        close(fds[0]);
        if (child < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -EAGAIN, "cannot fork");
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;

        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        if (strstr(said, "busy"))
                return fail_busy(mountpoint, fault);
        return tk_fault_set(fault, TK_FAULT_MOUNT, -EPERM, "cannot unmount %s: %s", mountpoint,
                            said[0] ? said : "fusermount3 failed");
}

/* @daemon: the process that held the lock before; another one is another mount already. */
static int wait_released(const struct tk_volume *volume, long daemon, struct tk_fault *fault)
{
        const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
        struct tk_volume_holder holder;

        for (int waited_ms = 0; waited_ms < WAIT_MAX_MS; waited_ms += POLL_MS) {
                int r = tk_volume_holder(volume, &holder);

                if (r == 0 || (r > 0 && holder.pid != daemon))
                        return 0;
                if (r < 0)
                        return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                            "cannot look at the lock of %s: %s",
                                            tk_volume_path(volume), strerror(-r));
                if (waited_ms == SAY_AFTER_MS)
                        fprintf(stderr,
                                "turnkeyfs: waiting until process %ld has written everything; it "
                                "goes on as long as another mount namespace, such as a "
                                "container's, has the mount\n",
                                holder.pid);
                nanosleep(&pause, NULL);
        }
        return tk_fault_set(fault, TK_FAULT_IN_USE, -ETIMEDOUT,
                            "unmounted here, but process %ld still holds %s after %d minutes: it "
                            "writes, or another mount namespace, such as a container's, has the "
                            "mount; don't switch off before it has ended",
                            holder.pid, tk_volume_path(volume), WAIT_MAX_MS / 60000);
}

/*
 * Its daemon is gone; whatever still has it open holds nothing that could be written. As long as
 * that holds the lock it isn't asked: it may hang. The lock may also be that of a later mount
 * elsewhere, or of another command. Not stat(2), which the kernel may answer from its cache.
 */
static bool is_dead(const char *mountpoint, const struct tk_volume_holder *holder)
{
        char doing[sizeof(holder->doing)];
        struct statfs st;

        tk_mountinfo_doing(mountpoint, doing, sizeof(doing));
        return strcmp(holder->doing, doing) != 0 && statfs(mountpoint, &st) < 0 &&
               errno == ENOTCONN;
}

int tk_cmd_umount(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        struct tk_volume_holder daemon = {0};
        struct tk_fault minor = {0};
        bool dead;
        int r;

        r = find_mount(args->paths[0], &info, fault);
        if (r < 0)
                return args->dead ? 0 : r;
        if (tk_volume_open(info.cipherdir, &volume, &minor) == 0)
                (void)!tk_volume_holder(volume, &daemon);
        dead = is_dead(info.mountpoint, &daemon);
        if (args->dead && !dead)
                return 0;
        if (!volume && !dead)
                fprintf(stderr, "turnkeyfs: warning: cannot wait until everything is written: %s\n",
                        minor.text);
        r = geteuid() == 0 ? unmount_as_root(info.mountpoint, dead, fault)
                           : unmount_as_user(info.mountpoint, dead, fault);
        if (r < 0 || !volume || dead)
                return r;
        return wait_released(volume, daemon.pid, fault);
}
