/* SPDX-License-Identifier: Apache-2.0 */

/* Extended attributes and symlinks: operations on both sides, and what is left compared. */

#include "tests/model/model.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { VALUE_MAX = 4096, LIST_MAX = 16384, NAMES_MAX = 64 };

#define TEN "-0123456789"
#define LONG_NAME "user." TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

/* All of them with their longest values fit where a filesystem has one block for them. */
static const char *const attr_names[MODEL_ATTRS] = {
        "user.a",  "user.mime_type", "user.with space, \xc3\xa9\x01 and /", "user.xdg.origin.url",
        LONG_NAME,
};

static int64_t result(int64_t r)
{
        return r < 0 ? -errno : r;
}

/* Whose attribute it is: a file's, or that of the directory that moves. */
static void path_of(const struct model_config *config, int side, const struct model_op *op,
                    char path[MODEL_PATH_MAX])
{
        if (op->off)
                model_moving_dir(config, side, op->moved, path);
        else
                model_path(config, side, op->name, op->moved, path);
}

static int64_t attr_side(const char *path, const struct model_op *op, uint8_t *value)
{
        const char *name = attr_names[op->other_name % MODEL_ATTRS];

        if (op->kind == MODEL_SETXATTR)
                return result(lsetxattr(path, name, value, (size_t)op->len, op->flags));
        if (op->kind == MODEL_REMOVEXATTR)
                return result(lremovexattr(path, name));
        return result(lgetxattr(path, name, value, (size_t)op->len));
}

void model_attr(const struct model_config *config, const struct model_op *op,
                struct model_outcome *outcome)
{
        uint8_t value[MODEL_SIDES][VALUE_MAX] = {{0}};
        int64_t ret[MODEL_SIDES];

        for (int side = 0; side < MODEL_SIDES; side++) {
                char path[MODEL_PATH_MAX];

                path_of(config, side, op, path);
                if (op->kind == MODEL_SETXATTR)
                        model_fill(op->seed, value[side], (size_t)op->len);
                ret[side] = attr_side(path, op, value[side]);
        }
        outcome->ret = ret[MODEL_B];
        model_compare_ret(outcome, ret[MODEL_A], ret[MODEL_B]);
        if (op->kind == MODEL_GETXATTR && !outcome->differs && outcome->ret > 0 && op->len)
                model_compare_bytes(outcome, value[MODEL_A], value[MODEL_B], (size_t)outcome->ret,
                                    0);
}

static int by_text(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The user attributes of @path, sorted: how many, or a negative errno. */
static int64_t list_attrs(const char *path, char list[LIST_MAX], const char *names[NAMES_MAX])
{
        ssize_t len = llistxattr(path, list, LIST_MAX);
        int64_t count = 0;

        if (len < 0)
                return -errno;
        if (llistxattr(path, NULL, 0) != len)
                return -EPROTO; /* what the size query says is not what comes */
        for (const char *name = list; name < list + len; name += strlen(name) + 1)
                if (!strncmp(name, "user.", 5) && count < NAMES_MAX)
                        names[count++] = name;
        qsort(names, (size_t)count, sizeof(*names), by_text);
        return count;
}

static void compare_values(const char *path_a, const char *path_b, const char *name,
                           struct model_outcome *outcome)
{
        uint8_t value[MODEL_SIDES][VALUE_MAX] = {{0}};
        int64_t a = result(lgetxattr(path_a, name, value[MODEL_A], VALUE_MAX));
        int64_t b = result(lgetxattr(path_b, name, value[MODEL_B], VALUE_MAX));

        model_compare_ret(outcome, a, b);
        model_compare_ret(outcome, result(lgetxattr(path_a, name, NULL, 0)), b);
        if (!outcome->differs && b > 0)
                model_compare_bytes(outcome, value[MODEL_A], value[MODEL_B], (size_t)b, 0);
}

void model_compare_attrs(const char *path_a, const char *path_b, struct model_outcome *outcome)
{
        static char list[MODEL_SIDES][LIST_MAX];
        const char *names[MODEL_SIDES][NAMES_MAX] = {{NULL}};
        int64_t a = list_attrs(path_a, list[MODEL_A], names[MODEL_A]);
        int64_t b = list_attrs(path_b, list[MODEL_B], names[MODEL_B]);

        if (a != b)
                model_differ(outcome, "attributes of %.200s: A %lld, B %lld", path_b, (long long)a,
                             (long long)b);
        for (int64_t i = 0; i < b && !outcome->differs; i++) {
                const char *name_a = names[MODEL_A][i];
                const char *name_b = names[MODEL_B][i];

                if (!name_a || !name_b || strcmp(name_a, name_b) != 0)
                        model_differ(outcome, "an attribute's name: A %.200s, B %.200s",
                                     name_a ? name_a : "none", name_b ? name_b : "none");
                else
                        compare_values(path_a, path_b, name_b, outcome);
        }
}

void model_list_attrs(const struct model_config *config, const struct model_op *op,
                      struct model_outcome *outcome)
{
        char path[MODEL_SIDES][MODEL_PATH_MAX];

        for (int side = 0; side < MODEL_SIDES; side++)
                path_of(config, side, op, path[side]);
        model_compare_attrs(path[MODEL_A], path[MODEL_B], outcome);
}

/* Symlinks ------------------------------------------------------------------------ */

/* Beside the files, so that no other operation follows one. */
static void link_path(const struct model_config *config, int side, unsigned name, bool moved,
                      char path[MODEL_PATH_MAX])
{
        char moving[MODEL_PATH_MAX];
        const char *dir = name % 2 ? moving : config->dir[side];

        model_moving_dir(config, side, moved, moving);
        if (snprintf(path, MODEL_PATH_MAX, "%s/l%u", dir, name % MODEL_LINKS) >= MODEL_PATH_MAX)
                path[0] = '\0';
}

/* Any byte but NUL. */
static void make_target(const struct model_op *op, char target[MODEL_PATH_MAX])
{
        model_fill(op->seed, target, (size_t)op->len);
        for (int64_t i = 0; i < op->len; i++)
                if (!target[i])
                        target[i] = '/';
        target[op->len] = '\0';
}

static void compare_link(const char *path_a, const char *path_b, struct model_outcome *outcome)
{
        char target[MODEL_SIDES][MODEL_PATH_MAX];
        int64_t a = result(readlink(path_a, target[MODEL_A], MODEL_PATH_MAX));
        int64_t b = result(readlink(path_b, target[MODEL_B], MODEL_PATH_MAX));

        model_compare_stat(path_a, path_b, outcome);
        outcome->ret = b;
        model_compare_ret(outcome, a, b);
        if (!outcome->differs && b > 0)
                model_compare_bytes(outcome, (const uint8_t *)target[MODEL_A],
                                    (const uint8_t *)target[MODEL_B], (size_t)b, 0);
}

void model_link(const struct model_config *config, const struct model_op *op,
                struct model_outcome *outcome)
{
        char path[MODEL_SIDES][MODEL_PATH_MAX];
        char target[MODEL_PATH_MAX];
        int64_t ret[MODEL_SIDES];

        for (int side = 0; side < MODEL_SIDES; side++)
                link_path(config, side, op->name, op->moved, path[side]);
        if (op->kind == MODEL_READLINK) {
                compare_link(path[MODEL_A], path[MODEL_B], outcome);
                return;
        }
        make_target(op, target);
        for (int side = 0; side < MODEL_SIDES; side++)
                ret[side] = result(op->kind == MODEL_SYMLINK ? symlink(target, path[side])
                                                             : unlink(path[side]));
        outcome->ret = ret[MODEL_B];
        model_compare_ret(outcome, ret[MODEL_A], ret[MODEL_B]);
}

void model_compare_links(const struct model_config *config, const struct model_op *op,
                         struct model_outcome *outcome)
{
        for (unsigned name = 0; name < MODEL_LINKS && !outcome->differs; name++) {
                char path[MODEL_SIDES][MODEL_PATH_MAX];

                for (int side = 0; side < MODEL_SIDES; side++)
                        link_path(config, side, name, op->moved, path[side]);
                compare_link(path[MODEL_A], path[MODEL_B], outcome);
        }
}
