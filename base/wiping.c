/* SPDX-License-Identifier: Apache-2.0 */

/* An allocator that wipes what it frees. */

#include "base/wiping.h"

#include "base/secret.h"
#include <malloc.h>
#include <stdint.h>
#include <string.h>

void *tk_wiping_malloc(size_t len)
{
        return malloc(len);
}

void *tk_wiping_calloc(size_t count, size_t len)
{
        return calloc(count, len);
}

void tk_wiping_free(void *block)
{
        if (!block)
                return;
        tk_wipe(block, malloc_usable_size(block));
        free(block);
}

/* Never in place of the caller: realloc(3) may move a block and leave the old bytes behind. */
void *tk_wiping_realloc(void *old, size_t len)
{
        size_t old_len = old ? malloc_usable_size(old) : 0;
        void *block;

        if (old && len > 0 && len <= old_len && len >= old_len / 2)
                return old;
        block = malloc(len > 0 ? len : 1);
        if (!block)
                return NULL;
        if (old)
                memcpy(block, old, len < old_len ? len : old_len);
        tk_wiping_free(old);
        return block;
}

char *tk_wiping_strdup(const char *text)
{
        return strdup(text);
}
