/* SPDX-License-Identifier: Apache-2.0 */

/* Questions about paths that may not exist yet. */

#include "cli/paths.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Cut the last component off @path. Returns it, inside @path; NULL if there is none to cut. */
static char *cut_last(char *path)
{
        size_t len = strlen(path);
        char *slash;

        while (len > 0 && path[len - 1] == '/')
                path[--len] = '\0';
        slash = strrchr(path, '/');
        if (!slash)
                return NULL;
        *slash = '\0';
        return slash + 1;
}

static int make_absolute(const char *path, char *out, size_t size)
{
        TK_CLEANUP(tk_freep) char *cwd = NULL;
        int len;

        if (path[0] != '/') {
                cwd = getcwd(NULL, 0);
                if (!cwd)
                        return -errno;
        }
        len = snprintf(out, size, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", path);
        return len < (int)size ? 0 : -ENAMETOOLONG;
}

int tk_path_absolute(const char *path, char **ret_path)
{
        char absolute[PATH_MAX];
        int r;

        r = make_absolute(path, absolute, sizeof(absolute));
        if (r < 0)
                return r;
        *ret_path = strdup(absolute);
        return *ret_path ? 0 : -ENOMEM;
}

/* Put @name before *@tail, which is the part that does not exist. */
static int prepend(char **tail, const char *name)
{
        char *longer;

        if (strcmp(name, "..") == 0)
                return -EINVAL;
        if (strcmp(name, ".") == 0)
                return 0;
        if (asprintf(&longer, "/%s%s", name, *tail ? *tail : "") < 0)
                return -ENOMEM;
        free(*tail);
        *tail = longer;
        return 0;
}

int tk_path_resolve(const char *path, char **ret_path)
{
        TK_CLEANUP(tk_freep) char *head = NULL;
        TK_CLEANUP(tk_freep) char *tail = NULL;
        char absolute[PATH_MAX] = "";
        const char *name;
        struct stat st;
        int r;

        r = make_absolute(path, absolute, sizeof(absolute));
        if (r < 0)
                return r;
        while (!(head = realpath(absolute[0] ? absolute : "/", NULL))) {
                if (errno != ENOENT)
                        return -errno;
                if (lstat(absolute, &st) == 0)
                        return -ELOOP;
                name = cut_last(absolute);
                if (!name)
                        return -ENOENT;
                r = prepend(&tail, name);
                if (r < 0)
                        return r;
        }
        if (asprintf(ret_path, "%s%s", tail && strcmp(head, "/") == 0 ? "" : head,
                     tail ? tail : "") < 0)
                return -ENOMEM;
        return 0;
}

static bool is_below_by_name(const char *path, const char *dir)
{
        size_t len = strlen(dir);

        if (strcmp(dir, "/") == 0)
                return true;
        return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

bool tk_path_is_inside(const char *path, const char *dir)
{
        char above[PATH_MAX];
        struct stat of_dir;
        struct stat st;

        if (is_below_by_name(path, dir))
                return true;
        if (stat(dir, &of_dir) < 0 ||
            snprintf(above, sizeof(above), "%s", path) >= (int)sizeof(above))
                return false;
        do {
                if (stat(above[0] ? above : "/", &st) == 0 && st.st_dev == of_dir.st_dev &&
                    st.st_ino == of_dir.st_ino)
                        return true;
        } while (above[0] && cut_last(above));
        return false;
}

int tk_path_first_entry(const char *path, char ret_name[NAME_MAX + 1])
{
        DIR *dir = opendir(path);
        const struct dirent *entry;

        if (!dir)
                return -errno;
        while ((entry = readdir(dir)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                    strcmp(entry->d_name, "lost+found") != 0)
                        break;
        if (entry)
                snprintf(ret_name, NAME_MAX + 1, "%s", entry->d_name);
        closedir(dir);
        return entry ? 1 : 0;
}

/* What follows the last name would have the kernel look into what it names. */
static void cut_slashes_and_dots(char *path)
{
        size_t len = strlen(path);

        while (len > 1 && (path[len - 1] == '/' || (path[len - 1] == '.' && path[len - 2] == '/')))
                path[--len] = '\0';
}

int tk_path_resolve_mountpoint(const char *path, char **ret_path)
{
        char cut[PATH_MAX];

        if (snprintf(cut, sizeof(cut), "%s", path) >= (int)sizeof(cut))
                return -ENAMETOOLONG;
        cut_slashes_and_dots(cut);
        /* Of each name it asks whether that is a link, and nothing else. */
        *ret_path = realpath(cut, NULL);
        return *ret_path ? 0 : -errno;
}
