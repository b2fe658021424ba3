/* SPDX-License-Identifier: Apache-2.0 */

/* Where the test's files are, and how its operations read in the log. */

#include "tests/model/model.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[MODEL_KINDS] = {
        [MODEL_OPEN] = "open",
        [MODEL_CLOSE] = "close",
        [MODEL_CLOSE_ALL] = "close-all",
        [MODEL_PWRITE] = "pwrite",
        [MODEL_WRITE] = "write",
        [MODEL_PREAD] = "pread",
        [MODEL_READ] = "read",
        [MODEL_SEEK] = "lseek",
        [MODEL_SEEK_DATA] = "seek-data-hole",
        [MODEL_TRUNCATE] = "truncate",
        [MODEL_FTRUNCATE] = "ftruncate",
        [MODEL_FALLOCATE] = "fallocate",
        [MODEL_COPY_RANGE] = "copy_file_range",
        [MODEL_MAP] = "mmap",
        [MODEL_MAP_WRITE] = "map-write",
        [MODEL_MAP_READ] = "map-read",
        [MODEL_MSYNC] = "msync",
        [MODEL_FSYNC] = "fsync",
        [MODEL_FDATASYNC] = "fdatasync",
        [MODEL_DROP] = "drop-pages",
        [MODEL_RENAME] = "rename",
        [MODEL_LINK] = "link",
        [MODEL_UNLINK] = "unlink",
        [MODEL_MOVE_DIR] = "move-dir",
        [MODEL_STAT] = "stat",
        [MODEL_FSTAT] = "fstat",
        [MODEL_LIST] = "list",
        [MODEL_SETXATTR] = "setxattr",
        [MODEL_GETXATTR] = "getxattr",
        [MODEL_LISTXATTR] = "listxattr",
        [MODEL_REMOVEXATTR] = "removexattr",
        [MODEL_SYMLINK] = "symlink",
        [MODEL_READLINK] = "readlink",
        [MODEL_REMOVE_LINK] = "remove-link",
        [MODEL_CHECK] = "check",
        [MODEL_CHECK_ALL] = "check-all",
        [MODEL_BURST_WRITE] = "burst-write",
        [MODEL_BURST_APPEND] = "burst-append",
        [MODEL_BURST_ADOPT] = "burst-adopt",
        [MODEL_REMOUNT] = "remount",
};

const char *model_kind_name(enum model_kind kind)
{
        return kind_names[kind];
}

enum model_kind model_kind_named(const char *name)
{
        for (int kind = 0; kind < MODEL_KINDS; kind++)
                if (!strcmp(kind_names[kind], name))
                        return (enum model_kind)kind;
        return MODEL_KINDS;
}

/* d1 stays; d2 lies in d1 or, moved, beside it. */
void model_moving_dir(const struct model_config *config, int side, bool moved,
                      char path[MODEL_PATH_MAX])
{
        snprintf(path, MODEL_PATH_MAX, "%s/%s", config->dir[side], moved ? "d2" : "d1/d2");
}

enum { NAME_LEN_MAX = 255, WILD_FIRST = 0x80 };

/* Any length, any byte but '/' and NUL; the first byte tells names apart. */
static void wild_name(const struct model_config *config, unsigned name, char text[NAME_LEN_MAX + 1])
{
        uint64_t rng = config->seed + name;
        size_t len = 1 + model_random_below(&rng, NAME_LEN_MAX);

        text[0] = (char)(WILD_FIRST + name % WILD_FIRST);
        for (size_t i = 1; i < len; i++) {
                do {
                        text[i] = (char)model_random_below(&rng, 256);
                } while (text[i] == '\0' || text[i] == '/');
        }
        text[len] = '\0';
}

/* Three directories, and every fifth name is near the longest a filesystem takes. */
void model_path(const struct model_config *config, int side, unsigned name, bool moved,
                char path[MODEL_PATH_MAX])
{
        static const char filler[] = "-0123456789-0123456789-0123456789-0123456789-0123456789-0123"
                                     "456789-0123456789-0123456789-0123456789-0123456789-01234567"
                                     "89-0123456789-0123456789-0123456789-0123456789-0123456789-0"
                                     "123456789-0123456789-0123456789-01234567";
        char text[NAME_LEN_MAX + 1];
        char dir[MODEL_PATH_MAX];

        if (config->wild_names)
                wild_name(config, name, text);
        else
                snprintf(text, sizeof(text), "f%02u%s", name, name % 5 == 4 ? filler : "");
        if (name % 3 == 2)
                model_moving_dir(config, side, moved, dir);
        else
                snprintf(dir, sizeof(dir), "%s%s", config->dir[side], name % 3 ? "/d1" : "");
        if (snprintf(path, MODEL_PATH_MAX, "%s/%s", dir, text) >= MODEL_PATH_MAX)
                path[0] = '\0';
}

static size_t describe_flags(int flags, char *text, size_t text_len)
{
        static const struct {
                int flag;
                const char *name;
        } names[] = {
                {O_CREAT, "CREAT"},   {O_EXCL, "EXCL"},     {O_TRUNC, "TRUNC"},
                {O_APPEND, "APPEND"}, {O_DIRECT, "DIRECT"}, {O_DSYNC, "DSYNC"},
        };
        static const char *const access[] = {"RDONLY", "WRONLY", "RDWR", "?"};
        int n = snprintf(text, text_len, " %s", access[flags & O_ACCMODE]);

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (flags & names[i].flag)
                        n += snprintf(text + n, text_len - (size_t)n, "|%s", names[i].name);
        return (size_t)n;
}

void model_describe(const struct model_op *op, const struct model_outcome *outcome, char *text,
                    size_t text_len)
{
        char flags[80] = "";
        char result[80];

        if (op->kind == MODEL_OPEN)
                describe_flags(op->flags, flags, sizeof(flags));
        else if (op->flags)
                snprintf(flags, sizeof(flags), " flags=0x%x", (unsigned)op->flags);
        if (outcome->ret < 0)
                snprintf(result, sizeof(result), "%s", strerror((int)-outcome->ret));
        else
                snprintf(result, sizeof(result), "%lld", (long long)outcome->ret);
        snprintf(text, text_len,
                 "%8llu p%u %-15s h%u,h%u f%02u,f%02u off=%lld,%lld len=%lld%s -> %s, size %lld",
                 (unsigned long long)op->number, op->process, model_kind_name(op->kind), op->handle,
                 op->other_handle, op->name, op->other_name, (long long)op->off,
                 (long long)op->other_off, (long long)op->len, flags, result,
                 (long long)outcome->size);
}
