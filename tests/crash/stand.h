/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A volume on the simulated disk, opened as a mount does, without FUSE. */

#include "fs/fs.h"
#include "fs/inode.h"
#include "kms/kms.h"

enum { TK_STAND_WHY = 300 };

struct tk_stand {
        struct tk_kms *kms;
        struct tk_volume *volume;
        struct tk_fs *fs;
        struct tk_inode *root;
};

/* How volumes are made and opened from now on. */
struct tk_stand_options {
        const char *keystore; /* of the `local` provider; NULL: a provider of our own */
        enum tk_dek_wrap dek_wrap;
        enum tk_names names;
        bool refuses; /* the KMS does, the key `refused` (dek_wrap = kms) */
        uint8_t refused[TK_KEY_LEN];
};
extern struct tk_stand_options tk_stand_options;

/* Make a volume. */
TK_MUST_USE int tk_stand_create(char why[TK_STAND_WHY]);

/* Open it, with all that a mount does before it serves. */
TK_MUST_USE int tk_stand_up(struct tk_stand *stand, char why[TK_STAND_WHY]);

/* A clean end, as an unmount. */
TK_MUST_USE int tk_stand_down(struct tk_stand *stand, char why[TK_STAND_WHY]);

/* Let go of everything in memory: the end of a process that crashed. */
void tk_stand_drop(struct tk_stand *stand);
