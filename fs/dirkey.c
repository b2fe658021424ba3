/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The DEK of a directory, and the key of its names.
 *
 * Keys that are kept hang in hash chains and in one list by age of use, whose end is
 * dropped first. They are found by inode number and serial, so that a new directory
 * that got the number of a removed one is not taken for it.
 */

#include "fs/dirkey.h"

#include "base/log.h"
#include "crypto/kdf.h"
#include "crypto/siv.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/names.h"
#include "fs/sibling.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

enum {
        BUCKETS = 4096,
        NAMES_TRIED = 1024, /* to find out whose a directory is */
};

struct tk_dirkey {
        unsigned refs; /* under the lock of the keys: users, and the table if it is kept */
        bool kept;     /* as refs */
        uint64_t ino;
        uint32_t serial;
        struct tk_dirkey *chain; /* under the lock of the keys */
        struct tk_dirkey *older; /* under the lock of the keys: towards the end that is dropped */
        struct tk_dirkey *newer;
        struct tk_secret *dek;
        struct tk_secret *names; /* NULL with names = plain */
};

struct tk_dirkeys {
        size_t max;
        pthread_mutex_t lock;
        size_t count;                       /* under lock */
        struct tk_dirkey *newest;           /* under lock */
        struct tk_dirkey *oldest;           /* under lock */
        struct tk_dirkey *buckets[BUCKETS]; /* under lock */
};

/* Those that are kept ----------------------------------------------------------- */

int tk_dirkeys_new(size_t max, struct tk_dirkeys **ret_keys)
{
        struct tk_dirkeys *keys;

        keys = calloc(1, sizeof(*keys));
        if (!keys)
                return -ENOMEM;
        pthread_mutex_init(&keys->lock, NULL);
        keys->max = max;
        *ret_keys = keys;
        return 0;
}

static struct tk_dirkey *key_free(struct tk_dirkey *key)
{
        if (!key)
                return NULL;
        tk_secret_free(key->dek);
        tk_secret_free(key->names);
        free(key);
        return NULL;
}
TK_DEFINE_CLEANUP(struct tk_dirkey *, key_free)

/* The functions below are called with the keys locked. */

static struct tk_dirkey **bucket_of(struct tk_dirkeys *keys, uint64_t ino, uint32_t serial)
{
        uint64_t mixed = (ino ^ (uint64_t)serial << 32) * UINT64_C(0x9E3779B97F4A7C15);

        return &keys->buckets[mixed >> 32 & (BUCKETS - 1)];
}

static void age_remove(struct tk_dirkeys *keys, struct tk_dirkey *key)
{
        *(key->newer ? &key->newer->older : &keys->newest) = key->older;
        *(key->older ? &key->older->newer : &keys->oldest) = key->newer;
}

static void age_add(struct tk_dirkeys *keys, struct tk_dirkey *key)
{
        key->newer = NULL;
        key->older = keys->newest;
        *(key->older ? &key->older->newer : &keys->oldest) = key;
        keys->newest = key;
}

static struct tk_dirkey *find(struct tk_dirkeys *keys, uint64_t ino, uint32_t serial)
{
        struct tk_dirkey *key = *bucket_of(keys, ino, serial);

        while (key && (key->ino != ino || key->serial != serial))
                key = key->chain;
        return key;
}

static void unref(struct tk_dirkey *key)
{
        assert(key->refs > 0);
        if (--key->refs == 0)
                key_free(key);
}

static void drop(struct tk_dirkeys *keys, struct tk_dirkey *key)
{
        struct tk_dirkey **link = bucket_of(keys, key->ino, key->serial);

        while (*link != key)
                link = &(*link)->chain;
        *link = key->chain;
        age_remove(keys, key);
        keys->count--;
        unref(key);
}

static void keep(struct tk_dirkeys *keys, struct tk_dirkey *key)
{
        struct tk_dirkey **bucket = bucket_of(keys, key->ino, key->serial);

        key->refs++;
        key->chain = *bucket;
        *bucket = key;
        age_add(keys, key);
        if (++keys->count > keys->max)
                drop(keys, keys->oldest);
}

/* The functions above are called with the keys locked. */

static void drop_all(struct tk_dirkeys *keys)
{
        TK_LOCK_SCOPE(&keys->lock);
        while (keys->oldest)
                drop(keys, keys->oldest);
        assert(keys->count == 0);
}

struct tk_dirkeys *tk_dirkeys_free(struct tk_dirkeys *keys)
{
        if (!keys)
                return NULL;
        drop_all(keys);
        pthread_mutex_destroy(&keys->lock);
        free(keys);
        return NULL;
}

void tk_dirkey_wipe_all(struct tk_fs *fs)
{
        drop_all(fs->dirkeys);
}

/* The key of @inode, counted, if it is kept. */
static struct tk_dirkey *find_kept(struct tk_dirkeys *keys, const struct tk_inode *inode)
{
        struct tk_dirkey *key;

        TK_LOCK_SCOPE(&keys->lock);
        key = find(keys, tk_inode_number(inode), tk_inode_serial(inode));
        if (!key)
                return NULL;
        key->refs++;
        if (key != keys->newest) {
                age_remove(keys, key);
                age_add(keys, key);
        }
        return key;
}

/* Keep @key for others, unless one of them was faster, or the mount was closed meanwhile. */
static void keep_new(struct tk_fs *fs, struct tk_dirkey *key)
{
        struct tk_dirkeys *keys = fs->dirkeys;

        TK_LOCK_SCOPE(&keys->lock);
        if (fs->gate == 0 && !find(keys, key->ino, key->serial))
                keep(keys, key);
}

struct tk_dirkey *tk_dirkey_put(struct tk_fs *fs, struct tk_dirkey *key)
{
        if (!key)
                return NULL;
        TK_LOCK_SCOPE(&fs->dirkeys->lock);
        unref(key);
        return NULL;
}

const struct tk_secret *tk_dirkey_dek(const struct tk_dirkey *key)
{
        return key->dek;
}

const struct tk_secret *tk_dirkey_names(const struct tk_dirkey *key)
{
        return key->names;
}

/* Records ------------------------------------------------------------------------- */

/* A key around @dek, which is taken over, also on failure. */
static int key_new(struct tk_fs *fs, struct tk_secret *dek, struct tk_dirkey **ret_key)
{
        TK_CLEANUP(key_freep) struct tk_dirkey *key = calloc(1, sizeof(*key));
        int r;

        if (!key) {
                tk_secret_free(dek);
                return -ENOMEM;
        }
        key->refs = 1;
        key->dek = dek;
        if (fs->names_encrypted) {
                r = tk_secret_new(TK_SIV_KEY_LEN, &key->names);
                if (r == 0)
                        r = tk_kdf_expand(dek, "turnkeyfs names", NULL, 0, key->names);
                if (r < 0)
                        return r;
        }
        *ret_key = TK_TAKE(key);
        return 0;
}

int tk_dirkey_load_alone(struct tk_fs *fs, int fd, struct tk_dirkey **ret_key)
{
        TK_EPOCH_SCOPE(&fs->changes); /* no version is retired under the record that was read */
        struct tk_secret *dek;
        struct tk_record record;
        int r;

        r = tk_keyattr_read(fs, fd, &record);
        if (r < 0)
                return r;
        r = tk_keyring_unwrap(fs->keyring, &record, &dek);
        if (r < 0)
                return r;
        return key_new(fs, dek, ret_key);
}

int tk_dirkey_from_record(struct tk_fs *fs, const struct tk_record *record,
                          struct tk_dirkey **ret_key)
{
        struct tk_secret *dek;
        int r = tk_keyring_unwrap(fs->keyring, record, &dek);

        return r < 0 ? r : key_new(fs, dek, ret_key);
}

/* Names that don't authenticate say nothing, until there were many. */
static int opens_a_name(struct tk_names_reader *reader, DIR *dir)
{
        char name[TK_NAMES_MAX + 1];
        const struct dirent *entry;
        int tried = 0;
        int r = 0;

        errno = 0;
        while (tried < NAMES_TRIED && (entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                    tk_sibling_is(dirfd(dir), entry->d_name, entry->d_type))
                        continue;
                tried++;
                r = tk_names_read(reader, dirfd(dir), entry->d_name, name);
                if (r == 0)
                        return 1;
                if (r != -EBADMSG && r != -ENOENT)
                        return r;
                errno = 0;
        }
        return errno ? -errno : tried == 0;
}

int tk_dirkey_fits(struct tk_fs *fs, int fd, const struct tk_dirkey *key)
{
        struct tk_names_reader reader;
        int list_fd;
        DIR *dir;
        int r;

        if (!fs->names_encrypted)
                return 1;
        list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (list_fd < 0)
                return -errno;
        dir = fdopendir(list_fd);
        if (!dir) {
                close(list_fd);
                return -ENOMEM;
        }
        r = tk_names_reader_begin(&reader, fs, key->names);
        if (r == 0)
                r = opens_a_name(&reader, dir);
        tk_names_reader_end(&reader);
        closedir(dir);
        return r;
}

static void note_unusable(struct tk_fs *fs, int fd, bool lost)
{
        char path[PATH_MAX];

        fs->stats.record_failures++;
        tk_fs_log_path(fs, fd, path, sizeof(path));
        tk_log_limited(
                TK_LOG_ERROR,
                "%s: the directory's key record is %s, so that its names can't be had; "
                "restore it from an escrow (turnkeyfs escrow restore), or its " TK_KEYATTR_NAME
                " attribute from a backup",
                path, lost ? "missing" : "damaged or not live");
}

int tk_dirkey_is_bare(int fd)
{
        int list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = list_fd < 0 ? NULL : fdopendir(list_fd);
        const struct dirent *entry;
        bool bare = true;
        int r = dir ? 0 : -errno;

        if (!dir) {
                if (list_fd >= 0)
                        close(list_fd);
                return r;
        }
        errno = 0;
        while (bare && (entry = readdir(dir)))
                bare = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                       tk_sibling_is(list_fd, entry->d_name, entry->d_type);
        r = bare && errno ? -errno : bare;
        closedir(dir);
        return r;
}

int tk_dirkey_load_entries(struct tk_fs *fs, int fd, struct tk_dirkey **ret_key)
{
        int bare;
        int r = tk_dirkey_load_alone(fs, fd, ret_key);

        if (r != -ENODATA)
                return r;
        bare = tk_dirkey_is_bare(fd);
        if (bare != 0)
                return bare < 0 ? bare : -ENODATA;
        /* The record comes before the first entry: both may have come since it was read. */
        r = tk_dirkey_load_alone(fs, fd, ret_key);
        return r == -ENODATA ? TK_DIRKEY_LOST : r;
}

/* Load the key of @inode, and say so if that is not possible. */
static int load(struct tk_fs *fs, int fd, struct tk_dirkey **ret_key)
{
        int r = fs->names_encrypted ? tk_dirkey_load_entries(fs, fd, ret_key)
                                    : tk_dirkey_load_alone(fs, fd, ret_key);

        if (r == -EBADMSG || r == -ENOTSUP || r == TK_DIRKEY_LOST) {
                note_unusable(fs, fd, r == TK_DIRKEY_LOST);
                return -EIO;
        }
        return r;
}

int tk_dirkey_get(struct tk_fs *fs, struct tk_inode *inode, int fd, struct tk_dirkey **ret_key)
{
        struct tk_dirkey *key = find_kept(fs->dirkeys, inode);
        int r;

        if (!key) {
                r = load(fs, fd, &key);
                if (r < 0)
                        return r;
                key->ino = tk_inode_number(inode);
                key->serial = tk_inode_serial(inode);
                keep_new(fs, key);
        }
        *ret_key = key;
        return 0;
}

int tk_dirkey_make(struct tk_fs *fs, int fd)
{
        TK_EPOCH_SCOPE(&fs->changes);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_record record;
        int r;

        r = tk_keyattr_make(fs, &dek, &record);
        if (r < 0)
                return r;
        return tk_backing_setxattr(fd, TK_KEYATTR_NAME, record.bytes, tk_record_len(&record),
                                   XATTR_CREATE);
}

int tk_dirkey_need(struct tk_fs *fs, struct tk_inode *inode, int fd, struct tk_dirkey **ret_key)
{
        int r;

        r = tk_dirkey_get(fs, inode, fd, ret_key);
        if (r != -ENODATA)
                return r;
        r = tk_dirkey_make(fs, fd);
        /* Whoever was faster made the one that counts. */
        if (r < 0 && r != -EEXIST)
                return r;
        return tk_dirkey_get(fs, inode, fd, ret_key);
}
