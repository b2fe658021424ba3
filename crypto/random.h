/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Random bytes from the kernel, for every call: never from a generator in user
 * space, which two clones of one VM snapshot would continue alike.
 */

#include "base/secret.h"
#include <stddef.h>

/* @len bytes from getrandom(2): all of them or an error. */
TK_MUST_USE int tk_random_bytes(void *buf, size_t len);

/* A new secret of @len random bytes. */
TK_MUST_USE int tk_random_secret(size_t len, struct tk_secret **ret_secret);
