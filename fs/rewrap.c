/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rewrap.
 *
 * The new record is made first (a KMS may be asked), while readers go on. Then it is
 * put in place under group 0's range, which every writer of a header holds: so no
 * write brings the old record back. A directory's record is written when the directory
 * is made, and after that here only, by the one rotation that runs.
 */

#include "fs/rewrap.h"

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/lift.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int store_attribute(struct tk_fs *fs, int fd, const struct tk_record *record)
{
        return tk_lift_setxattr(fs, fd, TK_KEYATTR_NAME, record->bytes, tk_record_len(record), 0);
}

/* Through @fd. -EBADF if it may not write. */
static int put_copy(int fd, const struct tk_record *record)
{
        struct timespec times[2];
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return -errno;
        r = tk_backing_pwrite(fd, record->bytes, tk_record_len(record), 0);
        if (r < 0)
                return r;
        times[0] = st.st_atim;
        times[1] = st.st_mtim;
        return tk_backing_utimens(fd, times);
}

/* Where the mode forbids it, or would lose something by it. */
static int put_copy_lifted(struct tk_fs *fs, int fd, const struct tk_record *record)
{
        TK_AUTOCLOSE int opened = -1;
        struct tk_lift lift;
        int r_end;
        int r;

        r = tk_lift_begin(fs, fd, S_IRUSR | S_IWUSR, &lift);
        if (r < 0)
                return r;
        opened = tk_backing_reopen(fd, O_RDWR);
        r = opened < 0 ? opened : put_copy(opened, record);
        r_end = tk_lift_end(&lift);
        return r < 0 ? r : r_end;
}

/* Whether a write to @fd clears set-id bits: ours is not the application's. */
static bool loses_setid(int fd)
{
        struct stat st;

        return geteuid() != 0 && fstat(fd, &st) == 0 && st.st_mode & (S_ISUID | S_ISGID);
}

static int write_copy(struct tk_fs *fs, struct tk_openfile *file, const struct tk_record *record)
{
        int r;

        /* Against setattr: what it sets in between would be undone. */
        TK_LOCK_SCOPE(&file->times_lock);
        r = loses_setid(file->fd) ? -EBADF : put_copy(file->fd, record);
        return r == -EBADF ? put_copy_lifted(fs, file->fd, record) : r;
}

/* Who brings a DEK back that was wiped reads the record without block 0. */
static void set_record(struct tk_openfile *file, const struct tk_record *record)
{
        TK_LOCK_SCOPE(&file->dek_lock);
        file->record = *record;
}

/* Put @record in the place of the old one, in memory, attribute and copy. */
static int replace_record(struct tk_fs *fs, struct tk_openfile *file,
                          const struct tk_record *record)
{
        TK_RANGE_SCOPE(range);
        int r;

        tk_range_hold(&file->ranges, &range, 0, 0, true);
        r = store_attribute(fs, file->fd, record);
        if (r < 0)
                return r;
        set_record(file, record);
        file->attributes_unsynced = true;
        r = file->has_header ? write_copy(fs, file, record) : 0;
        file->twin_old = r < 0;
        return r;
}

/* A record for the DEK under the current KEK version. */
static int make_record(struct tk_fs *fs, struct tk_openfile *file, struct tk_record *ret_record)
{
        TK_RANGE_SCOPE(range);
        int r;

        tk_range_hold(&file->ranges, &range, 0, 0, false);
        r = tk_openfile_need_dek(fs, file);
        if (r < 0)
                return r;
        return tk_keyring_wrap(fs->keyring, file->dek, ret_record);
}

static bool is_current(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(range);
        uint16_t version = 0;
        int r;

        tk_range_hold(&file->ranges, &range, 0, 0, false);
        r = tk_record_kek_version(file->record.bytes, tk_record_len(&file->record), &version);
        return r == 0 && version == tk_keyring_current(fs->keyring) && !file->twin_old;
}

int tk_rewrap_file(struct tk_fs *fs, struct tk_openfile *file)
{
        struct tk_record record;
        int r;

        if (is_current(fs, file))
                return TK_REWRAP_CURRENT;
        r = make_record(fs, file, &record);
        if (r < 0)
                return r;
        r = replace_record(fs, file, &record);
        return r < 0 ? r : TK_REWRAP_DONE;
}

static int rewrap_regular(struct tk_fs *fs, struct tk_inode *inode)
{
        struct tk_openfile *file;
        int r;

        r = tk_openfile_get(fs, inode, true, &file);
        if (r == -EACCES) /* the mode forbids it: lifted when it is written */
                r = tk_openfile_get(fs, inode, false, &file);
        if (r < 0)
                return r;
        r = tk_rewrap_file(fs, file);
        tk_openfile_put(fs, file);
        return r;
}

static int rewrap_dir(struct tk_fs *fs, struct tk_inode *inode)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        TK_AUTOCLOSE int fd = -1;
        struct tk_record record;
        uint16_t version = 0;
        int r;

        fd = tk_inode_open(fs->inodes, inode, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        r = tk_keyattr_read(fs, fd, &record);
        if (r == -ENODATA)
                return TK_REWRAP_NONE;
        if (r == 0)
                r = tk_record_kek_version(record.bytes, tk_record_len(&record), &version);
        if (r < 0 || version == tk_keyring_current(fs->keyring))
                return r < 0 ? r : TK_REWRAP_CURRENT;
        r = tk_keyring_unwrap(fs->keyring, &record, &dek);
        if (r == 0)
                r = tk_keyring_wrap(fs->keyring, dek, &record);
        if (r == 0)
                r = store_attribute(fs, fd, &record);
        return r < 0 ? r : TK_REWRAP_DONE;
}

int tk_rewrap_inode(struct tk_fs *fs, struct tk_inode *inode)
{
        switch (tk_inode_type(inode)) {
        case S_IFREG:
                return rewrap_regular(fs, inode);
        case S_IFDIR:
                return rewrap_dir(fs, inode);
        default:
                return TK_REWRAP_NONE;
        }
}

uint16_t tk_rewrap_version(struct tk_fs *fs, struct tk_inode *inode)
{
        TK_AUTOCLOSE int fd = tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);

        return fd < 0 ? 0 : tk_keyattr_version(fs, fd, false);
}
