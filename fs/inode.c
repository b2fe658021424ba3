/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Inode table.
 *
 * One hash table over (device, inode number). An inode leaves the hash when its
 * last name goes, so that a new file that gets the same number is a new inode.
 *
 * Locks, in this order: removal_locks (one stripe), names_lock, lock. No system
 * call is made under `lock`.
 */

#include "fs/inode.h"

#include "fs/backing.h"
#include "fs/dirfds.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum {
        HANDLE_MAX = 24, /* ext4 8, XFS 12, tmpfs 12, btrfs 20 bytes */
        BUCKETS_MIN = 1024,
        REMOVAL_STRIPES = 16,
        PATH_DEPTH_CHUNK = 3000, /* characters resolved in one openat2 */
};

/* Which chain an inode hangs in. */
enum chain {
        CHAIN_NONE,
        CHAIN_HASH,
        CHAIN_NAMELESS, /* lost its last name: reached by those who know it, never found */
};

struct tk_inode {
        struct tk_inode *next; /* table lock: its chain */
        uint64_t ino;
        uint64_t dev;
        uint64_t nlookup; /* table lock: counted by the kernel */
        uint32_t refs;    /* table lock: counted by us */
        int fd;           /* table lock: O_PATH of a file that lost its name; -1: none */
        uint8_t where;    /* table lock: enum chain */
        uint8_t handle_len;
        uint8_t type;    /* DT_* */
        atomic_bool cut; /* tk_inode_note_cut */
        uint32_t serial;
        _Atomic(struct tk_openfile *) openfile; /* set and cleared by openfile.c */
        union {
                struct {
                        int type;
                        uint8_t bytes[HANDLE_MAX];
                } handle;
                struct {
                        struct tk_inode *parent; /* names_lock: a counted reference */
                        char *name;              /* names_lock */
                } place;
        };
};

struct tk_inode_table {
        int rootfd;
        bool by_handle;
        int mount_id; /* by handle only: of the root */
        struct tk_stats *stats;
        struct tk_inode *root;
        struct tk_dirfds *dirfds;
        pthread_mutex_t removal_locks[REMOVAL_STRIPES];
        pthread_rwlock_t names_lock; /* by name only: places of inodes against renames */
        pthread_mutex_t lock;
        struct tk_inode **buckets; /* under lock */
        size_t bucket_count;       /* under lock: a power of two */
        struct tk_inode *nameless; /* under lock */
        size_t count;              /* under lock */
        uint32_t serials;          /* under lock: the last one given */
};

/* File handles ------------------------------------------------------------- */

struct handle_buf {
        struct file_handle handle;
        uint8_t bytes[HANDLE_MAX];
};

static int handle_read(int dirfd, const char *name, struct handle_buf *ret_buf, int *ret_mount_id)
{
        ret_buf->handle.handle_bytes = HANDLE_MAX;
        if (name_to_handle_at(dirfd, name, &ret_buf->handle, ret_mount_id,
                              *name ? 0 : AT_EMPTY_PATH) < 0)
                return -errno;
        return 0;
}

static int handle_open(int rootfd, struct handle_buf *buf, int flags)
{
        int fd = open_by_handle_at(rootfd, &buf->handle, flags | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

/* Whether this process may open by handle on this filesystem. */
static bool handles_work(int rootfd)
{
        struct handle_buf buf;
        TK_AUTOCLOSE int fd = -1;
        int mount_id;

        if (handle_read(rootfd, "", &buf, &mount_id) < 0)
                return false;
        fd = handle_open(rootfd, &buf, O_PATH);
        return fd >= 0;
}

/* Hash --------------------------------------------------------------------- */

static size_t bucket_of(const struct tk_inode_table *table, uint64_t dev, uint64_t ino)
{
        uint64_t mixed = (ino ^ dev << 32) * UINT64_C(0x9E3779B97F4A7C15);

        return (size_t)(mixed >> 32) & (table->bucket_count - 1);
}

static struct tk_inode *hash_find(const struct tk_inode_table *table, uint64_t dev, uint64_t ino)
{
        struct tk_inode *inode = table->buckets[bucket_of(table, dev, ino)];

        while (inode && (inode->ino != ino || inode->dev != dev))
                inode = inode->next;
        return inode;
}

/* A larger array keeps the chains short; if there is no memory for it they grow instead. */
static void hash_grow(struct tk_inode_table *table)
{
        size_t old_count = table->bucket_count;
        struct tk_inode **old = table->buckets;
        struct tk_inode **buckets = calloc(old_count * 2, sizeof(*buckets));

        if (!buckets)
                return;
        table->buckets = buckets;
        table->bucket_count = old_count * 2;
        for (size_t i = 0; i < old_count; i++) {
                while (old[i]) {
                        struct tk_inode *inode = old[i];
                        size_t bucket = bucket_of(table, inode->dev, inode->ino);

                        old[i] = inode->next;
                        inode->next = table->buckets[bucket];
                        table->buckets[bucket] = inode;
                }
        }
        free(old);
}

static void hash_add(struct tk_inode_table *table, struct tk_inode *inode)
{
        size_t bucket;

        if (table->count >= table->bucket_count)
                hash_grow(table);
        bucket = bucket_of(table, inode->dev, inode->ino);
        inode->next = table->buckets[bucket];
        table->buckets[bucket] = inode;
        inode->where = CHAIN_HASH;
        inode->serial = ++table->serials;
}

static void chain_remove(struct tk_inode_table *table, struct tk_inode *inode)
{
        struct tk_inode **link =
                inode->where == CHAIN_NAMELESS
                        ? &table->nameless
                        : &table->buckets[bucket_of(table, inode->dev, inode->ino)];

        if (inode->where == CHAIN_NONE)
                return;
        while (*link != inode)
                link = &(*link)->next;
        *link = inode->next;
        inode->where = CHAIN_NONE;
}

static void become_nameless(struct tk_inode_table *table, struct tk_inode *inode)
{
        chain_remove(table, inode);
        inode->next = table->nameless;
        table->nameless = inode;
        inode->where = CHAIN_NAMELESS;
}

/* Life --------------------------------------------------------------------- */

static int inode_new(const struct stat *st, struct tk_inode **ret_inode)
{
        struct tk_inode *inode;

        inode = calloc(1, sizeof(*inode));
        if (!inode)
                return -ENOMEM;
        inode->ino = st->st_ino;
        inode->dev = st->st_dev;
        inode->type = IFTODT(st->st_mode);
        inode->fd = -1;
        *ret_inode = inode;
        return 0;
}

static void inode_free(struct tk_inode_table *table, struct tk_inode *inode)
{
        assert(!inode->openfile);
        if (S_ISDIR(tk_inode_type(inode)))
                tk_dirfds_drop(table->dirfds, inode);
        if (inode->fd >= 0)
                close(inode->fd);
        if (!table->by_handle)
                free(inode->place.name);
        free(inode);
}

/*
 * Whether nobody counts @inode any more; then it is out of its chain, so that nobody can
 * find it and count it again, and the caller frees it. Called with the table locked.
 */
static bool take_if_unused(struct tk_inode_table *table, struct tk_inode *inode)
{
        if (inode->nlookup > 0 || inode->refs > 0)
                return false;
        chain_remove(table, inode);
        return true;
}

/* Free @inode, which was taken out, and the parents that only it kept. */
static void drop(struct tk_inode_table *table, struct tk_inode *inode)
{
        while (inode) {
                struct tk_inode *parent = NULL;

                pthread_mutex_lock(&table->lock);
                table->count--;
                table->stats->known_inodes = table->count;
                if (!table->by_handle && inode->place.parent) {
                        parent = inode->place.parent;
                        parent->refs--;
                        /* Under the same lock: afterwards another thread could free it. */
                        if (!take_if_unused(table, parent))
                                parent = NULL;
                }
                pthread_mutex_unlock(&table->lock);

                inode_free(table, inode);
                inode = parent;
        }
}

static void inode_put(struct tk_inode_table *table, struct tk_inode *inode, uint64_t lookups,
                      uint32_t refs)
{
        bool unused;

        pthread_mutex_lock(&table->lock);
        assert(inode->nlookup >= lookups && inode->refs >= refs);
        inode->nlookup -= lookups;
        inode->refs -= refs;
        unused = take_if_unused(table, inode);
        pthread_mutex_unlock(&table->lock);
        if (unused)
                drop(table, inode);
}

void tk_inode_forget(struct tk_inode_table *table, struct tk_inode *inode, uint64_t count)
{
        inode_put(table, inode, count, 0);
}

struct tk_inode *tk_inode_ref(struct tk_inode_table *table, struct tk_inode *inode)
{
        TK_LOCK_SCOPE(&table->lock);
        inode->refs++;
        return inode;
}

void tk_inode_unref(struct tk_inode_table *table, struct tk_inode *inode)
{
        inode_put(table, inode, 0, 1);
}

int tk_inode_table_new(int rootfd, struct tk_stats *stats, struct tk_inode_table **ret_table)
{
        TK_CLEANUP(tk_inode_table_freep) struct tk_inode_table *table = NULL;
        struct handle_buf buf;
        struct stat st;
        int r;

        table = calloc(1, sizeof(*table));
        if (!table)
                return -ENOMEM;
        table->rootfd = rootfd;
        table->stats = stats;
        pthread_mutex_init(&table->lock, NULL);
        pthread_rwlock_init(&table->names_lock, NULL);
        for (int i = 0; i < REMOVAL_STRIPES; i++)
                pthread_mutex_init(&table->removal_locks[i], NULL);
        table->bucket_count = BUCKETS_MIN;
        table->buckets = calloc(table->bucket_count, sizeof(struct tk_inode *));
        if (!table->buckets)
                return -ENOMEM;
        table->by_handle = handles_work(rootfd);
        r = tk_dirfds_new(&table->dirfds);
        if (r < 0)
                return r;

        if (fstat(rootfd, &st) < 0)
                return -errno;
        r = inode_new(&st, &table->root);
        if (r < 0)
                return r;
        if (table->by_handle) {
                r = handle_read(rootfd, "", &buf, &table->mount_id);
                if (r < 0)
                        return r;
                table->root->handle.type = buf.handle.handle_type;
                table->root->handle_len = (uint8_t)buf.handle.handle_bytes;
                memcpy(table->root->handle.bytes, buf.handle.f_handle, table->root->handle_len);
        }
        table->root->refs = 1;
        table->count = 1;
        hash_add(table, table->root);
        *ret_table = TK_TAKE(table);
        return 0;
}

static void free_chain(struct tk_inode_table *table, struct tk_inode *inode)
{
        struct tk_inode *next;

        for (; inode; inode = next) {
                next = inode->next;
                inode_free(table, inode);
        }
}

struct tk_inode_table *tk_inode_table_free(struct tk_inode_table *table)
{
        if (!table)
                return NULL;
        free_chain(table, table->nameless);
        for (size_t i = 0; table->buckets && i < table->bucket_count; i++)
                free_chain(table, table->buckets[i]);
        free(table->buckets);
        tk_dirfds_free(table->dirfds);
        for (int i = 0; i < REMOVAL_STRIPES; i++)
                pthread_mutex_destroy(&table->removal_locks[i]);
        pthread_rwlock_destroy(&table->names_lock);
        pthread_mutex_destroy(&table->lock);
        free(table);
        return NULL;
}

struct tk_inode *tk_inode_root(struct tk_inode_table *table)
{
        return table->root;
}

/* Look-up ------------------------------------------------------------------ */

static struct tk_inode *find_counted(struct tk_inode_table *table, const struct stat *st)
{
        struct tk_inode *inode;

        TK_LOCK_SCOPE(&table->lock);
        inode = hash_find(table, st->st_dev, st->st_ino);
        if (inode)
                inode->nlookup++;
        return inode;
}

/* Remember how to reach a new inode. */
static int locate(struct tk_inode_table *table, struct tk_inode *inode, struct tk_inode *parent,
                  int parentfd, const char *name)
{
        struct handle_buf buf;
        int mount_id;
        int r;

        if (table->by_handle) {
                r = handle_read(parentfd, name, &buf, &mount_id);
                if (r < 0)
                        return r;
                /* The handle of another filesystem would lead to any file of this one. */
                if (mount_id != table->mount_id)
                        return -EXDEV;
                inode->handle.type = buf.handle.handle_type;
                inode->handle_len = (uint8_t)buf.handle.handle_bytes;
                memcpy(inode->handle.bytes, buf.handle.f_handle, inode->handle_len);
                return 0;
        }
        inode->place.name = strdup(name);
        if (!inode->place.name)
                return -ENOMEM;
        inode->place.parent = tk_inode_ref(table, parent);
        return 0;
}

/* Add @inode, or, if another thread was faster, count that one and drop @inode. */
static struct tk_inode *add_counted(struct tk_inode_table *table, struct tk_inode *inode)
{
        struct tk_inode *there;

        pthread_mutex_lock(&table->lock);
        there = hash_find(table, inode->dev, inode->ino);
        table->count++;
        if (there) {
                there->nlookup++;
        } else {
                inode->nlookup = 1;
                hash_add(table, inode);
        }
        table->stats->known_inodes = table->count;
        pthread_mutex_unlock(&table->lock);
        if (there)
                drop(table, inode);
        return there ? there : inode;
}

int tk_inode_lookup(struct tk_inode_table *table, struct tk_inode *parent, int parentfd,
                    const char *name, const struct stat *st, struct tk_inode **ret_inode)
{
        struct tk_inode *inode;
        int r;

        inode = find_counted(table, st);
        if (!inode) {
                r = inode_new(st, &inode);
                if (r < 0)
                        return r;
                r = locate(table, inode, parent, parentfd, name);
                if (r < 0) {
                        free(inode);
                        return r;
                }
                inode = add_counted(table, inode);
        }
        *ret_inode = inode;
        return 0;
}

/* Reaching the backing file ------------------------------------------------- */

/*
 * Open by the chain of names up to the root, a chunk of the path at a time, so
 * that depth is not limited. Called with names_lock held.
 */
static int open_by_place(struct tk_inode_table *table, const struct tk_inode *inode, int flags)
{
        char path[PATH_DEPTH_CHUNK + NAME_MAX + 2];
        const struct tk_inode *at = inode;
        char *start = path + sizeof(path) - 1;
        TK_AUTOCLOSE int above = -1;

        *start = '\0';
        while (at != table->root) {
                size_t len = strlen(at->place.name);

                if ((size_t)(start - path) < len + 1)
                        break;
                if (*start)
                        *--start = '/';
                start -= len;
                memcpy(start, at->place.name, len);
                at = at->place.parent;
        }
        if (at != table->root) {
                above = open_by_place(table, at, O_PATH | O_DIRECTORY);
                if (above < 0)
                        return above;
        }
        return tk_backing_open_beneath(above >= 0 ? above : table->rootfd, *start ? start : ".",
                                       flags);
}

static int open_by_place_checked(struct tk_inode_table *table, const struct tk_inode *inode,
                                 int flags)
{
        TK_AUTOCLOSE int fd = -1;
        struct stat st;

        pthread_rwlock_rdlock(&table->names_lock);
        fd = open_by_place(table, inode, flags | (flags & O_PATH ? O_NOFOLLOW : 0));
        pthread_rwlock_unlock(&table->names_lock);
        if (fd < 0)
                return fd == -ENOENT ? -ESTALE : fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_ino != inode->ino || st.st_dev != inode->dev)
                return -ESTALE;
        return TK_TAKE_FD(fd);
}

/*
 * The descriptor that @inode keeps; -1 if it is to be reached otherwise. By place,
 * -ESTALE if it has no place any more: what lies there now is another file, even if it
 * got the same number.
 */
static int kept_fd(struct tk_inode_table *table, const struct tk_inode *inode)
{
        TK_LOCK_SCOPE(&table->lock);
        if (inode->fd < 0 && inode->where == CHAIN_NAMELESS && !table->by_handle)
                return -ESTALE;
        return inode->fd;
}

int tk_inode_open(struct tk_inode_table *table, struct tk_inode *inode, int flags)
{
        int fd;

        fd = kept_fd(table, inode);
        if (fd == -ESTALE)
                return fd;
        if (fd >= 0 && flags & O_PATH) {
                fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
                return fd < 0 ? -errno : fd;
        }
        if (fd >= 0)
                return tk_backing_reopen(fd, flags);
        if (table->by_handle) {
                struct handle_buf buf = {.handle = {.handle_bytes = inode->handle_len,
                                                    .handle_type = inode->handle.type}};

                memcpy(buf.handle.f_handle, inode->handle.bytes, inode->handle_len);
                return handle_open(table->rootfd, &buf, flags);
        }
        return open_by_place_checked(table, inode, flags);
}

int tk_inode_dir_get(struct tk_inode_table *table, struct tk_inode *inode,
                     struct tk_inode_dir *ret_dir)
{
        *ret_dir = (struct tk_inode_dir){.table = table, .inode = inode, .fd = -1};
        if (inode == table->root) {
                ret_dir->fd = table->rootfd;
                return 0;
        }
        ret_dir->fd = tk_dirfds_get(table->dirfds, inode);
        if (ret_dir->fd >= 0)
                return 0;
        ret_dir->fd = tk_inode_open(table, inode, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        if (ret_dir->fd < 0)
                return ret_dir->fd;
        ret_dir->owned = !tk_dirfds_keep(table->dirfds, inode, ret_dir->fd);
        return 0;
}

void tk_inode_dir_put(struct tk_inode_dir *dir)
{
        if (dir->fd < 0 || dir->inode == dir->table->root)
                return;
        if (dir->owned)
                close(dir->fd);
        else
                tk_dirfds_put(dir->table->dirfds, dir->inode);
}

enum { CHAIN_MAX = 256 }; /* chains are a few inodes long */

/* The inodes of one bucket, counted. False behind the last bucket. */
static bool collect(struct tk_inode_table *table, size_t bucket, struct tk_inode *inodes[CHAIN_MAX],
                    size_t *ret_count)
{
        size_t count = 0;

        TK_LOCK_SCOPE(&table->lock);
        if (bucket >= table->bucket_count)
                return false;
        for (struct tk_inode *inode = table->buckets[bucket]; inode && count < CHAIN_MAX;
             inode = inode->next) {
                inode->refs++;
                inodes[count++] = inode;
        }
        *ret_count = count;
        return true;
}

static size_t count_nameless(struct tk_inode_table *table)
{
        size_t count = 0;

        TK_LOCK_SCOPE(&table->lock);
        for (const struct tk_inode *inode = table->nameless; inode; inode = inode->next)
                count++;
        return count;
}

/* Removed files that are still in use: few, but the kernel caches them as any other. */
static void for_each_nameless(struct tk_inode_table *table,
                              void (*visit)(void *context, struct tk_inode *inode), void *context)
{
        size_t max = count_nameless(table) + 1;
        TK_CLEANUP(tk_freep) struct tk_inode **inodes = calloc(max, sizeof(struct tk_inode *));
        size_t count = 0;

        if (!inodes)
                return;
        pthread_mutex_lock(&table->lock);
        for (struct tk_inode *inode = table->nameless; inode && count < max; inode = inode->next) {
                inode->refs++;
                inodes[count++] = inode;
        }
        pthread_mutex_unlock(&table->lock);
        for (size_t i = 0; i < count; i++) {
                visit(context, inodes[i]);
                tk_inode_unref(table, inodes[i]);
        }
}

void tk_inode_for_each(struct tk_inode_table *table,
                       void (*visit)(void *context, struct tk_inode *inode), void *context)
{
        struct tk_inode *inodes[CHAIN_MAX];
        size_t count;

        for (size_t bucket = 0; collect(table, bucket, inodes, &count); bucket++) {
                for (size_t i = 0; i < count; i++) {
                        visit(context, inodes[i]);
                        tk_inode_unref(table, inodes[i]);
                }
        }
        for_each_nameless(table, visit, context);
}

uint64_t tk_inode_number(const struct tk_inode *inode)
{
        return inode->ino;
}

uint32_t tk_inode_serial(const struct tk_inode *inode)
{
        return inode->serial;
}

mode_t tk_inode_type(const struct tk_inode *inode)
{
        return DTTOIF(inode->type);
}

void tk_inode_note_cut(struct tk_inode *inode, bool cut)
{
        inode->cut = cut;
}

bool tk_inode_is_cut(const struct tk_inode *inode)
{
        return inode->cut;
}

_Atomic(struct tk_openfile *) *tk_inode_openfile(struct tk_inode *inode)
{
        return &inode->openfile;
}

/* Removal and renaming -------------------------------------------------------- */

struct tk_inode *tk_inode_find(struct tk_inode_table *table, const struct stat *st)
{
        struct tk_inode *inode;

        TK_LOCK_SCOPE(&table->lock);
        inode = hash_find(table, st->st_dev, st->st_ino);
        if (inode)
                inode->refs++;
        return inode;
}

/* Whether @name in @parentfd is the place by which @inode is known. */
static bool is_place_of(struct tk_inode_table *table, const struct tk_inode *inode, int parentfd,
                        const char *name)
{
        const struct tk_inode *parent;
        struct stat st;
        bool is;

        if (table->by_handle || fstat(parentfd, &st) < 0)
                return false;
        pthread_rwlock_rdlock(&table->names_lock);
        parent = inode->place.parent;
        is = parent && parent->ino == st.st_ino && parent->dev == st.st_dev &&
             strcmp(inode->place.name, name) == 0;
        pthread_rwlock_unlock(&table->names_lock);
        return is;
}

/*
 * A descriptor for what outlives the name: somebody may still refer to it, and while it is
 * held no new file gets its inode number. By place, the name that goes may be the one we
 * know, so that other links need one, too.
 */
static void keep_reachable(struct tk_inode_table *table, int parentfd, const char *name,
                           struct tk_removal *removal)
{
        if ((removal->last_name || is_place_of(table, removal->inode, parentfd, name)) &&
            kept_fd(table, removal->inode) < 0)
                removal->fd = openat(parentfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

int tk_inode_removal_begin(struct tk_inode_table *table, int parentfd, const char *name,
                           struct tk_removal *removal)
{
        struct stat st;

        *removal = (struct tk_removal){.table = table, .fd = -1};
        if (fstatat(parentfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        removal->lock = &table->removal_locks[st.st_ino % REMOVAL_STRIPES];
        pthread_mutex_lock(removal->lock);
        /* With other names, again: now no other removal changes the link count. */
        if (st.st_nlink > 1 && fstatat(parentfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                int r = -errno;

                pthread_mutex_unlock(removal->lock);
                removal->lock = NULL;
                return r;
        }
        removal->last_name = S_ISDIR(st.st_mode) || st.st_nlink == 1;
        removal->inode = tk_inode_find(table, &st);
        if (removal->inode)
                keep_reachable(table, parentfd, name, removal);
        return 0;
}

void tk_inode_removal_end(struct tk_removal *removal, bool removed)
{
        struct tk_inode_table *table = removal->table;

        if (removed && removal->inode) {
                TK_LOCK_SCOPE(&table->lock);
                if (removal->last_name)
                        become_nameless(table, removal->inode);
                if (removal->inode->fd < 0)
                        removal->inode->fd = TK_TAKE_FD(removal->fd);
        }
        if (removal->fd >= 0)
                close(removal->fd);
        if (removal->inode)
                tk_inode_unref(table, removal->inode);
        if (removal->lock)
                pthread_mutex_unlock(removal->lock);
}

void tk_inode_places_hold(struct tk_inode_table *table)
{
        if (!table->by_handle)
                pthread_rwlock_rdlock(&table->names_lock);
}

void tk_inode_places_release(struct tk_inode_table *table)
{
        if (!table->by_handle)
                pthread_rwlock_unlock(&table->names_lock);
}

void tk_inode_rename_begin(struct tk_inode_table *table)
{
        if (!table->by_handle)
                pthread_rwlock_wrlock(&table->names_lock);
}

void tk_inode_moved(struct tk_inode_table *table, int parentfd, struct tk_inode *parent,
                    const char *name)
{
        struct tk_inode *inode;
        struct tk_inode *old_parent;
        struct stat st;
        char *copy;

        if (table->by_handle || fstatat(parentfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return;
        inode = tk_inode_find(table, &st);
        if (!inode)
                return;
        copy = strdup(name);
        if (copy) {
                old_parent = inode->place.parent;
                free(inode->place.name);
                inode->place.name = copy;
                inode->place.parent = tk_inode_ref(table, parent);
                if (old_parent)
                        tk_inode_unref(table, old_parent);
        }
        tk_inode_unref(table, inode);
}

void tk_inode_rename_end(struct tk_inode_table *table)
{
        if (!table->by_handle)
                pthread_rwlock_unlock(&table->names_lock);
}
