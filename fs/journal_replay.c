/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Replay.
 *
 * An area counts up to the first batch that does not hold or does not follow the one
 * before. The area with the older batches comes first. A file is found by its handle,
 * else by its last path, else in the tree; its DEK proves that it is the one. A copy of
 * the volume holds files with the same DEK: handles and inode numbers count only in the
 * tree that they were written for.
 */

#include "fs/journal_replay.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "base/log.h"
#include "crypto/kdf.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/journal_apply.h"
#include "fs/openfile.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* A file of the journal, found and open, or not there any more. */
struct found {
        struct found *next;
        uint8_t proof[TK_JOURNAL_PROOF_LEN];
        uint64_t ino;
        struct tk_openfile *file; /* NULL: gone */
        bool changed;
};

struct replay {
        struct tk_fs *fs;
        int fd;
        uint64_t area_len;
        struct tk_secret *mac_key;
        uint64_t tree;
        uint8_t *batch; /* TK_JOURNAL_BATCH_MAX bytes */
        const struct tk_journal_item **items;
        struct tk_journal_item *item_space;
        struct found *found;
        bool stale; /* there are batches that hold, but don't count */
        struct tk_replay_totals totals;
        struct tk_fault *fault;
};

/* Finding files --------------------------------------------------------------------- */

/* Whether @file has the DEK that @proof was made of: 1 or 0, or a negative errno. */
static int is_proved(const struct tk_openfile *file, const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *own = NULL;
        int r;

        r = tk_secret_new(TK_JOURNAL_PROOF_LEN, &own);
        if (r == 0)
                r = tk_kdf_expand(file->dek, "turnkeyfs journal file", NULL, 0, own);
        return r < 0 ? r : tk_bytes_equal_ct(tk_secret_bytes(own), proof, TK_JOURNAL_PROOF_LEN);
}

/* Take @fd for the file of @entry if it is. 1: it is; 0: it is another one. Takes over @fd. */
static int try_file(struct replay *replay, const struct tk_journal_file *entry, int fd,
                    struct tk_openfile **ret_file)
{
        struct tk_openfile *file;
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                close(fd);
                return 0;
        }
        r = tk_openfile_load_alone(replay->fs, fd, &file);
        if (r == -EBADMSG || r == -ENOTSUP)
                return 0; /* no usable record: not to be proved */
        if (r < 0)
                return r;
        r = is_proved(file, entry->proof);
        if (r > 0)
                *ret_file = file;
        else
                tk_openfile_free_alone(file);
        return r;
}

/* Read-write, whatever the mode says: as root, or after lifting it for the moment. */
static int open_writable(int dirfd, const char *name)
{
        TK_AUTOCLOSE int path_fd = -1;
        struct stat st;
        int fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        int r;

        if (fd >= 0 || errno != EACCES)
                return fd < 0 ? -errno : fd;
        path_fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (path_fd < 0 || fstat(path_fd, &st) < 0)
                return -errno;
        r = tk_backing_chmod(path_fd, (st.st_mode & 07777) | S_IRUSR | S_IWUSR);
        if (r < 0)
                return r;
        fd = tk_backing_reopen(path_fd, O_RDWR);
        r = tk_backing_chmod(path_fd, st.st_mode & 07777);
        if (r < 0 && fd >= 0) {
                close(fd);
                return r;
        }
        return fd;
}

static int open_hint(struct replay *replay, const struct tk_journal_file *entry)
{
        struct open_how how = {
                .flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };
        char path[TK_JOURNAL_PATH_MAX + 1];
        long fd;

        memcpy(path, entry->path, entry->path_len);
        path[entry->path_len] = '\0';
        fd = syscall(SYS_openat2, replay->fs->rootfd, path, &how, sizeof(how));
        return fd < 0 ? -errno : (int)fd;
}

/* Look for the file of @entry below @dirfd, which is taken over. 1, 0 or a negative errno. */
static int scan(struct replay *replay, const struct tk_journal_file *entry, int dirfd, bool by_ino,
                struct tk_openfile **ret_file)
{
        DIR *dir = fdopendir(dirfd);
        const struct dirent *found;
        int r = 0;

        if (!dir) {
                close(dirfd);
                return -ENOMEM;
        }
        while (r == 0 && (found = readdir(dir))) {
                struct stat st;
                int fd;

                if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0 ||
                    fstatat(dirfd, found->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                if (S_ISDIR(st.st_mode)) {
                        fd = openat(dirfd, found->d_name,
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                        if (fd >= 0)
                                r = scan(replay, entry, fd, by_ino, ret_file);
                } else if (S_ISREG(st.st_mode) && (!by_ino || st.st_ino == entry->identity.ino)) {
                        fd = open_writable(dirfd, found->d_name);
                        if (fd >= 0)
                                r = try_file(replay, entry, fd, ret_file);
                }
        }
        closedir(dir);
        return r;
}

/* 1 and the file, 0 if it is gone, or a negative errno. */
static int search(struct replay *replay, const struct tk_journal_file *entry, bool same_tree,
                  struct tk_openfile **ret_file)
{
        bool gone = false;
        int fd;
        int r;

        if (same_tree && entry->identity.handle_len > 0) {
                fd = tk_identity_open(replay->fs->rootfd, &entry->identity, O_RDWR);
                r = fd >= 0 ? try_file(replay, entry, fd, ret_file) : 0;
                if (r != 0)
                        return r;
                gone = fd >= 0 || fd == -ESTALE || fd == -ENOENT;
                if (!gone && fd != -EPERM && fd != -EINVAL)
                        return fd;
        }
        if (entry->path_len > 0) {
                fd = open_hint(replay, entry);
                r = fd >= 0 ? try_file(replay, entry, fd, ret_file) : 0;
                if (r != 0)
                        return r;
        }
        if (gone)
                return 0;
        fd = openat(replay->fs->rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? -errno : scan(replay, entry, fd, same_tree, ret_file);
}

static int find_file(struct replay *replay, const struct tk_journal_head *head, unsigned index,
                     struct found **ret_found)
{
        struct tk_journal_file entry = tk_journal_file_at(replay->batch, head, index);
        bool same = head->tree == replay->tree && head->tree != 0;
        struct found *found;
        int r;

        for (found = replay->found; found; found = found->next)
                if (tk_bytes_equal_ct(found->proof, entry.proof, TK_JOURNAL_PROOF_LEN)) {
                        *ret_found = found;
                        return 0;
                }
        found = calloc(1, sizeof(*found));
        if (!found)
                return -ENOMEM;
        memcpy(found->proof, entry.proof, TK_JOURNAL_PROOF_LEN);
        found->ino = entry.identity.ino;
        r = search(replay, &entry, same, &found->file);
        if (r < 0) {
                free(found);
                return tk_fault_set(replay->fault, TK_FAULT_INTERNAL, r,
                                    "%s: overwrites of inode %llu that the journal holds can't be "
                                    "put in place: %s",
                                    tk_volume_path(replay->fs->volume),
                                    (unsigned long long)entry.identity.ino, strerror(-r));
        }
        replay->totals.files += r > 0;
        replay->totals.gone += r == 0;
        found->next = replay->found;
        replay->found = found;
        *ret_found = found;
        return 0;
}

/* Putting in place ------------------------------------------------------------------ */

static bool gives_content(const struct tk_journal_item *item)
{
        return item->type == TK_JOURNAL_BLOCK || item->type == TK_JOURNAL_HOLE ||
               (item->type == TK_JOURNAL_SIZE && item->at > 0);
}

/* An empty file that gets content needs its header first. */
static int ensure_header(struct tk_openfile *file, const struct tk_journal_item **items,
                         size_t count)
{
        struct stat st;
        size_t i = 0;

        while (i < count && !gives_content(items[i]))
                i++;
        if (i == count)
                return 0;
        if (fstat(file->fd, &st) < 0)
                return -errno;
        if (st.st_size > 0)
                return 0;
        return tk_backing_pwrite(file->fd, file->record.bytes, tk_record_len(&file->record), 0);
}

static int cannot_put(struct replay *replay, const struct tk_openfile *file, int error)
{
        bool full = error == -ENOSPC || error == -EDQUOT;
        char path[PATH_MAX];

        tk_backing_path(file->fd, path, sizeof(path));
        return tk_fault_set(replay->fault, TK_FAULT_INTERNAL, error,
                            "%s: overwrites that the journal holds can't be put in place: %s; %s",
                            path, strerror(-error),
                            full ? "free some space there and mount again"
                                 : "mount again when that is mended: the journal keeps them");
}

static int put_file(struct replay *replay, const struct tk_journal_head *head, unsigned index)
{
        struct tk_journal_cursor cursor = {0};
        struct tk_journal_target target = {0};
        struct found *found;
        size_t count = 0;
        int r;

        r = find_file(replay, head, index, &found);
        if (r < 0 || !found->file)
                return r;
        while (tk_journal_next_item(replay->batch, head, &cursor, &replay->item_space[count])) {
                if (replay->item_space[count].file != index)
                        continue;
                replay->items[count] = &replay->item_space[count];
                count++;
        }
        target.fd = found->file->fd;
        target.base = found->file->base;
        found->changed = true;
        r = ensure_header(found->file, replay->items, count);
        if (r == 0)
                r = tk_journal_apply(&target, replay->items, count);
        if (r < 0)
                return cannot_put(replay, found->file, r);
        replay->totals.entries += count;
        return 0;
}

static int put_batch(struct replay *replay, const struct tk_journal_head *head)
{
        for (unsigned i = 0; i < head->files; i++) {
                int r = put_file(replay, head, i);

                if (r < 0)
                        return r;
        }
        replay->totals.batches++;
        return 0;
}

/* Reading --------------------------------------------------------------------------- */

/* Read @len bytes at @off of area @area: 1, or 0 if they reach behind its end. */
static int read_bytes(struct replay *replay, unsigned area, uint64_t off, size_t len)
{
        ssize_t n;

        if (len > replay->area_len - off)
                return 0;
        n = tk_fdio_pread(replay->fd, replay->batch, len, (off_t)(area * replay->area_len + off));
        if (n < 0)
                return tk_fault_set(replay->fault, TK_FAULT_INTERNAL, (int)n,
                                    "%s: its journal can't be read: %s",
                                    tk_volume_path(replay->fs->volume), strerror((int)-n));
        return n == (ssize_t)len;
}

/* Read the batch at @off of area @area: 1, or 0 if there is none that holds and counts. */
static int read_batch(struct replay *replay, unsigned area, uint64_t off,
                      struct tk_journal_head *ret_head)
{
        int r;

        r = read_bytes(replay, area, off, TK_BLOCK_LEN);
        if (r <= 0)
                return r;
        if (tk_journal_parse_head(replay->batch, ret_head) < 0)
                return 0;
        r = read_bytes(replay, area, off, (size_t)ret_head->pages * TK_BLOCK_LEN);
        if (r <= 0)
                return r;
        r = tk_journal_check(replay->batch, ret_head, replay->mac_key);
        if (r < 0)
                return r == -EBADMSG ? 0 : r;
        if (tk_volume_awaits_replay(replay->fs->volume, ret_head->mount))
                return 1;
        replay->stale = true;
        return 0;
}

/* Sequences of an area's first and last batch; 0 if it holds none. */
struct span {
        uint64_t first;
        uint64_t last;
};

/* Read an area's batches, and with @put put them in place. */
static int walk_area(struct replay *replay, unsigned area, bool put, struct span *ret_span)
{
        struct tk_journal_head head;
        uint64_t chain = 0;
        uint64_t off = 0;
        int r;

        *ret_span = (struct span){0};
        while ((r = read_batch(replay, area, off, &head)) > 0) {
                if (off == 0)
                        ret_span->first = head.sequence;
                else if (head.chain != chain || head.sequence != ret_span->last + 1)
                        return 0;
                chain = head.chain;
                ret_span->last = head.sequence;
                off += (uint64_t)head.pages * TK_BLOCK_LEN;
                r = put ? put_batch(replay, &head) : 0;
                if (r < 0)
                        return r;
        }
        return r;
}

/*
 * The area to put in place first. A batch whose flush failed is written again in the other
 * area, and more behind it: of two areas that begin with the same one, the shorter is older.
 */
static unsigned older_area(const struct span spans[2])
{
        if (spans[0].first != spans[1].first)
                return spans[1].first < spans[0].first;
        return spans[1].last < spans[0].last;
}

/* Emptying -------------------------------------------------------------------------- */

static int sync_files(struct replay *replay)
{
        for (struct found *found = replay->found; found; found = found->next) {
                int r = found->changed ? tk_backing_sync(found->file->fd, false) : 0;

                if (r < 0)
                        return tk_fault_set(replay->fault, TK_FAULT_INTERNAL, r,
                                            "%s: replayed files can't be synced: %s",
                                            tk_volume_path(replay->fs->volume), strerror(-r));
        }
        return 0;
}

/* The older area first: if that is as far as it gets, the newer one is replayed again. */
static int empty(struct replay *replay, unsigned older)
{
        static const uint8_t zeros[TK_BLOCK_LEN];
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 2; i++) {
                unsigned area = i == 0 ? older : !older;

                r = tk_backing_pwrite(replay->fd, zeros, sizeof(zeros), area * replay->area_len);
                if (r == 0)
                        r = tk_backing_sync(replay->fd, true);
        }
        return r < 0 ? tk_fault_set(replay->fault, TK_FAULT_INTERNAL, r,
                                    "%s: the journal can't be emptied: %s",
                                    tk_volume_path(replay->fs->volume), strerror(-r))
                     : 0;
}

/*
 * Nothing to replay. Batches of a mount that ended cleanly, that was replayed already, or whose
 * number this one has now, must not be there when they might count again.
 */
static int drop_stale(struct replay *replay)
{
        int r = 0;

        if (replay->fs->mount_number == 0)
                return 0;
        if (replay->stale) {
                tk_log(TK_LOG_WARNING,
                       "%s: its journal is an older one: left out; was it put back from a backup?",
                       tk_volume_path(replay->fs->volume));
                r = empty(replay, 0);
        }
        return r < 0 ? r : tk_volume_note_replay(replay->fs->volume, replay->fault);
}

static int replay_all(struct replay *replay)
{
        struct span spans[2];
        unsigned older;
        int r;

        for (unsigned area = 0; area < 2; area++) {
                r = walk_area(replay, area, false, &spans[area]);
                if (r < 0)
                        return r;
        }
        if (spans[0].first == 0 && spans[1].first == 0)
                return drop_stale(replay);
        if ((fcntl(replay->fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
                return tk_fault_set(replay->fault, TK_FAULT_PERMISSION, -EROFS,
                                    "%s was not unmounted cleanly, and its journal must be "
                                    "replayed first, which needs to write: mount it once with "
                                    "the right to",
                                    tk_volume_path(replay->fs->volume));
        older = older_area(spans);
        r = walk_area(replay, older, true, &spans[older]);
        if (r == 0)
                r = walk_area(replay, !older, true, &spans[!older]);
        if (r == 0)
                r = sync_files(replay);
        if (r == 0)
                r = empty(replay, older);
        if (r == 0)
                r = tk_volume_note_replay(replay->fs->volume, replay->fault);
        return r;
}

static int open_journal(struct replay *replay)
{
        int dirfd = tk_volume_dirfd(replay->fs->volume);
        const char *path = TK_JOURNAL_DIR "/" TK_JOURNAL_NAME;
        struct stat st;

        replay->fd = openat(dirfd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (replay->fd < 0 && (errno == EROFS || errno == EACCES))
                replay->fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (replay->fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (fstat(replay->fd, &st) < 0)
                return -errno;
        replay->area_len = S_ISREG(st.st_mode) ? (uint64_t)st.st_size / 2 : 0;
        replay->area_len -= replay->area_len % TK_BLOCK_LEN;
        return 0;
}

static void replay_done(struct replay *replay)
{
        while (replay->found) {
                struct found *found = replay->found;

                replay->found = found->next;
                tk_openfile_free_alone(found->file);
                free(found);
        }
        if (replay->fd >= 0)
                close(replay->fd);
        tk_secret_free(replay->mac_key);
        free(replay->batch);
        free(replay->items);
        free(replay->item_space);
}

/* Without a journal, whatever only it held is lost. */
static int note_missing(struct tk_fs *fs, struct tk_fault *fault)
{
        if (fs->mount_number == 0 || !tk_volume_any_awaits_replay(fs->volume))
                return 0;
        tk_log(TK_LOG_WARNING,
               "%s was not unmounted cleanly, and its journal is missing: if there was one, the "
               "last overwrites may be lost",
               tk_volume_path(fs->volume));
        return tk_volume_note_replay(fs->volume, fault);
}

int tk_journal_replay(struct tk_fs *fs, struct tk_replay_totals *ret_totals, struct tk_fault *fault)
{
        TK_CLEANUP(replay_done) struct replay replay = {.fs = fs, .fd = -1, .fault = fault};
        int r;

        memset(ret_totals, 0, sizeof(*ret_totals));
        r = open_journal(&replay);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "cannot open the journal of %s: %s", tk_volume_path(fs->volume),
                                    strerror(-r));
        if (replay.fd < 0 || replay.area_len == 0)
                return note_missing(fs, fault);
        r = tk_journal_mac_key(fs, &replay.mac_key);
        if (r < 0)
                return r;
        replay.tree = tk_identity_tree(fs->rootfd);
        replay.batch = malloc(TK_JOURNAL_BATCH_MAX);
        replay.items = calloc(TK_JOURNAL_ENTRIES_MAX, sizeof(struct tk_journal_item *));
        replay.item_space = calloc(TK_JOURNAL_ENTRIES_MAX + 1, sizeof(struct tk_journal_item));
        if (!replay.batch || !replay.items || !replay.item_space)
                return -ENOMEM;
        r = replay_all(&replay);
        *ret_totals = replay.totals;
        return r;
}
