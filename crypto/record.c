/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Key record: encode, check, wrap and unwrap.
 *
 * The tag covers the volume id and the first four bytes too, so that a record
 * of another volume, or one whose KEK version was edited, does not open.
 */

#include "crypto/record.h"

#include "base/bytes.h"
#include "crypto/random.h"
#include <errno.h>
#include <string.h>

/* Offsets: version 1, flags 1, KEK version 2, IV 12, DEK 32, tag 16. */
enum {
        OFF_VERSION = 0,
        OFF_FLAGS = 1,
        OFF_KEK = 2,
        OFF_IV = 4,
        OFF_DEK = OFF_IV + TK_AEAD_IV_LEN,
        OFF_TAG = OFF_DEK + TK_KEY_LEN,
        HEAD_LEN = OFF_IV,
};
_Static_assert(OFF_TAG + TK_AEAD_TAG_LEN == TK_RECORD_LEN, "docs/format.md: key record");

static const char record_label[] = "turnkeyfs key record";

struct aad {
        uint8_t bytes[sizeof(record_label) - 1 + TK_VOLUME_ID_LEN + HEAD_LEN];
};

static void make_aad(const uint8_t volume_id[TK_VOLUME_ID_LEN], const struct tk_record *record,
                     struct aad *ret_aad)
{
        uint8_t *at = ret_aad->bytes;

        memcpy(at, record_label, sizeof(record_label) - 1);
        at += sizeof(record_label) - 1;
        memcpy(at, volume_id, TK_VOLUME_ID_LEN);
        memcpy(at + TK_VOLUME_ID_LEN, record->bytes, HEAD_LEN);
}

int tk_record_kek_version(const void *bytes, size_t len, uint16_t *ret_version)
{
        const uint8_t *record = bytes;
        uint16_t version;

        if (len < 1 || record[OFF_VERSION] == 0)
                return -EBADMSG;
        if (record[OFF_VERSION] != TK_RECORD_VERSION)
                return -ENOTSUP;
        if (len != TK_RECORD_LEN)
                return -EBADMSG;
        version = tk_get_be16(record + OFF_KEK);
        if (version == 0)
                return -EBADMSG;
        *ret_version = version;
        return 0;
}

int tk_record_wrap(const struct tk_secret *kek, uint16_t kek_version,
                   const uint8_t volume_id[TK_VOLUME_ID_LEN], const struct tk_secret *dek,
                   struct tk_record *ret_record)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        struct tk_record record = {0};
        struct aad aad;
        int r;

        if (tk_secret_len(dek) != TK_KEY_LEN || kek_version == 0)
                return -EINVAL;
        record.bytes[OFF_VERSION] = TK_RECORD_VERSION;
        tk_put_be16(record.bytes + OFF_KEK, kek_version);
        r = tk_random_bytes(record.bytes + OFF_IV, TK_AEAD_IV_LEN);
        if (r < 0)
                return r;
        make_aad(volume_id, &record, &aad);

        r = tk_aead_new(&aead);
        if (r < 0)
                return r;
        r = tk_aead_set_key(aead, kek);
        if (r < 0)
                return r;
        r = tk_aead_seal(aead,
                         &(struct tk_aead_msg){.iv = record.bytes + OFF_IV,
                                               .aad = aad.bytes,
                                               .aad_len = sizeof(aad.bytes),
                                               .in = tk_secret_bytes(dek),
                                               .out = record.bytes + OFF_DEK,
                                               .len = TK_KEY_LEN},
                         record.bytes + OFF_TAG);
        if (r < 0)
                return r;
        *ret_record = record;
        return 0;
}

int tk_record_unwrap(const struct tk_record *record, const struct tk_secret *kek,
                     const uint8_t volume_id[TK_VOLUME_ID_LEN], struct tk_secret **ret_dek)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct aad aad;
        uint16_t version;
        int r;

        r = tk_record_kek_version(record->bytes, TK_RECORD_LEN, &version);
        if (r < 0)
                return r;
        make_aad(volume_id, record, &aad);

        r = tk_aead_new(&aead);
        if (r < 0)
                return r;
        r = tk_aead_set_key(aead, kek);
        if (r < 0)
                return r;
        r = tk_secret_new(TK_KEY_LEN, &dek);
        if (r < 0)
                return r;
        r = tk_aead_open(aead,
                         &(struct tk_aead_msg){.iv = record->bytes + OFF_IV,
                                               .aad = aad.bytes,
                                               .aad_len = sizeof(aad.bytes),
                                               .in = record->bytes + OFF_DEK,
                                               .out = tk_secret_bytes_mutable(dek),
                                               .len = TK_KEY_LEN},
                         record->bytes + OFF_TAG);
        if (r < 0)
                return r;
        *ret_dek = TK_TAKE(dek);
        return 0;
}
