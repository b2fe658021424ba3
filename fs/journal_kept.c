/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Journal entries that are kept.
 *
 * The file is never changed: a new one is written beside it, under another name, and the
 * volume file, replaced atomically, says which one counts.
 */

#include "fs/journal_kept.h"

#include "base/bytes.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/journal_find.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PREFIX "kept-"

enum { NAME_MAX_LEN = 32 };

struct tk_journal_kept {
        pthread_mutex_t lock; /* guards what follows, and the file */
        uint8_t (*proofs)[TK_JOURNAL_PROOF_LEN];
        atomic_size_t count; /* read without the lock, too */
};

static void make_name(uint64_t chain, char name[NAME_MAX_LEN])
{
        snprintf(name, NAME_MAX_LEN, PREFIX "%016llx", (unsigned long long)chain);
}

static int open_dir(struct tk_fs *fs)
{
        int fd = openat(tk_volume_dirfd(fs->volume), TK_JOURNAL_DIR,
                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

/* Writing ----------------------------------------------------------------------------- */

/* What is being written. */
struct copy {
        int fd;
        struct tk_journal_head head; /* chain and sequence count up */
        uint64_t off;
        uint8_t *descriptor;
        tk_journal_kept_wanted *wanted;
        void *context;
};

/* The wanted files of the batch that was read; their new numbers go to @index, -1 for others. */
static void copy_files(struct copy *copy, const struct tk_journal_reader *reader,
                       struct tk_journal_writer *writer, int index[TK_JOURNAL_FILES_MAX])
{
        tk_journal_write_begin(writer, copy->descriptor);
        for (unsigned i = 0; i < reader->head.files; i++) {
                struct tk_journal_file file = tk_journal_file_at(reader->batch, &reader->head, i);

                index[i] = -1;
                if (!copy->wanted(copy->context, file.proof))
                        continue;
                index[i] = writer->files;
                tk_journal_write_file(writer, &file);
        }
}

static int copy_batch(struct copy *copy, struct tk_journal_reader *reader)
{
        struct iovec iov[TK_JOURNAL_PAGES_MAX + 1];
        struct tk_journal_cursor cursor = {0};
        struct tk_journal_writer writer;
        struct tk_journal_item item;
        int index[TK_JOURNAL_FILES_MAX];
        int pages = 0;
        int r;

        copy_files(copy, reader, &writer, index);
        if (writer.files == 0)
                return 0;
        while (tk_journal_next_item(reader->batch, &reader->head, &cursor, &item)) {
                if (index[item.file] < 0)
                        continue;
                item.file = (uint16_t)index[item.file];
                tk_journal_write_item(&writer, &item);
                if (item.type == TK_JOURNAL_BLOCK)
                        iov[++pages] = (struct iovec){.iov_base = (void *)(uintptr_t)item.page,
                                                      .iov_len = TK_BLOCK_LEN};
        }
        copy->head.sequence++;
        copy->head.mount = reader->head.mount;
        copy->head.tree = reader->head.tree;
        r = tk_journal_write_end(&writer, &copy->head, reader->mac_key);
        if (r < 0)
                return r;
        iov[0] = (struct iovec){.iov_base = writer.bytes, .iov_len = writer.len};
        r = tk_backing_pwritev(copy->fd, iov, pages + 1, copy->off);
        copy->off += writer.len + (uint64_t)pages * TK_BLOCK_LEN;
        return r;
}

static int copy_sources(struct copy *copy, struct tk_journal_reader *reader,
                        const struct tk_journal_source *sources, unsigned count)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < count; i++) {
                tk_journal_reader_begin(reader, &sources[i]);
                while ((r = tk_journal_reader_next(reader)) > 0) {
                        r = copy_batch(copy, reader);
                        if (r < 0)
                                return r;
                }
        }
        return r;
}

int tk_journal_kept_write(struct tk_fs *fs, struct tk_journal_reader *reader,
                          const struct tk_journal_source *sources, unsigned count,
                          tk_journal_kept_wanted *wanted, void *context, uint64_t *ret_chain)
{
        TK_CLEANUP(tk_freep) uint8_t *descriptor = malloc(TK_JOURNAL_DESCRIPTOR_MAX);
        struct copy copy = {.descriptor = descriptor, .wanted = wanted, .context = context};
        TK_AUTOCLOSE int dirfd = -1;
        TK_AUTOCLOSE int fd = -1;
        char name[NAME_MAX_LEN];
        int r;

        if (!descriptor)
                return -ENOMEM;
        r = tk_random_bytes(&copy.head.chain, sizeof(copy.head.chain));
        if (r < 0)
                return r;
        make_name(copy.head.chain, name);
        dirfd = open_dir(fs);
        if (dirfd < 0)
                return dirfd;
        fd = tk_backing_create(dirfd, name, 0600);
        if (fd < 0)
                return fd;
        copy.fd = fd;
        r = copy_sources(&copy, reader, sources, count);
        if (r == 0 && copy.off > 0)
                r = tk_backing_sync(fd, false);
        if (r == 0 && copy.off > 0)
                r = tk_backing_sync(dirfd, false);
        if (r < 0 || copy.off == 0)
                (void)!tk_backing_unlink(dirfd, name, false);
        *ret_chain = copy.off > 0 ? copy.head.chain : 0;
        return r;
}

/* Reading ----------------------------------------------------------------------------- */

int tk_journal_kept_open(struct tk_fs *fs, struct tk_journal_source *ret_source)
{
        TK_AUTOCLOSE int dirfd = open_dir(fs);
        char name[NAME_MAX_LEN];
        struct stat st;
        int fd;

        if (dirfd < 0)
                return dirfd;
        make_name(tk_volume_kept(fs->volume), name);
        fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0) {
                int error = -errno;

                close(fd);
                return error;
        }
        *ret_source = (struct tk_journal_source){
                .fd = fd, .len = (uint64_t)st.st_size, .chain = tk_volume_kept(fs->volume)};
        return 0;
}

void tk_journal_kept_sweep(struct tk_fs *fs)
{
        char name[NAME_MAX_LEN];
        int fd = open_dir(fs);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;

        if (!dir) {
                if (fd >= 0)
                        close(fd);
                return;
        }
        make_name(tk_volume_kept(fs->volume), name);
        while ((entry = readdir(dir)))
                if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0 && /* not secret */
                    strcmp(entry->d_name, name) != 0)
                        (void)!tk_backing_unlink(fd, entry->d_name, false);
        closedir(dir);
}

/* In a mount ---------------------------------------------------------------------------- */

/* Where @proof is; `count`: it is not there. */
static size_t index_of(const struct tk_journal_kept *kept,
                       const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        size_t i = 0;

        while (i < kept->count && !tk_bytes_equal_ct(kept->proofs[i], proof, TK_JOURNAL_PROOF_LEN))
                i++;
        return i;
}

static int add_proof(struct tk_journal_kept *kept, const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        uint8_t(*proofs)[TK_JOURNAL_PROOF_LEN];

        if (index_of(kept, proof) < kept->count)
                return 0;
        proofs = reallocarray(kept->proofs, kept->count + 1, sizeof(*proofs));
        if (!proofs)
                return -ENOMEM;
        kept->proofs = proofs;
        memcpy(proofs[kept->count++], proof, TK_JOURNAL_PROOF_LEN);
        return 0;
}

static int read_proofs(struct tk_journal_kept *kept, struct tk_journal_reader *reader,
                       const struct tk_journal_source *source)
{
        int r;

        tk_journal_reader_begin(reader, source);
        while ((r = tk_journal_reader_next(reader)) > 0)
                for (unsigned i = 0; i < reader->head.files; i++) {
                        struct tk_journal_file file =
                                tk_journal_file_at(reader->batch, &reader->head, i);

                        r = add_proof(kept, file.proof);
                        if (r < 0)
                                return r;
                }
        return r;
}

int tk_journal_kept_start(struct tk_fs *fs, struct tk_journal_reader *reader)
{
        struct tk_journal_source source = {.fd = -1};
        int r;

        fs->kept = calloc(1, sizeof(*fs->kept));
        if (!fs->kept)
                return -ENOMEM;
        pthread_mutex_init(&fs->kept->lock, NULL);
        if (tk_volume_kept(fs->volume) == 0)
                return 0;
        r = tk_journal_kept_open(fs, &source);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        r = read_proofs(fs->kept, reader, &source);
        close(source.fd);
        return r;
}

unsigned tk_journal_kept_count(const struct tk_fs *fs)
{
        return fs->kept ? (unsigned)fs->kept->count : 0;
}

struct tk_journal_kept *tk_journal_kept_free(struct tk_journal_kept *kept)
{
        if (!kept)
                return NULL;
        pthread_mutex_destroy(&kept->lock);
        free(kept->proofs);
        free(kept);
        return NULL;
}

static int put_batches(struct tk_journal_reader *reader, const struct tk_journal_source *source,
                       const struct tk_openfile *file, const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        int r;

        tk_journal_reader_begin(reader, source);
        while ((r = tk_journal_reader_next(reader)) > 0)
                for (unsigned i = 0; i < reader->head.files; i++) {
                        struct tk_journal_file entry =
                                tk_journal_file_at(reader->batch, &reader->head, i);

                        if (!tk_bytes_equal_ct(entry.proof, proof, TK_JOURNAL_PROOF_LEN))
                                continue;
                        r = tk_journal_reader_put(reader, i, file);
                        if (r < 0)
                                return r;
                }
        return r < 0 ? r : tk_backing_sync(file->fd, false);
}

static bool is_other(void *context, const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        return !tk_bytes_equal_ct(context, proof, TK_JOURNAL_PROOF_LEN);
}

/* From now on what is @wanted of @sources is kept, and nothing else. */
static int replace(struct tk_fs *fs, struct tk_journal_reader *reader,
                   const struct tk_journal_source *sources, unsigned count,
                   tk_journal_kept_wanted *wanted, void *context)
{
        struct tk_fault fault = {0};
        uint64_t chain = 0;
        int r;

        r = tk_journal_kept_write(fs, reader, sources, count, wanted, context, &chain);
        if (r == 0)
                r = tk_volume_note_kept(fs->volume, chain, &fault);
        if (r == 0)
                tk_journal_kept_sweep(fs);
        return r;
}

/*
 * Keep nothing more of the file with @proof: it is put in place, where there is a @file, and the
 * rest is kept.
 */
static int put(struct tk_fs *fs, const struct tk_openfile *file,
               uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        TK_CLEANUP(tk_journal_reader_done) struct tk_journal_reader reader = {0};
        struct tk_journal_source source = {.fd = -1};
        int r;

        r = tk_journal_reader_init(&reader, fs);
        if (r == 0)
                r = tk_journal_kept_open(fs, &source);
        if (r < 0)
                return r;
        if (file)
                r = put_batches(&reader, &source, file, proof);
        if (r == 0)
                r = replace(fs, &reader, &source, 1, is_other, proof);
        close(source.fd);
        return r;
}

/* With @kept locked: the file with @proof number @i is not held back any more. */
static void forget_proof(struct tk_journal_kept *kept, size_t i)
{
        memmove(kept->proofs[i], kept->proofs[--kept->count], TK_JOURNAL_PROOF_LEN);
}

int tk_journal_kept_put(struct tk_fs *fs, struct tk_openfile *file)
{
        struct tk_journal_kept *kept = fs->kept;
        uint8_t proof[TK_JOURNAL_PROOF_LEN];
        size_t i;
        int r;

        if (!kept || kept->count == 0)
                return 0;
        r = tk_journal_proof_of(file, proof);
        if (r < 0)
                return r;
        TK_LOCK_SCOPE(&kept->lock);
        i = index_of(kept, proof);
        if (i == kept->count)
                return 0;
        r = fs->read_only || !file->writable ? -EROFS : put(fs, file, proof);
        if (r == 0)
                forget_proof(kept, i);
        return r;
}

/* While mounted ------------------------------------------------------------------------ */

static bool is_listed(void *context, const uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        const struct tk_journal_kept *kept = context;

        return index_of(kept, proof) < kept->count;
}

int tk_journal_kept_add(struct tk_fs *fs, const struct tk_journal_source *area,
                        uint8_t (*proofs)[TK_JOURNAL_PROOF_LEN], unsigned count)
{
        TK_CLEANUP(tk_journal_reader_done) struct tk_journal_reader reader = {0};
        struct tk_journal_source sources[2] = {{.fd = -1}, *area};
        unsigned first = 1;
        int r;

        TK_LOCK_SCOPE(&fs->kept->lock);
        r = tk_journal_reader_init(&reader, fs);
        for (unsigned i = 0; r == 0 && i < count; i++)
                r = add_proof(fs->kept, proofs[i]);
        if (r == 0 && tk_volume_kept(fs->volume) != 0) {
                r = tk_journal_kept_open(fs, &sources[0]);
                if (r == 0)
                        first = 0;
                else if (r == -ENOENT)
                        r = 0;
        }
        if (r == 0)
                r = replace(fs, &reader, sources + first, 2 - first, is_listed, fs->kept);
        if (sources[0].fd >= 0)
                close(sources[0].fd);
        return r;
}

int tk_journal_kept_forget(struct tk_fs *fs, uint8_t proof[TK_JOURNAL_PROOF_LEN])
{
        struct tk_journal_kept *kept = fs->kept;
        size_t i;
        int r;

        TK_LOCK_SCOPE(&kept->lock);
        i = index_of(kept, proof);
        if (i == kept->count)
                return 0;
        r = tk_volume_kept(fs->volume) != 0 ? put(fs, NULL, proof) : 0;
        if (r == -ENOENT)
                r = 0; /* somebody removed all that was kept */
        if (r == 0)
                forget_proof(kept, i);
        return r;
}
