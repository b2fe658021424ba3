/* SPDX-License-Identifier: Apache-2.0 */

/*
 * FUSE requests to operations. Each shim calls one function and replies exactly
 * once; if the reply does not reach the kernel, it takes back what was handed out.
 */

#include "fs/ops.h"

#include "fs/content.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/killpriv.h"
#include "fs/op.h"
#include "fs/readahead.h"
#include "fs/revoke.h"
#include "fs/seeker.h"
#include "fs/uring.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/xattr.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct tk_ops_context *context_of(fuse_req_t req)
{
        return fuse_req_userdata(req);
}

static struct tk_fs *fs_of(fuse_req_t req)
{
        return context_of(req)->fs;
}

/* From our errors to those that applications know. */
static int errno_for_kernel(int r)
{
        switch (-r) {
        case EBADMSG: /* a tag or record is wrong */
        case EUCLEAN: /* a seal does not hold */
                return EIO;
        default:
                return -r;
        }
}

void tk_reply_error(fuse_req_t req, int r)
{
        if (r < 0)
                tk_stats_count_error(&fs_of(req)->stats, r);
        fuse_reply_err(req, errno_for_kernel(r));
}

static struct tk_inode *inode_of(fuse_req_t req, fuse_ino_t ino)
{
        if (ino == FUSE_ROOT_ID)
                return tk_inode_root(fs_of(req)->inodes);
        return (struct tk_inode *)(uintptr_t)ino;
}

static struct tk_openfile *file_of(const struct fuse_file_info *fi)
{
        return (struct tk_openfile *)(uintptr_t)fi->fh;
}

static struct tk_dir *dir_of(const struct fuse_file_info *fi)
{
        return (struct tk_dir *)(uintptr_t)fi->fh;
}

static struct tk_caller caller_of(fuse_req_t req)
{
        const struct fuse_ctx *ctx = fuse_req_ctx(req);

        return (struct tk_caller){.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask};
}

/*
 * Root may have taken on another user's identity for its file accesses, which is not what
 * the kernel looks at when it lets in the mount's owner only.
 */
static bool is_stranger(fuse_req_t req)
{
        return context_of(req)->root_only && fuse_req_ctx(req)->uid != 0;
}

/*
 * Whether the mount is closed, or to who asks, and the request therefore answered. All that
 * somebody waits for passes here.
 */
static bool refused(fuse_req_t req, bool writeback)
{
        int r;

        tk_cpulatency_note(context_of(req)->cpus);
        r = tk_revoke_gate(fs_of(req), writeback);
        if (r == 0 && is_stranger(req))
                r = -EACCES;
        if (r < 0)
                tk_reply_error(req, r);
        return r < 0;
}

static bool caller_in_group(void *req, gid_t gid)
{
        return tk_killpriv_in_group(req, gid);
}

static struct fuse_entry_param entry_param(fuse_req_t req, const struct tk_entry *entry)
{
        double timeout_s = context_of(req)->timeout_s;

        return (struct fuse_entry_param){
                .ino = (fuse_ino_t)(uintptr_t)entry->inode,
                .attr = entry->st,
                .attr_timeout = timeout_s,
                .entry_timeout = timeout_s,
        };
}

static void reply_entry(fuse_req_t req, int r, const struct tk_entry *entry)
{
        struct tk_fs *fs = fs_of(req);
        struct fuse_entry_param param;

        if (r < 0) {
                tk_reply_error(req, r);
                return;
        }
        param = entry_param(req, entry);
        if (fuse_reply_entry(req, &param) < 0)
                tk_inode_forget(fs->inodes, entry->inode, 1);
}

/* Session --------------------------------------------------------------------- */

static void shim_init(void *userdata, struct fuse_conn_info *conn)
{
        struct tk_ops_context *context = userdata;
        unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_DONT_MASK |
                          FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_READDIRPLUS |
                          FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
                          FUSE_CAP_CACHE_SYMLINKS | tk_killpriv_capability();

        /* With it the kernel judges permissions, ACLs among them, always. */
        if (!context->root_only)
                wanted |= FUSE_CAP_POSIX_ACL;

        /*
         * Left out on purpose: splice (content is encrypted in memory), locks (the
         * kernel's own do), automatic invalidation (we are the only writer), O_TRUNC in
         * open, which the kernel does rightly. Set-id bits: killpriv.h.
         */
        /* libfuse has set what it was asked for by options: io_uring. */
        conn->want = conn->capable & (wanted | (conn->want & tk_uring_capability()));
        conn->max_write = TK_REQUEST_MAX;
        conn->max_readahead = TK_REQUEST_MAX; /* an upper bound of what the mount has */
        tk_readahead_raise(context->mountpoint);
        if (context->ready)
                context->ready(context->ready_context);
}

/* Names ------------------------------------------------------------------------ */

static void shim_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        struct tk_entry entry;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_lookup(fs_of(req), inode_of(req, parent), name, &entry);
        if (r == -ENOENT) {
                /* The kernel may remember for a while that there is nothing. */
                struct fuse_entry_param none = {.entry_timeout = context_of(req)->timeout_s};

                fuse_reply_entry(req, &none);
                return;
        }
        reply_entry(req, r, &entry);
}

static void shim_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
        if (ino != FUSE_ROOT_ID)
                tk_inode_forget(fs_of(req)->inodes, inode_of(req, ino), count);
        fuse_reply_none(req);
}

static void shim_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
        for (size_t i = 0; i < count; i++)
                if (forgets[i].ino != FUSE_ROOT_ID)
                        tk_inode_forget(fs_of(req)->inodes, inode_of(req, forgets[i].ino),
                                        forgets[i].nlookup);
        fuse_reply_none(req);
}

static void shim_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
        struct tk_caller caller = caller_of(req);
        struct tk_entry entry;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_mknod(fs_of(req), inode_of(req, parent), name, mode, dev, &caller, &entry);
        reply_entry(req, r, &entry);
}

static void shim_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
        struct tk_caller caller = caller_of(req);
        struct tk_entry entry;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_mkdir(fs_of(req), inode_of(req, parent), name, mode, &caller, &entry);
        reply_entry(req, r, &entry);
}

static void shim_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
        struct tk_caller caller = caller_of(req);
        struct tk_entry entry;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_symlink(fs_of(req), target, inode_of(req, parent), name, &caller, &entry);
        reply_entry(req, r, &entry);
}

static void shim_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
        struct tk_entry entry;
        int r;

        if (refused(req, false))
                return;
        tk_openfile_note_attributes(fs_of(req), inode_of(req, ino));
        r = tk_op_link(fs_of(req), inode_of(req, ino), inode_of(req, parent), name, &entry);
        reply_entry(req, r, &entry);
}

static void shim_readlink(fuse_req_t req, fuse_ino_t ino)
{
        char target[PATH_MAX + 1];
        int r;

        if (refused(req, false))
                return;
        r = tk_op_readlink(fs_of(req), inode_of(req, ino), target, sizeof(target));
        if (r < 0)
                tk_reply_error(req, r);
        else
                fuse_reply_readlink(req, target);
}

static void shim_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        int r;

        if (refused(req, false))
                return;
        r = tk_op_unlink(fs_of(req), inode_of(req, parent), name, false);
        if (r == 0 && fs_of(req)->journal)
                tk_journal_note_names(fs_of(req)->journal);
        tk_reply_error(req, r);
}

static void shim_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
        if (refused(req, false))
                return;
        tk_reply_error(req, tk_op_unlink(fs_of(req), inode_of(req, parent), name, true));
}

static void shim_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                        const char *new_name, unsigned flags)
{
        int r;

        if (refused(req, false))
                return;
        r = tk_op_rename(fs_of(req), inode_of(req, parent), name, inode_of(req, new_parent),
                         new_name, flags);
        if (r == 0 && fs_of(req)->journal)
                tk_journal_note_names(fs_of(req)->journal);
        tk_reply_error(req, r);
}

/* Directories -------------------------------------------------------------------- */

static void shim_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct tk_dir *dir;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_opendir(fs_of(req), inode_of(req, ino), &dir);
        if (r < 0) {
                tk_reply_error(req, r);
                return;
        }
        fi->fh = (uintptr_t)dir;
        if (fuse_reply_open(req, fi) < 0)
                tk_op_releasedir(dir);
}

static void shim_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        (void)ino;
        tk_op_releasedir(dir_of(fi));
        tk_reply_error(req, 0);
}

static void shim_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
        (void)ino;
        tk_reply_error(req, tk_op_fsyncdir(dir_of(fi), data_only));
}

/* A directory listing being filled. */
struct listing {
        fuse_req_t req;
        struct tk_dir *dir;
        char *buf;
        size_t len;
        size_t max;
};

static bool is_dot(const char *name)
{
        return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int take_plain(void *context, const struct tk_dir_entry *entry)
{
        struct listing *listing = context;
        struct stat st = {.st_ino = entry->ino, .st_mode = DTTOIF(entry->type)};
        size_t need;

        need = fuse_add_direntry(listing->req, listing->buf + listing->len,
                                 listing->max - listing->len, entry->name, &st, entry->next_off);
        if (need > listing->max - listing->len)
                return 1;
        listing->len += need;
        return 0;
}

/* With attributes; the look-up counts only if the entry is taken. */
static int take_plus(void *context, const struct tk_dir_entry *found)
{
        struct listing *listing = context;
        struct tk_fs *fs = fs_of(listing->req);
        struct fuse_entry_param param = {0};
        struct tk_entry entry = {0};
        size_t need;

        if (!is_dot(found->name) && tk_op_lookup_in(fs, listing->dir, found->backing, &entry) == 0)
                param = entry_param(listing->req, &entry);
        if (!entry.inode) {
                /* "." and "..", or what vanished meanwhile: a name without attributes. */
                param.attr.st_ino = found->ino;
                param.attr.st_mode = DTTOIF(found->type);
        }
        need = fuse_add_direntry_plus(listing->req, listing->buf + listing->len,
                                      listing->max - listing->len, found->name, &param,
                                      found->next_off);
        if (need > listing->max - listing->len) {
                if (entry.inode)
                        tk_inode_forget(fs->inodes, entry.inode, 1);
                return 1;
        }
        listing->len += need;
        return 0;
}

static void list(fuse_req_t req, size_t max, off_t off, struct fuse_file_info *fi, bool plus)
{
        TK_CLEANUP(tk_freep) char *buf = malloc(max);
        struct listing listing = {.req = req, .dir = dir_of(fi), .buf = buf, .max = max};
        int r;

        if (!buf) {
                tk_reply_error(req, -ENOMEM);
                return;
        }
        r = tk_op_readdir(listing.dir, off, plus ? take_plus : take_plain, &listing);
        if (r < 0 && listing.len == 0)
                tk_reply_error(req, r);
        else
                fuse_reply_buf(req, buf, listing.len);
}

static void shim_readdir(fuse_req_t req, fuse_ino_t ino, size_t max, off_t off,
                         struct fuse_file_info *fi)
{
        if (refused(req, false))
                return;
        (void)ino;
        list(req, max, off, fi, false);
}

static void shim_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t max, off_t off,
                             struct fuse_file_info *fi)
{
        if (refused(req, false))
                return;
        (void)ino;
        list(req, max, off, fi, true);
}

/* Attributes ----------------------------------------------------------------------- */

static void reply_attr(fuse_req_t req, int r, const struct stat *st)
{
        if (r < 0)
                tk_reply_error(req, r);
        else
                fuse_reply_attr(req, st, context_of(req)->timeout_s);
}

static void shim_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct stat st;
        int r;

        /* The root's stay to be seen: whoever unmounts looks at the mountpoint. */
        if (ino != FUSE_ROOT_ID && refused(req, false))
                return;
        (void)fi;
        r = tk_op_getattr(fs_of(req), inode_of(req, ino), &st);
        reply_attr(req, r, &st);
}

/*
 * access(2) and chdir(2), where the kernel does not judge. Root may do all but execute
 * what nobody may execute.
 */
static void shim_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
        struct stat st;
        int r;

        if (ino != FUSE_ROOT_ID && refused(req, false))
                return;
        if (!(mask & X_OK) || !S_ISREG(tk_inode_type(inode_of(req, ino)))) {
                tk_reply_error(req, 0);
                return;
        }
        r = tk_op_getattr(fs_of(req), inode_of(req, ino), &st);
        if (r == 0 && !(st.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)))
                r = -EACCES;
        tk_reply_error(req, r);
}

static struct tk_setattr setattr_of(const struct stat *attr, int to_set)
{
        struct tk_setattr set = {.mode = attr->st_mode,
                                 .uid = attr->st_uid,
                                 .gid = attr->st_gid,
                                 .size = (uint64_t)attr->st_size,
                                 .atime = attr->st_atim,
                                 .mtime = attr->st_mtim};

        if (to_set & FUSE_SET_ATTR_MODE)
                set.what |= TK_SETATTR_MODE;
        if (to_set & FUSE_SET_ATTR_UID)
                set.what |= TK_SETATTR_UID;
        if (to_set & FUSE_SET_ATTR_GID)
                set.what |= TK_SETATTR_GID;
        if (to_set & FUSE_SET_ATTR_SIZE)
                set.what |= TK_SETATTR_SIZE;
        if (to_set & FUSE_SET_ATTR_ATIME)
                set.what |= TK_SETATTR_ATIME;
        if (to_set & FUSE_SET_ATTR_MTIME)
                set.what |= TK_SETATTR_MTIME;
        if (to_set & FUSE_SET_ATTR_ATIME_NOW)
                set.atime = (struct timespec){.tv_nsec = UTIME_NOW};
        if (to_set & FUSE_SET_ATTR_MTIME_NOW)
                set.mtime = (struct timespec){.tv_nsec = UTIME_NOW};
        return set;
}

static void shim_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                         struct fuse_file_info *fi)
{
        const struct tk_kill_setid kill = {.in_group = caller_in_group, .context = req};
        struct tk_setattr set = setattr_of(attr, to_set);
        struct stat st;
        int r;

        if (refused(req, false))
                return;
        (void)fi;
        set.kill_setid = tk_killpriv_wanted_by_setattr(to_set) ? &kill : NULL;
        r = tk_op_setattr(fs_of(req), inode_of(req, ino), &set, &st);
        reply_attr(req, r, &st);
}

static void shim_statfs(fuse_req_t req, fuse_ino_t ino)
{
        struct statvfs st;
        int r;

        (void)ino;
        r = tk_op_statfs(fs_of(req), &st);
        if (r < 0)
                tk_reply_error(req, r);
        else
                fuse_reply_statfs(req, &st);
}

/* Extended attributes ---------------------------------------------------------------- */

static void reply_xattr(fuse_req_t req, ssize_t n, const char *buf, size_t max)
{
        if (n < 0)
                tk_reply_error(req, (int)n);
        else if (max == 0)
                fuse_reply_xattr(req, (size_t)n);
        else
                fuse_reply_buf(req, buf, (size_t)n);
}

static void shim_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t max)
{
        TK_CLEANUP(tk_freep) char *buf = max > 0 ? malloc(max) : NULL;

        if (refused(req, false))
                return;
        if (max > 0 && !buf) {
                tk_reply_error(req, -ENOMEM);
                return;
        }
        reply_xattr(req, tk_op_getxattr(fs_of(req), inode_of(req, ino), name, buf, max), buf, max);
}

static void shim_listxattr(fuse_req_t req, fuse_ino_t ino, size_t max)
{
        TK_CLEANUP(tk_freep) char *buf = max > 0 ? malloc(max) : NULL;

        if (refused(req, false))
                return;
        if (max > 0 && !buf) {
                tk_reply_error(req, -ENOMEM);
                return;
        }
        reply_xattr(req, tk_op_listxattr(fs_of(req), inode_of(req, ino), buf, max), buf, max);
}

/*
 * An ACL of access holds the mode as well, which a kernel that leaves ACLs to us does not know.
 * Attributes only: that waits for no page and no lock of a request.
 */
static void note_acl(fuse_req_t req, fuse_ino_t ino, const char *name)
{
        const struct tk_ops_context *context = context_of(req);

        if (context->root_only && strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) == 0)
                (void)!fuse_lowlevel_notify_inval_inode(context->session, ino, -1, 0);
}

static void shim_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                          size_t len, int flags)
{
        int r;

        if (refused(req, false))
                return;
        tk_openfile_note_attributes(fs_of(req), inode_of(req, ino));
        r = tk_op_setxattr(fs_of(req), inode_of(req, ino), name, value, len, flags);
        note_acl(req, ino, name);
        tk_reply_error(req, r);
}

static void shim_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
        int r;

        if (refused(req, false))
                return;
        tk_openfile_note_attributes(fs_of(req), inode_of(req, ino));
        r = tk_op_removexattr(fs_of(req), inode_of(req, ino), name);
        note_acl(req, ino, name);
        tk_reply_error(req, r);
}

/* Open files -------------------------------------------------------------------------- */

static void shim_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                        struct fuse_file_info *fi)
{
        struct tk_fs *fs = fs_of(req);
        struct tk_caller caller = caller_of(req);
        struct fuse_entry_param param;
        struct tk_openfile *file;
        struct tk_entry entry;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_create(fs, inode_of(req, parent), name, mode & 07777, fi->flags, &caller, &entry,
                         &file);
        /*
         * A file that the kernel knew nothing of. It has judged the directory only, so that
         * it must not be opened here: on ESTALE the kernel looks it up and judges the file.
         */
        if (r == -EEXIST && !(fi->flags & O_EXCL))
                r = -ESTALE;
        if (r < 0) {
                tk_reply_error(req, r);
                return;
        }
        fi->fh = (uintptr_t)file;
        fi->keep_cache = 1;
        param = entry_param(req, &entry);
        if (fuse_reply_create(req, &param, fi) < 0) {
                tk_op_release(fs, file, fi->flags);
                tk_inode_forget(fs->inodes, entry.inode, 1);
        }
}

static void shim_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        struct tk_openfile *file;
        int r;

        if (refused(req, false))
                return;
        r = tk_op_open(fs_of(req), inode_of(req, ino), fi->flags, &file);
        if (r < 0) {
                tk_reply_error(req, r);
                return;
        }
        fi->fh = (uintptr_t)file;
        fi->keep_cache = 1; /* nobody but us writes the backing file */
        if (fuse_reply_open(req, fi) < 0)
                tk_op_release(fs_of(req), file, fi->flags);
}

static void shim_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
        (void)ino;
        tk_op_release(fs_of(req), file_of(fi), fi->flags);
        tk_reply_error(req, 0);
}

static void shim_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off,
                      struct fuse_file_info *fi)
{
        const uint8_t *data;
        ssize_t n;

        if (refused(req, false))
                return;
        (void)ino;
        n = tk_content_read(fs_of(req), file_of(fi), (uint64_t)off, len, &data);
        if (n < 0)
                tk_reply_error(req, (int)n);
        else
                fuse_reply_buf(req, (const char *)data, (size_t)n);
}

static int kill_setid(struct tk_openfile *file, const struct tk_kill_setid *kill)
{
        int r = tk_op_kill_setid(file->fd, kill);

        if (r != TK_SETID_KILLED)
                return r;
        file->attributes_unsynced = true;
        return 0;
}

static void shim_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t off,
                           struct fuse_file_info *fi)
{
        const struct tk_kill_setid kill = {.in_group = caller_in_group, .context = req};
        size_t len = fuse_buf_size(bufv);
        int r;

        (void)ino;
        if (refused(req, fi->writepage))
                return;
        /* Without splice the bytes are in memory, in the worker's own buffer. */
        if (bufv->count != 1 || bufv->buf[0].flags & FUSE_BUF_IS_FD) {
                tk_reply_error(req, -EIO);
                return;
        }
        r = tk_content_write(fs_of(req), file_of(fi), (uint64_t)off, bufv->buf[0].mem, len);
        if (r == 0 && tk_killpriv_wanted_by_write(fi))
                r = kill_setid(file_of(fi), &kill);
        /* Past the kernel's cache, O_SYNC is ours; writeback is followed by an fsync. */
        if (r == 0 && fi->flags & O_DSYNC && !fi->writepage)
                r = tk_op_fsync(fs_of(req), file_of(fi), (fi->flags & O_SYNC) != O_SYNC);
        if (r < 0)
                tk_reply_error(req, r);
        else
                fuse_reply_write(req, len);
}

static void shim_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
        (void)ino;
        tk_reply_error(req, tk_op_fsync(fs_of(req), file_of(fi), data_only));
}

/*
 * Changes of content for which the kernel does not say whether set-id bits are to go:
 * for everybody but root they are.
 */
static int kill_setid_unasked(fuse_req_t req, struct tk_openfile *file)
{
        const struct tk_kill_setid kill = {.in_group = caller_in_group, .context = req};

        return fuse_req_ctx(req)->uid == 0 ? 0 : kill_setid(file, &kill);
}

static void shim_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                           struct fuse_file_info *fi)
{
        int r;

        (void)ino;
        if (refused(req, false))
                return;
        r = tk_content_fallocate(fs_of(req), file_of(fi), mode, (uint64_t)off, (uint64_t)len);
        if (r == 0)
                r = kill_setid_unasked(req, file_of(fi));
        tk_reply_error(req, r);
}

static void shim_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
                       struct fuse_file_info *fi)
{
        struct tk_openfile *file = file_of(fi);
        uint64_t found;
        int r;

        if (refused(req, false))
                return;
        if (tk_op_has_writers(fs_of(req), file)) {
                tk_seeker_ask(context_of(req)->seeker, req, ino, file, (uint64_t)off, whence);
                return;
        }
        r = tk_content_seek(fs_of(req), file, (uint64_t)off, whence, &found);
        if (r < 0)
                tk_reply_error(req, r);
        else
                fuse_reply_lseek(req, (off_t)found);
}

static void shim_copy_file_range(fuse_req_t req, fuse_ino_t from_ino, off_t from_off,
                                 struct fuse_file_info *from_fi, fuse_ino_t to_ino, off_t to_off,
                                 struct fuse_file_info *to_fi, size_t len, int flags)
{
        ssize_t n;

        if (refused(req, false))
                return;
        (void)from_ino;
        (void)to_ino;
        if (flags != 0) {
                tk_reply_error(req, -EINVAL);
                return;
        }
        n = tk_content_copy(fs_of(req), file_of(from_fi), (uint64_t)from_off, file_of(to_fi),
                            (uint64_t)to_off, len);
        if (n > 0 && kill_setid_unasked(req, file_of(to_fi)) < 0)
                n = -EIO;
        if (n < 0)
                tk_reply_error(req, (int)n);
        else
                fuse_reply_write(req, (size_t)n);
}

const struct fuse_lowlevel_ops tk_ops = {
        .init = shim_init,
        .lookup = shim_lookup,
        .forget = shim_forget,
        .forget_multi = shim_forget_multi,
        .mknod = shim_mknod,
        .mkdir = shim_mkdir,
        .symlink = shim_symlink,
        .link = shim_link,
        .readlink = shim_readlink,
        .unlink = shim_unlink,
        .rmdir = shim_rmdir,
        .rename = shim_rename,
        .opendir = shim_opendir,
        .readdir = shim_readdir,
        .readdirplus = shim_readdirplus,
        .releasedir = shim_releasedir,
        .fsyncdir = shim_fsyncdir,
        .getattr = shim_getattr,
        .setattr = shim_setattr,
        .access = shim_access,
        .statfs = shim_statfs,
        .getxattr = shim_getxattr,
        .listxattr = shim_listxattr,
        .setxattr = shim_setxattr,
        .removexattr = shim_removexattr,
        .create = shim_create,
        .open = shim_open,
        .release = shim_release,
        .read = shim_read,
        .write_buf = shim_write_buf,
        .fsync = shim_fsync,
        .fallocate = shim_fallocate,
        .lseek = shim_lseek,
        .copy_file_range = shim_copy_file_range,
};
