/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * CRC-32 (ISO-HDLC, as in zlib and Ethernet): finds writes that a power cut tore. It
 * proves nothing about who wrote the bytes. Thread-safe.
 */

#include <stddef.h>
#include <stdint.h>

uint32_t tk_crc32(const void *bytes, size_t len);
