/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An allocator that wipes what it frees.
 *
 * For libraries that copy tokens and keys into their own heap: OpenSSL, libcurl and
 * jansson are told to use it. Its blocks are malloc's, so free may be mixed with it.
 */

#include <stddef.h>

void *tk_wiping_malloc(size_t len);
void *tk_wiping_calloc(size_t count, size_t len);
void *tk_wiping_realloc(void *old, size_t len);
char *tk_wiping_strdup(const char *text);
void tk_wiping_free(void *block);
