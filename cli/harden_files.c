/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Landlock.
 *
 * The daemon of a user may write below the encrypted directory and beside the keystore,
 * and read what the user may: a configuration to rotate to can be anywhere.
 *
 * Root's daemon opens files by handle. The kernel then has no path to a file whose names
 * it has dropped from its cache, and Landlock refuses what it can't follow to an allowed
 * directory: files would fail once they were forgotten, and links with them, however the
 * rules look. So there Landlock holds back sockets only.
 *
 * The numbers are the kernel's; headers may be older than it.
 */

#include "cli/harden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SYS_CREATE_RULESET = 444, SYS_ADD_RULE = 445, SYS_RESTRICT_SELF = 446 };
enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

enum {
        EXECUTE = 1 << 0,
        WRITE_FILE = 1 << 1,
        REMOVE_DIR = 1 << 4,
        REMOVE_FILE = 1 << 5,
        MAKE_CHAR = 1 << 6,
        MAKE_DIR = 1 << 7,
        MAKE_REG = 1 << 8,
        MAKE_SOCK = 1 << 9,
        MAKE_FIFO = 1 << 10,
        MAKE_BLOCK = 1 << 11,
        MAKE_SYM = 1 << 12,
        REFER = 1 << 13,
        TRUNCATE = 1 << 14,
        IOCTL_DEV = 1 << 15,
};

enum { BIND_TCP = 1 << 0 };
/* Not signals: the kernel would hold back the one that tells the guardian of our end. */
enum { ABSTRACT_UNIX_SOCKET = 1 << 0 };

struct ruleset {
        uint64_t files;
        uint64_t net;
        uint64_t scoped;
};

struct rule {
        uint64_t allowed;
        int32_t parent_fd;
} __attribute__((packed));

unsigned tk_harden_landlock(void)
{
        long version = syscall(SYS_CREATE_RULESET, NULL, 0, CREATE_RULESET_VERSION);

        return version > 0 ? (unsigned)version : 0;
}

/* What this version of Landlock can hold back. Without REFER it would forbid to move files. */
static struct ruleset known(unsigned version, bool files)
{
        static const uint64_t writing = EXECUTE | WRITE_FILE | REMOVE_DIR | REMOVE_FILE |
                                        MAKE_CHAR | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO |
                                        MAKE_BLOCK | MAKE_SYM | REFER;
        struct ruleset set = {0};

        if (files && version >= 2)
                set.files = writing;
        if (set.files && version >= 3)
                set.files |= TRUNCATE;
        if (version >= 4)
                set.net = BIND_TCP;
        if (version >= 6)
                set.scoped = ABSTRACT_UNIX_SOCKET;
        return set;
}

static int allow(int ruleset_fd, int dir_fd, uint64_t rights)
{
        struct rule rule = {.allowed = rights, .parent_fd = dir_fd};

        if (syscall(SYS_ADD_RULE, ruleset_fd, RULE_PATH_BENEATH, &rule, 0) < 0)
                return -errno;
        return 0;
}

static int allow_path(int ruleset_fd, const char *path, uint64_t rights)
{
        TK_AUTOCLOSE int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : allow(ruleset_fd, fd, rights);
}

/* A keystore is replaced by another file of its directory. */
static int allow_keystore(int ruleset_fd, const char *keystore, uint64_t files)
{
        const char *slash = strrchr(keystore, '/');
        TK_CLEANUP(tk_freep) char *dir = NULL;

        if (!slash)
                return -EINVAL;
        dir = strndup(keystore, slash == keystore ? 1 : (size_t)(slash - keystore));
        if (!dir)
                return -ENOMEM;
        return allow_path(ruleset_fd, dir,
                          files & (WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE));
}

static int allow_writing(int ruleset_fd, int cipherdir_fd, const char *keystore, uint64_t files)
{
        int r;

        r = allow(ruleset_fd, cipherdir_fd, files & ~(uint64_t)EXECUTE);
        if (r == 0)
                r = allow_path(ruleset_fd, "/dev", WRITE_FILE);
        if (r == 0 && keystore)
                r = allow_keystore(ruleset_fd, keystore, files);
        return r;
}

int tk_harden_files(int cipherdir_fd, const char *keystore, enum tk_harden_files *ret_files)
{
        struct ruleset set = known(tk_harden_landlock(), cipherdir_fd >= 0 && geteuid() != 0);
        TK_AUTOCLOSE int fd = -1;
        int r = 0;

        *ret_files = TK_HARDEN_FILES_NONE;
        if (!set.files && !set.net && !set.scoped)
                return 0;
        fd = (int)syscall(SYS_CREATE_RULESET, &set, sizeof(set), 0);
        if (fd < 0)
                return -errno;
        if (set.files)
                r = allow_writing(fd, cipherdir_fd, keystore, set.files);
        if (r < 0)
                return r;
        if (syscall(SYS_RESTRICT_SELF, fd, 0) < 0)
                return -errno;
        *ret_files = set.files ? TK_HARDEN_FILES_WRITES : TK_HARDEN_FILES_SOCKETS;
        return 0;
}

const char *tk_harden_files_name(enum tk_harden_files files)
{
        static const char *const names[] = {[TK_HARDEN_FILES_NONE] = "none",
                                            [TK_HARDEN_FILES_SOCKETS] = "sockets",
                                            [TK_HARDEN_FILES_WRITES] = "writes"};

        return names[files];
}
