/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations on directories.
 *
 * A listing hands out names as applications see them. An entry whose name can't be
 * read is left out: it breaks nothing, and verify finds it.
 */

#include "base/log.h"
#include "fs/backing.h"
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/lift.h"
#include "fs/names.h"
#include "fs/op.h"
#include "fs/sibling.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

struct tk_dir {
        struct tk_fs *fs;
        struct tk_dir *prev; /* under the open-file lock of fs: all open directories */
        struct tk_dir *next;
        pthread_mutex_t lock;
        DIR *stream;                 /* under lock */
        struct dirent *pending;      /* under lock: read from the stream, not yet taken */
        off_t off;                   /* under lock: behind what was taken last; 0: nothing yet */
        char name[TK_NAMES_MAX + 1]; /* under lock: of the entry in hand */
        struct tk_inode *inode;      /* borrowed: an open directory is known to the kernel */
};

static void enlist(struct tk_dir *dir)
{
        TK_LOCK_SCOPE(&dir->fs->openfiles_lock);
        dir->next = dir->fs->dirs;
        if (dir->next)
                dir->next->prev = dir;
        dir->fs->dirs = dir;
}

static void delist(struct tk_dir *dir)
{
        TK_LOCK_SCOPE(&dir->fs->openfiles_lock);
        if (dir->prev)
                dir->prev->next = dir->next;
        else
                dir->fs->dirs = dir->next;
        if (dir->next)
                dir->next->prev = dir->prev;
}

int tk_op_opendir(struct tk_fs *fs, struct tk_inode *inode, struct tk_dir **ret_dir)
{
        TK_CLEANUP(tk_freep) struct tk_dir *dir = NULL;
        int fd;

        dir = calloc(1, sizeof(*dir));
        if (!dir)
                return -ENOMEM;
        fd = tk_inode_open(fs->inodes, inode, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        dir->stream = fdopendir(fd);
        if (!dir->stream) {
                close(fd);
                return -ENOMEM;
        }
        pthread_mutex_init(&dir->lock, NULL);
        dir->inode = inode;
        dir->fs = fs;
        enlist(dir);
        *ret_dir = TK_TAKE(dir);
        return 0;
}

struct tk_dir *tk_op_releasedir(struct tk_dir *dir)
{
        if (!dir)
                return NULL;
        delist(dir);
        closedir(dir->stream);
        pthread_mutex_destroy(&dir->lock);
        free(dir);
        return NULL;
}

void tk_op_releasedir_all(struct tk_fs *fs)
{
        while (fs->dirs)
                tk_op_releasedir(fs->dirs);
}

int tk_op_fsyncdir(struct tk_dir *dir, bool data_only)
{
        return tk_backing_sync(dirfd(dir->stream), data_only);
}

static int next_entry(struct tk_dir *dir, struct dirent **ret_entry)
{
        if (!dir->pending) {
                errno = 0;
                dir->pending = readdir(dir->stream);
                if (!dir->pending && errno)
                        return -errno;
        }
        *ret_entry = dir->pending;
        return 0;
}

static void note_unreadable(struct tk_dir *dir, const char *backing, int error)
{
        char path[PATH_MAX];

        dir->fs->stats.name_failures++;
        tk_fs_log_path(dir->fs, dirfd(dir->stream), path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s/%s: left out of the listing: %s; `turnkeyfs verify --repair` "
                       "gives it a new name",
                       path, backing,
                       error == -ENOENT ? "the sibling with its long name is missing"
                                        : "its name does not authenticate");
}

/* Whether @entry is none for who asks; if not, what it is called. */
static bool is_hidden(struct tk_dir *dir, struct tk_names_reader *reader,
                      const struct dirent *entry, const char **ret_name)
{
        const char *backing = entry->d_name;
        bool dots = strcmp(backing, ".") == 0 || strcmp(backing, "..") == 0;
        int r;

        *ret_name = reader || dots ? backing : NULL;
        if (!dir->fs->names_encrypted || dots)
                return false;
        if (tk_sibling_is(dirfd(dir->stream), backing, entry->d_type))
                return true;
        if (!reader)
                return false;
        r = tk_names_read(reader, dirfd(dir->stream), backing, dir->name);
        *ret_name = dir->name;
        if (r < 0)
                note_unreadable(dir, backing, r);
        return r < 0;
}

static void seek_to(struct tk_dir *dir, off_t off)
{
        if (off == dir->off && off != 0)
                return;
        if (off == 0)
                rewinddir(dir->stream);
        else
                seekdir(dir->stream, off);
        dir->pending = NULL;
        dir->off = off;
}

/* Hand on what @dir holds from its offset; @reader NULL: without names. */
static int list(struct tk_dir *dir, struct tk_names_reader *reader, tk_dir_take take, void *context)
{
        struct dirent *entry = NULL;
        int r;

        for (;;) {
                struct tk_dir_entry found;

                r = next_entry(dir, &entry);
                if (r < 0 || !entry)
                        return r;
                found = (struct tk_dir_entry){.backing = entry->d_name,
                                              .ino = entry->d_ino,
                                              .type = entry->d_type,
                                              .next_off = entry->d_off};
                if (is_hidden(dir, reader, entry, &found.name)) {
                        /* The offset is that of the last one that was taken: none is read twice. */
                        dir->pending = NULL;
                        continue;
                }
                r = take(context, &found);
                if (r != 0)
                        return r < 0 ? r : 0;
                dir->pending = NULL;
                dir->off = entry->d_off;
        }
}

int tk_op_readdir(struct tk_dir *dir, off_t off, tk_dir_take take, void *context)
{
        struct tk_names_reader reader;
        struct tk_dirkey *key = NULL;
        int r = 0;

        TK_LOCK_SCOPE(&dir->lock);
        seek_to(dir, off);
        if (dir->fs->names_encrypted)
                r = tk_dirkey_get(dir->fs, dir->inode, dirfd(dir->stream), &key);
        if (r < 0 && r != -ENODATA)
                return r;
        r = tk_names_reader_begin(&reader, dir->fs, key ? tk_dirkey_names(key) : NULL);
        if (r == 0)
                r = list(dir, &reader, take, context);
        tk_names_reader_end(&reader);
        tk_dirkey_put(dir->fs, key);
        return r;
}

int tk_op_readdir_backing(struct tk_dir *dir, tk_dir_take take, void *context)
{
        TK_LOCK_SCOPE(&dir->lock);
        seek_to(dir, 0);
        return list(dir, NULL, take, context);
}

int tk_op_lookup_in(struct tk_fs *fs, struct tk_dir *dir, const char *backing,
                    struct tk_entry *ret_entry)
{
        int parentfd = dirfd(dir->stream);
        int r;

        r = tk_lift_stat(fs, parentfd, backing, &ret_entry->st);
        if (r < 0)
                return r;
        r = tk_inode_lookup(fs->inodes, dir->inode, parentfd, backing, &ret_entry->st,
                            &ret_entry->inode);
        if (r < 0)
                return r;
        return tk_op_entry_present(fs, ret_entry);
}
