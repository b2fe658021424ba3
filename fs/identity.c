/* SPDX-License-Identifier: Apache-2.0 */

/* Identity of a backing file: inode number and file handle. */

#include "fs/identity.h"

#include "base/bytes.h"
#include "crypto/mac.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

struct handle_buf {
        struct file_handle handle;
        uint8_t bytes[TK_IDENTITY_HANDLE_MAX];
};

int tk_identity_read(int fd, bool with_handle, struct tk_identity *ret_identity)
{
        struct handle_buf buf = {.handle = {.handle_bytes = TK_IDENTITY_HANDLE_MAX}};
        struct stat st;
        int mount_id;

        memset(ret_identity, 0, sizeof(*ret_identity));
        if (fstat(fd, &st) < 0)
                return -errno;
        ret_identity->ino = st.st_ino;
        if (!with_handle || name_to_handle_at(fd, "", &buf.handle, &mount_id, AT_EMPTY_PATH) < 0)
                return 0;
        ret_identity->handle_type = buf.handle.handle_type;
        ret_identity->handle_len = (uint16_t)buf.handle.handle_bytes;
        memcpy(ret_identity->handle, buf.handle.f_handle, ret_identity->handle_len);
        return 0;
}

int tk_identity_open(int rootfd, const struct tk_identity *identity, int flags)
{
        struct handle_buf buf = {.handle = {.handle_bytes = identity->handle_len,
                                            .handle_type = identity->handle_type}};
        int fd;

        memcpy(buf.handle.f_handle, identity->handle, identity->handle_len);
        fd = open_by_handle_at(rootfd, &buf.handle, flags | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

bool tk_identity_handles_work(int rootfd)
{
        TK_AUTOCLOSE int fd = -1;
        struct tk_identity identity;

        if (tk_identity_read(rootfd, true, &identity) < 0 || identity.handle_len == 0)
                return false;
        fd = tk_identity_open(rootfd, &identity, O_PATH);
        return fd >= 0;
}

uint64_t tk_identity_tree(int rootfd)
{
        struct tk_identity identity;
        struct statvfs st;
        uint8_t bytes[8 + 8 + TK_IDENTITY_HANDLE_MAX];
        uint8_t digest[TK_MAC_LEN];

        if (fstatvfs(rootfd, &st) < 0 || tk_identity_read(rootfd, true, &identity) < 0)
                return 0;
        tk_put_be64(bytes, st.f_fsid);
        tk_put_be64(bytes + 8, identity.ino);
        memcpy(bytes + 16, identity.handle, TK_IDENTITY_HANDLE_MAX);
        return tk_mac_sha256(bytes, sizeof(bytes), digest) < 0 ? 0 : tk_get_be64(digest);
}
