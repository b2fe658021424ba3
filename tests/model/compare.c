/* SPDX-License-Identifier: Apache-2.0 */

/* The two sides beside each other: results, bytes, files, attributes, listings. */

#include "base/cleanup.h"
#include "base/fdio.h"
#include "tests/model/model.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 256 * 1024, SHOWN = 16, NAMES_MAX = 64 * 1024 };

/* The first difference of an operation is kept. */
void model_differ(struct model_outcome *outcome, const char *fmt, ...)
{
        va_list args;

        if (outcome->differs)
                return;
        outcome->differs = true;
        va_start(args, fmt);
        vsnprintf(outcome->text, sizeof(outcome->text), fmt, args);
        va_end(args);
}

static const char *result_text(int64_t r, char text[64])
{
        if (r < 0)
                snprintf(text, 64, "%s (%lld)", strerror((int)-r), (long long)r);
        else
                snprintf(text, 64, "%lld", (long long)r);
        return text;
}

void model_compare_ret(struct model_outcome *outcome, int64_t a, int64_t b)
{
        char text_a[64];
        char text_b[64];

        if (a != b)
                model_differ(outcome, "result: A %s, B %s", result_text(a, text_a),
                             result_text(b, text_b));
}

static void hex_text(const uint8_t *bytes, size_t len, char *text)
{
        for (size_t i = 0; i < len; i++)
                snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t len)
{
        size_t i = 0;

        while (i < len && a[i] == b[i])
                i++;
        return i;
}

void model_compare_bytes(struct model_outcome *outcome, const uint8_t *a, const uint8_t *b,
                         size_t len, int64_t off)
{
        char text_a[2 * SHOWN + 1] = "";
        char text_b[2 * SHOWN + 1] = "";
        size_t first;
        size_t last = len;
        size_t shown;
        int64_t at;

        if (!memcmp(a, b, len))
                return;
        first = first_difference(a, b, len);
        while (a[last - 1] == b[last - 1])
                last--;
        shown = len - first < SHOWN ? len - first : SHOWN;
        hex_text(a + first, shown, text_a);
        hex_text(b + first, shown, text_b);
        at = off + (int64_t)first;
        model_differ(outcome,
                     "bytes: first difference at offset %lld (group %lld, block %lld, byte %lld), "
                     "last at %lld: A %s, B %s",
                     (long long)at, (long long)(at / MODEL_GROUP),
                     (long long)(at % MODEL_GROUP / MODEL_BLOCK), (long long)(at % MODEL_BLOCK),
                     (long long)(off + (int64_t)last - 1), text_a, text_b);
}

static int64_t stat_of(const char *path, struct stat *st)
{
        return lstat(path, st) < 0 ? -errno : 0;
}

void model_compare_stat(const char *path_a, const char *path_b, struct model_outcome *outcome)
{
        struct stat a;
        struct stat b;
        int64_t ret_a = stat_of(path_a, &a);
        int64_t ret_b = stat_of(path_b, &b);

        outcome->ret = ret_b;
        model_compare_ret(outcome, ret_a, ret_b);
        if (ret_a < 0 || ret_b < 0)
                return;
        if (S_ISREG(b.st_mode))
                outcome->size = b.st_size;
        if ((S_ISREG(b.st_mode) || S_ISLNK(b.st_mode)) && a.st_size != b.st_size)
                model_differ(outcome, "size: A %lld, B %lld", (long long)a.st_size,
                             (long long)b.st_size);
        if (a.st_mode != b.st_mode)
                model_differ(outcome, "mode: A %o, B %o", a.st_mode, b.st_mode);
        if (S_ISREG(b.st_mode) && a.st_nlink != b.st_nlink)
                model_differ(outcome, "links: A %lu, B %lu", (unsigned long)a.st_nlink,
                             (unsigned long)b.st_nlink);
        if (a.st_uid != b.st_uid || a.st_gid != b.st_gid)
                model_differ(outcome, "owner: A %u:%u, B %u:%u", a.st_uid, a.st_gid, b.st_uid,
                             b.st_gid);
}

static void compare_open_files(int fd_a, int fd_b, struct model_outcome *outcome)
{
        static uint8_t buf[MODEL_SIDES][CHUNK];

        for (int64_t off = 0;; off += CHUNK) {
                ssize_t a = tk_fdio_pread(fd_a, buf[MODEL_A], CHUNK, off);
                ssize_t b = tk_fdio_pread(fd_b, buf[MODEL_B], CHUNK, off);

                if (a != b)
                        model_differ(outcome, "read of %d bytes at %lld: A %zd, B %zd", CHUNK,
                                     (long long)off, a, b);
                if (a > 0 && b > 0)
                        model_compare_bytes(outcome, buf[MODEL_A], buf[MODEL_B],
                                            (size_t)(a < b ? a : b), off);
                if (outcome->differs || b < CHUNK)
                        return;
        }
}

void model_compare_file(const struct model_config *config, const struct model_op *op, unsigned name,
                        struct model_outcome *outcome)
{
        char path[MODEL_SIDES][MODEL_PATH_MAX];
        int fd[MODEL_SIDES];

        for (int side = 0; side < MODEL_SIDES; side++)
                model_path(config, side, name, op->moved, path[side]);
        model_compare_stat(path[MODEL_A], path[MODEL_B], outcome);
        if (outcome->differs || outcome->ret < 0)
                return;
        model_compare_attrs(path[MODEL_A], path[MODEL_B], outcome);
        for (int side = 0; side < MODEL_SIDES; side++)
                fd[side] = open(path[side], O_RDONLY | O_CLOEXEC);
        if (fd[MODEL_A] < 0 || fd[MODEL_B] < 0)
                model_differ(outcome, "open of f%02u for the check: A %d, B %d: %m", name,
                             fd[MODEL_A], fd[MODEL_B]);
        else
                compare_open_files(fd[MODEL_A], fd[MODEL_B], outcome);
        for (int side = 0; side < MODEL_SIDES; side++)
                tk_closep(&fd[side]);
}

/* The names in a directory, sorted and joined by newlines. */
static int64_t list_names(const char *path, char names[NAMES_MAX])
{
        struct dirent **entries;
        int count = scandir(path, &entries, NULL, alphasort);
        size_t used = 0;

        names[0] = '\0';
        if (count < 0)
                return -errno;
        for (int i = 0; i < count; i++) {
                used += (size_t)snprintf(names + used, NAMES_MAX - used, "%s\n",
                                         entries[i]->d_name);
                free(entries[i]);
        }
        free(entries);
        return count;
}

static void compare_list(const char *path_a, const char *path_b, struct model_outcome *outcome)
{
        static char names[MODEL_SIDES][NAMES_MAX];
        int64_t a = list_names(path_a, names[MODEL_A]);
        int64_t b = list_names(path_b, names[MODEL_B]);

        outcome->ret = b;
        model_compare_ret(outcome, a, b);
        if (strcmp(names[MODEL_A], names[MODEL_B]) != 0)
                model_differ(outcome, "names in %.200s: A %.200s, B %.200s", path_b, names[MODEL_A],
                             names[MODEL_B]);
}

void model_compare_lists(const struct model_config *config, const struct model_op *op,
                         struct model_outcome *outcome)
{
        char path[MODEL_SIDES][MODEL_PATH_MAX];

        compare_list(config->dir[MODEL_A], config->dir[MODEL_B], outcome);
        for (int side = 0; side < MODEL_SIDES; side++)
                snprintf(path[side], MODEL_PATH_MAX, "%s/d1", config->dir[side]);
        compare_list(path[MODEL_A], path[MODEL_B], outcome);
        for (int side = 0; side < MODEL_SIDES; side++)
                model_moving_dir(config, side, op->moved, path[side]);
        compare_list(path[MODEL_A], path[MODEL_B], outcome);
        model_compare_attrs(path[MODEL_A], path[MODEL_B], outcome);
}

void model_compare_tree(const struct model_config *config, const struct model_op *op,
                        struct model_outcome *outcome)
{
        model_compare_lists(config, op, outcome);
        model_compare_links(config, op, outcome);
        for (unsigned name = 0; name < config->names && !outcome->differs; name++) {
                model_compare_file(config, op, name, outcome);
                if (outcome->differs) {
                        char text[sizeof(outcome->text)];

                        memcpy(text, outcome->text, sizeof(text));
                        snprintf(outcome->text, sizeof(outcome->text), "f%02u: %.700s", name, text);
                }
        }
}
