/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A request's I/O on one backing file, collected: spans that follow each other in
 * the file become one call.
 */

#include "fs/scratch.h"
#include <sys/uio.h>

enum {
        /* A group gives at most four spans: cells or tag page, and three of data. */
        TK_IOBATCH_SPANS = TK_REQUEST_GROUPS * 4,
};

struct tk_iobatch {
        struct iovec iov[TK_IOBATCH_SPANS];
        uint64_t off[TK_IOBATCH_SPANS];
        int count;
};

/* Add a span, in ascending order of @off but for one early stray, such as the cells of a first
 * group. */
void tk_iobatch_add(struct tk_iobatch *batch, uint64_t off, void *buf, size_t len);

/*
 * Read every span, @base bytes further on in the file; what lies behind the end of the file becomes
 * zeros. The batch is used up.
 */
TK_MUST_USE int tk_iobatch_read(struct tk_iobatch *batch, int fd, uint64_t base);

/* Write every span likewise, through the backing seam. The batch is used up. */
TK_MUST_USE int tk_iobatch_write(struct tk_iobatch *batch, int fd, uint64_t base);
