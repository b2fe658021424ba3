/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* For tests of fs/: a KMS that counts and fails on demand, and a volume in the working directory.
 */

#include "support.h"

#include "crypto/aead.h"
#include "crypto/random.h"
#include "fs/fs.h"
#include "fs/fs_internal.h"
#include "fs/journal.h"
#include "fs/op.h"
#include "fs/scratch.h"
#include "fs/volume.h"
#include "kms/kms.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

/* A real provider over one key in memory: it wraps with AES-GCM. */
struct tk_fake_kms {
        uint8_t root_key[TK_KEY_LEN];
        char key_id[32];
        atomic_uint newer; /* versions after the first one */
        atomic_uint calls; /* of all kinds */
        atomic_uint unwraps;
        unsigned fail_at; /* this call fails, counted from 1; 0: none */
        int fail_with;
        atomic_int refuse;    /* every unwrap gives this: 0, or a negative errno */
        bool lie;             /* wraps another key than it was given */
        atomic_uint probe_ms; /* how long a probe takes */
};

static inline int tk_fake_step(struct tk_fake_kms *fake)
{
        return ++fake->calls == fake->fail_at ? fake->fail_with : 0;
}

static inline int tk_fake_current(void *impl, char ret_version[TK_KMS_VERSION_MAX],
                                  struct tk_fault *fault)
{
        struct tk_fake_kms *fake = impl;
        int r = tk_fake_step(fake);

        (void)fault;
        snprintf(ret_version, TK_KMS_VERSION_MAX, "%u", fake->newer + 1);
        return r;
}

static inline int tk_fake_crypt(const struct tk_fake_kms *fake, bool seal, uint8_t *iv,
                                const uint8_t *in, uint8_t *out, uint8_t *tag)
{
        TK_CLEANUP(tk_secret_freep)
        struct tk_secret *key = tk_test_secret(fake->root_key, TK_KEY_LEN);
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;
        struct tk_aead_msg msg = {.iv = iv, .in = in, .out = out, .len = TK_KEY_LEN};

        assert_int_equal(tk_aead_new(&aead), 0);
        assert_int_equal(tk_aead_set_key(aead, key), 0);
        return seal ? tk_aead_seal(aead, &msg, tag) : tk_aead_open(aead, &msg, tag);
}

static inline int tk_fake_wrap(void *impl, const char *version, const struct tk_secret *key,
                               struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        struct tk_fake_kms *fake = impl;
        uint8_t plain[TK_KEY_LEN];
        uint8_t *iv = ret_wrap->blob;
        int r = tk_fake_step(fake);

        (void)fault;
        if (r < 0)
                return r;
        memcpy(plain, tk_secret_bytes(key), TK_KEY_LEN);
        plain[0] ^= fake->lie;
        assert_int_equal(tk_random_bytes(iv, TK_AEAD_IV_LEN), 0);
        assert_int_equal(tk_fake_crypt(fake, true, iv, plain, iv + TK_AEAD_IV_LEN,
                                       iv + TK_AEAD_IV_LEN + TK_KEY_LEN),
                         0);
        snprintf(ret_wrap->key_id, sizeof(ret_wrap->key_id), "%s", fake->key_id);
        snprintf(ret_wrap->version, sizeof(ret_wrap->version), "%s", version);
        snprintf(ret_wrap->algorithm, sizeof(ret_wrap->algorithm), "A256GCM");
        ret_wrap->blob_len = TK_AEAD_IV_LEN + TK_KEY_LEN + TK_AEAD_TAG_LEN;
        return 0;
}

static inline int tk_fake_unwrap(void *impl, const struct tk_kms_wrap *wrap,
                                 struct tk_secret **ret_key, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_fake_kms *fake = impl;
        uint8_t blob[TK_KMS_BLOB_MAX];
        int refuse = atomic_load(&fake->refuse);
        int r = tk_fake_step(fake);

        fake->unwraps++;
        if (r < 0)
                return r;
        if (refuse)
                return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, refuse,
                                    "the fake refuses the key %s", wrap->key_id);
        if (strcmp(wrap->key_id, fake->key_id) != 0)
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT, "the fake has no key %s",
                                    wrap->key_id);
        if (wrap->blob_len != TK_AEAD_IV_LEN + TK_KEY_LEN + TK_AEAD_TAG_LEN)
                return -EBADMSG;
        memcpy(blob, wrap->blob, sizeof(blob));
        assert_int_equal(tk_secret_new(TK_KEY_LEN, &key), 0);
        r = tk_fake_crypt(fake, false, blob, blob + TK_AEAD_IV_LEN, tk_secret_bytes_mutable(key),
                          blob + TK_AEAD_IV_LEN + TK_KEY_LEN);
        if (r < 0)
                return r;
        *ret_key = TK_TAKE(key);
        return 0;
}

static inline int tk_fake_probe(void *impl, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        struct tk_fake_kms *fake = impl;
        unsigned ms = fake->probe_ms;
        struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

        (void)wrap;
        (void)fault;
        nanosleep(&pause, NULL);
        return fake->refuse;
}

static inline void tk_fake_free(void *impl)
{
        (void)impl;
}

static inline struct tk_kms *tk_fake_open(struct tk_fake_kms *fake)
{
        static const struct tk_kms_provider provider = {
                .name = "fake",
                .current = tk_fake_current,
                .wrap = tk_fake_wrap,
                .unwrap = tk_fake_unwrap,
                .probe = tk_fake_probe,
                .free = tk_fake_free,
        };
        struct tk_kms *kms = NULL;

        if (!fake->key_id[0])
                snprintf(fake->key_id, sizeof(fake->key_id), "key-one");
        assert_int_equal(tk_kms_new(&provider, fake, &kms), 0);
        return kms;
}

/* A filesystem on the volume "c" of the working directory, which is made if it is not there. */
struct tk_test_fs {
        enum tk_dek_wrap dek_wrap; /* these two to be set before the volume is made */
        enum tk_names names;
        struct tk_fake_kms fake;
        struct tk_kms *kms;
        struct tk_volume *volume;
        struct tk_fs *fs;
        struct tk_inode *root;
};

static const struct tk_caller tk_test_caller = {.umask = 022};

/* As far as a mount number: no filesystem yet. */
static inline void tk_test_fs_open(struct tk_test_fs *test)
{
        struct tk_volume_options options = {.dek_wrap = test->dek_wrap,
                                            .names = test->names,
                                            .journal_len = TK_JOURNAL_LEN_MIN};
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        struct tk_fault fault = {0};

        memcpy(options.id, "sixteen bytes id", TK_VOLUME_ID_LEN);
        test->kms = tk_fake_open(&test->fake);
        if (access("c/turnkeyfs.volume", F_OK) < 0)
                assert_int_equal(tk_volume_create("c", &options, test->kms, fingerprint, &fault),
                                 0);
        assert_int_equal(tk_volume_open("c", &test->volume, &fault), 0);
        assert_int_equal(tk_volume_lock(test->volume, "tested", &fault), 0);
        assert_int_equal(tk_volume_unlock(test->volume, test->kms,
                                          &(struct tk_volume_unlock){.lease_ms = 60000}, &fault),
                         0);
        assert_int_equal(tk_volume_mount_begin(test->volume, &fault), 0);
}

static inline void tk_test_fs_start(struct tk_test_fs *test)
{
        struct tk_fault fault = {0};

        tk_test_fs_open(test);
        assert_int_equal(tk_fs_new(test->volume, &(struct tk_fs_options){.read_only = false},
                                   &test->fs, &fault),
                         0);
        test->root = tk_inode_root(test->fs->inodes);
}

static inline void tk_test_fs_stop(struct tk_test_fs *test)
{
        struct tk_fault fault = {0};

        int r = tk_fs_finish(test->fs, &fault);

        assert_true(r >= 0);
        test->fs = tk_fs_free(test->fs);
        if (r == 0) /* else a file could not be sealed */
                assert_int_equal(tk_volume_mount_end(test->volume, &fault), 0);
        test->volume = tk_volume_free(test->volume);
        test->kms = tk_kms_free(test->kms);
        tk_scratch_drop();
}

/* Remove @path and all that is in it. */
static inline void tk_test_remove(const char *path)
{
        assert_int_equal(nftw(path, tk_test_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* A new file, open for reading and writing; its entry goes to @ret_inode. */
static inline struct tk_openfile *tk_test_create(struct tk_test_fs *test, const char *name,
                                                 struct tk_inode **ret_inode)
{
        struct tk_caller caller = tk_test_caller;
        struct tk_openfile *file = NULL;
        struct tk_entry entry;

        caller.uid = geteuid();
        caller.gid = getegid();
        assert_int_equal(
                tk_op_create(test->fs, test->root, name, 0644, O_RDWR, &caller, &entry, &file), 0);
        *ret_inode = entry.inode;
        return file;
}

/* Let go of what tk_test_create gave. */
static inline void tk_test_close(struct tk_test_fs *test, struct tk_openfile *file,
                                 struct tk_inode *inode)
{
        tk_op_release(test->fs, file, O_RDWR);
        tk_inode_forget(test->fs->inodes, inode, 1);
}

/* Run @body in a child process; it must come to its end. */
static inline void tk_test_in_child(void (*body)(void))
{
        int status = -1;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                alarm(120);
                body();
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

/* In a child: a failed check ends it. cmocka's own asserts would jump into the parent's runner. */
#define TK_CHILD_REQUIRE(holds)                                                                    \
        do {                                                                                       \
                if (!(holds)) {                                                                    \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds);                \
                        _exit(1);                                                                  \
                }                                                                                  \
        } while (0)
