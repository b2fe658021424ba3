/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What local.c and local_admin.c share. */

#include "kms/keystore.h"
#include "kms/kms_admin.h"
#include "kms/local.h"
#include <pthread.h>
#include <sys/stat.h>

struct tk_local {
        pthread_mutex_t lock;         /* guards keystore and seen */
        struct tk_keystore *keystore; /* unlocked: every version has its key */
        struct stat seen;             /* the file that it was read from */
        struct tk_secret *seal;       /* what seals the keys in the file; NULL: no passphrase */
        char id[2 * TK_KEYSTORE_ID_LEN + 1];
        char path[]; /* NUL-terminated */
};

extern const struct tk_kms_admin tk_local_admin;

/* Read the file again and unlock it, without looking at whether it changed. */
TK_MUST_USE int tk_local_reload(struct tk_local *local, struct tk_fault *fault);

/* Add a new version to @keystore, its key sealed by @seal (NULL: plain). */
TK_MUST_USE int tk_local_add_version(struct tk_keystore *keystore, const struct tk_secret *seal);

/* A fault without a class of its own. Returns @r. */
int tk_local_fail(const char *path, int r, struct tk_fault *fault);
