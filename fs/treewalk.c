/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A walk over the backing tree in a fixed order.
 *
 * A directory is read to its end and sorted before anything in it is visited: so a
 * change during the visit neither repeats nor skips what was there.
 */

#include "fs/treewalk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* The names of one directory, each ended by NUL, in one piece of memory. */
struct names {
        char *bytes;
        size_t len;
        size_t max;
        size_t *at; /* where each begins */
        size_t count;
        size_t count_max;
};

struct walk {
        const struct tk_treewalk_callbacks *callbacks;
        char *path; /* of the entry in hand, grown as needed */
        size_t len;
        size_t max;
};

static void names_done(struct names *names)
{
        free(names->bytes);
        free(names->at);
}

static int names_add(struct names *names, const char *name)
{
        size_t size = strlen(name) + 1;

        if (names->len + size > names->max) {
                size_t max = (names->len + size) * 2;
                char *bytes = realloc(names->bytes, max);

                if (!bytes)
                        return -ENOMEM;
                names->bytes = bytes;
                names->max = max;
        }
        if (names->count == names->count_max) {
                size_t max = names->count_max ? names->count_max * 2 : 64;
                size_t *at = reallocarray(names->at, max, sizeof(*at));

                if (!at)
                        return -ENOMEM;
                names->at = at;
                names->count_max = max;
        }
        memcpy(names->bytes + names->len, name, size);
        names->at[names->count++] = names->len;
        names->len += size;
        return 0;
}

static int compare_names(const void *a, const void *b, void *bytes)
{
        return strcmp((const char *)bytes + *(const size_t *)a,
                      (const char *)bytes + *(const size_t *)b);
}

/* Only files and directories, as far as the filesystem tells their types here. */
static bool is_wanted(const struct dirent *entry)
{
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                return false;
        return entry->d_type == DT_REG || entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
}

static int names_read(int dirfd, struct names *names)
{
        int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const struct dirent *entry;
        DIR *dir;
        int r = 0;

        if (fd < 0)
                return -errno;
        dir = fdopendir(fd);
        if (!dir) {
                close(fd);
                return -ENOMEM;
        }
        errno = 0;
        while (r == 0 && (entry = readdir(dir))) {
                if (is_wanted(entry))
                        r = names_add(names, entry->d_name);
                errno = 0;
        }
        if (r == 0)
                r = -errno;
        closedir(dir);
        if (r == 0 && names->count > 1)
                qsort_r(names->at, names->count, sizeof(*names->at), compare_names, names->bytes);
        return r;
}

/* Append @name to the path. */
static int path_push(struct walk *walk, const char *name)
{
        size_t len = strlen(name);

        if (walk->len + len + 2 > walk->max) {
                size_t max = (walk->len + len + 2) * 2;
                char *path = realloc(walk->path, max);

                if (!path)
                        return -ENOMEM;
                walk->path = path;
                walk->max = max;
        }
        if (walk->len > 0)
                walk->path[walk->len++] = '/';
        memcpy(walk->path + walk->len, name, len + 1);
        walk->len += len;
        return 0;
}

static void path_cut(struct walk *walk, size_t len)
{
        walk->path[len] = '\0';
        walk->len = len;
}

static int failed(struct walk *walk, int error)
{
        if (error == -ENOENT || error == -ESTALE)
                return 0; /* gone meanwhile */
        if (error == -ENOMEM)
                return error;
        return walk->callbacks->failed(walk->callbacks->context, walk->path, error);
}

static int visit_dir(struct walk *walk, int dirfd, const char *name);

static int visit(struct walk *walk, int dirfd, const char *name)
{
        struct tk_treewalk_entry entry = {
                .path = walk->path, .path_len = walk->len, .dirfd = dirfd, .name = name};
        int r;

        if (fstatat(dirfd, name, &entry.st, AT_SYMLINK_NOFOLLOW) < 0)
                return failed(walk, -errno);
        if (!S_ISREG(entry.st.st_mode) && !S_ISDIR(entry.st.st_mode))
                return 0;
        r = walk->callbacks->visit(walk->callbacks->context, &entry);
        if (r < 0 || !S_ISDIR(entry.st.st_mode))
                return r;
        return visit_dir(walk, dirfd, name);
}

static int visit_dir(struct walk *walk, int dirfd, const char *name)
{
        TK_CLEANUP(names_done) struct names names = {0};
        size_t back = walk->len;
        TK_AUTOCLOSE int fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int r;

        r = fd < 0 ? -errno : names_read(fd, &names);
        if (r < 0)
                return failed(walk, r);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                r = path_push(walk, names.bytes + names.at[i]);
                if (r == 0)
                        r = visit(walk, fd, names.bytes + names.at[i]);
                path_cut(walk, back);
        }
        return r;
}

int tk_treewalk_run(int rootfd, const struct tk_treewalk_callbacks *callbacks)
{
        struct walk walk = {.callbacks = callbacks, .max = 256};
        int r;

        walk.path = calloc(1, walk.max);
        if (!walk.path)
                return -ENOMEM;
        r = visit(&walk, rootfd, ".");
        free(walk.path);
        return r;
}

/* As bytes, with '/' below all others: what is in a directory comes before its next sibling. */
int tk_treewalk_compare(const char *a, const char *b)
{
        while (*a && *a == *b) {
                a++;
                b++;
        }
        if (*a == *b)
                return 0;
        if (!*a || !*b)
                return *a ? 1 : -1;
        if (*a == '/' || *b == '/')
                return *a == '/' ? -1 : 1;
        return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
}

bool tk_treewalk_is_below(const char *path, const char *dir)
{
        size_t len = strlen(dir);

        if (len == 0)
                return path[0] != '\0';
        return strncmp(path, dir, len) == 0 && path[len] == '/';
}
