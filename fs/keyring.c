/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keyring: DEKs wrapped and unwrapped under KEK versions, or by the KMS.
 *
 * Versions are counted: whoever works with one holds it, so that the lock is only
 * held to find it, and a retired one is wiped when the last user lets go.
 */

#include "fs/keyring.h"

#include "base/log.h"
#include "fs/dekcache.h"
#include <errno.h>
#include <string.h>

enum { CACHED_DEKS_MAX = 65536 };

/* One live KEK version: a key, or a version of a root key. */
struct version {
        unsigned refs; /* keyring lock */
        uint16_t number;
        struct tk_secret *kek;   /* NULL: the KMS is asked */
        struct tk_kms *kms;      /* borrowed */
        struct tk_kms_wrap root; /* without a blob */
};

struct tk_keyring {
        uint8_t volume_id[TK_VOLUME_ID_LEN];
        struct tk_secret *mac_key; /* NULL with dek_wrap = kek */
        struct tk_dekcache *cache;

        pthread_mutex_t lock;
        struct version **versions;    /* under lock: by number - 1; NULL: not live */
        uint16_t count;               /* under lock: the highest number */
        int closed;                   /* under lock: the error; 0: open */
        struct tk_secret *target_key; /* under lock; NULL: none */
        uint64_t closings;            /* under lock: how often it was closed */
        int last_error;               /* under lock: what it was last closed with */
};

int tk_keyring_new(const uint8_t volume_id[TK_VOLUME_ID_LEN], struct tk_keyring **ret_ring)
{
        struct tk_keyring *ring;

        ring = calloc(1, sizeof(*ring));
        if (!ring)
                return -ENOMEM;
        memcpy(ring->volume_id, volume_id, TK_VOLUME_ID_LEN);
        pthread_mutex_init(&ring->lock, NULL);
        *ret_ring = ring;
        return 0;
}

/* Drop one use of @version. Called with the keyring locked. */
static void version_unref(struct version *version)
{
        if (!version || --version->refs > 0)
                return;
        tk_secret_free(version->kek);
        free(version);
}

struct tk_keyring *tk_keyring_free(struct tk_keyring *ring)
{
        if (!ring)
                return NULL;
        for (uint16_t i = 0; i < ring->count; i++)
                version_unref(ring->versions[i]);
        free(ring->versions);
        tk_dekcache_free(ring->cache);
        tk_secret_free(ring->mac_key);
        tk_secret_free(ring->target_key);
        pthread_mutex_destroy(&ring->lock);
        free(ring);
        return NULL;
}

/* Put @version in its place; it is taken over, also on failure. */
static int add(struct tk_keyring *ring, struct version *version)
{
        uint16_t number = version->number;
        struct version **versions;
        int r = 0;

        version->refs = 1;
        TK_LOCK_SCOPE(&ring->lock);
        if (number > ring->count) {
                versions = reallocarray(ring->versions, number, sizeof(struct version *));
                if (versions) {
                        memset(versions + ring->count, 0,
                               sizeof(struct version *) * (number - ring->count));
                        ring->versions = versions;
                        ring->count = number;
                } else {
                        r = -ENOMEM;
                }
        }
        if (r == 0 && (number == 0 || ring->versions[number - 1]))
                r = number == 0 ? -EINVAL : -EEXIST;
        if (r < 0)
                version_unref(version);
        else
                ring->versions[number - 1] = version;
        return r;
}

int tk_keyring_add(struct tk_keyring *ring, uint16_t version, struct tk_secret *kek)
{
        struct version *fresh = calloc(1, sizeof(*fresh));

        if (!fresh) {
                tk_secret_free(kek);
                return -ENOMEM;
        }
        fresh->number = version;
        fresh->kek = kek;
        return add(ring, fresh);
}

int tk_keyring_use_roots(struct tk_keyring *ring, struct tk_secret *mac_key, int64_t lease_ms)
{
        ring->mac_key = mac_key;
        return tk_dekcache_new(CACHED_DEKS_MAX, lease_ms, &ring->cache);
}

int tk_keyring_add_root(struct tk_keyring *ring, uint16_t version, struct tk_kms *kms,
                        const struct tk_kms_wrap *root)
{
        struct version *fresh = calloc(1, sizeof(*fresh));

        if (!fresh)
                return -ENOMEM;
        fresh->number = version;
        fresh->kms = kms;
        fresh->root = *root;
        fresh->root.blob_len = 0;
        return add(ring, fresh);
}

void tk_keyring_set_target_key(struct tk_keyring *ring, struct tk_secret *key)
{
        TK_LOCK_SCOPE(&ring->lock);
        tk_secret_free(ring->target_key);
        ring->target_key = key;
}

int tk_keyring_target_key(struct tk_keyring *ring, struct tk_secret **ret_key)
{
        TK_LOCK_SCOPE(&ring->lock);
        if (ring->closed < 0)
                return ring->closed;
        if (!ring->target_key)
                return -ENOKEY;
        return tk_secret_dup_bytes(tk_secret_bytes(ring->target_key), TK_KEY_LEN, ret_key);
}

void tk_keyring_retire(struct tk_keyring *ring, uint16_t version)
{
        TK_LOCK_SCOPE(&ring->lock);
        if (version == 0 || version > ring->count)
                return;
        version_unref(ring->versions[version - 1]);
        ring->versions[version - 1] = NULL;
}

void tk_keyring_close(struct tk_keyring *ring, int error)
{
        {
                TK_LOCK_SCOPE(&ring->lock);
                ring->closed = error;
                ring->target_key = tk_secret_free(ring->target_key);
                ring->last_error = error;
                ring->closings++;
                for (uint16_t i = 0; i < ring->count; i++) {
                        version_unref(ring->versions[i]);
                        ring->versions[i] = NULL;
                }
        }
        if (ring->cache)
                tk_dekcache_clear(ring->cache);
}

void tk_keyring_reopen(struct tk_keyring *ring)
{
        TK_LOCK_SCOPE(&ring->lock);
        ring->closed = 0;
}

uint16_t tk_keyring_current(struct tk_keyring *ring)
{
        TK_LOCK_SCOPE(&ring->lock);
        return ring->count;
}

/*
 * Version @number, or the current one for 0, held until put. -ENOKEY if there is
 * none at all, -EBADMSG if this one is not live, or what the keyring is closed with.
 */
static int get(struct tk_keyring *ring, uint16_t number, struct version **ret_version,
               uint64_t *ret_closings)
{
        TK_LOCK_SCOPE(&ring->lock);
        if (ring->closed < 0)
                return ring->closed;
        if (number == 0)
                number = ring->count;
        if (number == 0)
                return -ENOKEY;
        if (number > ring->count || !ring->versions[number - 1])
                return -EBADMSG;
        *ret_version = ring->versions[number - 1];
        (*ret_version)->refs++;
        *ret_closings = ring->closings;
        return 0;
}

static void put(struct tk_keyring *ring, struct version *version)
{
        TK_LOCK_SCOPE(&ring->lock);
        version_unref(version);
}

int tk_keyring_dup_kek(struct tk_keyring *ring, uint16_t version, struct tk_secret **ret_kek)
{
        struct version *found;
        uint64_t closings;
        int r;

        if (version == 0)
                return -EBADMSG;
        r = get(ring, version, &found, &closings);
        if (r < 0)
                return r;
        r = found->kek ? tk_secret_dup_bytes(tk_secret_bytes(found->kek), TK_KEY_LEN, ret_kek)
                       : -ENOKEY;
        put(ring, found);
        return r;
}

/*
 * Keep @dek, unless the keyring was closed since get said @closings: what a call to the
 * KMS brings that began before that must not be used. Returns what it was closed with then.
 */
static int keep(struct tk_keyring *ring, const struct tk_record *record,
                const struct tk_secret *dek, uint64_t closings)
{
        TK_LOCK_SCOPE(&ring->lock);
        if (ring->closings != closings)
                return ring->last_error;
        tk_dekcache_put(ring->cache, record, dek);
        return 0;
}

/* What the KMS says of a DEK: the log gets the words, the application an errno that it can mean. */
static int log_refusal(int r, const struct tk_fault *fault)
{
        if (r < 0 && fault->kind)
                tk_log_limited(TK_LOG_ERROR, "%s", fault->text);
        if (r == -ENOENT)
                return -EKEYREVOKED; /* the key or its version is gone */
        return r == -EACCES ? -ENOKEY : r;
}

static int wrap_by_kms(struct tk_keyring *ring, const struct version *version, uint64_t closings,
                       const struct tk_secret *dek, struct tk_record *ret_record)
{
        struct tk_fault fault = {0};
        struct tk_kms_wrap wrap;
        int r;

        r = tk_kms_wrap(version->kms, version->root.version, dek, &wrap, &fault);
        if (r < 0)
                return log_refusal(r, &fault);
        r = tk_record_enclose(ring->mac_key, version->number, ring->volume_id, wrap.blob,
                              wrap.blob_len, ret_record);
        return r < 0 ? r : keep(ring, ret_record, dek, closings);
}

int tk_keyring_wrap(struct tk_keyring *ring, const struct tk_secret *dek,
                    struct tk_record *ret_record)
{
        struct version *version;
        uint64_t closings;
        int r;

        r = get(ring, 0, &version, &closings);
        if (r < 0)
                return r;
        if (version->kek)
                r = tk_record_wrap(version->kek, version->number, ring->volume_id, dek, ret_record);
        else
                r = wrap_by_kms(ring, version, closings, dek, ret_record);
        put(ring, version);
        return r;
}

static int unwrap_by_kms(struct tk_keyring *ring, const struct version *version, uint64_t closings,
                         const struct tk_record *record, struct tk_secret **ret_dek)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_kms_wrap wrap = version->root;
        struct tk_fault fault = {0};
        const uint8_t *blob;
        int r;

        r = tk_record_disclose(record, ring->mac_key, ring->volume_id, &blob, &wrap.blob_len);
        if (r < 0)
                return r;
        r = tk_dekcache_get(ring->cache, record, ret_dek);
        if (r != -ENOENT)
                return r;
        memcpy(wrap.blob, blob, wrap.blob_len);
        r = tk_kms_unwrap(version->kms, &wrap, &dek, &fault);
        if (r < 0)
                return log_refusal(r, &fault);
        if (tk_secret_len(dek) != TK_KEY_LEN)
                return -EBADMSG;
        r = keep(ring, record, dek, closings);
        if (r < 0)
                return r;
        *ret_dek = TK_TAKE(dek);
        return 0;
}

int tk_keyring_unwrap(struct tk_keyring *ring, const struct tk_record *record,
                      struct tk_secret **ret_dek)
{
        size_t len = tk_record_len(record);
        struct version *version;
        uint64_t closings;
        uint16_t number;
        int r;

        if (len > TK_RECORD_MAX)
                return -EBADMSG;
        r = tk_record_kek_version(record->bytes, len, &number);
        if (r < 0)
                return r;
        r = get(ring, number, &version, &closings);
        if (r < 0)
                return r;
        if (version->kek)
                r = tk_record_unwrap(record, version->kek, ring->volume_id, ret_dek);
        else
                r = unwrap_by_kms(ring, version, closings, record, ret_dek);
        put(ring, version);
        return r;
}

int tk_keyring_check(struct tk_keyring *ring, const struct tk_record *record)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        size_t len = tk_record_len(record);
        struct version *version;
        const uint8_t *blob;
        uint64_t closings;
        uint16_t number;
        size_t blob_len;
        int r;

        if (len > TK_RECORD_MAX || tk_record_kek_version(record->bytes, len, &number) < 0)
                return 0;
        r = get(ring, number, &version, &closings);
        if (r < 0)
                return r == -EBADMSG ? 0 : r;
        if (version->kek)
                r = tk_record_unwrap(record, version->kek, ring->volume_id, &dek);
        else
                r = tk_record_disclose(record, ring->mac_key, ring->volume_id, &blob, &blob_len);
        put(ring, version);
        return r == -EBADMSG ? 0 : r < 0 ? r : 1;
}

size_t tk_keyring_cached_deks(struct tk_keyring *ring)
{
        return ring->cache ? tk_dekcache_count(ring->cache) : 0;
}
