/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as a file's key record, as its copy in the file, and as what decides between
 * them. What loads is a key that was wrapped for a file; while the file's blocks or its seal
 * are whole and one of the two records is its own, that is the one; and after healing nothing is
 * left to heal.
 *
 * The input: which attribute (1), which copy (1), what is left of the seal and the blocks
 * (1), the size (2), then changes: to what 1, where 2, with what 1.
 */

#include "support.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "fs/backing.h"
#include "fs/content.h"
#include "fs/fs_internal.h"
#include "fs/keyattr.h"
#include "fs/op.h"
#include <errno.h>
#include <fcntl.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum {
        PLAIN_LEN = 3 * TK_BLOCK_LEN - 100,
        FIXED_LEN = 5,
        OWN = 0,
        OTHERS = 1,
        NONE = 2,
        WHATS = 4
};

/* Two files as they lie below: what is in both places is of these, or of neither. */
static struct file {
        struct tk_record record;
        struct tk_secret *dek;
        uint8_t backing[PLAIN_LEN + TK_BLOCK_LEN];
} files[2];
static int scratch_fd;

static void write_file(const char *name, struct file *file)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 022};
        struct tk_inode *root = tk_inode_root(fuzz.fs->inodes);
        struct tk_openfile *open_file = NULL;
        uint8_t plain[PLAIN_LEN];
        struct tk_entry entry;

        memset(plain, name[0], sizeof(plain));
        require(tk_op_create(fuzz.fs, root, name, 0600, O_RDWR, &caller, &entry, &open_file) == 0);
        require(tk_content_write(fuzz.fs, open_file, 0, plain, sizeof(plain)) == 0);
        require(tk_secret_dup_bytes(tk_secret_bytes(open_file->dek), TK_KEY_LEN, &file->dek) == 0);
        file->record = open_file->record;
        require(tk_op_fsync(fuzz.fs, open_file, false) == 0);
        require(tk_op_fsync(fuzz.fs, open_file, false) == 0); /* seals what the first one synced */
        require(tk_fdio_pread(open_file->fd, file->backing, sizeof(file->backing), 0) ==
                sizeof(file->backing));
        tk_op_release(fuzz.fs, open_file, O_RDWR);
        tk_inode_forget(fuzz.fs->inodes, entry.inode, 1);
}

static void make_files(void)
{
        char path[sizeof(fuzz.dir) + 16];

        if (!fuzz_mount())
                return;
        write_file("own", &files[OWN]);
        write_file("others", &files[OTHERS]);
        snprintf(path, sizeof(path), "%s/scratch", fuzz.dir);
        scratch_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        require(scratch_fd >= 0);
}

struct scene {
        uint8_t attribute[TK_RECORD_MAX + 8];
        size_t attribute_len; /* 0: there is none */
        uint8_t backing[sizeof(files[0].backing)];
        size_t backing_len;
};

static void make_records(struct scene *scene, unsigned attribute, unsigned copy)
{
        if (attribute != NONE) {
                scene->attribute_len = TK_RECORD_LEN;
                if (attribute <= OTHERS)
                        memcpy(scene->attribute, files[attribute].record.bytes, TK_RECORD_LEN);
        }
        if (copy > OTHERS)
                memset(scene->backing, 0, TK_RECORD_LEN);
        else
                memcpy(scene->backing, files[copy].record.bytes, TK_RECORD_LEN);
}

/* Whether both places are as they were written, or one of them, and the rest is the file's. */
static bool must_open(const struct scene *scene)
{
        const struct file *own = &files[OWN];
        bool attribute = scene->attribute_len == TK_RECORD_LEN &&
                         memcmp(scene->attribute, own->record.bytes, TK_RECORD_LEN) == 0;
        bool copy = scene->backing_len >= TK_RECORD_LEN &&
                    memcmp(scene->backing, own->record.bytes, TK_RECORD_LEN) == 0;

        return (attribute || copy) && scene->backing_len == sizeof(own->backing) &&
               memcmp(scene->backing + TK_RECORD_LEN, own->backing + TK_RECORD_LEN,
                      sizeof(own->backing) - TK_RECORD_LEN) == 0;
}

static void store(const struct scene *scene)
{
        require(ftruncate(scratch_fd, 0) == 0);
        require(tk_fdio_pwrite(scratch_fd, scene->backing, scene->backing_len, 0) == 0);
        (void)!tk_backing_removexattr(scratch_fd, TK_KEYATTR_NAME);
        if (scene->attribute_len > 0)
                require(tk_backing_setxattr(scratch_fd, TK_KEYATTR_NAME, scene->attribute,
                                            scene->attribute_len, 0) == 0);
}

/* Heal it, and it is healed. */
static void heal(const struct scene *scene, const struct tk_keyattr *keyattr)
{
        struct tk_keyattr again;
        struct stat st;
        int r;

        require(tk_keyattr_heal(scratch_fd, keyattr) == 0);
        require(fstat(scratch_fd, &st) == 0);
        require(tk_plain_size((uint64_t)st.st_size) == tk_plain_size(scene->backing_len));
        r = tk_keyattr_load(fuzz.fs, scratch_fd, (uint64_t)st.st_size, &again);
        require(r == 0 && tk_secret_equal(again.dek, keyattr->dek));
        require(!again.attribute_bad && !again.copy_bad);
        tk_secret_free(again.dek);
}

static void check(const struct scene *scene)
{
        struct tk_keyattr keyattr;
        bool must = must_open(scene);
        int r;

        store(scene);
        r = tk_keyattr_load(fuzz.fs, scratch_fd, scene->backing_len, &keyattr);
        require(r <= 0 && (r == 0) == (keyattr.dek != NULL));
        if (must)
                require(r == 0 && tk_secret_equal(keyattr.dek, files[OWN].dek));
        if (r < 0)
                return;
        require(tk_secret_equal(keyattr.dek, files[OWN].dek) ||
                tk_secret_equal(keyattr.dek, files[OTHERS].dek));
        (void)tk_keyattr_is_sound(fuzz.fs, scratch_fd, scene->backing_len);
        heal(scene, &keyattr);
        tk_secret_free(keyattr.dek);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        struct scene scene = {.backing_len = sizeof(scene.backing)};

        make_files();
        if (len < FIXED_LEN)
                return 0;
        memcpy(scene.backing, files[bytes[2] & 1].backing, sizeof(scene.backing));
        make_records(&scene, bytes[0] % WHATS, bytes[1] % WHATS);
        if (bytes[2] & 2) /* no seal */
                memset(scene.backing + TK_SEAL_HEADER_OFF, 0, TK_HEADER_LEN - TK_SEAL_HEADER_OFF);
        if (bytes[2] & 4) /* no cells */
                memset(scene.backing + TK_HEADER_LEN, 0, TK_BLOCK_LEN - TK_HEADER_LEN);
        if (bytes[2] & 8)
                scene.backing_len = tk_get_be16(bytes + 3) % sizeof(scene.backing);
        if (bytes[2] & 16 && scene.attribute_len > 0)
                scene.attribute_len = 1 + bytes[3] % (TK_RECORD_MAX + 7);
        for (bytes += FIXED_LEN, len -= FIXED_LEN; len >= 4; bytes += 4, len -= 4) {
                size_t at = tk_get_be16(bytes + 1);

                if (bytes[0] & 1)
                        scene.attribute[at % TK_RECORD_LEN] ^= bytes[3];
                else
                        scene.backing[at % sizeof(scene.backing)] ^= bytes[3];
        }
        check(&scene);
        return 0;
}
