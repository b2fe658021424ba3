/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Requests over io_uring instead of read and write calls on /dev/fuse: fewer of these per
 * request. libfuse has it since 3.18 (uring.c; otherwise uring_none.c), Linux since 6.14,
 * where root switches it on: /sys/module/fuse/parameters/enable_uring. A mount asks for it only
 * if told to: see docs/performance.md.
 */

/* The FUSE_CAP_... that libfuse then sets by itself; 0 if it can't. */
unsigned tk_uring_capability(void);

enum { TK_URING_OPTIONS = 64 };

/*
 * What to add to libfuse's mount options, a comma first, so that this mount is served over
 * io_uring; empty where this machine can't, or doesn't want to.
 */
void tk_uring_options(char ret_options[TK_URING_OPTIONS]);
