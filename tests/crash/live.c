/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The recorder of real mounts: the program is linked with --wrap for the calls that change
 * a backing directory, and this file passes them on and writes them down.
 *
 * TK_RECORD names the file, to which every process that has it appends; TK_RECORD_ROOT is
 * the directory above the volume (node 1). A change and its record are one step under a
 * lock, so that their order is the true one; a flush is recorded when it begins and when it
 * ends. Without TK_RECORD nothing happens.
 */

#include "disk.h"
#include "wrap.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* What wrap.h wants of the simulator. */
_Thread_local int tk_alloc_paused;

void tk_sched_turn(void)
{
}

/* Which node an inode is. The newest entry counts: numbers are used again. */
struct known {
        dev_t dev;
        ino_t ino;
        uint32_t node;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int log_fd = -1;
static struct known *known;
static size_t known_count;
static uint32_t next_node = TK_DISK_ROOT + 1;

static void remember(const struct stat *st, uint32_t node)
{
        if (known_count % 256 == 0)
                known = realloc(known, (known_count + 256) * sizeof(*known));
        known[known_count++] = (struct known){st->st_dev, st->st_ino, node};
        if (node >= next_node)
                next_node = node + 1;
}

/* 0: not of the recorded directory. */
static uint32_t node_of(const struct stat *st)
{
        for (size_t i = known_count; i-- > 0;)
                if (known[i].ino == st->st_ino && known[i].dev == st->st_dev)
                        return known[i].node;
        return 0;
}

/* Take up what processes before this one recorded. */
static void start(void)
{
        const char *path = getenv("TK_RECORD");
        const char *root = getenv("TK_RECORD_ROOT");
        struct tk_recording before = {0};
        struct stat st;

        if (!path || !root || stat(root, &st) < 0)
                return;
        remember(&st, TK_DISK_ROOT);
        (void)tk_recording_load(path, &before);
        for (size_t i = 0; i < before.count; i++) {
                if (before.events[i].type != TK_EVENT_MAKE)
                        continue;
                st.st_ino = before.events[i].ino;
                remember(&st, before.events[i].node);
        }
        tk_recording_done(&before);
        log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static bool is_on(void)
{
        pthread_once(&once, start);
        return log_fd >= 0;
}

static void record(const struct tk_event *event)
{
        uint8_t *bytes;
        size_t len = tk_event_encode(event, &bytes);

        if (write(log_fd, bytes, len) != (ssize_t)len)
                abort();
        free(bytes);
}

static uint32_t node_at(int fd)
{
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : node_of(&st);
}

/* The node of a path; *@ret_parent that of its directory, and *@ret_name its last component. */
static uint32_t node_at_path(int dirfd, const char *path, uint32_t *ret_parent,
                             const char **ret_name)
{
        const char *slash = strrchr(path, '/');
        char dir[PATH_MAX];
        struct stat st;

        *ret_name = slash ? slash + 1 : path;
        *ret_parent = 0;
        if (slash)
                snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
        if (slash ? fstatat(dirfd, slash == path ? "/" : dir, &st, 0) == 0 : fstat(dirfd, &st) == 0)
                *ret_parent = node_of(&st);
        return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : node_of(&st);
}

/* The node that a path leads to, through links: those in /proc. */
static uint32_t node_behind(int dirfd, const char *path, int flags)
{
        struct stat st;

        if (fstatat(dirfd, path, &st, flags) < 0)
                return 0;
        return node_of(&st);
}

/* Making ------------------------------------------------------------------------------ */

/* @path was just made. */
static void record_make(int dirfd, const char *path, const char *target)
{
        struct tk_event event = {.type = TK_EVENT_MAKE};
        struct {
                struct file_handle handle;
                uint8_t bytes[MAX_HANDLE_SZ];
        } buf = {.handle = {.handle_bytes = TK_EVENT_HANDLE_MAX}};
        const char *name;
        struct stat st;
        int mount_id;

        (void)node_at_path(dirfd, path, &event.parent, &name);
        if (!event.parent || fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return;
        event.name = (char *)(uintptr_t)name;
        event.mode = st.st_mode;
        event.off = (uint64_t)st.st_uid << 32 | st.st_gid;
        event.len = st.st_rdev;
        event.ino = st.st_ino;
        if (name_to_handle_at(dirfd, path, &buf.handle, &mount_id, 0) == 0) {
                event.handle_type = buf.handle.handle_type;
                event.handle_len = (uint8_t)buf.handle.handle_bytes;
                memcpy(event.handle, buf.handle.f_handle, event.handle_len);
        }
        if (target) {
                event.data = (uint8_t *)(uintptr_t)target;
                event.data_len = strlen(target);
        }
        event.node = next_node;
        remember(&st, event.node);
        record(&event);
}

int __real_openat(int dirfd, const char *path, int flags, ...);

static int open_recorded(int dirfd, const char *path, int flags, mode_t mode)
{
        struct stat st;
        bool there;
        int fd;
        LOCKED;

        there = fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
        fd = __real_openat(dirfd, path, flags, mode);
        if (fd < 0)
                return fd;
        if (!there) {
                record_make(dirfd, path, NULL);
        } else if (flags & O_TRUNC && st.st_size > 0 && node_of(&st)) {
                struct tk_event event = {.type = TK_EVENT_TRUNCATE, .node = node_of(&st)};

                record(&event);
        }
        return fd;
}

WRAP(int, openat, int dirfd, const char *path, int flags, ...)
{
        mode_t mode = 0;
        va_list ap;

        va_start(ap, flags);
        if (flags & (O_CREAT | __O_TMPFILE))
                mode = va_arg(ap, mode_t);
        va_end(ap);
        if (!(flags & (O_CREAT | O_TRUNC)) || !is_on())
                return __real_openat(dirfd, path, flags, mode);
        return open_recorded(dirfd, path, flags, mode);
}

#define RECORD_MADE(call, dirfd, path, target)                                                     \
        do {                                                                                       \
                int r_;                                                                            \
                                                                                                   \
                if (!is_on())                                                                      \
                        return call;                                                               \
                LOCKED;                                                                            \
                r_ = call;                                                                         \
                if (r_ == 0)                                                                       \
                        record_make(dirfd, path, target);                                          \
                return r_;                                                                         \
        } while (0)

WRAP(int, mkdir, const char *path, mode_t mode)
{
        RECORD_MADE(__real_mkdir(path, mode), AT_FDCWD, path, NULL);
}

WRAP(int, mkdirat, int dirfd, const char *path, mode_t mode)
{
        RECORD_MADE(__real_mkdirat(dirfd, path, mode), dirfd, path, NULL);
}

WRAP(int, mknodat, int dirfd, const char *path, mode_t mode, dev_t dev)
{
        RECORD_MADE(__real_mknodat(dirfd, path, mode, dev), dirfd, path, NULL);
}

WRAP(int, symlinkat, const char *target, int dirfd, const char *path)
{
        RECORD_MADE(__real_symlinkat(target, dirfd, path), dirfd, path, target);
}

/* Names --------------------------------------------------------------------------------- */

WRAP(int, linkat, int from_dirfd, const char *from, int dirfd, const char *path, int flags)
{
        struct tk_event event = {.type = TK_EVENT_LINK};
        const char *name;
        int r;

        if (!is_on())
                return __real_linkat(from_dirfd, from, dirfd, path, flags);
        LOCKED;
        event.node = node_behind(from_dirfd, from, 0);
        r = __real_linkat(from_dirfd, from, dirfd, path, flags);
        (void)node_at_path(dirfd, path, &event.parent, &name);
        event.name = (char *)(uintptr_t)name;
        if (r == 0 && event.node && event.parent)
                record(&event);
        return r;
}

WRAP(int, unlinkat, int dirfd, const char *path, int flags)
{
        struct tk_event event = {.type = TK_EVENT_UNLINK};
        const char *name;
        int r;

        if (!is_on())
                return __real_unlinkat(dirfd, path, flags);
        LOCKED;
        event.node = node_at_path(dirfd, path, &event.parent, &name);
        event.name = (char *)(uintptr_t)name;
        r = __real_unlinkat(dirfd, path, flags);
        if (r == 0 && event.node && event.parent)
                record(&event);
        return r;
}

WRAP(int, renameat2, int dirfd, const char *path, int new_dirfd, const char *new_path,
     unsigned flags)
{
        struct tk_event event = {.type = TK_EVENT_RENAME, .mode = flags};
        const char *new_name;
        const char *name;
        int r;

        if (!is_on())
                return __real_renameat2(dirfd, path, new_dirfd, new_path, flags);
        LOCKED;
        event.node = node_at_path(dirfd, path, &event.parent, &name);
        event.victim = node_at_path(new_dirfd, new_path, &event.parent2, &new_name);
        event.name = (char *)(uintptr_t)name;
        event.name2 = (char *)(uintptr_t)new_name;
        r = __real_renameat2(dirfd, path, new_dirfd, new_path, flags);
        if (r == 0 && event.node && event.parent && event.parent2 && event.node != event.victim)
                record(&event);
        return r;
}

WRAP(int, renameat, int dirfd, const char *path, int new_dirfd, const char *new_path)
{
        return __wrap_renameat2(dirfd, path, new_dirfd, new_path, 0);
}

/* Attributes ----------------------------------------------------------------------------- */

/* Record @event of @node if the call came back with 0. */
static int record_if(int r, uint32_t node, struct tk_event *event)
{
        event->node = node;
        if (r == 0 && node)
                record(event);
        return r;
}

WRAP(int, chmod, const char *path, mode_t mode)
{
        struct tk_event event = {.type = TK_EVENT_CHMOD, .mode = mode};

        if (!is_on())
                return __real_chmod(path, mode);
        LOCKED;
        return record_if(__real_chmod(path, mode), node_behind(AT_FDCWD, path, 0), &event);
}

WRAP(int, fchmodat, int dirfd, const char *path, mode_t mode, int flags)
{
        struct tk_event event = {.type = TK_EVENT_CHMOD, .mode = mode};

        if (!is_on())
                return __real_fchmodat(dirfd, path, mode, flags);
        LOCKED;
        return record_if(__real_fchmodat(dirfd, path, mode, flags), node_behind(dirfd, path, flags),
                         &event);
}

WRAP(int, fchmod, int fd, mode_t mode)
{
        struct tk_event event = {.type = TK_EVENT_CHMOD, .mode = mode};

        if (!is_on())
                return __real_fchmod(fd, mode);
        LOCKED;
        return record_if(__real_fchmod(fd, mode), node_at(fd), &event);
}

WRAP(int, fchownat, int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
        struct tk_event event = {.type = TK_EVENT_CHOWN, .mode = uid, .off = gid};

        if (!is_on())
                return __real_fchownat(dirfd, path, uid, gid, flags);
        LOCKED;
        return record_if(__real_fchownat(dirfd, path, uid, gid, flags),
                         node_behind(dirfd, path, flags), &event);
}

static int record_times(int r, uint32_t node, const struct timespec times[2])
{
        struct tk_event event = {.type = TK_EVENT_MTIME};

        if (!times || times[1].tv_nsec == UTIME_NOW || times[1].tv_nsec == UTIME_OMIT)
                return r;
        event.off = (uint64_t)times[1].tv_sec;
        event.len = (uint64_t)times[1].tv_nsec;
        return record_if(r, node, &event);
}

WRAP(int, utimensat, int dirfd, const char *path, const struct timespec times[2], int flags)
{
        if (!is_on())
                return __real_utimensat(dirfd, path, times, flags);
        LOCKED;
        return record_times(__real_utimensat(dirfd, path, times, flags),
                            node_behind(dirfd, path, flags), times);
}

WRAP(int, futimens, int fd, const struct timespec times[2])
{
        if (!is_on())
                return __real_futimens(fd, times);
        LOCKED;
        return record_times(__real_futimens(fd, times), node_at(fd), times);
}

WRAP(int, setxattr, const char *path, const char *name, const void *value, size_t len, int flags)
{
        struct tk_event event = {.type = TK_EVENT_SETXATTR,
                                 .name = (char *)(uintptr_t)name,
                                 .data = (uint8_t *)(uintptr_t)value,
                                 .data_len = len};

        if (!is_on())
                return __real_setxattr(path, name, value, len, flags);
        LOCKED;
        return record_if(__real_setxattr(path, name, value, len, flags),
                         node_behind(AT_FDCWD, path, 0), &event);
}

WRAP(int, fsetxattr, int fd, const char *name, const void *value, size_t len, int flags)
{
        struct tk_event event = {.type = TK_EVENT_SETXATTR,
                                 .name = (char *)(uintptr_t)name,
                                 .data = (uint8_t *)(uintptr_t)value,
                                 .data_len = len};

        if (!is_on())
                return __real_fsetxattr(fd, name, value, len, flags);
        LOCKED;
        return record_if(__real_fsetxattr(fd, name, value, len, flags), node_at(fd), &event);
}

WRAP(int, removexattr, const char *path, const char *name)
{
        struct tk_event event = {.type = TK_EVENT_REMOVEXATTR, .name = (char *)(uintptr_t)name};

        if (!is_on())
                return __real_removexattr(path, name);
        LOCKED;
        return record_if(__real_removexattr(path, name), node_behind(AT_FDCWD, path, 0), &event);
}

/* Content ---------------------------------------------------------------------------------- */

WRAP(ssize_t, pwritev, int fd, const struct iovec *iov, int count, off_t off)
{
        struct tk_event event = {.type = TK_EVENT_WRITE, .off = (uint64_t)off};
        size_t len = 0;
        uint8_t *at;
        ssize_t n;

        if (!is_on())
                return __real_pwritev(fd, iov, count, off);
        LOCKED;
        event.node = node_at(fd);
        n = __real_pwritev(fd, iov, count, off);
        if (n <= 0 || !event.node)
                return n;
        for (int i = 0; i < count; i++)
                len += iov[i].iov_len;
        event.data = at = malloc(len);
        for (int i = 0; i < count; i++)
                at = (uint8_t *)memcpy(at, iov[i].iov_base, iov[i].iov_len) + iov[i].iov_len;
        event.len = (uint64_t)n;
        event.data_len = (size_t)n;
        record(&event);
        free(event.data);
        return n;
}

WRAP(ssize_t, pwrite, int fd, const void *buf, size_t len, off_t off)
{
        struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

        if (!is_on())
                return __real_pwrite(fd, buf, len, off);
        return __wrap_pwritev(fd, &iov, 1, off);
}

WRAP(int, ftruncate, int fd, off_t size)
{
        struct tk_event event = {.type = TK_EVENT_TRUNCATE, .grows = true, .off = (uint64_t)size};

        if (!is_on())
                return __real_ftruncate(fd, size);
        LOCKED;
        return record_if(__real_ftruncate(fd, size), node_at(fd), &event);
}

WRAP(int, fallocate, int fd, int mode, off_t off, off_t len)
{
        struct tk_event event = {.type = TK_EVENT_FALLOCATE,
                                 .grows = true,
                                 .mode = (uint32_t)mode,
                                 .off = (uint64_t)off,
                                 .len = (uint64_t)len};

        if (!is_on())
                return __real_fallocate(fd, mode, off, len);
        LOCKED;
        return record_if(__real_fallocate(fd, mode, off, len), node_at(fd), &event);
}

static uint32_t record_sync(uint32_t node, enum tk_event_type type, enum tk_event_sync kind)
{
        struct tk_event event = {.type = (uint8_t)type, .node = node, .mode = kind};
        LOCKED;

        /* Which begin an end belongs to is found out by the reader: of the same thread. */
        event.len = (uint64_t)pthread_self();
        if (node)
                record(&event);
        return node;
}

static int sync_recorded(int fd, enum tk_event_sync kind, int (*sync)(int fd))
{
        uint32_t node = is_on() ? record_sync(node_at(fd), TK_EVENT_SYNC_BEGIN, kind) : 0;
        int r = sync(fd);

        if (node)
                record_sync(node, r == 0 ? TK_EVENT_SYNC_END : TK_EVENT_SYNC_FAILED, kind);
        return r;
}

WRAP(int, fsync, int fd)
{
        return sync_recorded(fd, TK_SYNC_FILE, __real_fsync);
}

WRAP(int, fdatasync, int fd)
{
        return sync_recorded(fd, TK_SYNC_DATA, __real_fdatasync);
}

WRAP(int, syncfs, int fd)
{
        return sync_recorded(fd, TK_SYNC_ALL, __real_syncfs);
}
