/* SPDX-License-Identifier: Apache-2.0 */

/* Keyring: the KEK versions in memory. */

#include "fs/keyring.h"

#include <errno.h>
#include <string.h>

struct tk_keyring {
        uint8_t volume_id[TK_VOLUME_ID_LEN];
        struct tk_secret **keks; /* by version - 1; NULL: not live */
        uint16_t count;          /* versions that have a place: the highest one */
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
        for (uint16_t i = 0; i < ring->count; i++)
                tk_secret_free(ring->keks[i]);
        free(ring->keks);
        free(ring);
        return NULL;
}

int tk_keyring_add(struct tk_keyring *ring, uint16_t version, struct tk_secret *kek)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned = kek;

        if (version == 0)
                return -EINVAL;
        if (version > ring->count) {
                struct tk_secret **keks;

                keks = reallocarray(ring->keks, version, sizeof(*keks));
                if (!keks)
                        return -ENOMEM;
                memset(keks + ring->count, 0, sizeof(*keks) * (version - ring->count));
                ring->keks = keks;
                ring->count = version;
        }
        if (ring->keks[version - 1])
                return -EEXIST;
        ring->keks[version - 1] = TK_TAKE(owned);
        return 0;
}

uint16_t tk_keyring_current(const struct tk_keyring *ring)
{
        return ring->count;
}

int tk_keyring_wrap(struct tk_keyring *ring, const struct tk_secret *dek,
                    struct tk_record *ret_record)
{
        if (ring->count == 0)
                return -ENOKEY;
        return tk_record_wrap(ring->keks[ring->count - 1], ring->count, ring->volume_id, dek,
                              ret_record);
}

int tk_keyring_unwrap(struct tk_keyring *ring, const struct tk_record *record,
                      struct tk_secret **ret_dek)
{
        uint16_t version;
        int r;

        r = tk_record_kek_version(record->bytes, TK_RECORD_LEN, &version);
        if (r < 0)
                return r;
        if (version > ring->count || !ring->keks[version - 1])
                return -EBADMSG;
        return tk_record_unwrap(record, ring->keks[version - 1], ring->volume_id, ret_dek);
}
