/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Judging a tree by a program. The tree lies in memory (/dev/shm), owned by who runs this;
 * the program may do with it what it wants.
 */

#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

static int write_file(const struct tk_node *node, const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, node->mode & 07777);
        uint8_t page[TK_DISK_PAGE];
        int r = fd < 0 ? -1 : ftruncate(fd, (off_t)node->size);

        for (uint64_t off = 0; r == 0 && off < node->size; off += sizeof(page)) {
                size_t len = tk_disk_read(node, off, page, sizeof(page));

                if (tk_disk_has_page(node, off / TK_DISK_PAGE) &&
                    pwrite(fd, page, len, (off_t)off) != (ssize_t)len)
                        r = -1;
        }
        if (fd >= 0)
                close(fd);
        return r;
}

static int write_dir(const struct tk_disk *plain, uint32_t id, const char *path)
{
        const struct tk_node *dir = tk_disk_node(plain, id);
        int r = mkdir(path, 0700);

        for (size_t i = 0; r == 0 && i < dir->entry_count; i++) {
                const struct tk_node *node = tk_disk_node(plain, dir->entries[i].node);
                char below[PATH_MAX];

                if (snprintf(below, sizeof(below), "%s/%s", path, dir->entries[i].name) >=
                    (int)sizeof(below))
                        return -1;
                if (S_ISDIR(node->mode))
                        r = write_dir(plain, node->id, below);
                else if (S_ISREG(node->mode))
                        r = write_file(node, below);
                else if (S_ISLNK(node->mode))
                        r = symlink(node->target, below);
        }
        return r;
}

/* Run @command; the last line of what it says. */
static int run(const char *command, char why[TK_CHECK_WHY])
{
        char line[TK_CHECK_WHY];
        FILE *said = popen(command, "re"); /* NOLINT(cert-env33-c): a test's own */
        int status;

        if (!said)
                return -1;
        while (fgets(line, sizeof(line), said)) {
                line[strcspn(line, "\n")] = '\0';
                if (line[0])
                        snprintf(why, TK_CHECK_WHY, "%s", line);
        }
        status = pclose(said);
        if (status != 0 && !why[0])
                snprintf(why, TK_CHECK_WHY, "'%.500s' ended with %d", command, status);
        return status == 0 ? 0 : -1;
}

int tk_program_judge(const struct tk_disk *plain, const char *command, int64_t number,
                     char why[TK_CHECK_WHY])
{
        char words[PATH_MAX];
        char dir[64];
        int r;

        snprintf(dir, sizeof(dir), "/dev/shm/tk_crash-tree-%d", (int)getpid());
        snprintf(words, sizeof(words), "%s %s %" PRId64 " 2>&1", command, dir, number);
        (void)nftw(dir, remove_one, 32, FTW_DEPTH | FTW_PHYS);
        why[0] = '\0';
        if (write_dir(plain, TK_DISK_ROOT, dir) < 0) {
                snprintf(why, TK_CHECK_WHY, "cannot write the tree to %s: %s", dir,
                         strerror(errno));
                r = -1;
        } else {
                r = run(words, why);
        }
        (void)nftw(dir, remove_one, 32, FTW_DEPTH | FTW_PHYS);
        return r;
}
