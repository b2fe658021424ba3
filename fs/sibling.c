/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Siblings of long names.
 *
 * Adding an entry and removing it are two steps each. They go under a lock per name
 * (one of a few, chosen by the hash), and both end by the same rule: without an entry,
 * no sibling.
 */

#include "fs/sibling.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

enum { NO_STRIPE = TK_SIBLING_STRIPES };

struct sibling_name {
        char text[TK_NAMES_SIBLING_LEN + 1];
};

static struct sibling_name sibling_of(const char *backing)
{
        struct sibling_name name;

        memcpy(name.text, backing, TK_NAMES_HASHED_LEN);
        memcpy(name.text + TK_NAMES_HASHED_LEN, TK_NAMES_SIBLING_END, sizeof(TK_NAMES_SIBLING_END));
        return name;
}

/* Locks ----------------------------------------------------------------------------- */

static unsigned stripe_of(const char *backing)
{
        return (unsigned)(backing[1] ^ backing[2] << 2) % TK_SIBLING_STRIPES;
}

static unsigned stripe_of_name(const struct tk_name *name)
{
        return name && name->is_long ? stripe_of(name->backing) : NO_STRIPE;
}

static void lock_stripe(struct tk_fs *fs, unsigned stripe)
{
        if (stripe != NO_STRIPE)
                pthread_mutex_lock(&fs->sibling_locks[stripe]);
}

static void unlock_stripe(struct tk_fs *fs, unsigned stripe)
{
        if (stripe != NO_STRIPE)
                pthread_mutex_unlock(&fs->sibling_locks[stripe]);
}

void tk_sibling_lock(struct tk_fs *fs, const struct tk_name *a, const struct tk_name *b)
{
        unsigned first = stripe_of_name(a);
        unsigned second = stripe_of_name(b);

        lock_stripe(fs, first < second ? first : second);
        if (first != second)
                lock_stripe(fs, first < second ? second : first);
}

void tk_sibling_unlock(struct tk_fs *fs, const struct tk_name *a, const struct tk_name *b)
{
        unsigned first = stripe_of_name(a);
        unsigned second = stripe_of_name(b);

        unlock_stripe(fs, first);
        if (first != second)
                unlock_stripe(fs, second);
}

/* Looking --------------------------------------------------------------------------- */

bool tk_sibling_is(int fd, const char *name, unsigned char type)
{
        struct stat st;

        if (!tk_names_is_sibling(name))
                return false;
        if (type != DT_UNKNOWN)
                return type == DT_LNK;
        return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

/* Adding and removing ------------------------------------------------------------------ */

int tk_sibling_read(int fd, const char *backing, char ret_target[TK_NAMES_TARGET_MAX + 1])
{
        struct sibling_name sibling = sibling_of(backing);
        ssize_t n;

        n = readlinkat(fd, sibling.text, ret_target, TK_NAMES_TARGET_MAX + 1);
        if (n < 0)
                return errno == EINVAL ? -EBADMSG : -errno;
        if (n > TK_NAMES_TARGET_MAX)
                return -EBADMSG;
        ret_target[n] = '\0';
        return 0;
}

/* btrfs makes a file durable without its neighbours: there the directory is to be synced. */
static void sync_dir(const struct tk_fs *fs, int fd)
{
        TK_AUTOCLOSE int dirfd = -1;

        if (!fs->sync_siblings)
                return;
        dirfd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd >= 0)
                (void)!tk_backing_sync(dirfd, false);
}

static int note_in_the_way(int fd, const char *sibling)
{
        char path[PATH_MAX];

        tk_backing_path(fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s/%s: is in the place of a long name and is none; `turnkeyfs verify "
                       "--repair` gives it another one",
                       path, sibling);
        return -EIO;
}

/* Unless it is no symlink. */
static int remove_sibling(int fd, const char *sibling)
{
        return tk_sibling_is(fd, sibling, DT_UNKNOWN) ? tk_backing_unlink(fd, sibling, false)
                                                      : -EIO;
}

/* A sibling @sibling of @name is there already: it is kept if it is right, else made anew. */
static int replace_sibling(int fd, const struct tk_name *name, const char *sibling)
{
        char target[TK_NAMES_TARGET_MAX + 1];
        int r;

        if (tk_sibling_read(fd, name->backing, target) == 0 && strcmp(target, name->target) == 0)
                return 0;
        r = remove_sibling(fd, sibling);
        if (r == -EIO)
                return note_in_the_way(fd, sibling);
        return r < 0 ? r : tk_backing_symlink(name->target, fd, sibling);
}

int tk_sibling_add(struct tk_fs *fs, int fd, const struct tk_name *name)
{
        struct sibling_name sibling;
        int r;

        if (!name->is_long)
                return 0;
        sibling = sibling_of(name->backing);
        r = tk_backing_symlink(name->target, fd, sibling.text);
        if (r == -EEXIST)
                r = replace_sibling(fd, name, sibling.text);
        if (r == 0)
                sync_dir(fs, fd);
        return r;
}

static bool is_missing(int fd, const char *name)
{
        struct stat st;

        return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

void tk_sibling_tidy(int fd, const struct tk_name *name)
{
        if (name->is_long && is_missing(fd, name->backing))
                (void)!remove_sibling(fd, sibling_of(name->backing).text);
}

/* Orphans ------------------------------------------------------------------------------- */

/* Remove the sibling @name of @fd if it is an orphan. */
static void remove_orphan(struct tk_fs *fs, int fd, const char *name)
{
        char entry[TK_NAMES_HASHED_LEN + 1];

        memcpy(entry, name, TK_NAMES_HASHED_LEN);
        entry[TK_NAMES_HASHED_LEN] = '\0';
        TK_LOCK_SCOPE(&fs->sibling_locks[stripe_of(entry)]);
        if (is_missing(fd, entry))
                (void)!remove_sibling(fd, name);
}

/* Empty the directory @fd, which is to be readable and writable. */
static int purge(struct tk_fs *fs, int fd)
{
        int list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = list_fd < 0 ? NULL : fdopendir(list_fd);
        const struct dirent *entry;
        int r = dir ? 0 : -errno;

        if (!dir) {
                if (list_fd >= 0)
                        close(list_fd);
                return r;
        }
        while (r == 0 && (entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                if (tk_sibling_is(list_fd, entry->d_name, entry->d_type))
                        remove_orphan(fs, list_fd, entry->d_name);
                else
                        r = -ENOTEMPTY;
        }
        closedir(dir);
        return r;
}

int tk_sibling_purge(struct tk_fs *fs, int fd, const char *name)
{
        TK_AUTOCLOSE int dirfd = -1;
        struct stat st;
        bool lift;
        int r;

        dirfd = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dirfd < 0 || fstat(dirfd, &st) < 0)
                return -errno;
        /* Who may remove an empty directory need not have rights in it. */
        lift = geteuid() != 0 && (st.st_mode & S_IRWXU) != S_IRWXU;
        r = lift ? tk_backing_chmod(dirfd, (st.st_mode & 07777) | S_IRWXU) : 0;
        if (r < 0)
                return r;
        r = purge(fs, dirfd);
        if (lift)
                (void)!tk_backing_chmod(dirfd, st.st_mode & 07777);
        return r;
}
