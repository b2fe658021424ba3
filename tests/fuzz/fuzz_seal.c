/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as the seals of a file, any of its blocks missing. What is taken for sealed is
 * what an authentic seal says that binds, and the file has it; a new seal leaves the one that
 * binds in place, and is what is found next time.
 *
 * The input: the file's size (2), a cell for each block (1 each), then for each slot what it
 * is (1), its fields (8 + 4 + 2 + 1) or its bytes.
 */

#include "support.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "fs/block.h"
#include "fs/fs_internal.h"
#include "fs/openfile.h"
#include "fs/seal.h"
#include <errno.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { BLOCKS = 8, SLOT_LEN = 1 + TK_SEAL_LEN, INPUT_LEN = 2 + BLOCKS + TK_SEAL_SLOTS * SLOT_LEN };

enum what_slot { ABSENT, AUTHENTIC, CHANGED, ANYTHING, WHATS };

struct slot {
        bool authentic;
        struct tk_seal seal;
};

struct scene {
        uint8_t tag_page[TK_BLOCK_LEN];
        uint64_t size;
        struct slot slots[TK_SEAL_SLOTS];
        bool solid[BLOCKS]; /* it has a cell over which a seal may go without reading the block */
        bool tells;         /* a block that a clean mount wrote: there must be a seal */
};

static struct tk_secret *dek;

static void make_dek(void)
{
        if (!fuzz_mount())
                return;
        require(tk_secret_new(TK_KEY_LEN, &dek) == 0);
        memset(tk_secret_bytes_mutable(dek), 0x33, TK_KEY_LEN);
}

static void make_cells(struct scene *scene, const uint8_t *bytes)
{
        static const uint16_t mounts[] = {FUZZ_CLEAN_MOUNT, FUZZ_UNCLEAN_MOUNT, FUZZ_THIS_MOUNT};

        for (unsigned block = 0; block < BLOCKS; block++) {
                uint8_t *cell = scene->tag_page + tk_cell_off(block);
                uint16_t mount = mounts[bytes[block] / 2 % 3];

                if (bytes[block] % 2 == 0)
                        continue;
                memset(cell, 0x44, TK_CELL_LEN);
                tk_put_be16(cell + TK_CELL_LEN - 2, mount);
                /* Blocks of a crashed mount that are nothing but cells can't be proved. */
                scene->solid[block] = mount != FUZZ_UNCLEAN_MOUNT;
                scene->tells |= mount == FUZZ_CLEAN_MOUNT;
        }
}

static void make_slot(struct scene *scene, unsigned number, const uint8_t *bytes)
{
        uint8_t *at = scene->tag_page + tk_seal_off(number);
        struct slot *slot = &scene->slots[number];
        enum what_slot what = bytes[0] % WHATS;

        if (what == ABSENT)
                return;
        slot->seal = (struct tk_seal){
                .length = tk_get_be64(bytes + 1) % (bytes[15] & 2 ? UINT64_MAX : 40000),
                .mount = tk_get_be32(bytes + 9) % (bytes[15] & 4 ? UINT16_MAX : 5),
                /* Two that are authentic are never far apart. */
                .sequence = number == 0 ? tk_get_be16(bytes + 13)
                                        : (uint16_t)(scene->slots[0].seal.sequence + bytes[13]),
                .close = bytes[15] & 1,
        };
        require(tk_seal_make(dek, &slot->seal, at) == 0);
        if (what == CHANGED)
                at[bytes[16] % TK_SEAL_LEN] ^= (uint8_t)(bytes[17] | 1);
        else if (what == ANYTHING)
                memcpy(at, bytes + 1, TK_SEAL_LEN);
        slot->authentic = what == AUTHENTIC;
}

static bool ended_cleanly(uint32_t mount)
{
        return mount != FUZZ_UNCLEAN_MOUNT && mount != FUZZ_THIS_MOUNT && mount <= UINT16_MAX;
}

/* What a load must come to: sealed bytes, or -EUCLEAN. */
static int64_t expected(const struct scene *scene)
{
        const struct slot *found = NULL;
        bool any = false;

        for (unsigned i = 0; i < TK_SEAL_SLOTS; i++) {
                const struct slot *slot = &scene->slots[i];
                uint32_t mount = slot->seal.mount;

                any |= slot->authentic;
                if (!slot->authentic ||
                    (slot->seal.close && !ended_cleanly(mount) && mount != FUZZ_THIS_MOUNT))
                        continue;
                if (!found || (int16_t)(slot->seal.sequence - found->seal.sequence) > 0)
                        found = slot;
        }
        if (found ? found->seal.length > scene->size : !any && scene->tells)
                return -EUCLEAN;
        return found ? (int64_t)found->seal.length : 0;
}

static void load(struct tk_openfile *file, int fd, uint64_t size, int64_t wanted)
{
        int r;

        memset(file, 0, sizeof(*file));
        file->fd = fd;
        file->size = size;
        file->dek = dek;
        file->has_header = true;
        file->writable = true;
        pthread_mutex_init(&file->times_lock, NULL);
        r = tk_seal_load(fuzz.fs, file);
        require(r == (wanted < 0 ? wanted : 0));
        require(r < 0 || file->sealed == (uint64_t)wanted);
}

/* How far a new seal goes: on from what was sealed, over blocks that are there. */
static uint64_t reach(const struct scene *scene, uint64_t sealed)
{
        uint64_t block = (sealed + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN;

        while (block < BLOCKS && scene->solid[block])
                block++;
        return block * TK_BLOCK_LEN < scene->size ? block * TK_BLOCK_LEN : scene->size;
}

/* A new seal, of an fsync or a close. */
static void seal_again(const struct scene *scene, struct tk_openfile *file, bool close)
{
        const uint8_t *before = scene->tag_page + tk_seal_off(0);
        uint64_t wanted = reach(scene, file->sealed);
        uint8_t after[TK_SEAL_SLOTS * TK_SEAL_LEN];
        size_t binding = (size_t)file->seal.binding * TK_SEAL_LEN;
        bool binds = file->seal.binding >= 0;
        struct tk_openfile again;

        require(tk_seal_write(fuzz.fs, file, scene->size, close) == 0);
        require(file->sealed == wanted);
        require(tk_fdio_pread(file->fd, after, sizeof(after), (off_t)tk_seal_off(0)) ==
                sizeof(after));
        require(!binds || memcmp(before + binding, after + binding, TK_SEAL_LEN) == 0);
        load(&again, file->fd, scene->size, (int64_t)wanted);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        struct scene scene = {0};
        uint8_t input[INPUT_LEN] = {0};
        struct tk_openfile file;
        int64_t wanted;
        int fd;

        make_dek();
        memcpy(input, bytes, len < sizeof(input) ? len : sizeof(input));
        scene.size = 1 + tk_get_be16(input) % (BLOCKS * TK_BLOCK_LEN);
        make_cells(&scene, input + 2);
        for (unsigned i = 0; i < TK_SEAL_SLOTS; i++)
                make_slot(&scene, i, input + 2 + BLOCKS + (size_t)i * SLOT_LEN);
        fd = memfd_create("backing", MFD_CLOEXEC);
        require(fd >= 0 && tk_fdio_pwrite(fd, scene.tag_page, TK_BLOCK_LEN, 0) == 0);
        require(ftruncate(fd, (off_t)tk_backing_size(scene.size)) == 0);
        wanted = expected(&scene);
        load(&file, fd, scene.size, wanted);
        if (wanted >= 0)
                seal_again(&scene, &file, len > 0 && bytes[0] & 1);
        close(fd);
        return 0;
}
