/* SPDX-License-Identifier: Apache-2.0 */

/* CRC-32, eight bytes at a time, by eight tables that are made on first use. */

#include "base/crc.h"

#include <pthread.h>

enum { SLICES = 8 };

static const uint32_t polynomial = 0xEDB88320;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t tables[SLICES][256];

static void make_tables(void)
{
        for (uint32_t byte = 0; byte < 256; byte++) {
                uint32_t crc = byte;

                for (int bit = 0; bit < 8; bit++)
                        crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
                tables[0][byte] = crc;
        }
        for (int slice = 1; slice < SLICES; slice++)
                for (int byte = 0; byte < 256; byte++)
                        tables[slice][byte] = tables[slice - 1][byte] >> 8 ^
                                              tables[0][tables[slice - 1][byte] & 0xFF];
}

static uint32_t get_le32(const uint8_t *p)
{
        return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t tk_crc32(const void *bytes, size_t len)
{
        const uint8_t *p = bytes;
        uint32_t crc = UINT32_MAX;

        pthread_once(&once, make_tables);
        for (; len >= SLICES; len -= SLICES, p += SLICES) {
                uint32_t low = crc ^ get_le32(p);
                uint32_t high = get_le32(p + 4);

                crc = tables[7][low & 0xFF] ^ tables[6][low >> 8 & 0xFF] ^
                      tables[5][low >> 16 & 0xFF] ^ tables[4][low >> 24] ^ tables[3][high & 0xFF] ^
                      tables[2][high >> 8 & 0xFF] ^ tables[1][high >> 16 & 0xFF] ^
                      tables[0][high >> 24];
        }
        for (; len > 0; len--, p++)
                crc = crc >> 8 ^ tables[0][(crc ^ *p) & 0xFF];
        return ~crc;
}
