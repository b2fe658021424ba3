/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Key record: encode, check, wrap and unwrap.
 *
 * The tag covers the volume id and the first four bytes too, so that a record
 * of another volume, or one whose KEK version was edited, does not open.
 */

#include "crypto/record.h"

#include "base/bytes.h"
#include "crypto/sealed.h"
#include <errno.h>
#include <string.h>

/* Both kinds begin with: version 1, flags 1, KEK version 2. */
enum {
        OFF_VERSION = 0,
        OFF_FLAGS = 1,
        OFF_KEK = 2,
        HEAD_LEN = 4,

        /* kind 1: the DEK, sealed */
        OFF_SEALED = HEAD_LEN,

        /* kind 2: blob length 2, blob, MAC 32 */
        OFF_BLOB_LEN = HEAD_LEN,
        OFF_BLOB = OFF_BLOB_LEN + 2,
};
_Static_assert(OFF_SEALED + TK_SEALED_KEY_LEN == TK_RECORD_LEN, "docs/format.md: key record");
_Static_assert(OFF_BLOB + TK_RECORD_BLOB_MAX + TK_MAC_LEN == TK_RECORD_MAX, "docs/format.md");

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

static size_t blob_len_of(const uint8_t *record)
{
        return tk_get_be16(record + OFF_BLOB_LEN);
}

size_t tk_record_len(const struct tk_record *record)
{
        if (record->bytes[OFF_VERSION] == TK_RECORD_KMS)
                return OFF_BLOB + blob_len_of(record->bytes) + TK_MAC_LEN;
        return TK_RECORD_LEN;
}

static bool has_right_length(const uint8_t *record, size_t len)
{
        if (record[OFF_VERSION] == TK_RECORD_KEK)
                return len == TK_RECORD_LEN;
        return len > OFF_BLOB + TK_MAC_LEN && len <= TK_RECORD_MAX &&
               blob_len_of(record) == len - OFF_BLOB - TK_MAC_LEN;
}

int tk_record_kek_version(const void *bytes, size_t len, uint16_t *ret_version)
{
        const uint8_t *record = bytes;
        uint16_t version;

        if (len < 1 || record[OFF_VERSION] == 0)
                return -EBADMSG;
        if (record[OFF_VERSION] > TK_RECORD_KMS)
                return -ENOTSUP;
        if (!has_right_length(record, len))
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
        struct tk_record record = {0};
        struct aad aad;
        int r;

        if (kek_version == 0)
                return -EINVAL;
        record.bytes[OFF_VERSION] = TK_RECORD_KEK;
        tk_put_be16(record.bytes + OFF_KEK, kek_version);
        make_aad(volume_id, &record, &aad);
        r = tk_sealed_make(kek, aad.bytes, sizeof(aad.bytes), dek, record.bytes + OFF_SEALED);
        if (r < 0)
                return r;
        *ret_record = record;
        return 0;
}

int tk_record_unwrap(const struct tk_record *record, const struct tk_secret *kek,
                     const uint8_t volume_id[TK_VOLUME_ID_LEN], struct tk_secret **ret_dek)
{
        struct aad aad;
        uint16_t version;
        int r;

        r = tk_record_kek_version(record->bytes, TK_RECORD_LEN, &version);
        if (r < 0)
                return r;
        if (record->bytes[OFF_VERSION] != TK_RECORD_KEK)
                return -EBADMSG;
        make_aad(volume_id, record, &aad);
        return tk_sealed_open(kek, aad.bytes, sizeof(aad.bytes), record->bytes + OFF_SEALED,
                              ret_dek);
}

/* MAC over the volume id and all of the record before it. */
static int make_mac(const struct tk_secret *mac_key, const uint8_t volume_id[TK_VOLUME_ID_LEN],
                    const struct tk_record *record, uint8_t ret_mac[TK_MAC_LEN])
{
        uint8_t message[TK_VOLUME_ID_LEN + TK_RECORD_MAX];
        size_t len = tk_record_len(record) - TK_MAC_LEN;

        memcpy(message, volume_id, TK_VOLUME_ID_LEN);
        memcpy(message + TK_VOLUME_ID_LEN, record->bytes, len);
        return tk_mac_hmac(mac_key, message, TK_VOLUME_ID_LEN + len, ret_mac);
}

int tk_record_enclose(const struct tk_secret *mac_key, uint16_t kek_version,
                      const uint8_t volume_id[TK_VOLUME_ID_LEN], const uint8_t *blob,
                      size_t blob_len, struct tk_record *ret_record)
{
        struct tk_record record = {0};
        int r;

        if (kek_version == 0 || blob_len == 0 || blob_len > TK_RECORD_BLOB_MAX)
                return -EINVAL;
        record.bytes[OFF_VERSION] = TK_RECORD_KMS;
        tk_put_be16(record.bytes + OFF_KEK, kek_version);
        tk_put_be16(record.bytes + OFF_BLOB_LEN, (uint16_t)blob_len);
        memcpy(record.bytes + OFF_BLOB, blob, blob_len);
        r = make_mac(mac_key, volume_id, &record, record.bytes + OFF_BLOB + blob_len);
        if (r < 0)
                return r;
        *ret_record = record;
        return 0;
}

int tk_record_disclose(const struct tk_record *record, const struct tk_secret *mac_key,
                       const uint8_t volume_id[TK_VOLUME_ID_LEN], const uint8_t **ret_blob,
                       size_t *ret_blob_len)
{
        size_t len = tk_record_len(record);
        uint8_t mac[TK_MAC_LEN];
        uint16_t version;
        int r;

        if (record->bytes[OFF_VERSION] != TK_RECORD_KMS || len > TK_RECORD_MAX)
                return -EBADMSG;
        r = tk_record_kek_version(record->bytes, len, &version);
        if (r < 0)
                return r;
        r = make_mac(mac_key, volume_id, record, mac);
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(mac, record->bytes + len - TK_MAC_LEN, TK_MAC_LEN))
                return -EBADMSG;
        *ret_blob = record->bytes + OFF_BLOB;
        *ret_blob_len = blob_len_of(record->bytes);
        return 0;
}
