/* SPDX-License-Identifier: Apache-2.0 */

/*
 * DEK cache.
 *
 * Entries are told apart by the MAC that ends their record: 256 bits that no two
 * records share. They hang in hash chains and, in the order of their age, in one
 * list, whose end is dropped first.
 */

#include "fs/dekcache.h"

#include "base/bytes.h"
#include "base/clock.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct entry {
        struct entry *chain;
        struct entry *older; /* towards the end that is dropped */
        struct entry *newer;
        uint8_t mac[TK_MAC_LEN];
        int64_t until_ms;
        struct tk_secret *dek;
};

struct tk_dekcache {
        pthread_mutex_t lock;
        size_t max;
        int64_t lease_ms;
        size_t count;                   /* under lock */
        struct entry *newest;           /* under lock */
        struct entry *oldest;           /* under lock */
        struct entry *buckets[BUCKETS]; /* under lock */
};

static const uint8_t *mac_of(const struct tk_record *record)
{
        return record->bytes + tk_record_len(record) - TK_MAC_LEN;
}

/* The link that points to the entry with @mac, or to the end of its chain. */
static struct entry **find(struct tk_dekcache *cache, const uint8_t *mac)
{
        struct entry **link = &cache->buckets[tk_get_be16(mac) % BUCKETS];

        while (*link && !tk_bytes_equal_ct((*link)->mac, mac, TK_MAC_LEN))
                link = &(*link)->chain;
        return link;
}

static void drop(struct tk_dekcache *cache, struct entry **link)
{
        struct entry *entry = *link;

        assert(entry);
        *link = entry->chain;
        if (entry->newer)
                entry->newer->older = entry->older;
        else
                cache->newest = entry->older;
        if (entry->older)
                entry->older->newer = entry->newer;
        else
                cache->oldest = entry->newer;
        cache->count--;
        tk_secret_free(entry->dek);
        free(entry);
}

static void drop_expired(struct tk_dekcache *cache, int64_t now)
{
        while (cache->oldest && (cache->oldest->until_ms <= now || cache->count > cache->max))
                drop(cache, find(cache, cache->oldest->mac));
}

int tk_dekcache_new(size_t max, int64_t lease_ms, struct tk_dekcache **ret_cache)
{
        struct tk_dekcache *cache;

        cache = calloc(1, sizeof(*cache));
        if (!cache)
                return -ENOMEM;
        pthread_mutex_init(&cache->lock, NULL);
        cache->max = max;
        cache->lease_ms = lease_ms;
        *ret_cache = cache;
        return 0;
}

struct tk_dekcache *tk_dekcache_free(struct tk_dekcache *cache)
{
        if (!cache)
                return NULL;
        tk_dekcache_clear(cache);
        pthread_mutex_destroy(&cache->lock);
        free(cache);
        return NULL;
}

int tk_dekcache_get(struct tk_dekcache *cache, const struct tk_record *record,
                    struct tk_secret **ret_dek)
{
        struct entry *entry;

        TK_LOCK_SCOPE(&cache->lock);
        drop_expired(cache, tk_clock_ms());
        entry = *find(cache, mac_of(record));
        if (!entry)
                return -ENOENT;
        return tk_secret_dup_bytes(tk_secret_bytes(entry->dek), tk_secret_len(entry->dek), ret_dek);
}

void tk_dekcache_put(struct tk_dekcache *cache, const struct tk_record *record,
                     const struct tk_secret *dek)
{
        TK_CLEANUP(tk_freep) struct entry *entry = calloc(1, sizeof(*entry));
        const uint8_t *mac = mac_of(record);
        int64_t now = tk_clock_ms();
        struct entry **link;

        if (!entry ||
            tk_secret_dup_bytes(tk_secret_bytes(dek), tk_secret_len(dek), &entry->dek) < 0)
                return;
        memcpy(entry->mac, mac, TK_MAC_LEN);
        entry->until_ms = now + cache->lease_ms;

        TK_LOCK_SCOPE(&cache->lock);
        link = find(cache, mac);
        if (*link)
                drop(cache, link);
        link = find(cache, mac);
        entry->older = cache->newest;
        if (entry->older)
                entry->older->newer = entry;
        else
                cache->oldest = entry;
        cache->newest = entry;
        cache->count++;
        *link = TK_TAKE(entry);
        drop_expired(cache, now);
}

void tk_dekcache_clear(struct tk_dekcache *cache)
{
        TK_LOCK_SCOPE(&cache->lock);
        while (cache->oldest)
                drop(cache, find(cache, cache->oldest->mac));
        assert(cache->count == 0);
}

size_t tk_dekcache_count(struct tk_dekcache *cache)
{
        TK_LOCK_SCOPE(&cache->lock);
        return cache->count;
}
