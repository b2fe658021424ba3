/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An allocator that wipes what it frees, for libraries that copy tokens and keys into their own
 * heap: OpenSSL, libcurl and jansson are told to use it.
 *
 * Hidden blocks lie in a region that no core dump has, locked as all memory of the process is
 * (cli/hygiene.c); when it is full, in the ordinary heap. Only tk_wiping_free frees them.
 * Others are malloc's, so that free may be mixed with it.
 */

#include <stddef.h>

void *tk_wiping_malloc(size_t len);
void *tk_wiping_realloc(void *old, size_t len);
void tk_wiping_free(void *block); /* either kind */

void *tk_hidden_malloc(size_t len);
void *tk_hidden_calloc(size_t count, size_t len);
void *tk_hidden_realloc(void *old, size_t len);
char *tk_hidden_strdup(const char *text);
