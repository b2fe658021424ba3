/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The seal.
 *
 * An fsync seals what the fsync before it made durable, so that a seal is never ahead of
 * the disk. A last close seals everything, for a mount that ends cleanly: such a seal
 * counts within the mount, and after its clean end, but not after a crash.
 */

#include "fs/seal.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "crypto/kdf.h"
#include "crypto/mac.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/content_internal.h"
#include "fs/creds.h"
#include "fs/fs_internal.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum {
        OFF_LENGTH = 0,
        OFF_MOUNT = 8,
        OFF_SEQUENCE = 12,
        OFF_FLAGS = 14,
        OFF_MAC = 16,
        FLAG_CLOSE = 1,
};

/* Slots ------------------------------------------------------------------------------ */

static int make_mac(const struct tk_secret *dek, const uint8_t slot[TK_SEAL_LEN],
                    uint8_t ret_mac[TK_MAC_LEN])
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        int r;

        r = tk_secret_new(TK_KEY_LEN, &key);
        if (r == 0)
                r = tk_kdf_expand(dek, "turnkeyfs seal", NULL, 0, key);
        return r < 0 ? r : tk_mac_hmac(key, slot, OFF_MAC, ret_mac);
}

int tk_seal_make(const struct tk_secret *dek, const struct tk_seal *seal,
                 uint8_t ret_slot[TK_SEAL_LEN])
{
        uint8_t mac[TK_MAC_LEN];
        int r;

        tk_put_be64(ret_slot + OFF_LENGTH, seal->length);
        tk_put_be32(ret_slot + OFF_MOUNT, seal->mount);
        tk_put_be16(ret_slot + OFF_SEQUENCE, seal->sequence);
        tk_put_be16(ret_slot + OFF_FLAGS, seal->close ? FLAG_CLOSE : 0);
        r = make_mac(dek, ret_slot, mac);
        if (r < 0)
                return r;
        memcpy(ret_slot + OFF_MAC, mac, TK_SEAL_LEN - OFF_MAC);
        return 0;
}

static void read_fields(const uint8_t slot[TK_SEAL_LEN], struct tk_seal *ret_seal)
{
        *ret_seal = (struct tk_seal){
                .length = tk_get_be64(slot + OFF_LENGTH),
                .mount = tk_get_be32(slot + OFF_MOUNT),
                .sequence = tk_get_be16(slot + OFF_SEQUENCE),
                .close = tk_get_be16(slot + OFF_FLAGS) == FLAG_CLOSE,
        };
}

int tk_seal_parse(const struct tk_secret *dek, const uint8_t slot[TK_SEAL_LEN],
                  struct tk_seal *ret_seal)
{
        uint8_t mac[TK_MAC_LEN];
        int r;

        if (tk_bytes_are_zero(slot, TK_SEAL_LEN))
                return 0;
        r = make_mac(dek, slot, mac);
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(mac, slot + OFF_MAC, TK_SEAL_LEN - OFF_MAC))
                return 0;
        read_fields(slot, ret_seal);
        return 1;
}

/* Loading ---------------------------------------------------------------------------- */

static bool is_newer(uint16_t a, uint16_t b)
{
        return (int16_t)(uint16_t)(a - b) > 0;
}

static bool binds_after_crash(struct tk_fs *fs, const struct tk_seal *seal)
{
        return !seal->close || (seal->mount <= UINT16_MAX &&
                                !tk_volume_is_unclean(fs->volume, (uint16_t)seal->mount));
}

/* Within its own mount a seal of a close holds, too, unless a close failed to write its own. */
static bool binds_now(struct tk_fs *fs, const struct tk_seal *seal)
{
        return binds_after_crash(fs, seal) ||
               (seal->mount == fs->mount_number && !fs->seals_missing);
}

/* A mount that ended cleanly has sealed what it wrote: a block of it without a seal tells. */
static bool has_lost_seal(struct tk_fs *fs, const uint8_t tag_page[TK_BLOCK_LEN])
{
        for (unsigned slot = 0; slot < TK_GROUP_BLOCKS; slot++) {
                const uint8_t *cell = tag_page + TK_HEADER_LEN + (size_t)slot * TK_CELL_LEN;
                uint16_t mount = tk_get_be16(cell + TK_CELL_LEN - 2);

                if (!tk_bytes_are_zero(cell, TK_CELL_LEN) &&
                    !tk_volume_is_unclean(fs->volume, mount))
                        return true;
        }
        return false;
}

static int judge(struct tk_fs *fs, struct tk_openfile *file, const uint8_t tag_page[TK_BLOCK_LEN])
{
        struct tk_openfile_seal *state = &file->seal;
        bool any = false;

        for (unsigned slot = 0; slot < TK_SEAL_SLOTS; slot++) {
                struct tk_seal seal;
                int r = tk_seal_parse(file->dek, tag_page + tk_seal_off(slot), &seal);

                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                if (!any || is_newer(seal.sequence, state->sequence)) {
                        state->sequence = seal.sequence;
                        state->newest_length = seal.length;
                        state->newest_mount = seal.close ? seal.mount : 0;
                }
                any = true;
                if (binds_now(fs, &seal) &&
                    (!state->found || is_newer(seal.sequence, state->found_sequence))) {
                        state->found = true;
                        state->found_sequence = seal.sequence;
                        file->sealed = seal.length;
                }
                if (binds_after_crash(fs, &seal) &&
                    (state->binding < 0 || is_newer(seal.sequence, state->binding_sequence))) {
                        state->binding = (int)slot;
                        state->binding_sequence = seal.sequence;
                        state->binding_length = seal.length;
                }
        }
        if (file->sealed > file->size || (!any && has_lost_seal(fs, tag_page)))
                return -EUCLEAN;
        file->solid = (file->sealed + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN;
        return 0;
}

/* Whether a crashed mount wrote the first block that is not sealed, or not to its end. */
static int ends_in_crash(struct tk_fs *fs, const struct tk_openfile *file)
{
        uint64_t last = tk_block_of(file->size - 1);
        uint8_t cell[TK_CELL_LEN];
        ssize_t n;

        if (file->sealed >= file->size)
                return 0;
        n = tk_fdio_pread(
                file->fd, cell, sizeof(cell),
                (off_t)(file->base + tk_cell_off(file->solid < last ? file->solid : last)));
        if (n < (ssize_t)sizeof(cell))
                return n < 0 ? (int)n : 0;
        return !tk_bytes_are_zero(cell, sizeof(cell)) &&
               tk_volume_is_unclean(fs->volume, tk_get_be16(cell + TK_CELL_LEN - 2));
}

int tk_seal_load(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_CLEANUP(tk_freep) uint8_t *tag_page = NULL;
        ssize_t n;
        int r;

        file->seal = (struct tk_openfile_seal){.binding = -1, .newest_length = TK_SEAL_STALE};
        if (file->size == 0)
                return 0;
        tag_page = calloc(1, TK_BLOCK_LEN);
        if (!tag_page)
                return -ENOMEM;
        n = tk_fdio_pread(file->fd, tag_page, TK_BLOCK_LEN, (off_t)file->base);
        r = n < 0 ? (int)n : judge(fs, file, tag_page);
        if (r < 0 || !file->writable || fs->read_only)
                return r;
        /* The close of who opens a file that a crash has left seals what is good of it. */
        r = ends_in_crash(fs, file);
        if (r > 0)
                file->unsealed = true;
        return r < 0 ? r : 0;
}

/* Writing ---------------------------------------------------------------------------- */

/* Blocks of crashed mounts that are read for one seal. */
enum { PROVE_BLOCKS = 256 };

/* Whether the block in place can be read and authenticates. */
static bool prove_block(const struct tk_openfile *file, uint64_t block,
                        const uint8_t cell[TK_CELL_LEN])
{
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        uint32_t valid = tk_block_valid(block, file->size);
        uint32_t len = tk_block_cell_len(cell);
        bool good;

        if (len > valid || tk_scratch_get(&scratch) < 0 ||
            tk_block_use_group(scratch, file->dek, tk_group_of_block(block)) < 0)
                return false;
        good = tk_fdio_pread(file->fd, scratch->head, len,
                             (off_t)(file->base + tk_data_off(block))) == (ssize_t)len &&
               tk_block_open(scratch, block, cell, scratch->head, valid) == 0;
        tk_wipe(scratch->head, valid);
        return good;
}

/*
 * Whether the seal may go on over the block with @cell. What a crashed mount wrote and no
 * seal covers may be torn: it must prove itself, if @budget is not used up.
 */
static bool is_solid(struct tk_fs *fs, const struct tk_openfile *file, uint64_t block,
                     const uint8_t cell[TK_CELL_LEN], unsigned *budget)
{
        uint16_t mount = tk_get_be16(cell + TK_CELL_LEN - 2);

        if (tk_bytes_are_zero(cell, TK_CELL_LEN))
                return false;
        if (mount == fs->mount_number || !tk_volume_is_unclean(fs->volume, mount))
                return true;
        if (*budget == 0)
                return false;
        (*budget)--;
        return prove_block(file, block, cell);
}

/*
 * Go on from `solid` over blocks that are there, in place: what is still on its way may
 * never come.
 */
static int extend_solid(struct tk_fs *fs, struct tk_openfile *file, uint64_t end)
{
        uint8_t cells[TK_GROUP_BLOCKS * TK_CELL_LEN];
        unsigned budget = PROVE_BLOCKS;

        while (file->solid < end) {
                uint64_t first = file->solid;
                uint64_t count = TK_GROUP_BLOCKS - tk_slot_of_block(first);
                ssize_t n;

                count = count < end - first ? count : end - first;
                n = tk_fdio_pread(file->fd, cells, count * TK_CELL_LEN,
                                  (off_t)(file->base + tk_cell_off(first)));
                if (n < 0)
                        return (int)n;
                memset(cells + n, 0, count * TK_CELL_LEN - (size_t)n);
                for (uint64_t i = 0; i < count; i++) {
                        if (!is_solid(fs, file, first + i, cells + i * TK_CELL_LEN, &budget))
                                return 0;
                        file->solid++;
                }
        }
        return 0;
}

unsigned tk_seal_next_slot(const struct tk_openfile *file)
{
        return file->seal.binding == 0 ? 1 : 0;
}

int tk_seal_prepare_whole(struct tk_fs *fs, struct tk_openfile *file, uint64_t length, bool close,
                          uint8_t ret_slot[TK_SEAL_LEN])
{
        struct tk_seal seal = {.length = length,
                               .mount = fs->mount_number,
                               .sequence = (uint16_t)(file->seal.sequence + 1),
                               .close = close};

        return tk_seal_make(file->dek, &seal, ret_slot);
}

int tk_seal_prepare(struct tk_fs *fs, struct tk_openfile *file, uint64_t length, bool close,
                    uint8_t ret_slot[TK_SEAL_LEN])
{
        uint64_t solid;
        int r;

        r = extend_solid(fs, file, (length + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN);
        if (r < 0)
                return r;
        solid = file->solid * TK_BLOCK_LEN;
        return tk_seal_prepare_whole(fs, file, solid < length ? solid : length, close, ret_slot);
}

void tk_seal_take(struct tk_fs *fs, struct tk_openfile *file, const uint8_t slot[TK_SEAL_LEN])
{
        struct tk_openfile_seal *state = &file->seal;
        unsigned next = tk_seal_next_slot(file);
        struct tk_seal seal;

        (void)fs;
        read_fields(slot, &seal);
        state->sequence = seal.sequence;
        state->newest_length = seal.length;
        state->newest_mount = seal.close ? seal.mount : 0;
        file->sealed = seal.length;
        if (seal.close)
                return;
        state->binding = (int)next;
        state->binding_sequence = seal.sequence;
        state->binding_length = seal.length;
}

static int put_slot(struct tk_openfile *file, unsigned slot, const uint8_t bytes[TK_SEAL_LEN])
{
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
        int r;

        TK_LOCK_SCOPE(&file->times_lock);
        r = tk_backing_pwrite(file->fd, bytes, TK_SEAL_LEN, file->base + tk_seal_off(slot));
        if (r < 0)
                return r;
        times[1] = file->mtime;
        r = tk_backing_utimens(file->fd, times);
        return r == -EPERM || r == -EACCES ? 0 : r;
}

/* Whether the newest seal says all that one over @length bytes would. */
static bool says_the_same(struct tk_fs *fs, const struct tk_openfile *file, uint64_t length,
                          bool close)
{
        uint32_t mount = file->seal.newest_mount;

        if (file->seal.newest_length != length)
                return false;
        return mount == 0 || (close && (mount == fs->mount_number ||
                                        !tk_volume_is_unclean(fs->volume, (uint16_t)mount)));
}

int tk_seal_write(struct tk_fs *fs, struct tk_openfile *file, uint64_t length, bool close)
{
        uint8_t slot[TK_SEAL_LEN];
        int r;

        if (says_the_same(fs, file, length, close))
                return 0;
        r = extend_solid(fs, file, (length + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN);
        if (r < 0)
                return r;
        if (length > file->solid * TK_BLOCK_LEN)
                length = file->solid * TK_BLOCK_LEN;
        if (says_the_same(fs, file, length, close))
                return 0;
        r = tk_seal_prepare_whole(fs, file, length, close, slot);
        if (r == 0)
                r = put_slot(file, tk_seal_next_slot(file), slot);
        if (r == 0)
                tk_seal_take(fs, file, slot);
        return r;
}

void tk_seal_close_held(struct tk_fs *fs, struct tk_openfile *file)
{
        int r;

        /* A file without a name is sealed, too: who had looked it up may open it yet. */
        if (fs->read_only || !atomic_exchange(&file->unsealed, false) || file->size == 0)
                return;
        tk_creds_charge(file->owner);
        r = file->dek ? tk_seal_write(fs, file, file->size, true) : -ENOKEY;
        if (r < 0)
                fs->seals_missing = true;
}

void tk_seal_close(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(range);

        tk_range_hold(&file->ranges, &range, 0, TK_RANGE_END, true);
        tk_seal_close_held(fs, file);
}

void tk_seal_close_idle(struct tk_fs *fs, struct tk_openfile *file)
{
        TK_RANGE_SCOPE(range);

        if (tk_range_try(&file->ranges, &range, 0, TK_RANGE_END, true))
                tk_seal_close_held(fs, file);
}

static void lower(_Atomic uint64_t *value, uint64_t to)
{
        uint64_t old = atomic_load(value);

        while (old > to && !atomic_compare_exchange_weak(value, &old, to))
                ;
}

void tk_seal_lower(struct tk_openfile *file, uint64_t size)
{
        lower(&file->sealed, size);
        lower(&file->synced_len, size);
        lower(&file->solid, (size + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN);
        /* The file may grow to the same length again, without the same blocks. */
        file->seal.newest_length = TK_SEAL_STALE;
}
