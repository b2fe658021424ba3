/* SPDX-License-Identifier: Apache-2.0 */

/* Keyring: DEKs wrapped and unwrapped under KEK versions, or by the KMS. */

#include "fs/keyring.h"

#include "base/log.h"
#include "fs/dekcache.h"
#include <errno.h>
#include <string.h>

enum { CACHED_DEKS_MAX = 65536 };

/* One KEK version: one of the two is set, if it is live. */
struct version {
        struct tk_secret *kek;
        struct tk_kms_wrap *root; /* without a blob */
};

struct tk_keyring {
        uint8_t volume_id[TK_VOLUME_ID_LEN];
        struct version *versions; /* by version - 1 */
        uint16_t count;           /* versions that have a place: the highest one */

        struct tk_kms *kms; /* borrowed; NULL with dek_wrap = kek */
        struct tk_secret *mac_key;
        struct tk_dekcache *cache;
};

int tk_keyring_new(const uint8_t volume_id[TK_VOLUME_ID_LEN], struct tk_keyring **ret_ring)
{
        struct tk_keyring *ring;

        ring = calloc(1, sizeof(*ring));
        if (!ring)
                return -ENOMEM;
        memcpy(ring->volume_id, volume_id, TK_VOLUME_ID_LEN);
        *ret_ring = ring;
        return 0;
}

struct tk_keyring *tk_keyring_free(struct tk_keyring *ring)
{
        if (!ring)
                return NULL;
        for (uint16_t i = 0; i < ring->count; i++) {
                tk_secret_free(ring->versions[i].kek);
                free(ring->versions[i].root);
        }
        free(ring->versions);
        tk_dekcache_free(ring->cache);
        tk_secret_free(ring->mac_key);
        free(ring);
        return NULL;
}

/* The free place of @version. */
static int make_place(struct tk_keyring *ring, uint16_t version, struct version **ret_place)
{
        struct version *versions;

        if (version == 0)
                return -EINVAL;
        if (version > ring->count) {
                versions = reallocarray(ring->versions, version, sizeof(*versions));
                if (!versions)
                        return -ENOMEM;
                memset(versions + ring->count, 0, sizeof(*versions) * (version - ring->count));
                ring->versions = versions;
                ring->count = version;
        }
        *ret_place = &ring->versions[version - 1];
        return (*ret_place)->kek || (*ret_place)->root ? -EEXIST : 0;
}

int tk_keyring_add(struct tk_keyring *ring, uint16_t version, struct tk_secret *kek)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned = kek;
        struct version *place;
        int r;

        r = make_place(ring, version, &place);
        if (r < 0)
                return r;
        place->kek = TK_TAKE(owned);
        return 0;
}

int tk_keyring_use_kms(struct tk_keyring *ring, struct tk_kms *kms, struct tk_secret *mac_key,
                       int64_t lease_ms)
{
        tk_secret_free(ring->mac_key);
        ring->mac_key = mac_key;
        ring->kms = kms;
        ring->cache = tk_dekcache_free(ring->cache);
        return tk_dekcache_new(CACHED_DEKS_MAX, lease_ms, &ring->cache);
}

int tk_keyring_add_root(struct tk_keyring *ring, uint16_t version, const struct tk_kms_wrap *root)
{
        struct version *place;
        int r;

        r = make_place(ring, version, &place);
        if (r < 0)
                return r;
        place->root = malloc(sizeof(*root));
        if (!place->root)
                return -ENOMEM;
        *place->root = *root;
        place->root->blob_len = 0;
        return 0;
}

uint16_t tk_keyring_current(const struct tk_keyring *ring)
{
        return ring->count;
}

/* What the KMS says of a DEK: the application gets the errno, the log the words. */
static int log_refusal(int r, const struct tk_fault *fault)
{
        if (r < 0 && fault->kind)
                tk_log_limited(TK_LOG_ERROR, "%s", fault->text);
        return r;
}

static int wrap_by_kms(struct tk_keyring *ring, const struct tk_secret *dek,
                       struct tk_record *ret_record)
{
        const struct version *current = &ring->versions[ring->count - 1];
        struct tk_fault fault = {0};
        struct tk_kms_wrap wrap;
        int r;

        r = tk_kms_wrap(ring->kms, current->root->version, dek, &wrap, &fault);
        if (r < 0)
                return log_refusal(r, &fault);
        r = tk_record_enclose(ring->mac_key, ring->count, ring->volume_id, wrap.blob, wrap.blob_len,
                              ret_record);
        if (r < 0)
                return r;
        tk_dekcache_put(ring->cache, ret_record, dek);
        return 0;
}

int tk_keyring_wrap(struct tk_keyring *ring, const struct tk_secret *dek,
                    struct tk_record *ret_record)
{
        if (ring->count == 0)
                return -ENOKEY;
        if (ring->kms)
                return wrap_by_kms(ring, dek, ret_record);
        return tk_record_wrap(ring->versions[ring->count - 1].kek, ring->count, ring->volume_id,
                              dek, ret_record);
}

static int unwrap_by_kms(struct tk_keyring *ring, const struct tk_kms_wrap *root,
                         const struct tk_record *record, struct tk_secret **ret_dek)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_kms_wrap wrap = *root;
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
        r = tk_kms_unwrap(ring->kms, &wrap, &dek, &fault);
        if (r < 0)
                return log_refusal(r, &fault);
        if (tk_secret_len(dek) != TK_KEY_LEN)
                return -EBADMSG;
        tk_dekcache_put(ring->cache, record, dek);
        *ret_dek = TK_TAKE(dek);
        return 0;
}

int tk_keyring_unwrap(struct tk_keyring *ring, const struct tk_record *record,
                      struct tk_secret **ret_dek)
{
        const struct version *place;
        size_t len = tk_record_len(record);
        uint16_t version;
        int r;

        if (len > TK_RECORD_MAX)
                return -EBADMSG;
        r = tk_record_kek_version(record->bytes, len, &version);
        if (r < 0)
                return r;
        if (version > ring->count)
                return -EBADMSG;
        place = &ring->versions[version - 1];
        if (place->kek)
                return tk_record_unwrap(record, place->kek, ring->volume_id, ret_dek);
        if (place->root)
                return unwrap_by_kms(ring, place->root, record, ret_dek);
        return -EBADMSG;
}
