/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From our errors to the kernel's, in one place: a request is answered with a
 * positive errno that applications know.
 */

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

/* Counted, if it tells of trouble. @req is of a session whose user data is tk_ops_context. */
void tk_reply_error(fuse_req_t req, int r);
