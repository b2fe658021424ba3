/* SPDX-License-Identifier: Apache-2.0 */

/* The files that a journal names, found again in the tree. */

#include "fs/journal_find.h"

#include "base/bytes.h"
#include "crypto/kdf.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { OPEN_MIN = 8, OPEN_MAX_SHARE = 4 };

int tk_journal_proof_of(const struct tk_openfile *file, uint8_t ret_proof[TK_JOURNAL_PROOF_LEN])
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *proof = NULL;
        int r;

        r = tk_secret_new(TK_JOURNAL_PROOF_LEN, &proof);
        if (r == 0)
                r = tk_kdf_expand(file->dek, "turnkeyfs journal file", NULL, 0, proof);
        if (r == 0)
                memcpy(ret_proof, tk_secret_bytes(proof), TK_JOURNAL_PROOF_LEN);
        return r;
}

/* The list ---------------------------------------------------------------------------- */

void tk_journal_finder_init(struct tk_journal_finder *finder, struct tk_fs *fs)
{
        struct rlimit limit = {.rlim_cur = RLIM_INFINITY};

        (void)getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur /= OPEN_MAX_SHARE;
        *finder = (struct tk_journal_finder){
                .fs = fs,
                .tree = tk_identity_tree(fs->rootfd),
                .open_max = limit.rlim_cur > UINT_MAX ? UINT_MAX : (unsigned)limit.rlim_cur,
        };
        if (finder->open_max < OPEN_MIN)
                finder->open_max = OPEN_MIN;
}

static void let_go(struct tk_journal_finder *finder, struct tk_journal_found *found)
{
        finder->open_count -= found->file != NULL;
        found->file = tk_openfile_free_alone(found->file);
}

void tk_journal_finder_done(struct tk_journal_finder *finder)
{
        while (finder->files) {
                struct tk_journal_found *found = finder->files;

                finder->files = found->next;
                let_go(finder, found);
                free(found->hint);
                free(found->place);
                free(found);
        }
}

struct tk_journal_found *tk_journal_finder_get(struct tk_journal_finder *finder,
                                               const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        struct tk_journal_found *found = finder->files;

        while (found && !tk_bytes_equal_ct(found->proof, proof, TK_JOURNAL_PROOF_LEN))
                found = found->next;
        return found;
}

int tk_journal_finder_add(struct tk_journal_finder *finder, const struct tk_journal_file *entry,
                          uint64_t tree)
{
        struct tk_journal_found *found = tk_journal_finder_get(finder, entry->proof);

        if (found)
                return 0;
        found = calloc(1, sizeof(*found));
        if (!found)
                return -ENOMEM;
        memcpy(found->proof, entry->proof, TK_JOURNAL_PROOF_LEN);
        if (tree == finder->tree && tree != 0)
                found->identity = entry->identity;
        if (entry->path_len > 0) {
                found->hint = strndup(entry->path, entry->path_len);
                if (!found->hint) {
                        free(found);
                        return -ENOMEM;
                }
        }
        found->next = finder->files;
        finder->files = found;
        return 0;
}

/* Open files -------------------------------------------------------------------------- */

/* The path of @fd below root; NULL if that is not to be had. */
static char *place_of(const struct tk_journal_finder *finder, int fd)
{
        char root[PATH_MAX];
        char path[PATH_MAX];
        struct stat st;
        size_t len;

        if (fstat(fd, &st) < 0 || st.st_nlink == 0)
                return NULL;
        tk_backing_path(finder->fs->rootfd, root, sizeof(root));
        tk_backing_path(fd, path, sizeof(path));
        len = strlen(root);
        if (strncmp(path, root, len) != 0 || path[len] != '/') /* not secret */
                return NULL;
        return strdup(path + len + 1);
}

/* Have room for one more descriptor. */
static int make_room(struct tk_journal_finder *finder)
{
        for (struct tk_journal_found *found = finder->files;
             found && finder->open_count >= finder->open_max; found = found->next) {
                char *place = found->file ? place_of(finder, found->file->fd) : NULL;
                int r;

                if (!place)
                        continue;
                r = found->changed ? tk_backing_sync(found->file->fd, false) : 0;
                if (r < 0) {
                        free(place);
                        return r;
                }
                found->changed = false;
                free(found->place);
                found->place = place;
                let_go(finder, found);
        }
        return 0;
}

/* Whether @error is about this process, and not about a file. */
static bool is_ours(int error)
{
        return error == -ENOMEM || error == -EMFILE || error == -ENFILE;
}

/* The file of @fd, which is taken over, and its proof: 1; 0 if it can't be one; or an error. */
static int load_file(struct tk_journal_finder *finder, int fd, struct tk_openfile **ret_file,
                     uint8_t ret_proof[TK_JOURNAL_PROOF_LEN])
{
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                close(fd);
                return 0;
        }
        r = tk_openfile_load_alone(finder->fs, fd, ret_file);
        if (r < 0)
                return r;
        r = tk_journal_proof_of(*ret_file, ret_proof);
        if (r < 0)
                tk_openfile_free_alone(*ret_file);
        return r < 0 ? r : 1;
}

static void take(struct tk_journal_finder *finder, struct tk_journal_found *found,
                 struct tk_openfile *file)
{
        found->file = file;
        found->state = TK_JOURNAL_FOUND;
        finder->open_count++;
}

/* Take @fd for the file of @found, if it is. 1, or 0 if it is another one. Takes over @fd. */
static int try_file(struct tk_journal_finder *finder, struct tk_journal_found *found, int fd)
{
        uint8_t proof[TK_JOURNAL_PROOF_LEN];
        struct tk_openfile *file = NULL;
        int r = load_file(finder, fd, &file, proof);

        if (r <= 0)
                return r;
        if (!tk_bytes_equal_ct(found->proof, proof, TK_JOURNAL_PROOF_LEN)) {
                tk_openfile_free_alone(file);
                return 0;
        }
        take(finder, found, file);
        return 1;
}

static void refuse(struct tk_journal_found *found, int error)
{
        found->state = TK_JOURNAL_REFUSED;
        found->error = error;
}

int tk_journal_finder_open(struct tk_journal_finder *finder, struct tk_journal_found *found)
{
        int fd;
        int r;

        if (found->file)
                return 0;
        r = make_room(finder);
        if (r < 0)
                return r;
        fd = tk_backing_open_beneath(finder->fs->rootfd, found->place, O_RDWR | O_NOFOLLOW);
        if (fd < 0)
                return fd;
        r = try_file(finder, found, fd);
        return r == 0 ? -ESTALE : r < 0 ? r : 0;
}

/* One by one -------------------------------------------------------------------------- */

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

/* By handle: 1 found, 0 not; the state says if it is gone, or refused. */
static int find_by_handle(struct tk_journal_finder *finder, struct tk_journal_found *found)
{
        int fd;
        int r;

        if (found->identity.handle_len == 0)
                return 0;
        fd = tk_identity_open(finder->fs->rootfd, &found->identity, O_RDWR);
        r = fd >= 0 ? try_file(finder, found, fd) : fd;
        if (is_ours(r))
                return r;
        if (r == -ESTALE || r == -ENOENT || (fd >= 0 && r == 0))
                found->state = TK_JOURNAL_GONE;
        else if (r < 0 && (fd >= 0 || (r != -EPERM && r != -EINVAL)))
                refuse(found, r);
        return r > 0;
}

/* By the path it had. It may be another file by now, whose failure says nothing. */
static int find_by_hint(struct tk_journal_finder *finder, struct tk_journal_found *found)
{
        int fd;
        int r;

        if (!found->hint)
                return 0;
        fd = tk_backing_open_beneath(finder->fs->rootfd, found->hint,
                                     O_RDWR | O_NOFOLLOW | O_NONBLOCK);
        r = fd >= 0 ? try_file(finder, found, fd) : fd;
        return is_ours(r) ? r : r > 0;
}

static int find_one(struct tk_journal_finder *finder, struct tk_journal_found *found)
{
        int r;

        r = make_room(finder);
        if (r == 0)
                r = find_by_handle(finder, found);
        return r != 0 ? r : find_by_hint(finder, found);
}

/* All that are left, in one walk ------------------------------------------------------- */

struct walk {
        struct tk_journal_finder *finder;
        unsigned left; /* that are sought */
        int doubt;     /* why a file could not be looked into that may be one of another tree */
};

static bool is_sought(const struct tk_journal_found *found, ino_t ino)
{
        return found->state == TK_JOURNAL_SOUGHT &&
               (found->identity.ino == 0 || found->identity.ino == ino);
}

/* The file with inode number @ino can't be looked into. */
static void note_refused(struct walk *walk, ino_t ino, int error)
{
        for (struct tk_journal_found *found = walk->finder->files; found; found = found->next) {
                if (!is_sought(found, ino))
                        continue;
                if (found->identity.ino == ino) {
                        refuse(found, error);
                        walk->left--;
                } else if (error != -EBADMSG && error != -ENOTSUP) {
                        walk->doubt = error;
                }
        }
}

/* The file @name of @dirfd, which may be one that is sought. */
static int look(struct walk *walk, int dirfd, const char *name, ino_t ino)
{
        uint8_t proof[TK_JOURNAL_PROOF_LEN];
        struct tk_openfile *file = NULL;
        struct tk_journal_found *found;
        int fd;
        int r;

        r = make_room(walk->finder);
        if (r < 0)
                return r;
        fd = open_writable(dirfd, name);
        r = fd >= 0 ? load_file(walk->finder, fd, &file, proof) : fd;
        if (is_ours(r))
                return r;
        if (r < 0 && r != -ENOENT)
                note_refused(walk, ino, r);
        if (r <= 0)
                return 0;
        found = tk_journal_finder_get(walk->finder, proof);
        if (!found || !is_sought(found, ino)) {
                tk_openfile_free_alone(file);
                return 0;
        }
        take(walk->finder, found, file);
        walk->left--;
        return 0;
}

static bool is_any_sought(const struct walk *walk, ino_t ino)
{
        for (const struct tk_journal_found *found = walk->finder->files; found; found = found->next)
                if (is_sought(found, ino))
                        return true;
        return false;
}

/* Below @dirfd, which is taken over. */
static int walk_dir(struct walk *walk, int dirfd)
{
        DIR *dir = fdopendir(dirfd);
        const struct dirent *entry;
        int r = 0;

        if (!dir) {
                close(dirfd);
                return -ENOMEM;
        }
        while (r == 0 && walk->left > 0 && (entry = readdir(dir))) {
                struct stat st;
                int fd;

                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                    fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                if (S_ISDIR(st.st_mode)) {
                        fd = openat(dirfd, entry->d_name,
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                        if (fd >= 0)
                                r = walk_dir(walk, fd);
                        else if (is_ours(-errno))
                                r = -errno;
                } else if (S_ISREG(st.st_mode) && is_any_sought(walk, st.st_ino)) {
                        r = look(walk, dirfd, entry->d_name, st.st_ino);
                }
        }
        closedir(dir);
        return r;
}

static int walk_tree(struct walk *walk)
{
        int fd = openat(walk->finder->fs->rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : walk_dir(walk, fd);
}

int tk_journal_finder_run(struct tk_journal_finder *finder)
{
        struct walk walk = {.finder = finder};
        int r = 0;

        for (struct tk_journal_found *found = finder->files; r >= 0 && found; found = found->next) {
                if (found->state != TK_JOURNAL_SOUGHT)
                        continue;
                r = find_one(finder, found);
                walk.left += found->state == TK_JOURNAL_SOUGHT;
        }
        if (r >= 0)
                r = walk.left > 0 ? walk_tree(&walk) : 0;
        if (r < 0)
                return r;
        for (struct tk_journal_found *found = finder->files; found; found = found->next) {
                if (found->state != TK_JOURNAL_SOUGHT)
                        continue;
                if (found->identity.ino == 0 && walk.doubt < 0)
                        refuse(found, walk.doubt);
                else
                        found->state = TK_JOURNAL_GONE;
        }
        return 0;
}
