/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Set-id bits: one flag added to the answer to FUSE_INIT, and one read from each
 * write and setattr. Messages are those of linux/fuse.h.
 */

#include "fs/killpriv.h"

#include <linux/fuse.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static _Thread_local bool wanted;

/* The INIT request that offered the flag and is not yet answered; 0: none. */
static _Atomic uint64_t init_unique;

/* Note what matters of a request of @len bytes. */
static void look_at(const char *buf, size_t len)
{
        struct fuse_in_header header;
        const char *body = buf + sizeof(header);

        wanted = false;
        if (len < sizeof(header))
                return;
        memcpy(&header, buf, sizeof(header));
        len -= sizeof(header);

        if (header.opcode == FUSE_WRITE && len >= sizeof(struct fuse_write_in)) {
                struct fuse_write_in in;

                memcpy(&in, body, sizeof(in));
                wanted = in.write_flags & FUSE_WRITE_KILL_SUIDGID;
        } else if (header.opcode == FUSE_SETATTR && len >= sizeof(struct fuse_setattr_in)) {
                struct fuse_setattr_in in;

                memcpy(&in, body, sizeof(in));
                wanted = in.valid & FATTR_KILL_SUIDGID;
        } else if (header.opcode == FUSE_INIT && len >= 4 * sizeof(uint32_t)) {
                uint32_t in[4]; /* major, minor, max_readahead, flags */

                memcpy(in, body, sizeof(in));
                if (in[3] & FUSE_HANDLE_KILLPRIV_V2)
                        atomic_store(&init_unique, header.unique);
        }
}

static ssize_t read_request(int fd, void *buf, size_t max, void *userdata)
{
        ssize_t n = read(fd, buf, max);

        (void)userdata;
        if (n > 0)
                look_at(buf, (size_t)n);
        return n;
}

/* An answer is a header and a body; the one to INIT gets our flag. */
static ssize_t write_answer(int fd, struct iovec *iov, int count, void *userdata)
{
        uint64_t unique = atomic_load(&init_unique);

        (void)userdata;
        if (unique != 0 && count == 2 && iov[0].iov_len >= sizeof(struct fuse_out_header)) {
                struct fuse_out_header *header = iov[0].iov_base;
                struct fuse_init_out *out = iov[1].iov_base;

                if (header->unique == unique) {
                        atomic_store(&init_unique, 0);
                        if (header->error == 0 &&
                            iov[1].iov_len > offsetof(struct fuse_init_out, max_background))
                                out->flags |= FUSE_HANDLE_KILLPRIV_V2;
                }
        }
        return writev(fd, iov, count);
}

int tk_killpriv_enable(struct fuse_session *session)
{
        static const struct fuse_custom_io io = {.writev = write_answer, .read = read_request};

        return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

unsigned tk_killpriv_capability(void)
{
        return 0;
}

bool tk_killpriv_wanted_by_write(const struct fuse_file_info *fi)
{
        (void)fi;
        return wanted;
}

bool tk_killpriv_wanted_by_setattr(int to_set)
{
        (void)to_set;
        return wanted;
}
