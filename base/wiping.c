/* SPDX-License-Identifier: Apache-2.0 */

/*
 * An allocator that wipes what it frees.
 *
 * Hidden blocks have sizes that are powers of two, their header included; a block that was
 * freed serves the next one of its size. The region is touched only as far as it is used.
 */

#include "base/wiping.h"

#include "base/cleanup.h"
#include "base/secret.h"
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum {
        REGION_LEN = 8 * 1024 * 1024,
        HEADER_LEN = 16, /* the size class; blocks are aligned as malloc's are */
        SMALLEST = 64,
        CLASSES = 13, /* up to 256 KiB */
};

static struct {
        pthread_mutex_t lock;
        size_t used;         /* under lock */
        void *free[CLASSES]; /* under lock: each begins with the address of the next */
} region = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t region_once = PTHREAD_ONCE_INIT;
static _Atomic(uint8_t *) region_base; /* NULL: there is none */

static void map_region(void)
{
        void *base = mmap(NULL, REGION_LEN, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (base == MAP_FAILED)
                return;
        (void)madvise(base, REGION_LEN, MADV_DONTDUMP);
        region_base = base;
}

static bool is_hidden(const void *block)
{
        uintptr_t base = (uintptr_t)region_base;

        return base && (uintptr_t)block - base < REGION_LEN;
}

static size_t *class_of(void *block)
{
        return (size_t *)((uint8_t *)block - HEADER_LEN);
}

/* Bytes that the owner of a block may use. */
static size_t room_of(void *block)
{
        return is_hidden(block) ? ((size_t)SMALLEST << *class_of(block)) - HEADER_LEN
                                : malloc_usable_size(block);
}

/* A block of the region; NULL if there is no room in it. */
static void *take(size_t class)
{
        size_t len = (size_t)SMALLEST << class;
        uint8_t *base = region_base;
        void *block;

        if (!base)
                return NULL;
        TK_LOCK_SCOPE(&region.lock);
        block = region.free[class];
        if (block) {
                memcpy(&region.free[class], block, sizeof(void *));
                return block;
        }
        if (len > REGION_LEN - region.used)
                return NULL;
        block = base + region.used + HEADER_LEN;
        *class_of(block) = class;
        region.used += len;
        return block;
}

static void give_back(void *block)
{
        size_t class = *class_of(block);

        TK_LOCK_SCOPE(&region.lock);
        memcpy(block, &region.free[class], sizeof(void *));
        region.free[class] = block;
}

void *tk_wiping_malloc(size_t len)
{
        return malloc(len);
}

void *tk_hidden_malloc(size_t len)
{
        void *block = NULL;
        size_t class = 0;

        pthread_once(&region_once, map_region);
        while (class < CLASSES && len > ((size_t)SMALLEST << class) - HEADER_LEN)
                class ++;
        if (class < CLASSES)
                block = take(class);
        return block ? block : malloc(len);
}

void tk_wiping_free(void *block)
{
        if (!block)
                return;
        tk_wipe(block, room_of(block));
        if (is_hidden(block))
                give_back(block);
        else
                free(block);
}

/* Never in place of the caller: realloc(3) may move a block and leave the old bytes behind. */
static void *resize(void *old, size_t len, void *(*allocate)(size_t len))
{
        size_t old_len = old ? room_of(old) : 0;
        void *block;

        if (old && len > 0 && len <= old_len && len >= old_len / 2)
                return old;
        block = allocate(len > 0 ? len : 1);
        if (!block)
                return NULL;
        if (old)
                memcpy(block, old, len < old_len ? len : old_len);
        tk_wiping_free(old);
        return block;
}

void *tk_wiping_realloc(void *old, size_t len)
{
        return resize(old, len, tk_wiping_malloc);
}

void *tk_hidden_realloc(void *old, size_t len)
{
        return resize(old, len, tk_hidden_malloc);
}

void *tk_hidden_calloc(size_t count, size_t len)
{
        size_t all;
        void *block;

        if (__builtin_mul_overflow(count, len, &all))
                return NULL;
        block = tk_hidden_malloc(all);
        return block ? memset(block, 0, all) : NULL;
}

char *tk_hidden_strdup(const char *text)
{
        size_t len = strlen(text) + 1;
        char *copy = tk_hidden_malloc(len);

        return copy ? memcpy(copy, text, len) : NULL;
}
