/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as the backing file of a file with a good key record. A read gives bytes
 * that were written under that key at that place, zeros, or an error; nothing crashes.
 *
 * The input is a list of edits to a good backing file, behind a byte that says how its
 * end is cut; so that most of it authenticates and the rest is the fuzzer's.
 */

#include "base/bytes.h"
#include "base/fdio.h"
#include "base/log.h"
#include "crypto/random.h"
#include "fs/block.h"
#include "fs/content_internal.h"
#include "fs/fs_internal.h"
#include "fs/keyring.h"
#include "fs/volume_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { READ_BLOCKS = 16, BLOCKS = TK_GROUP_BLOCKS + 20, GOOD_SIZE = BLOCKS * TK_BLOCK_LEN - 1000 };

static struct {
        struct tk_volume volume; /* all mounts of it ended cleanly */
        struct tk_fs fs;
        struct tk_openfile file;
        struct tk_openfile loaded; /* the file as it is before each run */
        size_t len;                /* of the good backing file */
        uint8_t *backing;
        uint8_t *edited; /* the same, edited */
        int fd;          /* holds that: one file for all runs, whose pages stay */
        uint8_t *plain;
} good;

static void require(bool holds)
{
        if (!holds)
                abort();
}

static int memory_file(void)
{
        int fd = memfd_create("backing", MFD_CLOEXEC);

        require(fd >= 0);
        return fd;
}

/* What every block holds: bytes that tell its place. */
static void fill_plain(uint8_t *plain, size_t len)
{
        for (size_t i = 0; i < len; i++)
                plain[i] = (uint8_t)(1 + (i * 31 + i / TK_BLOCK_LEN * 7) % 255);
}

static void make_good(void)
{
        static const uint8_t id[TK_VOLUME_ID_LEN] = "sixteen bytes id";
        struct tk_secret *kek = NULL;
        struct tk_secret *dek = NULL;
        uint8_t *request;

        if (good.backing)
                return;
        tk_log_set_level(TK_LOG_NONE);
        request = malloc(TK_REQUEST_MAX);
        require(request && tk_random_secret(TK_KEY_LEN, &kek) == 0);
        require(tk_random_secret(TK_KEY_LEN, &dek) == 0);
        require(tk_keyring_new(id, &good.fs.keyring) == 0);
        require(tk_keyring_add(good.fs.keyring, 1, kek) == 0);
        good.fs.mount_number = 1;
        good.fs.volume = &good.volume;
        pthread_mutex_init(&good.volume.text_lock, NULL);
        tk_rangelock_init(&good.file.ranges);
        pthread_mutex_init(&good.file.dek_lock, NULL);
        good.file.dek = dek;
        require(tk_keyring_wrap(good.fs.keyring, dek, &good.file.record) == 0);
        good.file.writable = true;

        good.plain = calloc(1, TK_REQUEST_MAX);
        require(good.plain);
        fill_plain(good.plain, GOOD_SIZE);
        memcpy(request, good.plain, GOOD_SIZE);
        good.file.fd = memory_file();
        require(tk_content_write(&good.fs, &good.file, 0, request, GOOD_SIZE) == 0);
        require(tk_content_fallocate(&good.fs, &good.file,
                                     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                     3 * (uint64_t)TK_BLOCK_LEN, 2 * (uint64_t)TK_BLOCK_LEN) == 0);
        memset(good.plain + 3 * (size_t)TK_BLOCK_LEN, 0, 2 * (size_t)TK_BLOCK_LEN);
        good.len = tk_backing_size(GOOD_SIZE);
        good.backing = malloc(good.len);
        require(good.backing);
        require(tk_fdio_pread(good.file.fd, good.backing, good.len, 0) == (ssize_t)good.len);
        close(good.file.fd);
        good.edited = malloc(good.len);
        require(good.edited);
        good.fd = memory_file();
        good.loaded = good.file;
        free(request);
}

/* An edit: what 1, where 3, from where 3 or the bytes themselves. Returns the bytes used. */
static size_t edit(uint8_t *backing, const uint8_t *bytes, size_t len)
{
        size_t to = ((size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3]) % good.len;
        size_t from = ((size_t)bytes[4] << 16 | (size_t)bytes[5] << 8 | bytes[6]) % good.len;
        size_t count;

        switch (bytes[0] % 5) {
        case 0: /* a cell onto another */
                to = to / TK_CELL_LEN * TK_CELL_LEN;
                from = from / TK_CELL_LEN * TK_CELL_LEN;
                count = TK_CELL_LEN;
                break;
        case 1: /* a page onto another */
                to = to / TK_BLOCK_LEN * TK_BLOCK_LEN;
                from = from / TK_BLOCK_LEN * TK_BLOCK_LEN;
                count = TK_BLOCK_LEN;
                break;
        case 2: /* a flipped bit */
                backing[to] ^= (uint8_t)(1U << bytes[4] % 8);
                return 7;
        case 3: /* zeros over a cell */
                to = to / TK_CELL_LEN * TK_CELL_LEN;
                memset(backing + to, 0, good.len - to < TK_CELL_LEN ? good.len - to : TK_CELL_LEN);
                return 7;
        default: /* bytes of the input */
                count = len - 7 < bytes[4] ? len - 7 : bytes[4];
                count = good.len - to < count ? good.len - to : count;
                memcpy(backing + to, bytes + 7, count);
                return 7 + count;
        }
        count = good.len - to < count ? good.len - to : count;
        count = good.len - from < count ? good.len - from : count;
        memmove(backing + to, good.backing + from, count);
        return 7;
}

/* Bytes from the first on that are the same: at once, as it is of most blocks, or one by one. */
static size_t count_same(const uint8_t *a, const uint8_t *b, size_t len)
{
        size_t same = 0;

        if (memcmp(a, b, len) == 0)
                return len;
        while (same < len && a[same] == b[same])
                same++;
        return same;
}

/* The block was read as it was written, up to where it was cut, or as zeros. */
static void check_block(uint64_t block, const uint8_t *data, size_t len)
{
        size_t same = 0;

        if (block < BLOCKS)
                same = count_same(data, good.plain + block * TK_BLOCK_LEN, len);
        require(same == len || tk_bytes_are_zero(data + same, len - same) ||
                tk_bytes_are_zero(data, len));
}

/* Blocks @first to @last by one request, if that is read; each block for itself otherwise. */
static void check_blocks(struct tk_openfile *file, uint64_t first, uint64_t last)
{
        const uint8_t *data = NULL;
        ssize_t n = tk_content_read(&good.fs, file, first * TK_BLOCK_LEN,
                                    (last - first + 1) * TK_BLOCK_LEN, &data);

        if (n < 0) {
                require(n == -EBADMSG);
                for (uint64_t block = first; first < last && block <= last; block++)
                        check_blocks(file, block, block);
                return;
        }
        for (uint64_t block = first; block <= last; block++) {
                size_t len = tk_block_valid(block, file->size);

                check_block(block, data + (block - first) * TK_BLOCK_LEN, len);
                n -= (ssize_t)len;
        }
        require(n == 0);
}

/* Every block reads as it was written, as zeros, or not at all. */
static void check_reads(struct tk_openfile *file)
{
        uint64_t count = (file->size + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN;

        for (uint64_t first = 0; first < count; first += READ_BLOCKS)
                check_blocks(file, first,
                             first + READ_BLOCKS < count ? first + READ_BLOCKS - 1 : count - 1);
}

/* Changes to a damaged file fail or succeed; what they wrote is there. */
static void check_changes(struct tk_openfile *file, uint8_t what)
{
        uint64_t off = file->size / 2 / TK_BLOCK_LEN * TK_BLOCK_LEN;
        const uint8_t *data = NULL;
        uint64_t found = 0;
        uint8_t block[TK_BLOCK_LEN];

        (void)!tk_content_seek(&good.fs, file, file->size / 3, SEEK_HOLE, &found);
        (void)!tk_content_seek(&good.fs, file, file->size / 3, SEEK_DATA, &found);
        memset(block, 0xEE, sizeof(block));
        if (tk_content_write(&good.fs, file, off, block, sizeof(block)) == 0) {
                memset(block, 0xEE, sizeof(block));
                require(tk_content_read(&good.fs, file, off, TK_BLOCK_LEN, &data) == TK_BLOCK_LEN);
                require(memcmp(data, block, TK_BLOCK_LEN) == 0);
        }
        memset(block, 0xEE, sizeof(block));
        (void)!tk_content_write(&good.fs, file, off / 2 + what, block, 100);
        (void)!tk_content_fallocate(&good.fs, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    (uint64_t)what * 1000, 50000);
        (void)!tk_content_truncate(&good.fs, file, (uint64_t)what * 3000);
        (void)!tk_content_truncate(&good.fs, file, GOOD_SIZE);
        for (off = 0; off < file->size; off += TK_REQUEST_MAX)
                (void)!tk_content_read(&good.fs, file, off, TK_REQUEST_MAX, &data);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        struct tk_openfile *file = &good.file;
        uint8_t what = len > 2 ? bytes[2] : 0;
        size_t backing_len;

        make_good();
        memcpy(good.edited, good.backing, good.len);
        backing_len = good.len;
        if (len >= 2) {
                /* Half of the time whole, else cut anywhere. */
                size_t cut = (size_t)bytes[0] << 8 | bytes[1];

                if (cut >= 0x8000)
                        backing_len = (good.len * (cut - 0x8000) >> 15) + 1;
                bytes += 2;
                len -= 2;
                while (len >= 7) {
                        size_t used = edit(good.edited, bytes, len);

                        bytes += used;
                        len -= used;
                }
        }
        require(ftruncate(good.fd, (off_t)backing_len) == 0);
        require(tk_fdio_pwrite(good.fd, good.edited, backing_len, 0) == 0);
        *file = good.loaded;
        file->fd = good.fd;
        file->size = tk_plain_size(backing_len);
        file->has_header = true;
        check_reads(file);
        check_changes(file, what);
        return 0;
}
