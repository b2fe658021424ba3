/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Our mounts, as /proc/self/mountinfo lists them. */

#include "base/cleanup.h"

struct tk_mountinfo {
        char *mountpoint;    /* NULL: no such mount */
        char *cipherdir;     /* what is mounted there */
        unsigned connection; /* its directory in /sys/fs/fuse/connections */
};

/*
 * The topmost mount at @mountpoint, if it is ours. Returns 1 and the mount, 0 if
 * there is none or it is another filesystem's; or a negative errno.
 */
TK_MUST_USE int tk_mountinfo_at(const char *mountpoint, struct tk_mountinfo *ret_info);

/* As above: a mount of @cipherdir. */
TK_MUST_USE int tk_mountinfo_of(const char *cipherdir, struct tk_mountinfo *ret_info);

/* As tk_mountinfo_at and tk_mountinfo_of from @text, which is changed; one argument is NULL. */
TK_MUST_USE int tk_mountinfo_search(char *text, const char *mountpoint, const char *cipherdir,
                                    struct tk_mountinfo *ret_info);

/* What the daemon of a mount says of itself in the volume's lock: struct tk_volume_holder. */
void tk_mountinfo_doing(const char *mountpoint, char *doing, size_t size);

void tk_mountinfo_done(struct tk_mountinfo *info);
