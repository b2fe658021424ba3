/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Questions about paths that may not exist yet. */

#include "base/cleanup.h"
#include <limits.h>

/*
 * The absolute path of @path without symbolic links. Components at the end that
 * do not exist are kept as they are. The caller frees the result. -ELOOP for a
 * link to nowhere, -EINVAL if what does not exist is followed by "..".
 */
TK_MUST_USE int tk_path_resolve(const char *path, char **ret_path);

/* The absolute path of @path, links and all, for a process that changes its directory. The caller
 * frees the result. */
TK_MUST_USE int tk_path_absolute(const char *path, char **ret_path);

/*
 * Whether @path is @dir or lies below it, both as tk_path_resolve returns them:
 * by name, and by device and inode number, so that bind mounts count.
 */
bool tk_path_is_inside(const char *path, const char *dir);

/*
 * An entry of the directory @path, other than "." and ".." and a filesystem's
 * "lost+found". Returns 1 and its name, 0 if there is none, or a negative errno.
 */
TK_MUST_USE int tk_path_first_entry(const char *path, char ret_name[NAME_MAX + 1]);

/*
 * As realpath(3), for a path that may be a mountpoint: the kernel asks no daemon, which may be
 * dead or hang, and no automount mounts.
 */
TK_MUST_USE int tk_path_resolve_mountpoint(const char *path, char **ret_path);
