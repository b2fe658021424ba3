/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Paths of the mount and of the backing directory.
 *
 * The way goes from the root down, by the operations that serve the mount, so that the
 * keys of directories are found and kept as for any look-up.
 */

#include "fs/translate.h"

#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/names.h"
#include "fs/op.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* How one component is translated: @name in the directory @fd, which is @parent. */
typedef int (*translate_fn)(struct tk_fs *fs, struct tk_inode *parent, int fd, const char *name,
                            char ret_other[NAME_MAX + 1], char ret_backing[NAME_MAX + 1]);

static int name_to_backing(struct tk_fs *fs, struct tk_inode *parent, int fd, const char *name,
                           char ret_other[NAME_MAX + 1], char ret_backing[NAME_MAX + 1])
{
        struct tk_name found;
        int r;

        r = tk_names_find(fs, parent, fd, name, &found);
        if (r < 0)
                return r;
        memcpy(ret_backing, found.backing, sizeof(found.backing));
        memcpy(ret_other, found.backing, sizeof(found.backing));
        return 0;
}

static int name_to_plain(struct tk_fs *fs, struct tk_inode *parent, int fd, const char *name,
                         char ret_other[NAME_MAX + 1], char ret_backing[NAME_MAX + 1])
{
        struct tk_names_reader reader;
        struct tk_dirkey *key = NULL;
        int r;

        if (strlen(name) > NAME_MAX)
                return -ENAMETOOLONG;
        memcpy(ret_backing, name, strlen(name) + 1);
        /* A sibling is asked for as the entry that it belongs to. */
        if (fs->names_encrypted && tk_names_is_sibling(name))
                ret_backing[TK_NAMES_HASHED_LEN] = '\0';
        if (fs->names_encrypted) {
                r = tk_dirkey_get(fs, parent, fd, &key);
                if (r < 0)
                        return r == -ENODATA ? -ENOENT : r;
        }
        r = tk_names_reader_begin(&reader, fs, key ? tk_dirkey_names(key) : NULL);
        if (r == 0)
                r = tk_names_read(&reader, fd, ret_backing, ret_other);
        tk_names_reader_end(&reader);
        tk_dirkey_put(fs, key);
        return r;
}

/* Add "/" and @name to the text *@path. */
static int append(char **path, const char *name)
{
        char *longer;

        if (asprintf(&longer, "%s%s%s", *path, **path ? "/" : "", name) < 0)
                return -ENOMEM;
        free(*path);
        *path = longer;
        return 0;
}

/* The directory @backing in @dir, which takes the place of *@inode. */
static int descend(struct tk_fs *fs, struct tk_inode **inode, const char *backing)
{
        struct tk_dir *dir;
        struct tk_entry entry;
        int r;

        r = tk_op_opendir(fs, *inode, &dir);
        if (r < 0)
                return r;
        r = tk_op_lookup_in(fs, dir, backing, &entry);
        tk_op_releasedir(dir);
        if (r < 0)
                return r;
        if (*inode != tk_inode_root(fs->inodes))
                tk_inode_forget(fs->inodes, *inode, 1);
        *inode = entry.inode;
        return S_ISDIR(entry.st.st_mode) ? 0 : -ENOTDIR;
}

static int component(struct tk_fs *fs, struct tk_inode *parent, const char *name,
                     translate_fn translate, char **path, char ret_backing[NAME_MAX + 1])
{
        TK_AUTOCLOSE int fd = tk_inode_open(fs->inodes, parent, O_RDONLY | O_DIRECTORY);
        char other[NAME_MAX + 1];
        int r;

        if (fd < 0)
                return fd;
        r = translate(fs, parent, fd, name, other, ret_backing);
        return r < 0 ? r : append(path, other);
}

static int walk(struct tk_fs *fs, char *rest, translate_fn translate, struct tk_inode **inode,
                char **path)
{
        char backing[NAME_MAX + 1] = "";
        const char *name;
        int r = 0;

        while (r == 0 && (name = strsep(&rest, "/"))) {
                if (name[0] == '\0' || strcmp(name, ".") == 0)
                        continue;
                if (strcmp(name, "..") == 0)
                        return -EINVAL;
                if (backing[0])
                        r = descend(fs, inode, backing);
                if (r == 0)
                        r = component(fs, *inode, name, translate, path, backing);
        }
        return r;
}

static int translate_path(struct tk_fs *fs, const char *from, translate_fn translate,
                          char **ret_path)
{
        TK_CLEANUP(tk_freep) char *rest = strdup(from);
        TK_CLEANUP(tk_freep) char *path = strdup("");
        struct tk_inode *root = tk_inode_root(fs->inodes);
        struct tk_inode *inode = root;
        int r;

        if (!rest || !path)
                return -ENOMEM;
        r = walk(fs, rest, translate, &inode, &path);
        if (inode != root)
                tk_inode_forget(fs->inodes, inode, 1);
        if (r == 0)
                *ret_path = TK_TAKE(path);
        return r;
}

int tk_translate_to_backing(struct tk_fs *fs, const char *path, char **ret_backing)
{
        return translate_path(fs, path, name_to_backing, ret_backing);
}

int tk_translate_to_plain(struct tk_fs *fs, const char *backing, char **ret_path)
{
        return translate_path(fs, backing, name_to_plain, ret_path);
}
