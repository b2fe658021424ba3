/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as a key record: nothing but the record that was wrapped opens. The
 * input is tried as it is, and as changes to a good record.
 */

#include "crypto/record.h"
#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const uint8_t volume_id[TK_VOLUME_ID_LEN] = "sixteen bytes id";

static struct {
        struct tk_secret *kek;
        struct tk_secret *dek;
        struct tk_record record;
} good;

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void make_good(void)
{
        if (good.kek)
                return;
        require(tk_secret_new(TK_KEY_LEN, &good.kek) == 0);
        require(tk_secret_new(TK_KEY_LEN, &good.dek) == 0);
        memset(tk_secret_bytes_mutable(good.dek), 0x22, TK_KEY_LEN);
        require(tk_record_wrap(good.kek, 7, volume_id, good.dek, &good.record) == 0);
}

static void try_record(const struct tk_record *record)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        int r = tk_record_unwrap(record, good.kek, volume_id, &dek);

        if (memcmp(record, &good.record, TK_RECORD_LEN) == 0)
                require(r == 0 && tk_secret_equal(dek, good.dek));
        else
                require(!dek && (r == -EBADMSG || r == -ENOTSUP));
}

/* No bytes that were not enclosed under the key are disclosed. */
static void try_blob(const struct tk_record *record)
{
        const uint8_t *blob = NULL;
        size_t blob_len = 0;

        require(tk_record_disclose(record, good.kek, volume_id, &blob, &blob_len) == -EBADMSG);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        struct tk_record record;
        uint16_t version = 0;
        int r;

        make_good();
        r = tk_record_kek_version(bytes, len, &version);
        require((r == 0 && version > 0 && len <= TK_RECORD_MAX) || r == -EBADMSG || r == -ENOTSUP);
        if (r == 0) {
                memset(&record, 0, sizeof(record));
                memcpy(&record, bytes, len);
                try_record(&record);
                try_blob(&record);
        }

        record = good.record;
        for (size_t i = 0; i < len && i < TK_RECORD_LEN; i++)
                record.bytes[i] ^= bytes[i];
        try_record(&record);
        return 0;
}
