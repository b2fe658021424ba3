/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Our mounts, from lines such as
 *   36 35 98:0 /root /mountpoint rw,noatime shared:1 - fuse.turnkeyfs /cipherdir rw,errors=continue
 * where the fields before the lone '-' vary in number. See proc(5).
 */

#include "cli/mountinfo.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char our_type[] = "fuse.turnkeyfs";

struct line {
        unsigned connection;
        char *mountpoint;
        char *type;
        char *source;
};

static bool is_octal(char c)
{
        return c >= '0' && c <= '7';
}

/* Space, tab, newline and backslash come as a backslash and three octal digits. */
static void unescape(char *text)
{
        char *to = text;

        for (const char *from = text; *from; to++) {
                if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) &&
                    is_octal(from[3])) {
                        *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
                        from += 4;
                } else {
                        *to = *from++;
                }
        }
        *to = '\0';
}

static bool split(char *text, struct line *line)
{
        char *rest = text;
        char *field;

        memset(line, 0, sizeof(*line));
        for (int i = 0; i < 5; i++) {
                line->mountpoint = strsep(&rest, " ");
                /* A device 0:N is the connection N. */
                if (i == 2 && line->mountpoint && strncmp(line->mountpoint, "0:", 2) == 0)
                        line->connection = (unsigned)strtoul(line->mountpoint + 2, NULL, 10);
        }
        do
                field = strsep(&rest, " ");
        while (field && strcmp(field, "-") != 0);
        line->type = strsep(&rest, " ");
        line->source = strsep(&rest, " ");
        if (!line->mountpoint || !line->type || !line->source)
                return false;
        unescape(line->mountpoint);
        unescape(line->type);
        unescape(line->source);
        return true;
}

static int keep(const struct line *line, struct tk_mountinfo *info)
{
        tk_mountinfo_done(info);
        info->mountpoint = strdup(line->mountpoint);
        info->cipherdir = strdup(line->source);
        info->connection = line->connection;
        if (info->mountpoint && info->cipherdir)
                return 0;
        tk_mountinfo_done(info);
        return -ENOMEM;
}

int tk_mountinfo_search(char *text, const char *mountpoint, const char *cipherdir,
                        struct tk_mountinfo *ret_info)
{
        struct line line;
        char *row;
        int r;

        memset(ret_info, 0, sizeof(*ret_info));
        while ((row = strsep(&text, "\n"))) {
                bool ours;

                if (!split(row, &line))
                        continue;
                ours = strcmp(line.type, our_type) == 0;
                /* A later mount at the same place covers the earlier one. */
                if (mountpoint && strcmp(line.mountpoint, mountpoint) == 0 && !ours)
                        tk_mountinfo_done(ret_info);
                if (!ours || strcmp(mountpoint ? line.mountpoint : line.source,
                                    mountpoint ? mountpoint : cipherdir) != 0)
                        continue;
                r = keep(&line, ret_info);
                if (r < 0)
                        return r;
        }
        return ret_info->mountpoint ? 1 : 0;
}

/* /proc files tell no size beforehand. */
static int read_mountinfo(char **ret_text)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        size_t size = 0;
        FILE *file = fopen("/proc/self/mountinfo", "re");
        ssize_t len;
        int r;

        if (!file)
                return -errno;
        len = getdelim(&text, &size, '\0', file);
        r = len < 0 ? -EIO : 0;
        fclose(file);
        if (r < 0)
                return r;
        *ret_text = TK_TAKE(text);
        return 0;
}

static int search_now(const char *mountpoint, const char *cipherdir, struct tk_mountinfo *ret_info)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        int r;

        memset(ret_info, 0, sizeof(*ret_info));
        r = read_mountinfo(&text);
        if (r < 0)
                return r;
        return tk_mountinfo_search(text, mountpoint, cipherdir, ret_info);
}

int tk_mountinfo_at(const char *mountpoint, struct tk_mountinfo *ret_info)
{
        return search_now(mountpoint, NULL, ret_info);
}

int tk_mountinfo_of(const char *cipherdir, struct tk_mountinfo *ret_info)
{
        return search_now(NULL, cipherdir, ret_info);
}

void tk_mountinfo_doing(const char *mountpoint, char *doing, size_t size)
{
        snprintf(doing, size, "mounted at %s", mountpoint);
        for (; *doing; doing++)
                if (*doing == '\n') /* it is a line there */
                        *doing = '?';
}

void tk_mountinfo_done(struct tk_mountinfo *info)
{
        free(info->mountpoint);
        free(info->cipherdir);
        info->mountpoint = NULL;
        info->cipherdir = NULL;
}
