/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Secrets in memory.
 *
 * Small secrets live in slots of shared chunks: a mount with thousands of open
 * files must not lock a page for each DEK. The bookkeeping (struct tk_secret)
 * is ordinary heap; only the bytes lie in locked pages.
 */

#include "base/secret.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { CHUNK_LEN = 64 * 1024, CHUNK_SLOTS = CHUNK_LEN / TK_SECRET_SLOT };

struct chunk {
        struct chunk *next;
        uint8_t *pages;
        uint16_t free_count;
        uint16_t free_slots[CHUNK_SLOTS]; /* a stack of slot numbers */
};

struct tk_secret {
        struct chunk *chunk; /* NULL: pages of its own */
        uint8_t *bytes;
        size_t len;
        size_t mapped_len; /* bytes reserved: a slot or whole pages */
};

static struct {
        pthread_mutex_t lock;
        struct chunk *chunks; /* under lock */
        size_t alive;         /* under lock */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_bool lock_required;
static atomic_bool lock_failed;

void tk_wipe(void *bytes, size_t len)
{
        if (len > 0)
                explicit_bzero(bytes, len);
}

void tk_secret_require_lock(bool required)
{
        atomic_store(&lock_required, required);
}

bool tk_secret_all_locked(void)
{
        return !atomic_load(&lock_failed);
}

size_t tk_secret_alive(void)
{
        TK_LOCK_SCOPE(&pool.lock);
        return pool.alive;
}

static int pages_new(size_t len, uint8_t **ret_pages)
{
        void *pages;

        pages = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED)
                return -ENOMEM;

        if (mlock(pages, len) < 0) {
                atomic_store(&lock_failed, true);
                if (atomic_load(&lock_required)) {
                        munmap(pages, len);
                        return -EPERM;
                }
        }
        (void)madvise(pages, len, MADV_DONTDUMP);
        (void)madvise(pages, len, MADV_WIPEONFORK);
        *ret_pages = pages;
        return 0;
}

static int chunk_new(struct chunk **ret_chunk)
{
        TK_CLEANUP(tk_freep) struct chunk *chunk = NULL;
        int r;

        chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
                return -ENOMEM;
        r = pages_new(CHUNK_LEN, &chunk->pages);
        if (r < 0)
                return r;

        chunk->free_count = CHUNK_SLOTS;
        for (size_t i = 0; i < CHUNK_SLOTS; i++)
                chunk->free_slots[i] = (uint16_t)(CHUNK_SLOTS - 1 - i);
        *ret_chunk = TK_TAKE(chunk);
        return 0;
}

/* A free slot from any chunk, from a new one if need be. Called with the pool locked. */
static int slot_take(struct tk_secret *secret)
{
        struct chunk *chunk;
        int r;

        for (chunk = pool.chunks; chunk; chunk = chunk->next)
                if (chunk->free_count > 0)
                        break;
        if (!chunk) {
                r = chunk_new(&chunk);
                if (r < 0)
                        return r;
                chunk->next = pool.chunks;
                pool.chunks = chunk;
        }

        chunk->free_count--;
        secret->chunk = chunk;
        secret->bytes =
                chunk->pages + (size_t)chunk->free_slots[chunk->free_count] * TK_SECRET_SLOT;
        secret->mapped_len = TK_SECRET_SLOT;
        return 0;
}

/* The slot comes back wiped. A chunk whose last slot came back is unmapped, but for one. */
static void slot_return(struct tk_secret *secret)
{
        struct chunk *chunk = secret->chunk;
        size_t slot = (size_t)(secret->bytes - chunk->pages) / TK_SECRET_SLOT;

        chunk->free_slots[chunk->free_count++] = (uint16_t)slot;
        if (chunk->free_count < CHUNK_SLOTS || (pool.chunks == chunk && !chunk->next))
                return;

        for (struct chunk **link = &pool.chunks; *link; link = &(*link)->next) {
                if (*link != chunk)
                        continue;
                *link = chunk->next;
                munmap(chunk->pages, CHUNK_LEN);
                free(chunk);
                return;
        }
}

int tk_secret_new(size_t len, struct tk_secret **ret_secret)
{
        TK_CLEANUP(tk_freep) struct tk_secret *secret = NULL;
        int r;

        secret = calloc(1, sizeof(*secret));
        if (!secret)
                return -ENOMEM;
        secret->len = len;

        if (len > TK_SECRET_SLOT) {
                secret->mapped_len = (len + 4095) / 4096 * 4096;
                r = pages_new(secret->mapped_len, &secret->bytes);
                if (r < 0)
                        return r;
        }

        TK_LOCK_SCOPE(&pool.lock);
        if (len <= TK_SECRET_SLOT) {
                r = slot_take(secret);
                if (r < 0)
                        return r;
        }
        pool.alive++;
        *ret_secret = TK_TAKE(secret);
        return 0;
}

int tk_secret_dup_bytes(const void *bytes, size_t len, struct tk_secret **ret_secret)
{
        struct tk_secret *secret;
        int r;

        r = tk_secret_new(len, &secret);
        if (r < 0)
                return r;
        if (len > 0)
                memcpy(secret->bytes, bytes, len);
        *ret_secret = secret;
        return 0;
}

struct tk_secret *tk_secret_free(struct tk_secret *secret)
{
        if (!secret)
                return NULL;

        tk_wipe(secret->bytes, secret->mapped_len);
        TK_LOCK_SCOPE(&pool.lock);
        if (secret->chunk)
                slot_return(secret);
        else
                munmap(secret->bytes, secret->mapped_len);
        assert(pool.alive > 0);
        pool.alive--;
        free(secret);
        return NULL;
}

const uint8_t *tk_secret_bytes(const struct tk_secret *secret)
{
        return secret->bytes;
}

uint8_t *tk_secret_bytes_mutable(struct tk_secret *secret)
{
        return secret->bytes;
}

size_t tk_secret_len(const struct tk_secret *secret)
{
        return secret->len;
}

void tk_secret_truncate(struct tk_secret *secret, size_t len)
{
        assert(len <= secret->len);
        tk_wipe(secret->bytes + len, secret->len - len);
        secret->len = len;
}

bool tk_bytes_equal_ct(const void *a, const void *b, size_t len)
{
        const volatile uint8_t *x = a;
        const volatile uint8_t *y = b;
        uint8_t difference = 0;

        for (size_t i = 0; i < len; i++)
                difference |= (uint8_t)(x[i] ^ y[i]);
        return difference == 0;
}

bool tk_secret_equal(const struct tk_secret *a, const struct tk_secret *b)
{
        return a->len == b->len && tk_bytes_equal_ct(a->bytes, b->bytes, a->len);
}
