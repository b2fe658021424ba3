/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Directories that were moved or renamed since the export.
 *
 * Of each a name or two are kept in memory, as ciphertext. Every directory's key in the
 * escrow is then tried on all of them, in one pass.
 */

#include "fs/escrow_moved.h"

#include "base/bytes.h"
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/names.h"
#include "fs/sibling.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { ORPHANS_MAX = 65536, SAMPLES = 2 };

struct sample {
        uint8_t cipher[TK_NAMES_CIPHER_MAX];
        size_t len;
};

struct orphan {
        char *path; /* NULL: found */
        int why;
        int sample_count;
        struct sample samples[SAMPLES];
};

struct tk_escrow_moved {
        struct tk_fs *fs; /* borrowed */
        struct orphan *orphans;
        size_t count;
        size_t max;
};

int tk_escrow_moved_new(struct tk_fs *fs, struct tk_escrow_moved **ret_moved)
{
        struct tk_escrow_moved *moved = calloc(1, sizeof(*moved));

        if (!moved)
                return -ENOMEM;
        moved->fs = fs;
        *ret_moved = moved;
        return 0;
}

struct tk_escrow_moved *tk_escrow_moved_free(struct tk_escrow_moved *moved)
{
        if (!moved)
                return NULL;
        for (size_t i = 0; i < moved->count; i++)
                free(moved->orphans[i].path);
        free(moved->orphans);
        free(moved);
        return NULL;
}

/* The ciphertext of the entry @name of the directory @fd; false if it can't be one. */
static bool take_sample(int fd, const char *name, struct sample *ret_sample)
{
        char target[TK_NAMES_TARGET_MAX + 1];
        const char *text = name;

        if (tk_names_is_hashed(name)) {
                if (tk_sibling_read(fd, name, target) < 0)
                        return false;
                text = target;
        }
        return tk_base64url_decode(text, ret_sample->cipher, sizeof(ret_sample->cipher),
                                   &ret_sample->len) == 0 &&
               ret_sample->len > TK_SIV_TAG_LEN;
}

static int take_samples(int fd, struct orphan *orphan)
{
        int list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = list_fd < 0 ? NULL : fdopendir(list_fd);
        const struct dirent *entry;

        if (!dir) {
                int r = list_fd < 0 ? -errno : -ENOMEM;

                if (list_fd >= 0)
                        close(list_fd);
                return r;
        }
        while (orphan->sample_count < SAMPLES && (entry = readdir(dir)))
                if (!tk_sibling_is(fd, entry->d_name, entry->d_type) &&
                    take_sample(fd, entry->d_name, &orphan->samples[orphan->sample_count]))
                        orphan->sample_count++;
        closedir(dir);
        return orphan->sample_count > 0 ? 0 : -ENODATA;
}

static int make_room(struct tk_escrow_moved *moved)
{
        size_t max = moved->max ? moved->max * 2 : 16;
        struct orphan *orphans;

        if (moved->count < moved->max)
                return 0;
        if (max > ORPHANS_MAX)
                return -ENOSPC;
        orphans = reallocarray(moved->orphans, max, sizeof(*orphans));
        if (!orphans)
                return -ENOMEM;
        moved->orphans = orphans;
        moved->max = max;
        return 0;
}

int tk_escrow_moved_add(struct tk_escrow_moved *moved, const char *path, int fd, int why)
{
        struct orphan *orphan;
        int r;

        r = make_room(moved);
        if (r < 0)
                return r;
        orphan = &moved->orphans[moved->count];
        memset(orphan, 0, sizeof(*orphan));
        orphan->why = why;
        r = take_samples(fd, orphan);
        if (r < 0)
                return r;
        orphan->path = strdup(path);
        if (!orphan->path)
                return -ENOMEM;
        moved->count++;
        return 0;
}

static bool opens(struct tk_siv *siv, const struct orphan *orphan)
{
        char name[TK_NAMES_CIPHER_MAX];

        for (int i = 0; i < orphan->sample_count; i++)
                if (tk_siv_open(siv, NULL, 0, orphan->samples[i].cipher, orphan->samples[i].len,
                                name) == 0)
                        return true;
        return false;
}

/* The first orphan from @from on whose names @key opens, or the number of orphans. */
static size_t find_owner(const struct tk_escrow_moved *moved, const struct tk_dirkey *key,
                         size_t from)
{
        struct tk_names_reader reader;
        size_t i = from;

        if (tk_names_reader_begin(&reader, moved->fs, tk_dirkey_names(key)) < 0 || !reader.siv)
                return moved->count;
        while (i < moved->count &&
               (!moved->orphans[i].path || !opens(reader.siv, &moved->orphans[i])))
                i++;
        tk_names_reader_end(&reader);
        return i;
}

static int try_entry(struct tk_escrow_moved *moved, const struct tk_escrow_entry *entry,
                     int (*found)(void *context, const char *path,
                                  const struct tk_escrow_entry *entry),
                     void *context)
{
        struct tk_dirkey *key;
        size_t i;
        int r;

        r = tk_dirkey_from_record(moved->fs, &entry->record, &key);
        if (r == -EBADMSG || r == -ENOTSUP)
                return 0;
        if (r < 0)
                return r;
        /* A copied directory has the same key. */
        for (i = find_owner(moved, key, 0); r == 0 && i < moved->count;
             i = find_owner(moved, key, i + 1)) {
                r = found(context, moved->orphans[i].path, entry);
                free(moved->orphans[i].path);
                moved->orphans[i].path = NULL;
        }
        tk_dirkey_put(moved->fs, key);
        return r;
}

int tk_escrow_moved_search(struct tk_escrow_moved *moved, struct tk_escrow_reader *escrow,
                           int (*found)(void *context, const char *path,
                                        const struct tk_escrow_entry *entry),
                           void *context)
{
        const struct tk_escrow_entry *entry;
        int r;

        if (moved->count == 0)
                return 0;
        r = tk_escrow_reader_rewind(escrow);
        while (r == 0 && (r = tk_escrow_reader_next(escrow, &entry)) > 0)
                r = entry->directory ? try_entry(moved, entry, found, context) : 0;
        return r;
}

void tk_escrow_moved_left(const struct tk_escrow_moved *moved,
                          void (*left)(void *context, const char *path, int why), void *context)
{
        for (size_t i = 0; i < moved->count; i++)
                if (moved->orphans[i].path)
                        left(context, moved->orphans[i].path, moved->orphans[i].why);
}
