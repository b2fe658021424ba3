/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Open files.
 *
 * The first opener puts an entry that says `loading` into the inode and reads
 * the key record without any lock held; others who want the file wait for it.
 */

#include "fs/openfile.h"

#include "base/log.h"
#include "fs/backing.h"
#include "fs/format.h"
#include "fs/fs_internal.h"
#include "fs/journal_kept.h"
#include "fs/keyattr.h"
#include "fs/lift.h"
#include "fs/seal.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

static struct tk_openfile *file_new(const struct tk_fs *fs)
{
        struct tk_openfile *file;

        file = calloc(1, sizeof(*file));
        if (!file)
                return NULL;
        file->fd = -1;
        file->base = fs->base;
        file->seal.binding = -1;
        file->seal.newest_length = TK_SEAL_STALE;
        file->unsynced = true; /* unknown */
        file->attributes_unsynced = true;
        tk_rangelock_init(&file->ranges);
        tk_rangelock_init(&file->syncs);
        tk_rangelock_init(&file->flushes);
        pthread_mutex_init(&file->times_lock, NULL);
        pthread_mutex_init(&file->dek_lock, NULL);
        return file;
}

static struct tk_openfile *file_free(struct tk_openfile *file)
{
        if (!file)
                return NULL;
        tk_secret_free(file->dek);
        if (file->fd >= 0)
                close(file->fd);
        tk_rangelock_done(&file->ranges);
        tk_rangelock_done(&file->syncs);
        tk_rangelock_done(&file->flushes);
        pthread_mutex_destroy(&file->times_lock);
        pthread_mutex_destroy(&file->dek_lock);
        free(file);
        return NULL;
}

/* One good record is enough: a file opens also if the other can't be rewritten now. */
static bool heal(struct tk_fs *fs, int fd, const struct tk_keyattr *keyattr)
{
        char path[PATH_MAX];
        int r = tk_keyattr_heal(fd, keyattr);

        fs->stats.records_restored += r == 0;
        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(TK_LOG_WARNING,
                       "%s: the key record's %s was missing, damaged or another file's; %s from "
                       "its %s%s%s",
                       path, keyattr->attribute_bad ? "attribute" : "copy in the file",
                       r == 0 ? "rewritten" : "it could not be rewritten",
                       keyattr->attribute_bad ? "copy in the file" : "attribute",
                       r == 0 ? "" : ": ", r == 0 ? "" : strerror(-r));
        return r == 0;
}

static void note_unusable(struct tk_fs *fs, int fd, int error)
{
        char path[PATH_MAX];

        fs->stats.record_failures++;
        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: no usable key record, neither in the attribute nor in the file (%s); "
                       "restore the file or its " TK_KEYATTR_NAME " attribute from a backup",
                       path, strerror(-error));
}

static void note_seal(struct tk_fs *fs, int fd)
{
        char path[PATH_MAX];

        fs->stats.record_failures++;
        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: shorter than its seal says, or its seal is gone: cut or tampered with; "
                       "restore the file from a backup",
                       path);
}

static int note_kept(const struct tk_fs *fs, int fd, int error)
{
        char path[PATH_MAX];

        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(TK_LOG_ERROR,
                       "%s: can't be opened before overwrites that a crash left in the journal are "
                       "in place: %s",
                       path, strerror(-error));
        return error;
}

/* Read the key record and the size of the file behind @file->fd. */
static int load(struct tk_fs *fs, struct tk_openfile *file)
{
        struct tk_keyattr keyattr;
        struct stat st;
        int r;

        if (fstat(file->fd, &st) < 0)
                return -errno;
        r = tk_keyattr_load(fs, file->fd, (uint64_t)st.st_size, &keyattr);
        if (r == -ENODATA) {
                /* A crash between creation and its record: the file has no bytes to lose. */
                r = tk_keyattr_make(fs, &keyattr.dek, &keyattr.record);
                if (r == 0 && file->writable)
                        r = tk_keyattr_store(file->fd, &keyattr.record);
        } else if (r == 0 && (keyattr.attribute_bad || keyattr.copy_bad)) {
                file->twin_old = !file->writable || !heal(fs, file->fd, &keyattr);
        }
        if (r < 0) {
                tk_secret_free(keyattr.dek);
                if (r == -EBADMSG || r == -ENOTSUP)
                        note_unusable(fs, file->fd, r);
                return r;
        }

        file->dek = keyattr.dek;
        file->record = keyattr.record;
        file->owner = st.st_uid;
        r = tk_journal_kept_put(fs, file);
        if (r < 0)
                return note_kept(fs, file->fd, r);
        if (fstat(file->fd, &st) < 0)
                return -errno;
        file->mtime = st.st_mtim;
        file->size = tk_plain_size_at(fs->base, (uint64_t)st.st_size);
        file->has_header = st.st_size > 0;
        r = tk_seal_load(fs, file);
        if (r < 0 && r != -EUCLEAN)
                return r;
        file->seal_error = r;
        if (fs->journal)
                file->durable = (file->size + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN;
        return 0;
}

/*
 * A file that its owner may write but not read, or not even read, can't be opened without
 * privilege: its mode is lifted for the moment. Who may what, the kernel has judged.
 */
static int open_lifted(struct tk_fs *fs, struct tk_inode *inode, bool writable)
{
        TK_AUTOCLOSE int path_fd = -1;
        struct tk_lift lift;
        struct stat st;
        int fd;
        int r;

        path_fd = tk_inode_open(fs->inodes, inode, O_PATH | O_NOFOLLOW);
        if (path_fd < 0)
                return path_fd;
        if (fstat(path_fd, &st) < 0)
                return -errno;
        if (writable && !(st.st_mode & S_IWUSR))
                return -EACCES;
        r = tk_lift_begin(fs, path_fd, S_IRUSR | S_IWUSR, &lift);
        if (r < 0)
                return r;
        fd = tk_backing_reopen(path_fd, O_RDWR);
        r = tk_lift_end(&lift);
        if (r < 0 && fd >= 0) {
                close(fd);
                return r;
        }
        return fd;
}

/* A descriptor of the backing file: read-write if it can be had, as writers may come later. */
static int open_backing(struct tk_fs *fs, struct tk_inode *inode, bool writable, bool *ret_writable)
{
        int fd;

        *ret_writable = true;
        fd = fs->read_only ? -EROFS : tk_inode_open(fs->inodes, inode, O_RDWR);
        if (fd == -EACCES && writable)
                fd = open_lifted(fs, inode, true);
        if ((fd == -EACCES || fd == -EPERM || fd == -EROFS || fd == -ETXTBSY) && !writable) {
                *ret_writable = false;
                fd = tk_inode_open(fs->inodes, inode, O_RDONLY);
        }
        if (fd == -EACCES && !writable) {
                *ret_writable = true;
                fd = open_lifted(fs, inode, false);
        }
        return fd;
}

/* The entry is read-only and a writer came: exchange the descriptor below everybody's feet. */
static int make_writable(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_AUTOCLOSE int fd = -1;
        bool writable;

        fd = open_backing(fs, file->inode, true, &writable);
        if (fd < 0)
                return fd;
        if (dup3(fd, file->fd, O_CLOEXEC) < 0)
                return -errno;
        file->writable = true;
        return 0;
}

/* Called with the open-file lock held, which it lets go of while it waits. */
static int join(struct tk_fs *fs, struct tk_openfile *file, bool writable)
{
        file->refs++;
        while (file->loading)
                pthread_cond_wait(&fs->openfiles_loaded, &fs->openfiles_lock);
        if (file->load_error < 0)
                return file->load_error;
        if (writable && !file->writable)
                return make_writable(fs, file);
        return 0;
}

static void put_locked(struct tk_fs *fs, struct tk_openfile *file, struct tk_openfile **ret_last)
{
        *ret_last = NULL;
        assert(file->refs > 0);
        if (--file->refs > 0)
                return;
        *tk_inode_openfile(file->inode) = NULL;
        if (file->prev)
                file->prev->next = file->next;
        else
                fs->openfiles = file->next;
        if (file->next)
                file->next->prev = file->prev;
        fs->stats.open_files--;
        *ret_last = file;
}

/*
 * Before the last reference goes: whoever opens the file next finds it sealed. The reference
 * is kept meanwhile; others may come, write, and go. They are not waited for, since they may
 * wait for the journal's thread, which drops references, too: who is at work on the file has one,
 * and seals it. Called with the open-file lock held.
 */
static void seal_if_last(struct tk_fs *fs, struct tk_openfile *file)
{
        while (file->refs == 1 && file->unsealed && !fs->ended && !fs->read_only) {
                pthread_mutex_unlock(&fs->openfiles_lock);
                tk_seal_close_idle(fs, file);
                pthread_mutex_lock(&fs->openfiles_lock);
        }
}

void tk_openfile_put(struct tk_fs *fs, struct tk_openfile *file)
{
        struct tk_openfile *last;
        struct tk_inode *inode = file->inode;

        pthread_mutex_lock(&fs->openfiles_lock);
        seal_if_last(fs, file);
        put_locked(fs, file, &last);
        pthread_mutex_unlock(&fs->openfiles_lock);
        if (!last)
                return;
        file_free(last);
        tk_inode_unref(fs->inodes, inode);
}

struct tk_openfile *tk_openfile_ref(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_LOCK_SCOPE(&fs->openfiles_lock);
        file->refs++;
        return file;
}

void tk_openfile_keep_mtime(struct tk_openfile *file)
{
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
        struct stat st;

        TK_LOCK_SCOPE(&file->times_lock);
        file->journal.touched_ns = 0;
        times[1] = file->mtime;
        if (fstat(file->fd, &st) == 0 &&
            (st.st_mtim.tv_sec != file->mtime.tv_sec || st.st_mtim.tv_nsec != file->mtime.tv_nsec))
                (void)!tk_backing_utimens(file->fd, times);
}

void tk_openfile_present(const struct tk_openfile *file, struct stat *st)
{
        int64_t ns = file->journal.touched_ns;

        st->st_size = (off_t)file->size;
        if (ns <= (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec)
                return;
        st->st_mtim = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        if (ns > (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec)
                st->st_ctim = st->st_mtim;
}

bool tk_openfile_is_last(struct tk_fs *fs, struct tk_openfile *file, unsigned count)
{
        TK_LOCK_SCOPE(&fs->openfiles_lock);
        return file->refs == count;
}

void tk_openfile_note_attributes(struct tk_fs *fs, struct tk_inode *inode)
{
        struct tk_openfile *file;

        TK_LOCK_SCOPE(&fs->openfiles_lock);
        file = *tk_inode_openfile(inode);
        if (file)
                file->attributes_unsynced = true;
}

/* Publish a new entry that says `loading`. Called with the open-file lock held. */
static int publish(struct tk_fs *fs, struct tk_inode *inode, struct tk_openfile **ret_file)
{
        struct tk_openfile *file = file_new(fs);

        if (!file)
                return -ENOMEM;
        file->loading = true;
        file->refs = 1;
        file->inode = tk_inode_ref(fs->inodes, inode);
        *tk_inode_openfile(inode) = file;
        file->next = fs->openfiles;
        if (file->next)
                file->next->prev = file;
        fs->openfiles = file;
        fs->stats.open_files++;
        *ret_file = file;
        return 0;
}

/*
 * A file that was opened while the mount was being closed: whoever wiped the others
 * did not see it. Its DEK is had again when it is needed.
 */
static void wipe_if_closed(struct tk_fs *fs, struct tk_openfile *file)
{
        if (fs->gate < 0)
                file->dek = tk_secret_free(file->dek);
}

static void loaded(struct tk_fs *fs, struct tk_openfile *file, int error)
{
        TK_LOCK_SCOPE(&fs->openfiles_lock);
        file->load_error = error;
        file->loading = false;
        pthread_cond_broadcast(&fs->openfiles_loaded);
}

int tk_openfile_get(struct tk_fs *fs, struct tk_inode *inode, bool writable,
                    struct tk_openfile **ret_file)
{
        struct tk_openfile *file;
        bool first = false;
        int r;

        pthread_mutex_lock(&fs->openfiles_lock);
        file = *tk_inode_openfile(inode);
        if (file) {
                r = join(fs, file, writable);
        } else {
                r = publish(fs, inode, &file);
                first = r == 0;
        }
        pthread_mutex_unlock(&fs->openfiles_lock);

        if (first) {
                file->fd = open_backing(fs, inode, writable, &file->writable);
                r = file->fd < 0 ? file->fd : load(fs, file);
                if (r == 0 && file->seal_error < 0) {
                        r = file->seal_error;
                        note_seal(fs, file->fd);
                }
                wipe_if_closed(fs, file);
                loaded(fs, file, r);
        }
        if (r < 0) {
                if (file)
                        tk_openfile_put(fs, file);
                return r;
        }
        *ret_file = file;
        return 0;
}

int tk_openfile_adopt(struct tk_fs *fs, struct tk_inode *inode, int fd, struct tk_secret *dek,
                      const struct tk_record *record, const struct stat *st,
                      struct tk_openfile **ret_file)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned_dek = dek;
        TK_AUTOCLOSE int owned_fd = fd;
        struct tk_openfile *file;
        int r;

        pthread_mutex_lock(&fs->openfiles_lock);
        file = *tk_inode_openfile(inode);
        /* Somebody may have looked the name up and opened it already: then theirs serves. */
        r = file ? join(fs, file, true) : publish(fs, inode, &file);
        if (r == 0 && file->loading) {
                file->fd = TK_TAKE_FD(owned_fd);
                file->writable = true;
                file->dek = TK_TAKE(owned_dek);
                file->record = *record;
                file->owner = st->st_uid;
                file->mtime = st->st_mtim;
                wipe_if_closed(fs, file);
                file->loading = false;
                pthread_cond_broadcast(&fs->openfiles_loaded);
        }
        pthread_mutex_unlock(&fs->openfiles_lock);
        if (r < 0) {
                if (file)
                        tk_openfile_put(fs, file);
                return r;
        }
        *ret_file = file;
        return 0;
}

struct tk_openfile *tk_openfile_peek(struct tk_fs *fs, struct tk_inode *inode)
{
        struct tk_openfile *file;
        int r = 0;

        pthread_mutex_lock(&fs->openfiles_lock);
        file = *tk_inode_openfile(inode);
        if (file)
                r = join(fs, file, false);
        pthread_mutex_unlock(&fs->openfiles_lock);
        if (file && r < 0) {
                tk_openfile_put(fs, file);
                return NULL;
        }
        return file;
}

int tk_openfile_need_dek(struct tk_fs *fs, struct tk_openfile *file)
{
        struct tk_secret *dek;
        int r;

        if (file->dek)
                return 0;
        TK_LOCK_SCOPE(&file->dek_lock);
        if (file->dek)
                return 0;
        r = tk_keyring_unwrap(fs->keyring, &file->record, &dek);
        if (r == 0)
                file->dek = dek;
        return r;
}

/* The open file behind @previous in the list (NULL: the first), with a reference. */
static struct tk_openfile *next_open(struct tk_fs *fs, struct tk_openfile *previous)
{
        struct tk_openfile *file;

        TK_LOCK_SCOPE(&fs->openfiles_lock);
        file = previous ? previous->next : fs->openfiles;
        while (file && file->loading)
                file = file->next;
        if (file)
                file->refs++;
        return file;
}

int tk_openfile_for_each(struct tk_fs *fs, int (*visit)(void *context, struct tk_openfile *file),
                         void *context)
{
        struct tk_openfile *file = next_open(fs, NULL);
        int r = 0;

        while (file) {
                struct tk_openfile *next;

                if (r == 0)
                        r = visit(context, file);
                next = r == 0 ? next_open(fs, file) : NULL;
                tk_openfile_put(fs, file);
                file = next;
        }
        return r;
}

static int wipe(void *context, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(range);

        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        /* A mount that ends cleanly has sealed everything, also with its keys gone. */
        tk_seal_close_held(context, file);
        file->dek = tk_secret_free(file->dek);
        return 0;
}

void tk_openfile_wipe_all(struct tk_fs *fs)
{
        (void)!tk_openfile_for_each(fs, wipe, fs);
}

void tk_openfile_put_all(struct tk_fs *fs)
{
        fs->ended = true;
        while (fs->openfiles) {
                fs->openfiles->refs = 1;
                tk_openfile_put(fs, fs->openfiles);
        }
}

int tk_openfile_load_alone(struct tk_fs *fs, int fd, struct tk_openfile **ret_file)
{
        struct tk_openfile *file = file_new(fs);
        int r;

        if (!file) {
                close(fd);
                return -ENOMEM;
        }
        file->fd = fd;
        r = load(fs, file);
        if (r < 0) {
                file_free(file);
                return r;
        }
        *ret_file = file;
        return 0;
}

struct tk_openfile *tk_openfile_free_alone(struct tk_openfile *file)
{
        return file_free(file);
}
