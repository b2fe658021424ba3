/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The simulated disk's system calls: names, descriptors and content.
 *
 * Each function answers as Linux does on a local filesystem, in the cases that the
 * library can meet; a case that it can't meet is an assertion.
 */

#include "calls.h"

#include "wrap.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

struct tk_calls tk_calls;

/* Descriptors of the disk have numbers that the system does not give out. */
enum { FD_BASE = 1 << 20, FD_MAX = 4096, DEVICE = 77 };

struct open_fd {
        uint32_t node; /* 0: free */
        int flags;
};

struct dir_stream {
        int fd;
        size_t pos;
        size_t count;
        struct dirent *entries; /* as they were when the stream was rewound; NULL: not yet read */
        struct dir_stream *next;
};

static struct open_fd fds[FD_MAX];
static int fds_end; /* behind the highest in use */
static struct dir_stream *streams;
static uint32_t next_node;
static uint64_t next_ino;
static uint32_t next_generation;
static uint64_t free_inos[64]; /* of removed files: given out again, as ext4 does */
static size_t free_ino_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int fail(int error)
{
        errno = error;
        return -1;
}

static bool is_ours(int fd)
{
        return fd >= FD_BASE && fd < FD_BASE + FD_MAX;
}

static struct open_fd *open_of(int fd)
{
        struct open_fd *open = &fds[fd - FD_BASE];

        assert(is_ours(fd) && open->node);
        return open;
}

static struct tk_node *node_of(uint32_t id)
{
        return tk_calls.disk.nodes[id];
}

static const struct tk_node *node_at(int fd)
{
        return node_of(open_of(fd)->node);
}

static int fd_new(uint32_t node, int flags)
{
        for (int i = 0; i < FD_MAX; i++) {
                if (fds[i].node)
                        continue;
                fds[i] = (struct open_fd){.node = node, .flags = flags};
                if (i >= fds_end)
                        fds_end = i + 1;
                return FD_BASE + i;
        }
        return fail(EMFILE);
}

/* The file goes when its last name and its last descriptor are gone. */
static void drop_if_unused(uint32_t id)
{
        const struct tk_node *node = id ? tk_disk_node(&tk_calls.disk, id) : NULL;

        if (!node || node->nlink > 0)
                return;
        for (int i = 0; i < fds_end; i++)
                if (fds[i].node == id)
                        return;
        if (free_ino_count < sizeof(free_inos) / sizeof(free_inos[0]))
                free_inos[free_ino_count++] = node->ino;
        tk_disk_drop(&tk_calls.disk, id);
}

/* Faults, and what is recorded --------------------------------------------------- */

/* To be called before anything changes. Negative with errno: the call fails. */
static int step(const char *call, bool interruptible)
{
        unsigned long n = ++tk_calls.count;

        if (tk_calls.fail_at == 0 || n < tk_calls.fail_at ||
            (n > tk_calls.fail_at && !tk_calls.fail_on) || tk_calls.fail_short)
                return 0;
        if (tk_calls.fail_with == EINTR && !interruptible)
                return 0;
        tk_calls.failed++;
        tk_calls.failed_call = call;
        return fail(tk_calls.fail_with);
}

/* The same for a file that is broken, whose content is to change, or to be flushed. */
static int step_at(uint32_t node, const char *call, bool syncs)
{
        int r = step(call, true);

        if (r == 0 && node == tk_calls.broken && node != 0 && syncs == tk_calls.broken_syncs)
                return fail(EIO);
        return r;
}

static void commit(const struct tk_event *event)
{
        if (event->type < TK_EVENT_SYNC_BEGIN)
                tk_disk_apply(&tk_calls.disk, event, true);
        if (tk_calls.recording)
                tk_recording_add(tk_calls.recording, event);
}

/* Paths --------------------------------------------------------------------------- */

struct place {
        uint32_t parent; /* 0: the path is a descriptor's */
        uint32_t node;   /* 0: there is none */
        char name[256];
};

/* The descriptor that a path in /proc stands for; -1 for other paths. */
static int proc_fd(const char *path)
{
        static const char proc[] = "/proc/self/fd/";
        long fd;

        if (!path || strncmp(path, proc, sizeof(proc) - 1) != 0)
                return -1;
        fd = strtol(path + sizeof(proc) - 1, NULL, 10);
        return fd <= INT_MAX && is_ours((int)fd) ? (int)fd : -1;
}

static bool is_our_path(int dirfd, const char *path)
{
        if (path && path[0] == '/')
                return strncmp(path, TK_CALLS_ROOT, strlen(TK_CALLS_ROOT)) == 0 ||
                       proc_fd(path) >= 0;
        return is_ours(dirfd);
}

/* Walk @path; the last component may be missing (node 0). */
static int walk(int dirfd, const char *path, struct place *place)
{
        char text[4200];
        char *save = NULL;
        uint32_t at;

        memset(place, 0, sizeof(*place));
        if (proc_fd(path) >= 0) {
                place->node = open_of(proc_fd(path))->node;
                return 0;
        }
        at = path[0] == '/' ? TK_DISK_ROOT : open_of(dirfd)->node;
        snprintf(text, sizeof(text), "%s", path[0] == '/' ? path + strlen(TK_CALLS_ROOT) : path);
        place->node = at;
        for (char *name = strtok_r(text, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
                const struct tk_node *dir = tk_disk_node(&tk_calls.disk, place->node);

                if (strcmp(name, ".") == 0)
                        continue;
                if (!dir)
                        return fail(ENOENT);
                if (!S_ISDIR(dir->mode))
                        return fail(S_ISLNK(dir->mode) ? ELOOP : ENOTDIR);
                if (strlen(name) > 255)
                        return fail(ENAMETOOLONG);
                place->parent = place->node;
                snprintf(place->name, sizeof(place->name), "%s", name);
                place->node = tk_disk_lookup(&tk_calls.disk, place->parent, name);
        }
        return 0;
}

static int walk_to(int dirfd, const char *path, struct place *place)
{
        if (walk(dirfd, path, place) < 0)
                return -1;
        return place->node ? 0 : fail(ENOENT);
}

/* Making and opening ---------------------------------------------------------------- */

static uint64_t new_ino(void)
{
        return free_ino_count > 0 ? free_inos[--free_ino_count] : next_ino++;
}

static int make_node(const struct place *place, mode_t mode, dev_t dev, const char *target,
                     uint32_t *ret_node)
{
        struct tk_event event = {.type = TK_EVENT_MAKE,
                                 .parent = place->parent,
                                 .name = (char *)(uintptr_t)place->name,
                                 .mode = mode,
                                 .len = dev,
                                 .handle_type = 1,
                                 .handle_len = 12};

        if (place->node)
                return fail(EEXIST);
        if (node_of(place->parent)->nlink == 0)
                return fail(ENOENT);
        if (step("make", false) < 0)
                return -1;
        event.node = next_node++;
        event.ino = new_ino();
        next_generation++;
        memcpy(event.handle, &event.ino, 8);
        memcpy(event.handle + 8, &next_generation, 4);
        if (target) {
                event.data = (uint8_t *)(uintptr_t)target;
                event.data_len = strlen(target);
        }
        commit(&event);
        if (ret_node)
                *ret_node = event.node;
        return 0;
}

/*
 * Files whose mtime is that of now since their content was written to. It is recorded when a
 * flush begins, or never, if the library has put the mtime back by then: no call does both at
 * once, and a crash in between is nobody's fault.
 */
static struct {
        uint32_t nodes[16];
        unsigned count;
} touched;

static void record_touched(void)
{
        for (unsigned i = 0; i < touched.count; i++)
                commit(&(struct tk_event){
                        .type = TK_EVENT_MTIME, .node = touched.nodes[i], .off = TK_DISK_NOW});
        touched.count = 0;
}

static void forget_touched(uint32_t node)
{
        for (unsigned i = 0; i < touched.count; i++)
                if (touched.nodes[i] == node)
                        touched.nodes[i--] = touched.nodes[--touched.count];
}

/* Content is about to change. */
static void touch(uint32_t node)
{
        struct tk_event event = {.type = TK_EVENT_MTIME, .node = node, .off = TK_DISK_NOW};

        if (node_of(node)->mtime.tv_sec >= TK_DISK_NOW)
                return;
        if (touched.count == sizeof(touched.nodes) / sizeof(touched.nodes[0]))
                record_touched();
        touched.nodes[touched.count++] = node;
        tk_disk_apply(&tk_calls.disk, &event, true);
}

static int truncate_to(uint32_t node, uint64_t size)
{
        struct tk_event event = {.type = TK_EVENT_TRUNCATE, .node = node, .off = size};

        if (step_at(node, "truncate", false) < 0)
                return -1;
        touch(node);
        event.grows = true;
        commit(&event);
        return 0;
}

static int open_node(uint32_t id, int flags)
{
        const struct tk_node *node = node_of(id);

        if (S_ISLNK(node->mode) && !(flags & O_PATH))
                return fail(ELOOP);
        if (flags & O_DIRECTORY && !S_ISDIR(node->mode))
                return fail(ENOTDIR);
        if (S_ISDIR(node->mode) && !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDONLY)
                return fail(EISDIR);
        if (flags & O_TRUNC && !(flags & O_PATH) && node->size > 0 && truncate_to(id, 0) < 0)
                return -1;
        return fd_new(id, flags);
}

static int sim_openat(int dirfd, const char *path, int flags, mode_t mode)
{
        struct place place;

        if (walk(dirfd, path, &place) < 0)
                return -1;
        if (place.node && flags & O_CREAT && flags & O_EXCL)
                return fail(EEXIST);
        if (!place.node && !(flags & O_CREAT))
                return fail(ENOENT);
        if (!place.node && make_node(&place, S_IFREG | (mode & 07777), 0, NULL, &place.node) < 0)
                return -1;
        return open_node(place.node, flags);
}

WRAP(int, openat, int dirfd, const char *path, int flags, ...)
{
        mode_t mode = 0;

        if (flags & (O_CREAT | __O_TMPFILE)) {
                va_list ap;

                va_start(ap, flags);
                mode = va_arg(ap, mode_t);
                va_end(ap);
        }
        if (!is_our_path(dirfd, path))
                return __real_openat(dirfd, path, flags, mode);
        LOCKED;
        return sim_openat(dirfd, path, flags, mode);
}

WRAP(int, open, const char *path, int flags, ...)
{
        mode_t mode = 0;

        if (flags & (O_CREAT | __O_TMPFILE)) {
                va_list ap;

                va_start(ap, flags);
                mode = va_arg(ap, mode_t);
                va_end(ap);
        }
        if (!is_our_path(AT_FDCWD, path))
                return __real_open(path, flags, mode);
        LOCKED;
        return sim_openat(AT_FDCWD, path, flags, mode);
}

/* openat2(2) has no function of its own. */
WRAP(long, syscall, long number, ...)
{
        long args[6];
        va_list ap;

        va_start(ap, number);
        for (int i = 0; i < 6; i++)
                args[i] = va_arg(ap, long);
        va_end(ap);
        if (number == SYS_openat2 && is_our_path((int)args[0], (const char *)args[1])) {
                const struct open_how *how = (const struct open_how *)args[2];
                LOCKED;

                return sim_openat((int)args[0], (const char *)args[1], (int)how->flags,
                                  (mode_t)how->mode);
        }
        return __real_syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

WRAP(int, close, int fd)
{
        uint32_t node;

        if (!is_ours(fd))
                return __real_close(fd);
        LOCKED;
        node = open_of(fd)->node;
        fds[fd - FD_BASE].node = 0;
        drop_if_unused(node);
        return 0;
}

WRAP(int, dup, int fd)
{
        if (!is_ours(fd))
                return __real_dup(fd);
        LOCKED;
        return fd_new(open_of(fd)->node, open_of(fd)->flags);
}

WRAP(int, dup3, int fd, int to, int flags)
{
        uint32_t old;

        if (!is_ours(fd))
                return __real_dup3(fd, to, flags);
        LOCKED;
        old = open_of(to)->node;
        fds[to - FD_BASE] = *open_of(fd);
        drop_if_unused(old);
        return to;
}

WRAP(int, fcntl, int fd, int command, ...)
{
        va_list ap;
        long arg;

        va_start(ap, command);
        arg = va_arg(ap, long);
        va_end(ap);
        if (!is_ours(fd))
                return __real_fcntl(fd, command, arg);
        LOCKED;
        if (command == F_DUPFD_CLOEXEC)
                return fd_new(open_of(fd)->node, open_of(fd)->flags);
        if (command == F_GETFL)
                return open_of(fd)->flags;
        assert(command == F_SETFD || command == F_GETFD || command == F_SETFL);
        return 0;
}

WRAP(int, flock, int fd, int operation)
{
        return is_ours(fd) ? 0 : __real_flock(fd, operation);
}

/* Handles ---------------------------------------------------------------------------- */

WRAP(int, name_to_handle_at, int dirfd, const char *path, struct file_handle *handle,
     int *ret_mount_id, int flags)
{
        const struct tk_node *node;
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_name_to_handle_at(dirfd, path, handle, ret_mount_id, flags);
        LOCKED;
        if (tk_calls.by_place)
                return fail(EOPNOTSUPP);
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        node = node_of(place.node);
        if (handle->handle_bytes < node->handle_len)
                return fail(EOVERFLOW);
        handle->handle_bytes = node->handle_len;
        handle->handle_type = node->handle_type;
        memcpy(handle->f_handle, node->handle, node->handle_len);
        *ret_mount_id = 1;
        return 0;
}

WRAP(int, open_by_handle_at, int mountfd, struct file_handle *handle, int flags)
{
        if (!is_ours(mountfd))
                return __real_open_by_handle_at(mountfd, handle, flags);
        LOCKED;
        for (uint32_t id = 1; id < tk_calls.disk.count; id++) {
                const struct tk_node *node = tk_disk_node(&tk_calls.disk, id);

                if (node && node->handle_len == handle->handle_bytes &&
                    memcmp(node->handle, handle->f_handle, node->handle_len) == 0)
                        return open_node(id, flags);
        }
        return fail(ESTALE);
}

/* Status ------------------------------------------------------------------------------ */

static void fill_stat(const struct tk_node *node, struct stat *st)
{
        memset(st, 0, sizeof(*st));
        st->st_dev = DEVICE;
        st->st_ino = node->ino;
        st->st_mode = node->mode;
        st->st_nlink = node->nlink;
        st->st_uid = node->uid;
        st->st_gid = node->gid;
        st->st_rdev = node->rdev;
        st->st_size = (off_t)node->size;
        st->st_blksize = TK_DISK_PAGE;
        for (size_t i = 0; i < node->page_count; i++)
                st->st_blocks += node->pages[i] ? TK_DISK_PAGE / 512 : 0;
        st->st_mtim = node->mtime;
        st->st_atim = node->mtime;
        st->st_ctim = node->mtime;
}

WRAP(int, fstat, int fd, struct stat *st)
{
        if (!is_ours(fd))
                return __real_fstat(fd, st);
        LOCKED;
        fill_stat(node_at(fd), st);
        return 0;
}

WRAP(int, fstatat, int dirfd, const char *path, struct stat *st, int flags)
{
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_fstatat(dirfd, path, st, flags);
        LOCKED;
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        fill_stat(node_of(place.node), st);
        return 0;
}

WRAP(int, stat, const char *path, struct stat *st)
{
        return is_our_path(AT_FDCWD, path) ? __wrap_fstatat(AT_FDCWD, path, st, 0)
                                           : __real_stat(path, st);
}

WRAP(int, lstat, const char *path, struct stat *st)
{
        return is_our_path(AT_FDCWD, path) ? __wrap_fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW)
                                           : __real_lstat(path, st);
}

WRAP(int, fstatfs, int fd, struct statfs *st)
{
        if (!is_ours(fd))
                return __real_fstatfs(fd, st);
        memset(st, 0, sizeof(*st));
        st->f_type = EXT4_SUPER_MAGIC;
        st->f_bsize = TK_DISK_PAGE;
        st->f_namelen = 255;
        memset(&st->f_fsid, DEVICE, sizeof(st->f_fsid));
        return 0;
}

WRAP(int, faccessat, int dirfd, const char *path, int mode, int flags)
{
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_faccessat(dirfd, path, mode, flags);
        LOCKED;
        return walk_to(dirfd, path, &place);
}

WRAP(int, fstatvfs, int fd, struct statvfs *st)
{
        if (!is_ours(fd))
                return __real_fstatvfs(fd, st);
        memset(st, 0, sizeof(*st));
        st->f_bsize = TK_DISK_PAGE;
        st->f_frsize = TK_DISK_PAGE;
        st->f_namemax = 255;
        st->f_blocks = 1U << 20;
        st->f_bfree = 1U << 19;
        st->f_bavail = 1U << 19;
        return 0;
}

WRAP(ssize_t, readlinkat, int dirfd, const char *path, char *buf, size_t max)
{
        const struct tk_node *node;
        struct place place;
        size_t len;

        if (!is_our_path(dirfd, path))
                return __real_readlinkat(dirfd, path, buf, max);
        LOCKED;
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        node = node_of(place.node);
        if (!S_ISLNK(node->mode))
                return fail(EINVAL);
        len = strlen(node->target) < max ? strlen(node->target) : max;
        memcpy(buf, node->target, len);
        return (ssize_t)len;
}

/* The directory that holds @id, and its name there; 0: it has none. */
static uint32_t find_name(uint32_t id, const char **ret_name)
{
        for (uint32_t dir = 1; dir < tk_calls.disk.count; dir++) {
                const struct tk_node *node = tk_disk_node(&tk_calls.disk, dir);

                for (size_t i = 0; node && i < node->entry_count; i++) {
                        if (node->entries[i].node != id)
                                continue;
                        *ret_name = node->entries[i].name;
                        return dir;
                }
        }
        return 0;
}

/* Where a descriptor leads. */
WRAP(ssize_t, readlink, const char *path, char *buf, size_t max)
{
        char text[PATH_MAX];
        char *start = text + sizeof(text) - 1;
        int fd = proc_fd(path);
        const char *name;
        uint32_t id;
        size_t len;

        if (fd < 0)
                return __real_readlink(path, buf, max);
        LOCKED;
        for (id = open_of(fd)->node; id && id != TK_DISK_ROOT; id = find_name(id, &name)) {
                uint32_t dir = find_name(id, &name);

                len = dir ? strlen(name) : strlen("removed");
                start -= len;
                memcpy(start, dir ? name : "removed", len);
                *--start = '/';
        }
        len = strlen(TK_CALLS_ROOT);
        start -= len;
        memcpy(start, TK_CALLS_ROOT, len);
        len = (size_t)(text + sizeof(text) - 1 - start);
        len = len < max ? len : max;
        memcpy(buf, start, len);
        return (ssize_t)len;
}

WRAP(char *, realpath, const char *path, char *resolved)
{
        if (!is_our_path(AT_FDCWD, path))
                return __real_realpath(path, resolved);
        assert(!resolved);
        return strdup(path);
}

/* Names ------------------------------------------------------------------------------- */

static int sim_make(int dirfd, const char *path, mode_t mode, dev_t dev, const char *target)
{
        struct place place;

        LOCKED;
        if (walk(dirfd, path, &place) < 0)
                return -1;
        return make_node(&place, mode, dev, target, NULL);
}

WRAP(int, mkdir, const char *path, mode_t mode)
{
        if (!is_our_path(AT_FDCWD, path))
                return __real_mkdir(path, mode);
        return sim_make(AT_FDCWD, path, S_IFDIR | (mode & 07777), 0, NULL);
}

WRAP(int, mkdirat, int dirfd, const char *path, mode_t mode)
{
        if (!is_our_path(dirfd, path))
                return __real_mkdirat(dirfd, path, mode);
        return sim_make(dirfd, path, S_IFDIR | (mode & 07777), 0, NULL);
}

WRAP(int, mknodat, int dirfd, const char *path, mode_t mode, dev_t dev)
{
        if (!is_our_path(dirfd, path))
                return __real_mknodat(dirfd, path, mode, dev);
        return sim_make(dirfd, path, mode, dev, NULL);
}

WRAP(int, symlinkat, const char *target, int dirfd, const char *path)
{
        if (!is_our_path(dirfd, path))
                return __real_symlinkat(target, dirfd, path);
        return sim_make(dirfd, path, S_IFLNK | 0777, 0, target);
}

WRAP(int, linkat, int from_dirfd, const char *from, int dirfd, const char *path, int flags)
{
        struct tk_event event = {.type = TK_EVENT_LINK};
        struct place source;
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_linkat(from_dirfd, from, dirfd, path, flags);
        LOCKED;
        if (walk_to(from_dirfd, from, &source) < 0 || walk(dirfd, path, &place) < 0)
                return -1;
        if (place.node)
                return fail(EEXIST);
        if (S_ISDIR(node_of(source.node)->mode))
                return fail(EPERM);
        if (node_of(source.node)->nlink == 0)
                return fail(ENOENT);
        if (step("link", false) < 0)
                return -1;
        event.node = source.node;
        event.parent = place.parent;
        event.name = place.name;
        commit(&event);
        return 0;
}

WRAP(int, unlinkat, int dirfd, const char *path, int flags)
{
        struct tk_event event = {.type = TK_EVENT_UNLINK};
        const struct tk_node *node;
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_unlinkat(dirfd, path, flags);
        LOCKED;
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        node = node_of(place.node);
        if (flags & AT_REMOVEDIR && !S_ISDIR(node->mode))
                return fail(ENOTDIR);
        if (!(flags & AT_REMOVEDIR) && S_ISDIR(node->mode))
                return fail(EISDIR);
        if (node->entry_count > 0)
                return fail(ENOTEMPTY);
        if (step("unlink", false) < 0)
                return -1;
        event.node = place.node;
        event.parent = place.parent;
        event.name = place.name;
        commit(&event);
        drop_if_unused(place.node);
        return 0;
}

/* Whether @dir lies in, or is, @above. */
static bool is_below(uint32_t dir, uint32_t above)
{
        if (dir == above)
                return true;
        for (size_t i = 0; i < node_of(above)->entry_count; i++) {
                uint32_t child = node_of(above)->entries[i].node;

                if (S_ISDIR(node_of(child)->mode) && is_below(dir, child))
                        return true;
        }
        return false;
}

static int check_rename(const struct place *from, const struct place *to, unsigned flags)
{
        const struct tk_node *node = node_of(from->node);
        const struct tk_node *victim = to->node ? node_of(to->node) : NULL;

        if (flags & RENAME_NOREPLACE && victim)
                return fail(EEXIST);
        if (flags & RENAME_EXCHANGE && !victim)
                return fail(ENOENT);
        if (S_ISDIR(node->mode) && is_below(to->parent, from->node))
                return fail(EINVAL);
        if (flags & RENAME_EXCHANGE || !victim)
                return 0;
        if (S_ISDIR(node->mode) && !S_ISDIR(victim->mode))
                return fail(ENOTDIR);
        if (!S_ISDIR(node->mode) && S_ISDIR(victim->mode))
                return fail(EISDIR);
        return victim->entry_count > 0 ? fail(ENOTEMPTY) : 0;
}

WRAP(int, renameat2, int dirfd, const char *path, int new_dirfd, const char *new_path,
     unsigned flags)
{
        struct tk_event event = {.type = TK_EVENT_RENAME, .mode = flags};
        struct place from;
        struct place to;

        if (!is_our_path(dirfd, path))
                return __real_renameat2(dirfd, path, new_dirfd, new_path, flags);
        LOCKED;
        if (walk_to(dirfd, path, &from) < 0 || walk(new_dirfd, new_path, &to) < 0)
                return -1;
        if (check_rename(&from, &to, flags) < 0)
                return -1;
        if (from.node == to.node)
                return 0;
        if (step("rename", false) < 0)
                return -1;
        event.node = from.node;
        event.parent = from.parent;
        event.name = from.name;
        event.parent2 = to.parent;
        event.name2 = to.name;
        event.victim = to.node;
        commit(&event);
        drop_if_unused(to.node);
        return 0;
}

WRAP(int, renameat, int dirfd, const char *path, int new_dirfd, const char *new_path)
{
        if (!is_our_path(dirfd, path))
                return __real_renameat(dirfd, path, new_dirfd, new_path);
        return __wrap_renameat2(dirfd, path, new_dirfd, new_path, 0);
}

/* Attributes ---------------------------------------------------------------------------- */

static int set_attribute(uint32_t node, struct tk_event *event, const char *call)
{
        if (step(call, false) < 0)
                return -1;
        event->node = node;
        commit(event);
        return 0;
}

WRAP(int, fchmodat, int dirfd, const char *path, mode_t mode, int flags)
{
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_fchmodat(dirfd, path, mode, flags);
        LOCKED;
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        return set_attribute(place.node, &(struct tk_event){.type = TK_EVENT_CHMOD, .mode = mode},
                             "chmod");
}

WRAP(int, chmod, const char *path, mode_t mode)
{
        return is_our_path(AT_FDCWD, path) ? __wrap_fchmodat(AT_FDCWD, path, mode, 0)
                                           : __real_chmod(path, mode);
}

WRAP(int, fchmod, int fd, mode_t mode)
{
        if (!is_ours(fd))
                return __real_fchmod(fd, mode);
        LOCKED;
        return set_attribute(open_of(fd)->node,
                             &(struct tk_event){.type = TK_EVENT_CHMOD, .mode = mode}, "chmod");
}

WRAP(int, fchownat, int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_fchownat(dirfd, path, uid, gid, flags);
        LOCKED;
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        return set_attribute(place.node,
                             &(struct tk_event){.type = TK_EVENT_CHOWN, .mode = uid, .off = gid},
                             "chown");
}

static int set_mtime(uint32_t node, const struct timespec times[2])
{
        struct tk_event event = {.type = TK_EVENT_MTIME};

        if (!times || times[1].tv_nsec == UTIME_NOW || times[1].tv_nsec == UTIME_OMIT)
                return step("utimens", false);
        event.off = (uint64_t)times[1].tv_sec;
        event.len = (uint64_t)times[1].tv_nsec;
        if (set_attribute(node, &event, "utimens") < 0)
                return -1;
        forget_touched(node);
        return 0;
}

WRAP(int, utimensat, int dirfd, const char *path, const struct timespec times[2], int flags)
{
        struct place place;

        if (!is_our_path(dirfd, path))
                return __real_utimensat(dirfd, path, times, flags);
        LOCKED;
        if (walk_to(dirfd, path, &place) < 0)
                return -1;
        return set_mtime(place.node, times);
}

WRAP(int, futimens, int fd, const struct timespec times[2])
{
        if (!is_ours(fd))
                return __real_futimens(fd, times);
        LOCKED;
        return set_mtime(open_of(fd)->node, times);
}

static const struct tk_xattr *find_xattr(const struct tk_node *node, const char *name)
{
        for (size_t i = 0; i < node->xattr_count; i++)
                if (strcmp(node->xattrs[i].name, name) == 0)
                        return &node->xattrs[i];
        return NULL;
}

static ssize_t get_xattr(const struct tk_node *node, const char *name, void *value, size_t max)
{
        const struct tk_xattr *xattr = find_xattr(node, name);

        if (!xattr)
                return fail(ENODATA);
        if (max == 0)
                return (ssize_t)xattr->len;
        if (xattr->len > max)
                return fail(ERANGE);
        memcpy(value, xattr->value, xattr->len);
        return (ssize_t)xattr->len;
}

WRAP(ssize_t, getxattr, const char *path, const char *name, void *value, size_t max)
{
        struct place place;

        if (!is_our_path(AT_FDCWD, path))
                return __real_getxattr(path, name, value, max);
        LOCKED;
        if (walk_to(AT_FDCWD, path, &place) < 0)
                return -1;
        return get_xattr(node_of(place.node), name, value, max);
}

WRAP(ssize_t, fgetxattr, int fd, const char *name, void *value, size_t max)
{
        if (!is_ours(fd))
                return __real_fgetxattr(fd, name, value, max);
        LOCKED;
        return get_xattr(node_at(fd), name, value, max);
}

WRAP(ssize_t, listxattr, const char *path, char *list, size_t max)
{
        const struct tk_node *node;
        struct place place;
        size_t len = 0;

        if (!is_our_path(AT_FDCWD, path))
                return __real_listxattr(path, list, max);
        LOCKED;
        if (walk_to(AT_FDCWD, path, &place) < 0)
                return -1;
        node = node_of(place.node);
        for (size_t i = 0; i < node->xattr_count; i++) {
                size_t n = strlen(node->xattrs[i].name) + 1;

                if (max > 0 && len + n > max)
                        return fail(ERANGE);
                if (max > 0)
                        memcpy(list + len, node->xattrs[i].name, n);
                len += n;
        }
        return (ssize_t)len;
}

static int set_xattr(uint32_t id, const char *name, const void *value, size_t len, int flags)
{
        struct tk_event event = {.type = TK_EVENT_SETXATTR,
                                 .name = (char *)(uintptr_t)name,
                                 .data = (uint8_t *)(uintptr_t)value,
                                 .data_len = len};
        bool there = find_xattr(node_of(id), name);

        if (flags & XATTR_CREATE && there)
                return fail(EEXIST);
        if (flags & XATTR_REPLACE && !there)
                return fail(ENODATA);
        return set_attribute(id, &event, "setxattr");
}

WRAP(int, setxattr, const char *path, const char *name, const void *value, size_t len, int flags)
{
        struct place place;

        if (!is_our_path(AT_FDCWD, path))
                return __real_setxattr(path, name, value, len, flags);
        LOCKED;
        if (walk_to(AT_FDCWD, path, &place) < 0)
                return -1;
        return set_xattr(place.node, name, value, len, flags);
}

WRAP(int, fsetxattr, int fd, const char *name, const void *value, size_t len, int flags)
{
        if (!is_ours(fd))
                return __real_fsetxattr(fd, name, value, len, flags);
        LOCKED;
        return set_xattr(open_of(fd)->node, name, value, len, flags);
}

WRAP(int, removexattr, const char *path, const char *name)
{
        struct place place;

        if (!is_our_path(AT_FDCWD, path))
                return __real_removexattr(path, name);
        LOCKED;
        if (walk_to(AT_FDCWD, path, &place) < 0)
                return -1;
        if (!find_xattr(node_of(place.node), name))
                return fail(ENODATA);
        return set_attribute(
                place.node,
                &(struct tk_event){.type = TK_EVENT_REMOVEXATTR, .name = (char *)(uintptr_t)name},
                "removexattr");
}

/* Content --------------------------------------------------------------------------------- */

WRAP(ssize_t, preadv, int fd, const struct iovec *iov, int count, off_t off)
{
        ssize_t total = 0;

        if (!is_ours(fd))
                return __real_preadv(fd, iov, count, off);
        LOCKED;
        for (int i = 0; i < count; i++) {
                size_t n = tk_disk_read(node_at(fd), (uint64_t)(off + total), iov[i].iov_base,
                                        iov[i].iov_len);

                total += (ssize_t)n;
                if (n < iov[i].iov_len)
                        break;
        }
        return total;
}

WRAP(ssize_t, preadv2, int fd, const struct iovec *iov, int count, off_t off, int flags)
{
        if (!is_ours(fd))
                return __real_preadv2(fd, iov, count, off, flags);
        return __wrap_preadv(fd, iov, count, off);
}

WRAP(int, posix_fadvise, int fd, off_t off, off_t len, int advice)
{
        return is_ours(fd) ? 0 : __real_posix_fadvise(fd, off, len, advice);
}

WRAP(ssize_t, pread, int fd, void *buf, size_t len, off_t off)
{
        if (!is_ours(fd))
                return __real_pread(fd, buf, len, off);
        return __wrap_preadv(fd, &(struct iovec){.iov_base = buf, .iov_len = len}, 1, off);
}

/* How many of @len bytes from @off there is room for. */
static size_t room_for(const struct tk_node *node, uint64_t off, size_t len)
{
        size_t room = 0;
        size_t left;

        if (tk_calls.capacity == 0)
                return len;
        left = tk_calls.capacity > tk_calls.disk.pages_used
                       ? tk_calls.capacity - tk_calls.disk.pages_used
                       : 0;
        while (room < len) {
                if (!tk_disk_has_page(node, (off + room) / TK_DISK_PAGE) && left-- == 0)
                        break;
                room += TK_DISK_PAGE - (off + room) % TK_DISK_PAGE;
        }
        return room < len ? room : len;
}

static bool needs_pages(const struct tk_node *node, uint64_t off, size_t len)
{
        for (uint64_t page = off / TK_DISK_PAGE; page <= (off + len - 1) / TK_DISK_PAGE; page++)
                if (!tk_disk_has_page(node, page))
                        return true;
        return off + len > node->size;
}

WRAP(ssize_t, pwritev, int fd, const struct iovec *iov, int count, off_t off)
{
        struct tk_event event = {.type = TK_EVENT_WRITE, .off = (uint64_t)off};
        const struct tk_node *node;
        size_t room;
        uint8_t *at;

        if (!is_ours(fd))
                return __real_pwritev(fd, iov, count, off);
        LOCKED;
        assert((open_of(fd)->flags & O_ACCMODE) != O_RDONLY && !(open_of(fd)->flags & O_PATH));
        if (step_at(open_of(fd)->node, "write", false) < 0)
                return -1;
        for (int i = 0; i < count; i++)
                event.data_len += iov[i].iov_len;
        if (event.data_len == 0)
                return 0;
        event.data = at = malloc(event.data_len);
        for (int i = 0; i < count; i++)
                at = (uint8_t *)memcpy(at, iov[i].iov_base, iov[i].iov_len) + iov[i].iov_len;

        node = node_at(fd);
        if (tk_calls.fail_short && tk_calls.count == tk_calls.fail_at && event.data_len > 1) {
                event.data_len /= 2;
                tk_calls.failed++;
                tk_calls.failed_call = "write, short";
        }
        room = room_for(node, event.off, event.data_len);
        if (room < event.data_len)
                event.data_len = room;
        event.len = event.data_len;
        event.node = open_of(fd)->node;
        if (event.len > 0) {
                event.grows = needs_pages(node, event.off, event.len);
                touch(event.node);
                commit(&event);
        }
        free(event.data);
        return event.len > 0 ? (ssize_t)event.len : fail(ENOSPC);
}

WRAP(ssize_t, pwrite, int fd, const void *buf, size_t len, off_t off)
{
        struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

        if (!is_ours(fd))
                return __real_pwrite(fd, buf, len, off);
        return __wrap_pwritev(fd, &iov, 1, off);
}

WRAP(int, ftruncate, int fd, off_t size)
{
        if (!is_ours(fd))
                return __real_ftruncate(fd, size);
        LOCKED;
        return truncate_to(open_of(fd)->node, (uint64_t)size);
}

WRAP(int, fallocate, int fd, int mode, off_t off, off_t len)
{
        struct tk_event event = {.type = TK_EVENT_FALLOCATE,
                                 .grows = true,
                                 .mode = (uint32_t)mode,
                                 .off = (uint64_t)off,
                                 .len = (uint64_t)len};

        if (!is_ours(fd))
                return __real_fallocate(fd, mode, off, len);
        LOCKED;
        if (step_at(open_of(fd)->node, "fallocate", false) < 0)
                return -1;
        if (!(mode & FALLOC_FL_PUNCH_HOLE) &&
            room_for(node_at(fd), event.off, event.len) < event.len)
                return fail(ENOSPC);
        event.node = open_of(fd)->node;
        touch(event.node);
        commit(&event);
        return 0;
}

static int sync_end(struct tk_event *event, size_t begin)
{
        LOCKED;

        if (step_at(event->node, "sync", true) < 0) {
                int error = errno;

                event->type = TK_EVENT_SYNC_FAILED;
                if (error != EINTR)
                        commit(event);
                return fail(error);
        }
        event->type = TK_EVENT_SYNC_END;
        event->off = begin;
        commit(event);
        return 0;
}

static int sync_node(int fd, enum tk_event_sync kind)
{
        struct tk_event event = {.type = TK_EVENT_SYNC_BEGIN, .mode = kind};
        size_t begin;

        {
                LOCKED;
                record_touched();
                begin = tk_calls.recording ? tk_calls.recording->count : 0;
                event.node = open_of(fd)->node;
                commit(&event);
        }
        if (tk_calls.during_sync)
                tk_calls.during_sync();
        return sync_end(&event, begin);
}

WRAP(int, fsync, int fd)
{
        return is_ours(fd) ? sync_node(fd, TK_SYNC_FILE) : __real_fsync(fd);
}

WRAP(int, fdatasync, int fd)
{
        return is_ours(fd) ? sync_node(fd, TK_SYNC_DATA) : __real_fdatasync(fd);
}

WRAP(int, syncfs, int fd)
{
        return is_ours(fd) ? sync_node(fd, TK_SYNC_ALL) : __real_syncfs(fd);
}

WRAP(off_t, lseek, int fd, off_t off, int whence)
{
        const struct tk_node *node;
        uint64_t page = (uint64_t)off / TK_DISK_PAGE;

        if (!is_ours(fd))
                return __real_lseek(fd, off, whence);
        LOCKED;
        node = node_at(fd);
        if (whence == SEEK_END)
                return (off_t)node->size + off;
        assert(whence == SEEK_DATA || whence == SEEK_HOLE);
        if ((uint64_t)off >= node->size)
                return fail(ENXIO);
        while (page * TK_DISK_PAGE < node->size &&
               tk_disk_has_page(node, page) != (whence == SEEK_DATA))
                page++;
        if (page * TK_DISK_PAGE >= node->size)
                return whence == SEEK_HOLE ? (off_t)node->size : fail(ENXIO);
        return page * TK_DISK_PAGE > (uint64_t)off ? (off_t)(page * TK_DISK_PAGE) : off;
}

/* Directory streams ------------------------------------------------------------------------- */

static struct dir_stream *stream_of(DIR *dir)
{
        for (struct dir_stream *stream = streams; stream; stream = stream->next)
                if (stream == (struct dir_stream *)dir)
                        return stream;
        return NULL;
}

WRAP(DIR *, fdopendir, int fd)
{
        struct dir_stream *stream;

        if (!is_ours(fd))
                return __real_fdopendir(fd);
        LOCKED;
        stream = calloc(1, sizeof(*stream));
        assert(stream);
        stream->fd = fd;
        stream->next = streams;
        streams = stream;
        return (DIR *)stream;
}

static void add_dirent(struct dir_stream *stream, const char *name, const struct tk_node *node)
{
        struct dirent *entry = &stream->entries[stream->count++];

        entry->d_ino = node->ino;
        entry->d_off = (off_t)stream->count;
        entry->d_type = (unsigned char)IFTODT(node->mode);
        snprintf(entry->d_name, sizeof(entry->d_name), "%s", name);
}

static void fill_stream(struct dir_stream *stream)
{
        const struct tk_node *dir = node_at(stream->fd);

        stream->entries = calloc(dir->entry_count + 2, sizeof(*stream->entries));
        assert(stream->entries);
        add_dirent(stream, ".", dir);
        add_dirent(stream, "..", dir);
        for (size_t i = 0; i < dir->entry_count; i++)
                add_dirent(stream, dir->entries[i].name, node_of(dir->entries[i].node));
}

WRAP(struct dirent *, readdir, DIR *dir)
{
        struct dir_stream *stream = stream_of(dir);

        if (!stream)
                return __real_readdir(dir);
        LOCKED;
        if (!stream->entries)
                fill_stream(stream);
        return stream->pos < stream->count ? &stream->entries[stream->pos++] : NULL;
}

static void forget_entries(struct dir_stream *stream)
{
        free(stream->entries);
        stream->entries = NULL;
        stream->count = 0;
        stream->pos = 0;
}

WRAP(void, rewinddir, DIR *dir)
{
        if (stream_of(dir))
                forget_entries(stream_of(dir));
        else
                __real_rewinddir(dir);
}

WRAP(void, seekdir, DIR *dir, long pos)
{
        if (stream_of(dir))
                stream_of(dir)->pos = (size_t)pos;
        else
                __real_seekdir(dir, pos);
}

WRAP(int, dirfd, DIR *dir)
{
        return stream_of(dir) ? stream_of(dir)->fd : __real_dirfd(dir);
}

WRAP(int, closedir, DIR *dir)
{
        struct dir_stream *stream = stream_of(dir);
        struct dir_stream **at = &streams;

        if (!stream)
                return __real_closedir(dir);
        while (*at != stream)
                at = &(*at)->next;
        *at = stream->next;
        __wrap_close(stream->fd);
        forget_entries(stream);
        free(stream);
        return 0;
}

/* Start and end ---------------------------------------------------------------------------------
 */

void tk_calls_start(struct tk_disk *disk)
{
        assert(fds_end == 0 && !streams);
        tk_calls = (struct tk_calls){.disk = *disk, .by_place = tk_calls.by_place};
        memset(disk, 0, sizeof(*disk));
        free_ino_count = 0;
        next_node = TK_DISK_ROOT + 1;
        next_ino = 11;
        touched.count = 0;
        for (uint32_t id = 1; id < tk_calls.disk.count; id++) {
                const struct tk_node *node = tk_disk_node(&tk_calls.disk, id);

                if (!node)
                        continue;
                next_node = id + 1;
                if (node->ino >= next_ino)
                        next_ino = node->ino + 1;
        }
        next_generation = next_node;
}

unsigned tk_calls_stop(struct tk_disk *ret_disk)
{
        unsigned left = 0;

        while (streams) {
                __wrap_closedir((DIR *)streams);
                left++;
        }
        for (int i = 0; i < fds_end; i++) {
                if (!fds[i].node)
                        continue;
                __wrap_close(FD_BASE + i);
                left++;
        }
        fds_end = 0;
        *ret_disk = tk_calls.disk;
        memset(&tk_calls.disk, 0, sizeof(tk_calls.disk));
        tk_calls.recording = NULL;
        return left;
}
