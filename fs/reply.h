/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From our errors to the kernel's, in one place: a request is answered with a
 * positive errno that applications know.
 */

#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse_lowlevel.h>

static inline int tk_reply_errno(int r)
{
        switch (-r) {
        case EBADMSG: /* a tag or record is wrong */
        case EUCLEAN: /* a seal does not hold */
                return EIO;
        default:
                return -r;
        }
}

static inline void tk_reply_error(fuse_req_t req, int r)
{
        fuse_reply_err(req, tk_reply_errno(r));
}
