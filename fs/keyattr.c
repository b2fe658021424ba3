/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The key record of a file.
 *
 * Programs that copy files without their attributes leave the copy; programs
 * that write new content into an old file leave the attribute. So when the two
 * hold different DEKs, the file's own blocks decide whose it is.
 */

#include "fs/keyattr.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "crypto/random.h"
#include "fs/backing.h"
#include "fs/block.h"
#include "fs/fs_internal.h"
#include "fs/lift.h"
#include "fs/seal.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Blocks that are looked at, to find out whose a file is. */
enum { BLOCKS_TRIED = 1024 };

/* One of the two places of a record, and what is in it. */
struct candidate {
        struct tk_record record;
        struct tk_secret *dek; /* NULL: not usable */
        bool present;
        bool unreadable; /* the mode forbids it, and can't be lifted */
};

static void candidate_done(struct candidate *candidate)
{
        candidate->dek = tk_secret_free(candidate->dek);
}

static int candidate_unwrap(struct tk_fs *fs, struct candidate *candidate)
{
        int r;

        r = tk_keyring_unwrap(fs->keyring, &candidate->record, &candidate->dek);
        if (r == -EBADMSG || r == -ENOTSUP)
                return 0; /* not usable: the other place may be */
        return r;
}

static int read_attribute(struct tk_fs *fs, int fd, struct candidate *ret_candidate)
{
        ssize_t n;

        n = tk_lift_getxattr(fs, fd, TK_KEYATTR_NAME, ret_candidate->record.bytes, TK_RECORD_MAX);
        ret_candidate->unreadable = n == -EACCES;
        if (n == -ENODATA || n == -ERANGE || n == -ENOTSUP || n == -EACCES)
                return 0;
        if (n < 0)
                return (int)n;
        ret_candidate->present = true;
        if ((size_t)n != tk_record_len(&ret_candidate->record))
                return 0;
        return candidate_unwrap(fs, ret_candidate);
}

static bool same_record(const struct tk_record *a, const struct tk_record *b)
{
        size_t len = tk_record_len(a);

        return len == tk_record_len(b) && len <= TK_RECORD_MAX &&
               tk_bytes_equal_ct(a->bytes, b->bytes, len);
}

static int read_copy(struct tk_fs *fs, int fd, const struct candidate *attribute,
                     struct candidate *ret_candidate)
{
        ssize_t n;

        n = tk_fdio_pread(fd, ret_candidate->record.bytes,
                          fs->base > 0 ? TK_RECORD_MAX : TK_RECORD_LEN, 0);
        if (n < 0)
                return (int)n;
        ret_candidate->present = n >= (ssize_t)tk_record_len(&ret_candidate->record) &&
                                 !tk_bytes_are_zero(ret_candidate->record.bytes, (size_t)n);
        if (!ret_candidate->present)
                return 0;
        /* Nearly always the two are the same bytes: one unwrap serves both. */
        if (attribute->dek && same_record(&ret_candidate->record, &attribute->record))
                return tk_secret_dup_bytes(tk_secret_bytes(attribute->dek), TK_KEY_LEN,
                                           &ret_candidate->dek);
        return candidate_unwrap(fs, ret_candidate);
}

/* Whether @dek opens @block: 1 or 0, or a negative errno. */
static int opens_block(const struct tk_fs *fs, int fd, struct tk_scratch *scratch, uint64_t block,
                       const uint8_t *cell, const struct tk_secret *dek)
{
        ssize_t n;
        int r;

        n = tk_fdio_pread(fd, scratch->head, TK_BLOCK_LEN, (off_t)(fs->base + tk_data_off(block)));
        if (n < 0)
                return (int)n;
        r = tk_block_use_group(scratch, dek, tk_group_of_block(block));
        if (r < 0)
                return r;
        r = tk_block_open(scratch, block, cell, scratch->head, TK_BLOCK_LEN);
        tk_wipe(scratch->head, TK_BLOCK_LEN);
        return r == 0 ? 1 : r == -EBADMSG ? 0 : r;
}

/* Whose blocks the file holds. */
enum verdict { ATTRIBUTE_WINS, COPY_WINS, NOBODY_WINS };

/* The one whose key made the seal. */
static int whose_seal(const struct tk_fs *fs, int fd, const struct tk_secret *attribute,
                      const struct tk_secret *copy)
{
        uint8_t slots[TK_SEAL_SLOTS * TK_SEAL_LEN];
        ssize_t n = tk_fdio_pread(fd, slots, sizeof(slots), (off_t)(fs->base + tk_seal_off(0)));

        if (n < 0)
                return (int)n;
        memset(slots + n, 0, sizeof(slots) - (size_t)n);
        for (size_t off = 0; off < sizeof(slots); off += TK_SEAL_LEN) {
                struct tk_seal seal;
                int r = tk_seal_parse(attribute, slots + off, &seal);

                if (r != 0)
                        return r < 0 ? r : ATTRIBUTE_WINS;
                r = copy ? tk_seal_parse(copy, slots + off, &seal) : 0;
                if (r != 0)
                        return r < 0 ? r : COPY_WINS;
        }
        return NOBODY_WINS;
}

/*
 * Both places hold a DEK, and not the same (NULL: the copy holds none): the seal decides,
 * else the first block that opens under one of them decides. Damaged blocks say nothing. Nobody
 * wins if none of many opens; in a file without blocks, the attribute does.
 */
static int judge(const struct tk_fs *fs, int fd, uint64_t backing_size,
                 const struct tk_secret *attribute, const struct tk_secret *copy)
{
        unsigned tried = 0;
        TK_CLEANUP(tk_scratch_forgetp) struct tk_scratch *scratch = NULL;
        uint64_t size = tk_plain_size_at(fs->base, backing_size);
        uint64_t groups = (size + TK_GROUP_LEN - 1) / TK_GROUP_LEN;
        int r;

        r = whose_seal(fs, fd, attribute, copy);
        if (r != NOBODY_WINS)
                return r;
        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        for (uint64_t group = 0; group < groups && group < 64 && tried < BLOCKS_TRIED; group++) {
                ssize_t n = tk_fdio_pread(fd, scratch->tag_pages, TK_BLOCK_LEN,
                                          (off_t)(fs->base + tk_tag_page_off(group)));

                if (n < 0)
                        return (int)n;
                memset(scratch->tag_pages + n, 0, (size_t)(TK_BLOCK_LEN - n));
                for (unsigned slot = 0; slot < TK_GROUP_BLOCKS; slot++) {
                        const uint8_t *cell =
                                scratch->tag_pages + TK_HEADER_LEN + (size_t)slot * TK_CELL_LEN;
                        uint64_t block = group * TK_GROUP_BLOCKS + slot;

                        if (tk_bytes_are_zero(cell, TK_CELL_LEN))
                                continue;
                        tried++;
                        r = opens_block(fs, fd, scratch, block, cell, attribute);
                        if (r == 0 && copy) {
                                r = opens_block(fs, fd, scratch, block, cell, copy);
                                if (r > 0)
                                        return COPY_WINS;
                        }
                        if (r != 0)
                                return r < 0 ? r : ATTRIBUTE_WINS;
                }
        }
        return tried > 0 ? NOBODY_WINS : ATTRIBUTE_WINS;
}

static int choose(const struct tk_fs *fs, int fd, uint64_t backing_size,
                  struct candidate *attribute, struct candidate *copy,
                  struct tk_keyattr *ret_keyattr)
{
        struct candidate *winner = attribute;
        bool undecided = false;
        bool same = attribute->dek && copy->dek && tk_secret_equal(attribute->dek, copy->dek);
        int r;

        if (!attribute->dek && !copy->dek) {
                if (backing_size == 0 && !attribute->present)
                        return -ENODATA;
                return -EBADMSG;
        }
        if (!attribute->dek) {
                winner = copy;
        } else if (copy->dek && !same) {
                r = judge(fs, fd, backing_size, attribute->dek, copy->dek);
                if (r < 0)
                        return r;
                winner = r == COPY_WINS ? copy : attribute;
                undecided = r == NOBODY_WINS;
        }

        ret_keyattr->attribute_bad = winner != attribute && !attribute->unreadable;
        /* Undecided, neither is overwritten: it may be all that is left of the file's key. */
        ret_keyattr->copy_bad = backing_size > 0 && winner != copy && !undecided &&
                                (!copy->dek || !same_record(&copy->record, &attribute->record));
        ret_keyattr->record = winner->record;
        ret_keyattr->dek = TK_TAKE(winner->dek);
        return 0;
}

int tk_keyattr_load(struct tk_fs *fs, int fd, uint64_t backing_size, struct tk_keyattr *ret_keyattr)
{
        TK_CLEANUP(candidate_done) struct candidate attribute = {0};
        TK_CLEANUP(candidate_done) struct candidate copy = {0};
        TK_EPOCH_SCOPE(&fs->changes); /* no version is retired under the record that was read */
        int r;

        memset(ret_keyattr, 0, sizeof(*ret_keyattr));
        r = read_attribute(fs, fd, &attribute);
        if (r < 0)
                return r;
        if (backing_size > 0) {
                r = read_copy(fs, fd, &attribute, &copy);
                if (r < 0)
                        return r;
        }
        return choose(fs, fd, backing_size, &attribute, &copy, ret_keyattr);
}

int tk_keyattr_fits(const struct tk_fs *fs, int fd, uint64_t backing_size,
                    const struct tk_secret *dek)
{
        int r = judge(fs, fd, backing_size, dek, NULL);

        return r < 0 ? r : r == ATTRIBUTE_WINS;
}

int tk_keyattr_is_sound(struct tk_fs *fs, int fd, uint64_t backing_size)
{
        struct tk_record attribute = {0};
        struct tk_record copy = {0};
        size_t len;
        ssize_t n;

        n = tk_backing_getxattr(fd, TK_KEYATTR_NAME, attribute.bytes, TK_RECORD_MAX);
        if (n <= 0)
                return 0;
        len = (size_t)n;
        if (len != tk_record_len(&attribute))
                return 0;
        if (backing_size > 0) {
                n = tk_fdio_pread(fd, copy.bytes, len, 0);
                if (n < 0)
                        return (int)n;
                if ((size_t)n != len || !same_record(&attribute, &copy))
                        return 0;
        }
        return tk_keyring_check(fs->keyring, &attribute);
}

int tk_keyattr_heal(int fd, const struct tk_keyattr *keyattr)
{
        struct timespec times[2];
        struct stat st;
        int r;

        if (keyattr->attribute_bad) {
                r = tk_keyattr_store(fd, &keyattr->record);
                if (r < 0)
                        return r;
        }
        if (keyattr->copy_bad) {
                if (fstat(fd, &st) < 0)
                        return -errno;
                r = tk_backing_pwrite(fd, keyattr->record.bytes, tk_record_len(&keyattr->record),
                                      0);
                if (r < 0)
                        return r;
                times[0] = st.st_atim;
                times[1] = st.st_mtim;
                return tk_backing_utimens(fd, times);
        }
        return 0;
}

int tk_keyattr_make(struct tk_fs *fs, struct tk_secret **ret_dek, struct tk_record *ret_record)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        int r;

        r = tk_random_secret(TK_KEY_LEN, &dek);
        if (r < 0)
                return r;
        r = tk_keyring_wrap(fs->keyring, dek, ret_record);
        if (r < 0)
                return r;
        *ret_dek = TK_TAKE(dek);
        return 0;
}

int tk_keyattr_read(struct tk_fs *fs, int fd, struct tk_record *ret_record)
{
        ssize_t n;

        memset(ret_record, 0, sizeof(*ret_record));
        n = tk_lift_getxattr(fs, fd, TK_KEYATTR_NAME, ret_record->bytes, TK_RECORD_MAX);
        if (n == -ERANGE)
                return -EBADMSG;
        if (n < 0)
                return (int)n;
        return (size_t)n == tk_record_len(ret_record) ? 0 : -EBADMSG;
}

int tk_keyattr_store(int fd, const struct tk_record *record)
{
        return tk_backing_setxattr(fd, TK_KEYATTR_NAME, record->bytes, tk_record_len(record), 0);
}

uint16_t tk_keyattr_version(struct tk_fs *fs, int fd, bool with_copy)
{
        struct tk_record record;
        uint16_t version = 0;

        if (tk_keyattr_read(fs, fd, &record) == 0 &&
            tk_record_kek_version(record.bytes, tk_record_len(&record), &version) == 0)
                return version;
        memset(&record, 0, sizeof(record));
        if (with_copy && tk_fdio_pread(fd, record.bytes, TK_RECORD_MAX, 0) >= TK_RECORD_LEN &&
            tk_record_kek_version(record.bytes, tk_record_len(&record), &version) == 0)
                return version;
        return 0;
}
