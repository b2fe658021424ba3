/* SPDX-License-Identifier: Apache-2.0 */

/* A volume on the simulated disk. */

#include "stand.h"

#include "calls.h"
#include "crypto/random.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/scratch.h"
#include "kms/local.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CIPHERDIR TK_CALLS_ROOT "/c"

struct tk_stand_options tk_stand_options;

/* A provider that wraps nothing: speed is all that counts here ----------------------- */

static int open_current(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        (void)impl;
        (void)fault;
        snprintf(ret_version, TK_KMS_VERSION_MAX, "1");
        return 0;
}

static int open_wrap(void *impl, const char *version, const struct tk_secret *key,
                     struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        (void)impl;
        (void)fault;
        memset(ret_wrap, 0, sizeof(*ret_wrap));
        memcpy(ret_wrap->blob, tk_secret_bytes(key), tk_secret_len(key));
        ret_wrap->blob_len = tk_secret_len(key);
        snprintf(ret_wrap->key_id, sizeof(ret_wrap->key_id), "open");
        snprintf(ret_wrap->version, sizeof(ret_wrap->version), "%s", version);
        snprintf(ret_wrap->algorithm, sizeof(ret_wrap->algorithm), "none");
        return 0;
}

static int open_unwrap(void *impl, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                       struct tk_fault *fault)
{
        (void)impl;
        if (tk_stand_options.refuses && wrap->blob_len == TK_KEY_LEN &&
            memcmp(wrap->blob, tk_stand_options.refused, TK_KEY_LEN) == 0) /* not secret */
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED, "refused");
        return tk_secret_dup_bytes(wrap->blob, wrap->blob_len, ret_key);
}

static int open_probe(void *impl, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        (void)impl;
        (void)wrap;
        (void)fault;
        return 0;
}

static void open_free(void *impl)
{
        (void)impl;
}

static int open_kms(struct tk_kms **ret_kms, struct tk_fault *fault)
{
        static const struct tk_kms_provider provider = {
                .name = "open",
                .current = open_current,
                .wrap = open_wrap,
                .unwrap = open_unwrap,
                .probe = open_probe,
                .free = open_free,
        };
        static int anything;
        struct tk_kms_local_options local = {.keystore = tk_stand_options.keystore};

        if (tk_stand_options.keystore)
                return tk_kms_local_open(&local, ret_kms, fault);
        return tk_kms_new(&provider, &anything, ret_kms);
}

/* The volume -------------------------------------------------------------------------- */

static int because(char why[TK_STAND_WHY], const char *what, int r, const struct tk_fault *fault)
{
        snprintf(why, TK_STAND_WHY, "%s: %.60s (%.200s)", what, strerror(-r), fault->text);
        return r;
}

int tk_stand_create(char why[TK_STAND_WHY])
{
        TK_CLEANUP(tk_kms_freep) struct tk_kms *kms = NULL;
        struct tk_volume_options options = {.dek_wrap = tk_stand_options.dek_wrap,
                                            .names = tk_stand_options.names,
                                            .journal_len = TK_JOURNAL_LEN_MIN};
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};
        int r;

        memcpy(options.id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        r = open_kms(&kms, &fault);
        if (r == 0)
                r = tk_volume_create(CIPHERDIR, &options, kms, fingerprint, &fault);
        return r < 0 ? because(why, "making the volume", r, &fault) : 0;
}

static int unlock(struct tk_stand *stand, struct tk_fault *fault)
{
        struct tk_volume_unlock unlock = {.lease_ms = INT64_MAX / 4};
        int r;

        r = tk_volume_open(CIPHERDIR, &stand->volume, fault);
        if (r == 0)
                r = tk_volume_lock(stand->volume, "simulated", fault);
        if (r == 0)
                r = tk_volume_unlock(stand->volume, stand->kms, &unlock, fault);
        return r;
}

int tk_stand_up(struct tk_stand *stand, char why[TK_STAND_WHY])
{
        struct tk_fault fault = {0};
        int r;

        memset(stand, 0, sizeof(*stand));
        r = open_kms(&stand->kms, &fault);
        if (r == 0)
                r = unlock(stand, &fault);
        if (r == 0)
                r = tk_volume_mount_begin(stand->volume, &fault);
        if (r == 0)
                r = tk_fs_new(stand->volume, &(struct tk_fs_options){.read_only = false},
                              &stand->fs, &fault);
        if (r < 0) {
                tk_stand_drop(stand);
                return because(why, "mounting", r, &fault);
        }
        stand->root = tk_inode_root(stand->fs->inodes);
        return 0;
}

void tk_stand_drop(struct tk_stand *stand)
{
        tk_fs_free(stand->fs);
        tk_volume_free(stand->volume);
        tk_kms_free(stand->kms);
        tk_scratch_drop();
        memset(stand, 0, sizeof(*stand));
}

int tk_stand_down(struct tk_stand *stand, char why[TK_STAND_WHY])
{
        struct tk_fault fault = {0};
        int r;

        r = tk_fs_finish(stand->fs, &fault);
        stand->fs = tk_fs_free(stand->fs);
        if (r == 0)
                r = tk_volume_mount_end(stand->volume, &fault);
        tk_stand_drop(stand);
        return r < 0 ? because(why, "unmounting", r, &fault) : 0;
}
