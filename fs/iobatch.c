/* SPDX-License-Identifier: Apache-2.0 */

/* Spans collected and done with as few calls as their offsets allow. */

#include "fs/iobatch.h"

#include "base/fdio.h"
#include "fs/backing.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

void tk_iobatch_add(struct tk_iobatch *batch, uint64_t off, void *buf, size_t len)
{
        struct iovec *last = batch->count > 0 ? &batch->iov[batch->count - 1] : NULL;

        if (len == 0)
                return;
        if (last && (uint8_t *)last->iov_base + last->iov_len == buf &&
            batch->off[batch->count - 1] + last->iov_len == off) {
                last->iov_len += len;
                return;
        }
        assert(batch->count < TK_IOBATCH_SPANS);
        batch->iov[batch->count] = (struct iovec){.iov_base = buf, .iov_len = len};
        batch->off[batch->count] = off;
        batch->count++;
}

/* Spans from @first on that follow each other without a gap, and their bytes. */
static int run_of(const struct tk_iobatch *batch, int first, size_t *ret_len)
{
        size_t len = batch->iov[first].iov_len;
        int end = first + 1;

        while (end < batch->count && batch->off[first] + len == batch->off[end])
                len += batch->iov[end++].iov_len;
        *ret_len = len;
        return end - first;
}

/* What a read did not reach, the last @missing bytes of @count spans, becomes zeros. */
static void zero_end(const struct iovec *iov, int count, size_t missing)
{
        while (missing > 0) {
                const struct iovec *span = &iov[--count];
                size_t len = span->iov_len < missing ? span->iov_len : missing;

                memset((uint8_t *)span->iov_base + span->iov_len - len, 0, len);
                missing -= len;
        }
}

/*
 * The first of several runs, the cells, if the kernel has it in its cache. If not, the kernel
 * begins to fetch it, and is told of the other runs before anybody waits: the disk is asked for all
 * at once, where a random read would have to wait twice. Returns how many spans were read.
 */
static int read_cached(const struct tk_iobatch *batch, int fd, uint64_t base)
{
        size_t len;
        ssize_t n;
        int end = run_of(batch, 0, &len);

        if (end == batch->count)
                return 0;
        n = preadv2(fd, batch->iov, end, (off_t)(base + batch->off[0]), RWF_NOWAIT);
        if (n == (ssize_t)len)
                return end;
        if (n < 0 && errno != EAGAIN) /* such as EOPNOTSUPP: of a filesystem in memory */
                return 0;
        for (int first = end; first < batch->count; first += end) {
                end = run_of(batch, first, &len);
                (void)posix_fadvise(fd, (off_t)(base + batch->off[first]), (off_t)len,
                                    POSIX_FADV_WILLNEED);
        }
        return 0;
}

int tk_iobatch_read(struct tk_iobatch *batch, int fd, uint64_t base)
{
        struct iovec iov[TK_IOBATCH_SPANS];
        size_t len;
        int count;

        if (batch->count == 0)
                return 0;
        for (int first = read_cached(batch, fd, base); first < batch->count; first += count) {
                ssize_t n;

                count = run_of(batch, first, &len);
                memcpy(iov, batch->iov + first, sizeof(*iov) * (size_t)count);
                n = tk_fdio_preadv(fd, iov, count, (off_t)(base + batch->off[first]));
                if (n < 0)
                        return (int)n;
                zero_end(batch->iov + first, count, len - (size_t)n);
        }
        return 0;
}

int tk_iobatch_write(struct tk_iobatch *batch, int fd, uint64_t base)
{
        size_t len;
        int count;

        for (int first = 0; first < batch->count; first += count) {
                int r;

                count = run_of(batch, first, &len);
                r = tk_backing_pwritev(fd, batch->iov + first, count, base + batch->off[first]);
                if (r < 0)
                        return r;
        }
        return 0;
}
