/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a mount counts for `turnkeyfs status`: plain atomic counters, never reset.
 */

#include <stdatomic.h>
#include <stdint.h>

struct tk_stats {
        _Atomic uint64_t read_bytes;         /* plaintext handed to applications */
        _Atomic uint64_t written_bytes;      /* plaintext taken from applications */
        _Atomic uint64_t block_failures;     /* blocks that did not authenticate */
        _Atomic uint64_t record_failures;    /* files whose key records could not be used */
        _Atomic uint64_t name_failures;      /* entries left out of listings: names unreadable */
        _Atomic uint64_t records_restored;   /* records rewritten from their good twin */
        _Atomic uint64_t target_failures;    /* symlink targets that did not authenticate */
        _Atomic uint64_t attribute_failures; /* attributes that did not authenticate */
        _Atomic uint64_t open_files;         /* backing files open now */
        _Atomic uint64_t known_inodes;       /* inodes the kernel knows now */
};
