/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Where `bench` works: a plain directory and a volume beside it on the same disk, mounted
 * elsewhere. The program's own commands make and mount the volume, as processes of their own.
 */

#include "cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { NFTW_FDS = 32, UNMOUNT_ATTEMPTS = 20 };

/* Commands ---------------------------------------------------------------------------- */

/*
 * Run ourselves with @words. Out of the terminal's foreground: a Ctrl-C is for us, who
 * unmount then.
 */
static int run(const char *const words[])
{
        int status;
        pid_t pid = fork();

        if (pid < 0)
                return -errno;
        if (pid == 0) {
                int null = open("/dev/null", O_RDWR | O_CLOEXEC);

                (void)setpgid(0, 0);
                (void)dup2(null, STDIN_FILENO);
                (void)dup2(null, STDOUT_FILENO);
                execv("/proc/self/exe", (char *const *)(uintptr_t)words);
                _exit(127);
        }
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int tk_bench_place_mount(struct tk_bench_place *place, struct tk_fault *fault)
{
        const char *words[] = {"turnkeyfs",      "mount",           "-c", place->conf,
                               place->cipherdir, place->mountpoint, NULL};
        int r = run(words);

        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_MOUNT, r,
                                    "bench: mounting failed, see above; 'turnkeyfs doctor' "
                                    "checks the machine");
        place->mounted = true;
        return 0;
}

int tk_bench_place_unmount(struct tk_bench_place *place, struct tk_fault *fault)
{
        const char *words[] = {"turnkeyfs", "umount", place->mountpoint, NULL};
        const struct timespec pause = {.tv_nsec = 250000000};

        for (int i = 0; place->mounted; i++) {
                if (run(words) == 0)
                        place->mounted = false;
                else if (i == UNMOUNT_ATTEMPTS)
                        return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                                            "bench: %s can't be unmounted; run 'turnkeyfs umount' "
                                            "on it, then remove %s and %s",
                                            place->mountpoint, place->temporary, place->disk);
                else
                        nanosleep(&pause, NULL);
        }
        return 0;
}

/* Folders ----------------------------------------------------------------------------- */

static int make_folder(const char *parent, char **ret_path, struct tk_fault *fault)
{
        char *path;

        if (asprintf(&path, "%s/turnkeyfs-bench-XXXXXX", parent) < 0)
                return -ENOMEM;
        if (!mkdtemp(path)) {
                int error = errno;

                free(path);
                return tk_fault_set(fault, error == ENOENT ? TK_FAULT_USAGE : TK_FAULT_PERMISSION,
                                    -error, "bench: cannot make a directory in %s: %s", parent,
                                    strerror(error));
        }
        *ret_path = path;
        return 0;
}

static int below(const char *folder, const char *name, char **ret_path)
{
        return asprintf(ret_path, "%s/%s", folder, name) < 0 ? -ENOMEM : 0;
}

/* Paths of ours alone, but for the directory for temporary files, hold no INI comment. */
static int write_conf(const struct tk_bench_place *place)
{
        FILE *out = fopen(place->conf, "wex");

        if (!out)
                return -errno;
        fprintf(out, "[local]\nkeystore = %s/keystore\n", place->temporary);
        return fclose(out) == 0 ? 0 : -errno;
}

static int make_paths(const char *directory, struct tk_bench_place *place, struct tk_fault *fault)
{
        const char *temporary = getenv("TMPDIR");
        int r;

        r = make_folder(directory, &place->disk, fault);
        if (r == 0)
                r = make_folder(temporary && temporary[0] == '/' ? temporary : P_tmpdir,
                                &place->temporary, fault);
        if (r == 0)
                r = below(place->disk, "plain", &place->plain);
        if (r == 0)
                r = below(place->disk, "encrypted", &place->cipherdir);
        if (r == 0)
                r = below(place->temporary, "mount", &place->mountpoint);
        if (r == 0)
                r = below(place->temporary, "conf", &place->conf);
        return r;
}

int tk_bench_place_make(const char *directory, struct tk_bench_place *ret_place,
                        struct tk_fault *fault)
{
        struct tk_bench_place *place = ret_place;
        int r;

        memset(place, 0, sizeof(*place));
        r = make_paths(directory, place, fault);
        if (r < 0)
                return r;
        if (mkdir(place->plain, 0700) < 0 || mkdir(place->mountpoint, 0700) < 0)
                r = -errno;
        if (r == 0)
                r = write_conf(place);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "bench: cannot prepare %s: %s",
                                    place->temporary, strerror(-r));
        {
                const char *words[] = {"turnkeyfs", "init",           "-c",
                                       place->conf, place->cipherdir, NULL};

                r = run(words);
        }
        return r < 0 ? tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "bench: making a volume in %s failed, see above", place->disk)
                     : 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

static int remove_folder(const char *path, struct tk_fault *fault)
{
        if (!path || nftw(path, remove_one, NFTW_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0)
                return 0;
        return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "bench: cannot remove %s: %s", path,
                            strerror(errno));
}

int tk_bench_place_remove(struct tk_bench_place *place, struct tk_fault *fault)
{
        int r = tk_bench_place_unmount(place, fault);
        int r_temporary;

        if (r == 0) {
                r = remove_folder(place->disk, fault);
                r_temporary = remove_folder(place->temporary, fault);
                r = r < 0 ? r : r_temporary;
        }
        free(place->disk);
        free(place->temporary);
        free(place->plain);
        free(place->cipherdir);
        free(place->mountpoint);
        free(place->conf);
        memset(place, 0, sizeof(*place));
        return r;
}

/* Nothing of this machine but our own files: unlike /proc/sys/vm/drop_caches. */
static int forget_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        int fd;
        int r = 0;

        (void)ftw;
        if (type != FTW_F || !S_ISREG(st->st_mode))
                return 0;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -1;
        if (fdatasync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
                r = -1;
        close(fd);
        return r;
}

int tk_bench_place_forget(const char *folder, struct tk_fault *fault)
{
        if (nftw(folder, forget_one, NFTW_FDS, FTW_PHYS) == 0)
                return 0;
        return tk_fault_set(fault, TK_FAULT_INTERNAL, -errno, "bench: cannot write out %s: %s",
                            folder, strerror(errno));
}
