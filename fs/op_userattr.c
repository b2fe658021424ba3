/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations on encrypted attributes.
 *
 * Names are encrypted without an IV, so that the backing filesystem finds, creates
 * and replaces an attribute by its stored name: each operation is one of its own,
 * with its atomicity. What the names mean is asked only where there are any.
 */

#include "fs/op_userattr.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/creds.h"
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/openfile.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/xattr.h>

/* Keys ------------------------------------------------------------------------ */

/* What the keys are wanted for: it decides which permission the file must give. */
enum purpose { TO_READ, TO_REMOVE, TO_SET };

/* A file without bytes may have no record yet, and the DEK in memory be the only one. */
static int store_record_if_missing(struct tk_openfile *file)
{
        int r = tk_backing_setxattr(file->fd, TK_KEYATTR_NAME, file->record.bytes,
                                    tk_record_len(&file->record), XATTR_CREATE);

        return r == -EEXIST ? 0 : r;
}

static int keys_of_file(struct tk_fs *fs, struct tk_inode *inode, enum purpose purpose,
                        struct tk_userattr **ret_attr)
{
        struct tk_openfile *file;
        int r;

        r = tk_openfile_get(fs, inode, purpose != TO_READ, &file);
        if (r < 0)
                return r;
        {
                TK_RANGE_SCOPE(range);

                tk_range_hold(&file->ranges, &range, 0, 0, purpose == TO_SET);
                if (purpose == TO_SET)
                        r = store_record_if_missing(file);
                if (r == 0)
                        r = tk_openfile_need_dek(fs, file);
                if (r == 0)
                        r = tk_userattr_new(file->dek, ret_attr);
        }
        tk_openfile_put(fs, file);
        return r;
}

static int keys_of_dir(struct tk_fs *fs, struct tk_inode *inode, int fd, bool make,
                       struct tk_userattr **ret_attr)
{
        struct tk_dirkey *key;
        int r;

        r = make ? tk_dirkey_need(fs, inode, fd, &key) : tk_dirkey_get(fs, inode, fd, &key);
        if (r < 0)
                return r;
        r = tk_userattr_new(tk_dirkey_dek(key), ret_attr);
        tk_dirkey_put(fs, key);
        return r;
}

static void note_record_lost(struct tk_fs *fs, int fd)
{
        char path[PATH_MAX];

        fs->stats.record_failures++;
        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: the directory has attributes, but no key record any more; restore it "
                       "from an escrow (turnkeyfs escrow restore), or its " TK_KEYATTR_NAME
                       " attribute from a backup",
                       path);
}

/* For an inode that has such attributes: if a directory has no record, then it was lost. */
static int keys_of(struct tk_fs *fs, struct tk_inode *inode, int fd, enum purpose purpose,
                   struct tk_userattr **ret_attr)
{
        int r;

        if (!S_ISDIR(tk_inode_type(inode)))
                return keys_of_file(fs, inode, purpose, ret_attr);
        r = keys_of_dir(fs, inode, fd, false, ret_attr);
        if (r != -ENODATA)
                return r;
        note_record_lost(fs, fd);
        return -EBADMSG;
}

/* Names ----------------------------------------------------------------------- */

/*
 * Whether there are such attributes, so that it is worth to have the key: 1 or 0, or a
 * negative errno. A list too long to look at may hold some.
 */
static int has_any(int fd)
{
        char list[4096];
        ssize_t n;

        n = tk_backing_listxattr(fd, list, sizeof(list));
        if (n < 0)
                return n == -ERANGE ? 1 : (int)n;
        for (const char *name = list; name < list + n; name += strlen(name) + 1)
                if (tk_userattr_is_stored(name))
                        return 1;
        return 0;
}

static void note_damaged(struct tk_fs *fs, int fd, const char *stored)
{
        char path[PATH_MAX];

        fs->stats.attribute_failures++;
        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: the attribute stored as %s does not authenticate: damaged, or another "
                       "file's; restore it from a backup or remove it",
                       path, stored);
}

/* The keys of an inode that gets an attribute; a directory without a record gets one, too. */
static int keys_to_set(struct tk_fs *fs, struct tk_inode *inode, int fd,
                       struct tk_userattr **ret_attr)
{
        int r;

        if (!S_ISDIR(tk_inode_type(inode)))
                return keys_of_file(fs, inode, TO_SET, ret_attr);
        r = has_any(fd);
        if (r < 0)
                return r;
        return r > 0 ? keys_of(fs, inode, fd, TO_SET, ret_attr)
                     : keys_of_dir(fs, inode, fd, true, ret_attr);
}

/*
 * The keys of an inode that has attributes, and what @name is stored as. -ENODATA if
 * there are none.
 */
static int find(struct tk_fs *fs, struct tk_inode *inode, int fd, const char *name,
                enum purpose purpose, struct tk_userattr **ret_attr,
                char ret_stored[TK_USERATTR_STORED_MAX + 1])
{
        int r;

        r = has_any(fd);
        if (r <= 0)
                return r < 0 ? r : -ENODATA;
        r = keys_of(fs, inode, fd, purpose, ret_attr);
        if (r < 0)
                return r;
        r = tk_userattr_seal_name(*ret_attr, name, ret_stored);
        return r == -ERANGE ? -ENODATA : r; /* too long to be there */
}

/* Operations ------------------------------------------------------------------ */

static ssize_t open_value(struct tk_fs *fs, int fd, struct tk_userattr *attr, const char *name,
                          const char *stored, void *value, size_t max)
{
        TK_CLEANUP(tk_freep) uint8_t *sealed = malloc(max + TK_SEALED_OVERHEAD);
        ssize_t n;
        int r;

        if (!sealed)
                return -ENOMEM;
        n = tk_backing_getxattr(fd, stored, sealed, max + TK_SEALED_OVERHEAD);
        if (n < 0)
                return n;
        r = tk_userattr_open_value(attr, name, sealed, (size_t)n, value);
        if (r == -EBADMSG)
                note_damaged(fs, fd, stored);
        return r < 0 ? r : n - TK_SEALED_OVERHEAD;
}

ssize_t tk_op_userattr_get(struct tk_fs *fs, struct tk_inode *inode, int fd, const char *name,
                           void *value, size_t max)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = NULL;
        char stored[TK_USERATTR_STORED_MAX + 1];
        ssize_t n;
        int r;

        r = find(fs, inode, fd, name, TO_READ, &attr, stored);
        if (r < 0)
                return r;
        if (max > 0)
                return open_value(fs, fd, attr, name, stored, value, max);
        n = tk_backing_getxattr(fd, stored, NULL, 0);
        if (n >= 0 && n < TK_SEALED_OVERHEAD) {
                note_damaged(fs, fd, stored);
                return -EBADMSG;
        }
        return n < 0 ? n : n - TK_SEALED_OVERHEAD;
}

int tk_op_userattr_set(struct tk_fs *fs, struct tk_inode *inode, int fd, const char *name,
                       const void *value, size_t len, int flags)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = NULL;
        TK_CLEANUP(tk_freep) uint8_t *sealed = NULL;
        char stored[TK_USERATTR_STORED_MAX + 1];
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        tk_creds_charge(st.st_uid);
        r = keys_to_set(fs, inode, fd, &attr);
        if (r == 0)
                r = tk_userattr_seal_name(attr, name, stored);
        if (r < 0)
                return r;
        sealed = malloc(len + TK_SEALED_OVERHEAD);
        if (!sealed)
                return -ENOMEM;
        r = tk_userattr_seal_value(attr, name, value, len, sealed);
        if (r < 0)
                return r;
        return tk_backing_setxattr(fd, stored, sealed, len + TK_SEALED_OVERHEAD, flags);
}

int tk_op_userattr_remove(struct tk_fs *fs, struct tk_inode *inode, int fd, const char *name)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = NULL;
        char stored[TK_USERATTR_STORED_MAX + 1];
        int r;

        r = find(fs, inode, fd, name, TO_REMOVE, &attr, stored);
        return r < 0 ? r : tk_backing_removexattr(fd, stored);
}

/*
 * What applications see of the attribute that is called @stored below: 1 and its name,
 * or 0 for nothing. Those of the user namespace that were not made here are nobody's.
 */
static int present(struct tk_fs *fs, int fd, struct tk_userattr *attr, const char *stored,
                   char ret_name[XATTR_NAME_MAX + 1])
{
        int r;

        if (!tk_userattr_is_in_space(stored)) {
                memcpy(ret_name, stored, strlen(stored) + 1);
                return 1;
        }
        if (!tk_userattr_is_stored(stored))
                return 0;
        r = tk_userattr_open_name(attr, stored, ret_name);
        if (r != -EBADMSG)
                return r < 0 ? r : 1;
        note_damaged(fs, fd, stored);
        return 0;
}

ssize_t tk_op_userattr_list(struct tk_fs *fs, struct tk_inode *inode, int fd, char *list,
                            size_t len)
{
        TK_CLEANUP(tk_userattr_freep) struct tk_userattr *attr = NULL;
        char name[XATTR_NAME_MAX + 1];
        size_t out = 0;
        size_t next;
        int r;

        /* A name is shorter than what it is stored as: it never reaches the next one. */
        for (size_t at = 0; at < len; at = next) {
                const char *stored = list + at;

                next = at + strlen(stored) + 1;
                r = tk_userattr_is_stored(stored) && !attr ? keys_of(fs, inode, fd, TO_READ, &attr)
                                                           : 0;
                if (r == 0)
                        r = present(fs, fd, attr, stored, name);
                if (r < 0)
                        return r;
                if (r > 0) {
                        size_t name_len = strlen(name) + 1;

                        memcpy(list + out, name, name_len);
                        out += name_len;
                }
        }
        return (ssize_t)out;
}
