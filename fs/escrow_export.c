/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Escrow export.
 *
 * The tree and the escrow of last time come in the same order and are merged: what has
 * kept its inode number and ctime is not read again. A record is never dropped because
 * it can't be found where its file still is: the tree may have lost it, and the escrow is
 * the way back. The volume file is read last, so that it knows every KEK version
 * that a record names; if a rotation went on meanwhile, the export is done once more.
 */

#include "fs/escrow.h"

#include "fs/backing.h"
#include "fs/escrow_note.h"
#include "fs/keyattr.h"
#include "fs/treewalk.h"
#include "fs/volume_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

enum {
        RUNS_MAX = 3,
        /* A ctime that is younger may stand for two changes: the clock has ticks. */
        CTIME_SETTLED_S = 2,
};

struct merge {
        int rootfd;
        struct tk_escrow_reader *old; /* NULL: none */
        struct tk_escrow_writer *writer;
        const struct tk_escrow_entry *old_entry; /* next of old; NULL: at its end */
        char *unreadable;     /* what is below this path can't be seen; NULL: nothing */
        uint64_t *by_version; /* records written, by KEK version */
        uint64_t seen;
        const struct tk_escrow_progress *progress;
        struct tk_escrow_export_totals totals;
};

static int advance(struct merge *merge)
{
        int r = tk_escrow_reader_next(merge->old, &merge->old_entry);

        if (r <= 0)
                merge->old_entry = NULL;
        return r < 0 ? r : 0;
}

static int add(struct merge *merge, const struct tk_escrow_entry *entry)
{
        uint16_t version = 0;

        if (tk_record_kek_version(entry->record.bytes, entry->record_len, &version) == 0)
                merge->by_version[version]++;
        *(entry->directory ? &merge->totals.directories : &merge->totals.files) += 1;
        return tk_escrow_writer_add(merge->writer, entry);
}

/* Keep what the old escrow has; it is read again next time. */
static int carry(struct merge *merge)
{
        struct tk_escrow_entry entry = *merge->old_entry;

        entry.ctime_s = 0;
        merge->totals.carried++;
        return add(merge, &entry);
}

/* Deal with what the old escrow has before @path (NULL: all), which is not in the tree. */
static int drain(struct merge *merge, const char *path)
{
        int r = 0;

        while (r == 0 && merge->old_entry &&
               (!path || tk_treewalk_compare(merge->old_entry->path, path) < 0)) {
                const char *old = merge->old_entry->path;

                if (merge->unreadable && (strcmp(old, merge->unreadable) == 0 ||
                                          tk_treewalk_is_below(old, merge->unreadable)))
                        r = carry(merge);
                else
                        merge->totals.gone++;
                if (r == 0)
                        r = advance(merge);
        }
        return r;
}

/* The entry of what @found is now: 1, 0 if it has no record, or a negative errno. */
static int read_entry(const struct tk_treewalk_entry *found, struct tk_escrow_entry *ret_entry)
{
        TK_AUTOCLOSE int fd = openat(found->dirfd, found->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct timespec now;
        struct stat st;
        uint16_t version;
        ssize_t n;
        int r;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if ((st.st_mode & S_IFMT) != (found->st.st_mode & S_IFMT))
                return -ESTALE;
        clock_gettime(CLOCK_REALTIME, &now);
        memset(ret_entry, 0, sizeof(*ret_entry));
        n = tk_backing_getxattr(fd, TK_KEYATTR_NAME, ret_entry->record.bytes, TK_RECORD_MAX);
        if (n == -ENODATA || n == -ERANGE)
                return 0;
        if (n < 0)
                return (int)n;
        r = tk_record_kek_version(ret_entry->record.bytes, (size_t)n, &version);
        if (r < 0 && r != -ENOTSUP)
                return 0;
        ret_entry->directory = S_ISDIR(st.st_mode);
        ret_entry->path = found->path;
        ret_entry->inode = st.st_ino;
        if (st.st_ctim.tv_sec + CTIME_SETTLED_S <= now.tv_sec) {
                ret_entry->ctime_s = st.st_ctim.tv_sec;
                ret_entry->ctime_ns = (uint32_t)st.st_ctim.tv_nsec;
        }
        ret_entry->record_len = (uint16_t)n;
        return 1;
}

static bool is_unchanged(const struct tk_escrow_entry *old, const struct stat *st)
{
        return old->ctime_s != 0 && old->inode == st->st_ino &&
               old->ctime_s == st->st_ctim.tv_sec && old->ctime_ns == st->st_ctim.tv_nsec;
}

/* @old is what the old escrow has of it, or NULL. */
static int visit_entry(struct merge *merge, const struct tk_treewalk_entry *found,
                       const struct tk_escrow_entry *old)
{
        struct tk_escrow_entry entry = {0};
        int r;

        if (old && is_unchanged(old, &found->st)) {
                merge->totals.unchanged++;
                return add(merge, old);
        }
        r = read_entry(found, &entry);
        if (r > 0)
                return add(merge, &entry);
        if (r == -ENOENT || r == -ESTALE)
                return 0; /* gone meanwhile */
        if (r < 0)
                merge->totals.unreadable++;
        return old ? carry(merge) : 0;
}

static int visit(void *context, const struct tk_treewalk_entry *found)
{
        struct merge *merge = context;
        bool same_path;
        bool same;
        int r;

        r = drain(merge, found->path);
        if (r < 0)
                return r;
        same_path = merge->old_entry && strcmp(merge->old_entry->path, found->path) == 0;
        same = same_path && merge->old_entry->directory == S_ISDIR(found->st.st_mode);
        r = visit_entry(merge, found, same ? merge->old_entry : NULL);
        if (r == 0 && same_path)
                r = advance(merge);
        if (merge->progress->update)
                merge->progress->update(merge->progress->context, ++merge->seen);
        return r;
}

static int cannot_look(void *context, const char *path, int error)
{
        struct merge *merge = context;
        int r;

        (void)error;
        r = drain(merge, path);
        if (r < 0)
                return r;
        merge->totals.unreadable++;
        free(merge->unreadable);
        merge->unreadable = strdup(path);
        return merge->unreadable ? 0 : -ENOMEM;
}

static int merge_all(struct merge *merge)
{
        const struct tk_treewalk_callbacks callbacks = {
                .visit = visit, .failed = cannot_look, .context = merge};
        int r;

        r = merge->old ? advance(merge) : 0;
        if (r == 0)
                r = tk_treewalk_run(merge->rootfd, &callbacks);
        return r < 0 ? r : drain(merge, NULL);
}

/* The file ----------------------------------------------------------------- */

/* What one run works with. */
struct run {
        struct tk_volume *volume;
        int dirfd;
        const char *name;
        const char *path;
        char sibling[NAME_MAX + 1]; /* the new escrow, until it is renamed */
        struct tk_escrow_note note;
        struct merge merge;
};

static void run_done(struct run *run)
{
        tk_escrow_reader_free(run->merge.old);
        tk_escrow_writer_free(run->merge.writer);
        free(run->merge.unreadable);
        free(run->merge.by_version);
        if (run->merge.rootfd >= 0)
                close(run->merge.rootfd);
}

static int cannot_read(const char *path, int r, struct tk_fault *fault)
{
        switch (r) {
        case -EINVAL:
                return tk_fault_set(fault, TK_FAULT_ESCROW, r, "%s is not an escrow", path);
        case -EBADMSG:
                return tk_fault_set(fault, TK_FAULT_ESCROW, r,
                                    "the escrow %s is damaged or incomplete; use another copy of "
                                    "it, or export to another file",
                                    path);
        case -ENOTSUP:
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, r,
                                    "the escrow %s was written by a newer release; use that", path);
        default:
                return tk_fault_set(fault, TK_FAULT_ESCROW, r, "cannot read the escrow %s: %s",
                                    path, strerror(-r));
        }
}

static int open_at(int dirfd, const char *name, struct tk_escrow_reader **ret_reader)
{
        int fd = openat(dirfd, name, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
        struct stat st;

        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                close(fd);
                return -EINVAL;
        }
        return tk_escrow_reader_new(fd, ret_reader);
}

/* The escrow that is there, if any. */
static int open_old(struct run *run, struct tk_fault *fault)
{
        int r = open_at(run->dirfd, run->name, &run->merge.old);

        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return cannot_read(run->path, r, fault);
        if (!tk_bytes_equal_ct(tk_escrow_reader_id(run->merge.old), tk_volume_id(run->volume),
                               TK_VOLUME_ID_LEN))
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -EKEYREJECTED,
                                    "%s is the escrow of another volume; export to another file",
                                    run->path);
        return 0;
}

static int cannot_write(const struct run *run, int r, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot write the escrow %s: %s",
                            run->path, strerror(-r));
}

/* The empty file that becomes the escrow, locked: a second export must not write into it. */
static int create(struct run *run, int *ret_fd, struct tk_fault *fault)
{
        TK_AUTOCLOSE int fd =
                openat(run->dirfd, run->sibling, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        struct stat named;
        struct stat st;

        if (fd < 0)
                return cannot_write(run, -errno, fault);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 ||
            fstatat(run->dirfd, run->sibling, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
            st.st_ino != named.st_ino)
                return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                                    "%s is being exported to already; try again later", run->path);
        if (ftruncate(fd, 0) < 0 || fchmod(fd, 0600) < 0)
                return cannot_write(run, -errno, fault);
        *ret_fd = TK_TAKE_FD(fd);
        return 0;
}

static int put_in_place(const struct run *run, int fd)
{
        if (fsync(fd) < 0 || renameat(run->dirfd, run->sibling, run->dirfd, run->name) < 0 ||
            fsync(run->dirfd) < 0)
                return -errno;
        return 0;
}

/* How many records are under KEK versions that @volume does not list as active. */
static uint64_t count_retired(struct tk_volume *volume, const uint64_t *by_version)
{
        uint64_t count = 0;

        for (unsigned version = 1; version <= UINT16_MAX; version++)
                if (by_version[version] > 0 && (version > tk_volume_kek_count(volume) ||
                                                !tk_volume_kek_at(volume, version - 1).active))
                        count += by_version[version];
        return count;
}

/* The oldest KEK version in use that a record is under; 0: none is. */
static uint16_t oldest_in_use(struct tk_volume *volume, const uint64_t *by_version)
{
        for (size_t i = 0; i < tk_volume_kek_count(volume); i++)
                if (by_version[i + 1] > 0 && tk_volume_kek_at(volume, i).active)
                        return (uint16_t)(i + 1);
        return 0;
}

static int write_all(struct run *run, int fd, struct tk_volume **ret_after, struct tk_fault *fault)
{
        struct merge *merge = &run->merge;
        int r;

        run->note.exported = (int64_t)time(NULL);
        r = tk_escrow_writer_new(fd, tk_volume_id(run->volume), run->note.exported, &merge->writer);
        if (r < 0)
                return cannot_write(run, r, fault);
        r = merge_all(merge);
        if (r == -EBADMSG)
                return cannot_read(run->path, r, fault);
        if (r < 0)
                return cannot_write(run, r, fault);
        r = tk_volume_open(tk_volume_path(run->volume), ret_after, fault);
        if (r < 0)
                return r;
        merge->totals.retired = count_retired(*ret_after, merge->by_version);
        run->note.kek = oldest_in_use(*ret_after, merge->by_version);
        r = tk_escrow_writer_end(merge->writer, (*ret_after)->raw);
        if (r == 0)
                r = put_in_place(run, fd);
        return r < 0 ? cannot_write(run, r, fault) : 0;
}

static int run_prepare(struct run *run, struct tk_fault *fault)
{
        int len;

        run->merge.rootfd = openat(tk_volume_dirfd(run->volume), "root",
                                   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (run->merge.rootfd < 0)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -errno,
                                    "cannot open %s/root: %s; restore it from a backup",
                                    tk_volume_path(run->volume), strerror(errno));
        run->merge.by_version = calloc(UINT16_MAX + 1, sizeof(*run->merge.by_version));
        if (!run->merge.by_version)
                return -ENOMEM;
        len = snprintf(run->sibling, sizeof(run->sibling), "%s.new", run->name);
        if (len >= (int)sizeof(run->sibling))
                return cannot_write(run, -ENAMETOOLONG, fault);
        return open_old(run, fault);
}

/* One run. Returns 1 if the KEK versions changed meanwhile, so that another one is due. */
static int export_once(struct run *run, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *before = NULL;
        TK_CLEANUP(tk_volume_freep) struct tk_volume *after = NULL;
        TK_AUTOCLOSE int fd = -1;
        int r;

        r = tk_volume_open(tk_volume_path(run->volume), &before, fault);
        if (r == 0)
                r = run_prepare(run, fault);
        if (r == 0)
                r = create(run, &fd, fault);
        if (r < 0)
                return r;
        r = write_all(run, fd, &after, fault);
        if (r < 0) {
                (void)unlinkat(run->dirfd, run->sibling, 0);
                return r;
        }
        return run->merge.totals.retired > 0 &&
               (tk_volume_kek_count(before) != tk_volume_kek_count(after) ||
                tk_volume_active_count(before) != tk_volume_active_count(after));
}

int tk_escrow_export(struct tk_volume *volume, int dirfd, const char *name, const char *path,
                     const struct tk_escrow_progress *progress,
                     struct tk_escrow_export_totals *ret_totals, struct tk_fault *fault)
{
        int r = 1;

        for (int i = 0; r > 0 && i < RUNS_MAX; i++) {
                TK_CLEANUP(run_done)
                struct run run = {.volume = volume,
                                  .dirfd = dirfd,
                                  .name = name,
                                  .path = path,
                                  .merge = {.rootfd = -1, .progress = progress}};

                r = export_once(&run, fault);
                if (r < 0)
                        continue;
                *ret_totals = run.merge.totals;
                /* One that lacks something is not what `status` is to count on. */
                if (ret_totals->unreadable == 0)
                        ret_totals->note_error =
                                tk_escrow_note_write(tk_volume_dirfd(volume), &run.note);
        }
        return r < 0 ? r : 0;
}

int tk_escrow_open(const char *path, struct tk_escrow_reader **ret_reader, struct tk_fault *fault)
{
        TK_CLEANUP(tk_escrow_reader_freep) struct tk_escrow_reader *reader = NULL;
        const struct tk_escrow_entry *entry;
        int r;

        r = open_at(AT_FDCWD, path, &reader);
        while (r == 0 && (r = tk_escrow_reader_next(reader, &entry)) > 0)
                r = 0;
        if (r == 0)
                r = tk_escrow_reader_rewind(reader);
        if (r < 0)
                return cannot_read(path, r, fault);
        *ret_reader = TK_TAKE(reader);
        return 0;
}
