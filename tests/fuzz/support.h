/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * For fuzz targets that need a filesystem: a volume in a scratch directory, mounted without
 * FUSE for the life of the process. Mount 1 of it ended cleanly, mount 2 did not, and 3 is
 * this one.
 */

#include "base/log.h"
#include "fs/fs.h"
#include "fs/journal.h"
#include "kms/local.h"
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FUZZ_CLEAN_MOUNT = 1, FUZZ_UNCLEAN_MOUNT = 2, FUZZ_THIS_MOUNT = 3 };

static struct {
        char dir[64]; /* scratch: for the target's own files, too */
        struct tk_kms *kms;
        struct tk_volume *volume;
        struct tk_fs *fs;
} fuzz;

static void require(bool holds)
{
        if (!holds)
                abort();
}

static int fuzz_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

static void fuzz_remove(void)
{
        (void)nftw(fuzz.dir, fuzz_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A directory of our own, which goes with the process. */
static void fuzz_make_dir(void)
{
        const char *top = getenv("TMPDIR");

        snprintf(fuzz.dir, sizeof(fuzz.dir), "%.40s/tk_fuzz-XXXXXX", top ? top : "/dev/shm");
        require(mkdtemp(fuzz.dir) != NULL);
        require(atexit(fuzz_remove) == 0);
}

static inline void fuzz_begin_mount(const char *cipherdir)
{
        struct tk_volume_unlock unlock = {.lease_ms = INT64_MAX / 4};
        struct tk_fs_options options = {.read_only = false};
        struct tk_fault fault = {0};

        require(tk_volume_open(cipherdir, &fuzz.volume, &fault) == 0);
        require(tk_volume_lock(fuzz.volume, "fuzzed", &fault) == 0);
        require(tk_volume_unlock(fuzz.volume, fuzz.kms, &unlock, &fault) == 0);
        require(tk_volume_mount_begin(fuzz.volume, &fault) == 0);
        require(tk_fs_new(fuzz.volume, &options, &fuzz.fs, &fault) == 0);
}

static inline void fuzz_end_mount(bool clean)
{
        struct tk_fault fault = {0};

        require(!clean || tk_fs_finish(fuzz.fs, &fault) == 0);
        fuzz.fs = tk_fs_free(fuzz.fs);
        require(!clean || tk_volume_mount_end(fuzz.volume, &fault) == 0);
        fuzz.volume = tk_volume_free(fuzz.volume);
}

/* Have the volume; false: it is there already. */
static inline bool fuzz_mount(void)
{
        struct tk_volume_options options = {.names = TK_NAMES_ENCRYPTED,
                                            .journal_len = TK_JOURNAL_LEN_MIN};
        char keystore[sizeof(fuzz.dir) + 16];
        char cipherdir[sizeof(fuzz.dir) + 16];
        struct tk_kms_local_options local = {.keystore = keystore};
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        if (fuzz.fs)
                return false;
        tk_log_set_level(TK_LOG_NONE);
        fuzz_make_dir();
        snprintf(keystore, sizeof(keystore), "%s/keystore", fuzz.dir);
        snprintf(cipherdir, sizeof(cipherdir), "%s/c", fuzz.dir);
        memcpy(options.id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        require(tk_kms_local_create(&local, &fault) == 0);
        require(tk_kms_local_open(&local, &fuzz.kms, &fault) == 0);
        require(tk_volume_create(cipherdir, &options, fuzz.kms, fingerprint, &fault) == 0);
        fuzz_begin_mount(cipherdir);
        fuzz_end_mount(true);
        fuzz_begin_mount(cipherdir);
        fuzz_end_mount(false);
        fuzz_begin_mount(cipherdir);
        require(tk_volume_mount_number(fuzz.volume) == FUZZ_THIS_MOUNT);
        return true;
}
