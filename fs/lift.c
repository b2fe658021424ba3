/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Modes lifted for the moment.
 *
 * Before a mode is lifted, a note of it is made: a symbolic link in CIPHERDIR/lifted,
 * named after the inode, that leads nowhere and says mode and path. It goes when the mode
 * is back. These are all changes of metadata, which the backing filesystem keeps in order
 * through a crash: so no lifted mode is ever on the disk without its note.
 */

#include "fs/lift.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char notes_name[] = "lifted";

enum { NOTE_MAX = 4096 };

/* Notes ------------------------------------------------------------------------ */

static int open_notes(struct tk_fs *fs, bool make)
{
        int dirfd = tk_volume_dirfd(fs->volume);
        int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        int fd = openat(dirfd, notes_name, flags);

        if (fd < 0 && errno == ENOENT && make) {
                int r = tk_backing_mkdir(dirfd, notes_name, 0700);

                /* The umask is an application's: make sure of our own rights. */
                if (r < 0 || fchmodat(dirfd, notes_name, 0700, 0) < 0)
                        return r < 0 ? r : -errno;
                fd = openat(dirfd, notes_name, flags);
        }
        return fd < 0 ? -errno : fd;
}

/* Where @fd lies below the root. -EACCES if that can't be said. */
static int path_below(struct tk_fs *fs, int fd, char path[PATH_MAX])
{
        char root[PATH_MAX];
        size_t len;

        tk_backing_path(fs->rootfd, root, sizeof(root));
        tk_backing_path(fd, path, PATH_MAX);
        len = strlen(root);
        if (len == 0 || strncmp(path, root, len) != 0)
                return -EACCES;
        if (path[len] == '\0')
                memcpy(path, ".", 2);
        else if (path[len] == '/')
                memmove(path, path + len + 1, strlen(path + len + 1) + 1);
        else
                return -EACCES;
        return 0;
}

static int make_note(struct tk_lift *lift, const struct stat *st)
{
        char path[PATH_MAX];
        char text[NOTE_MAX];
        int r;

        lift->notes_fd = -1;
        if (st->st_nlink == 0)
                return 0; /* gone with a crash */
        r = path_below(lift->fs, lift->fd, path);
        if (r < 0)
                return r;
        if (snprintf(text, sizeof(text), "%04o:%s", lift->mode, path) >= (int)sizeof(text))
                return -EACCES;
        snprintf(lift->note, sizeof(lift->note), "%llx", (unsigned long long)st->st_ino);
        lift->notes_fd = open_notes(lift->fs, true);
        if (lift->notes_fd < 0)
                return lift->notes_fd;
        r = tk_backing_symlink(text, lift->notes_fd, lift->note);
        if (r < 0)
                close(lift->notes_fd);
        return r;
}

static int drop_note(struct tk_lift *lift)
{
        int r;

        if (lift->notes_fd < 0)
                return 0;
        r = tk_backing_unlink(lift->notes_fd, lift->note, false);
        close(lift->notes_fd);
        return r;
}

/* Lifting ---------------------------------------------------------------------- */

static int lift_mode(struct tk_fs *fs, int fd, mode_t bits, struct tk_lift *ret_lift)
{
        struct stat st;
        int r;

        *ret_lift = (struct tk_lift){.fs = fs, .fd = fd, .notes_fd = -1};
        if (fs->read_only)
                return -EROFS;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_uid != geteuid())
                return -EACCES;
        ret_lift->mode = st.st_mode & 07777;
        r = make_note(ret_lift, &st);
        if (r < 0)
                return r;
        r = tk_backing_chmod(fd, ret_lift->mode | bits);
        if (r < 0)
                (void)!drop_note(ret_lift);
        return r;
}

static void unlock(struct tk_fs *fs)
{
        pthread_mutex_unlock(&fs->lift_lock);
        tk_inode_places_release(fs->inodes);
}

int tk_lift_begin(struct tk_fs *fs, int fd, mode_t bits, struct tk_lift *ret_lift)
{
        int r;

        tk_inode_places_hold(fs->inodes); /* the path in the note stays true */
        pthread_mutex_lock(&fs->lift_lock);
        r = lift_mode(fs, fd, bits, ret_lift);
        if (r < 0)
                unlock(fs);
        return r;
}

int tk_lift_end(struct tk_lift *lift)
{
        struct tk_fs *fs = lift->fs;
        int r;

        r = tk_backing_chmod(lift->fd, lift->mode);
        if (r == 0)
                r = drop_note(lift);
        else if (lift->notes_fd >= 0)
                close(lift->notes_fd); /* the note stays, for the next start */
        unlock(fs);
        return r;
}

/* Undoing ---------------------------------------------------------------------- */

/* Whether @mode is @noted, lifted, and without what a write may have cleared: nobody else has
 * changed it since. */
static bool is_lifted(mode_t mode, mode_t noted)
{
        const mode_t added = S_IRUSR | S_IWUSR;
        const mode_t cleared = S_ISUID | S_ISGID;

        return ((mode ^ noted) & ~(added | cleared)) == 0 && (noted & ~mode & added) == 0 &&
               (mode & ~noted & cleared) == 0;
}

/* 0 if all is as it should be: the mode is back, or its file is gone. */
static int put_back(struct tk_fs *fs, uint64_t ino, mode_t noted, const char *path)
{
        TK_AUTOCLOSE int fd = -1;
        struct stat st;

        fd = tk_backing_open_beneath(fs->rootfd, path, O_PATH | O_NOFOLLOW);
        if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV)
                return 0;
        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_ino != ino || S_ISLNK(st.st_mode) || !is_lifted(st.st_mode & 07777, noted))
                return 0;
        return tk_backing_chmod(fd, noted);
}

/* Take the note @name for what it says. */
static void undo(struct tk_fs *fs, int notes_fd, const char *name)
{
        char text[NOTE_MAX + 1];
        char *path;
        char *end;
        uint64_t ino = strtoull(name, &end, 16);
        ssize_t n = readlinkat(notes_fd, name, text, NOTE_MAX);
        unsigned long mode;
        int r;

        if (*end || n < 0)
                return; /* no note */
        text[n] = '\0';
        mode = strtoul(text, &path, 8);
        if (*path != ':' || mode > 07777)
                return;
        r = put_back(fs, ino, (mode_t)mode, path + 1);
        if (r == 0)
                r = tk_backing_unlink(notes_fd, name, false);
        if (r < 0)
                tk_log_limited(TK_LOG_WARNING,
                               "a crash left inode %llu below root ('%s') with another mode than "
                               "%04lo, which could not be put back: %s",
                               (unsigned long long)ino, tk_fs_hides_paths(fs) ? "..." : path + 1,
                               mode, strerror(-r));
}

void tk_lift_undo_all(struct tk_fs *fs)
{
        int fd = open_notes(fs, false);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;

        if (!dir) {
                if (fd >= 0)
                        close(fd);
                return;
        }
        while ((entry = readdir(dir)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        undo(fs, fd, entry->d_name);
        closedir(dir);
}

/* Calls ------------------------------------------------------------------------ */

static int stat_now(int dirfd, const char *name, struct stat *ret_st)
{
        int rc = *name ? fstatat(dirfd, name, ret_st, AT_SYMLINK_NOFOLLOW) : fstat(dirfd, ret_st);

        return rc < 0 ? -errno : 0;
}

int tk_lift_stat(struct tk_fs *fs, int dirfd, const char *name, struct stat *ret_st)
{
        if (geteuid() == 0)
                return stat_now(dirfd, name, ret_st); /* whom no mode forbids anything */
        TK_LOCK_SCOPE(&fs->lift_lock);
        return stat_now(dirfd, name, ret_st);
}

ssize_t tk_lift_getxattr(struct tk_fs *fs, int fd, const char *name, void *value, size_t max)
{
        struct tk_lift lift;
        ssize_t n;
        int r;

        n = tk_backing_getxattr(fd, name, value, max);
        if (n != -EACCES || tk_lift_begin(fs, fd, S_IRUSR, &lift) < 0)
                return n;
        n = tk_backing_getxattr(fd, name, value, max);
        r = tk_lift_end(&lift);
        return r < 0 ? r : n;
}

int tk_lift_setxattr(struct tk_fs *fs, int fd, const char *name, const void *value, size_t len,
                     int flags)
{
        struct tk_lift lift;
        int r_end;
        int r;

        r = tk_backing_setxattr(fd, name, value, len, flags);
        if (r != -EACCES || tk_lift_begin(fs, fd, S_IWUSR, &lift) < 0)
                return r;
        r = tk_backing_setxattr(fd, name, value, len, flags);
        r_end = tk_lift_end(&lift);
        return r < 0 ? r : r_end;
}
