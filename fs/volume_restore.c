/* SPDX-License-Identifier: Apache-2.0 */

/* A volume file put back, where it was lost or damaged. */

#include "fs/volume_internal.h"

#include "base/fdio.h"
#include "fs/volume_lock.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int check_text(const char *text, struct tk_fault *fault)
{
        struct tk_volume_text parsed = {0};
        int r = tk_volume_text_parse(text, "the volume file in the escrow", &parsed, fault);

        tk_volume_text_done(&parsed);
        return r;
}

/* With the owner of the directory: root may restore what is another user's. */
static int replace(int dirfd, const char *text)
{
        struct stat st;
        int r;

        if (fstatat(dirfd, "root", &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        if (!S_ISDIR(st.st_mode))
                return -ENOTDIR;
        /* The first one is kept: it may be the less damaged one. */
        (void)!linkat(dirfd, TK_VOLUME_FILE, dirfd, TK_VOLUME_FILE ".damaged", 0);
        r = tk_fdio_replace(dirfd, TK_VOLUME_FILE, text, strlen(text), 0600);
        if (r < 0)
                return r;
        if (fstat(dirfd, &st) < 0 ||
            fchownat(dirfd, TK_VOLUME_FILE, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

int tk_volume_put_back(const char *path, const char *text, struct tk_fault *fault)
{
        TK_AUTOCLOSE int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int lockfd = -1;
        int r;

        if (dirfd < 0)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -errno,
                                    "cannot open the directory %s: %s", path, strerror(errno));
        r = check_text(text, fault);
        if (r == 0)
                r = tk_volume_lock_take(dirfd, path, "being restored from an escrow", &lockfd,
                                        fault);
        if (r < 0)
                return r;
        r = replace(dirfd, text);
        tk_volume_lock_release(lockfd);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot put %s back into %s: %s",
                                    TK_VOLUME_FILE, path, strerror(-r));
        return 0;
}
