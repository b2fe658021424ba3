/* SPDX-License-Identifier: Apache-2.0 */

/* Revocation: the gate, the sweep and the wipe. */

#include "fs/revoke.h"

#include "base/clock.h"
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/keeper.h"
#include "fs/openfile.h"

static void sweep(struct tk_fs *fs, const struct tk_revoke_kernel *kernel)
{
        tk_inode_for_each(fs->inodes, kernel->invalidate, kernel->context);
}

static void wipe(struct tk_fs *fs)
{
        tk_volume_close_keys(fs->volume, fs->gate);
        tk_openfile_wipe_all(fs);
        tk_dirkey_wipe_all(fs);
}

void tk_revoke_close(struct tk_fs *fs, int error, const struct tk_revoke_kernel *kernel)
{
        bool was_open = fs->gate == 0;

        fs->gate_draining = was_open;
        fs->gate = error;
        if (was_open) {
                sweep(fs, kernel);
                fs->gate_draining = false;
                sweep(fs, kernel);
        }
        wipe(fs);
}

void tk_revoke_again(struct tk_fs *fs, const struct tk_revoke_kernel *kernel)
{
        sweep(fs, kernel);
        wipe(fs);
}

int tk_revoke_reopen(struct tk_fs *fs, struct tk_fault *fault)
{
        int r;

        r = tk_volume_reopen_keys(fs->volume, fault);
        if (r < 0)
                return r;
        fs->gate = 0;
        return 0;
}

int tk_revoke_gate(struct tk_fs *fs, bool writeback)
{
        int error = atomic_load_explicit(&fs->gate, memory_order_acquire);

        if (error == 0 && tk_clock_ms() >= fs->lease_until_ms) {
                tk_keeper_await(fs);
                error = fs->gate;
        }
        return error < 0 && writeback && fs->gate_draining ? 0 : error;
}
