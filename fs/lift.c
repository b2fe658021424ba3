/* SPDX-License-Identifier: Apache-2.0 */

/* Modes lifted for the moment. */

#include "fs/lift.h"

#include "fs/backing.h"
#include "fs/fs_internal.h"
#include <errno.h>
#include <sys/stat.h>

static int lift_mode(struct tk_fs *fs, int fd, mode_t bits, struct tk_lift *ret_lift)
{
        struct stat st;

        *ret_lift = (struct tk_lift){.fs = fs, .fd = fd};
        if (fs->read_only)
                return -EROFS;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_uid != geteuid())
                return -EACCES;
        ret_lift->mode = st.st_mode & 07777;
        return tk_backing_chmod(fd, ret_lift->mode | bits);
}

int tk_lift_begin(struct tk_fs *fs, int fd, mode_t bits, struct tk_lift *ret_lift)
{
        int r;

        pthread_mutex_lock(&fs->lift_lock);
        r = lift_mode(fs, fd, bits, ret_lift);
        if (r < 0)
                pthread_mutex_unlock(&fs->lift_lock);
        return r;
}

int tk_lift_end(struct tk_lift *lift)
{
        int r = tk_backing_chmod(lift->fd, lift->mode);

        pthread_mutex_unlock(&lift->fs->lift_lock);
        return r;
}

ssize_t tk_lift_getxattr(struct tk_fs *fs, int fd, const char *name, void *value, size_t max)
{
        struct tk_lift lift;
        ssize_t n;
        int r;

        n = tk_backing_getxattr(fd, name, value, max);
        if (n != -EACCES || tk_lift_begin(fs, fd, S_IRUSR, &lift) < 0)
                return n;
        n = tk_backing_getxattr(fd, name, value, max);
        r = tk_lift_end(&lift);
        return r < 0 ? r : n;
}
