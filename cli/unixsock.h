/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Unix sockets in a directory that is open: their addresses hold 108 bytes, paths more. */

#include "base/cleanup.h"
#include <sys/socket.h>
#include <sys/un.h>

/* The address of the socket @name in the directory @dirfd, which stays open meanwhile. False if
 * @name is too long for one. */
bool tk_unixsock_address(int dirfd, const char *name, struct sockaddr_un *ret_address);

/*
 * Listen at @name in @dirfd, for the owner alone (mode 0600), without blocking; what is there
 * is replaced. -ENAMETOOLONG.
 */
TK_MUST_USE int tk_unixsock_listen(int dirfd, const char *name, int backlog, int *ret_fd);
