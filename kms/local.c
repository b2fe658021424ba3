/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The `local` provider: root key versions in a keystore file on this machine.
 *
 * The file is read and unlocked when it is opened, and again when another one has
 * taken its place: `turnkeyfs key` works on keystores in use. A keystore that is out
 * of reach meanwhile, on a medium that was taken out, goes on serving from memory.
 */

#include "kms/local.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "crypto/random.h"
#include "kms/local_internal.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
        ID_TEXT_LEN = 2 * TK_KEYSTORE_ID_LEN,
        SEALED_LEN = TK_KEYSTORE_SEALED_LEN,
        LABEL_MAX = 24,
        PATH_LEN_MAX = 4096,
};

static const char algorithm[] = "A256GCM";
static const char keystore_label[] = "turnkeyfs keystore";
static const char wrap_label[] = "turnkeyfs local wrap";
static const struct tk_kdf_scrypt new_cost = {.n = 131072, .r = 8, .p = 1};

/* What a keystore may ask for: 1 GiB of memory, and 32 times the work of a new one. */
static const uint64_t scrypt_memory_max = 1024UL * 1024 * 1024;
static const uint64_t scrypt_work_max = 32UL * 131072 * 8;

struct aad {
        uint8_t bytes[LABEL_MAX + TK_KEYSTORE_ID_LEN + 4];
        size_t len;
};

int tk_local_fail(const char *path, int r, struct tk_fault *fault)
{
        const char *why = strerror(-r);

        if (r == -EPERM)
                why = "the memory for keys can't be locked; raise the limit of locked memory "
                      "(ulimit -l)";
        return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "can't use the keystore %s: %s", path,
                            why);
}

static struct aad make_aad(const char *label, const uint8_t id[TK_KEYSTORE_ID_LEN], uint32_t number)
{
        size_t label_len = strlen(label);
        struct aad aad = {.len = label_len + TK_KEYSTORE_ID_LEN + 4};

        assert(label_len <= LABEL_MAX);
        memcpy(aad.bytes, label, label_len);
        memcpy(aad.bytes + label_len, id, TK_KEYSTORE_ID_LEN);
        tk_put_be32(aad.bytes + label_len + TK_KEYSTORE_ID_LEN, number);
        return aad;
}

/* Reading the file */

static int open_file(const char *path, int *ret_fd, struct tk_fault *fault)
{
        /* O_NONBLOCK: a FIFO in its place must not hang the program. */
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        int r = -errno;

        if (fd >= 0) {
                *ret_fd = fd;
                return 0;
        }
        if (r == -ENOENT || r == -ENOTDIR)
                return tk_fault_set(fault, TK_FAULT_KEYSTORE_MISSING, -ENOENT,
                                    "the keystore %s does not exist; restore it from a backup, or "
                                    "give its path as [local] keystore in the configuration",
                                    path);
        if (r == -EACCES || r == -EPERM)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "can't open the keystore %s: %s; run this as the user who owns "
                                    "it",
                                    path, strerror(-r));
        return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "can't open the keystore %s: %s", path,
                            strerror(-r));
}

/* The file must be ours (or root's), and nobody else's to read. */
static int check_file(const char *path, const struct stat *st, struct tk_fault *fault)
{
        if (!S_ISREG(st->st_mode))
                return tk_fault_set(fault, TK_FAULT_KEYSTORE_DAMAGED, -EBADMSG,
                                    "%s is not a regular file, so it is no keystore; give the "
                                    "keystore's path as [local] keystore in the configuration",
                                    path);
        if (st->st_uid != geteuid() && st->st_uid != 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -EBADMSG,
                                    "the keystore %s belongs to user %u, who could replace its "
                                    "keys; it must belong to user %u or root: change its owner "
                                    "with chown, or run this as its owner",
                                    path, (unsigned)st->st_uid, (unsigned)geteuid());
        if (st->st_mode & (S_IRWXG | S_IRWXO))
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -EBADMSG,
                                    "the keystore %s is open to other users (mode %04o); find out "
                                    "who could read it, then run: chmod 600 %s",
                                    path, (unsigned)st->st_mode & 07777, path);
        if (st->st_size > TK_KEYSTORE_TEXT_MAX)
                return tk_fault_set(fault, TK_FAULT_KEYSTORE_DAMAGED, -EBADMSG,
                                    "the keystore %s is damaged: it is larger than any keystore; "
                                    "restore it from a backup",
                                    path);
        return 0;
}

/* The text of the open file, NUL-terminated, in locked memory. */
static int read_text(int fd, size_t size, struct tk_secret **ret_text, size_t *ret_len)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        ssize_t n;
        int r;

        r = tk_secret_new(size + 1, &text);
        if (r < 0)
                return r;
        n = tk_fdio_pread(fd, tk_secret_bytes_mutable(text), size, 0);
        if (n < 0)
                return (int)n;
        *ret_len = (size_t)n;
        *ret_text = TK_TAKE(text);
        return 0;
}

static int load(const char *path, struct tk_keystore **ret_keystore, struct stat *ret_stat,
                struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        TK_AUTOCLOSE int fd = -1;
        struct stat st;
        size_t len = 0;
        int r;

        r = open_file(path, &fd, fault);
        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0)
                return tk_local_fail(path, -EIO, fault);
        r = check_file(path, &st, fault);
        if (r < 0)
                return r;
        r = read_text(fd, (size_t)st.st_size, &text, &len);
        if (r < 0)
                return tk_local_fail(path, r, fault);
        *ret_stat = st;
        return tk_keystore_parse((const char *)tk_secret_bytes(text), len, path, ret_keystore,
                                 fault);
}

/* Unlocking */

static int check_cost(const char *path, const struct tk_kdf_scrypt *cost, struct tk_fault *fault)
{
        if (cost->n >= 2 && (cost->n & (cost->n - 1)) == 0 && cost->r >= 1 && cost->r <= 64 &&
            cost->p >= 1 && cost->p <= 64 && cost->n <= scrypt_memory_max / 128 / cost->r &&
            cost->n * cost->r * cost->p <= scrypt_work_max)
                return 0;
        return tk_fault_set(fault, TK_FAULT_KEYSTORE_DAMAGED, -EBADMSG,
                            "the keystore %s is damaged: its scrypt cost (n=%" PRIu64 ", r=%" PRIu32
                            ", p=%" PRIu32 ") is impossible or absurd; restore it "
                            "from a backup",
                            path, cost->n, cost->r, cost->p);
}

/* The key that the versions' keys are sealed under. */
static int derive_lock(const struct tk_keystore *keystore, const char *path,
                       const struct tk_secret *passphrase, struct tk_secret **ret_lock,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *lock = NULL;
        int r;

        r = check_cost(path, &keystore->cost, fault);
        if (r < 0)
                return r;
        r = tk_secret_new(TK_KEY_LEN, &lock);
        if (r == 0)
                r = tk_kdf_scrypt(passphrase, keystore->salt, sizeof(keystore->salt),
                                  &keystore->cost, lock);
        if (r == -EPERM)
                return tk_local_fail(path, r, fault);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "can't derive the key of the keystore %s from the passphrase: "
                                    "%s; it takes %" PRIu64 " MiB of free memory",
                                    path, strerror(-r),
                                    keystore->cost.n * keystore->cost.r * 128 / 1024 / 1024);
        *ret_lock = TK_TAKE(lock);
        return 0;
}

/* No key opened: the passphrase is wrong. Some did: the others are damaged. */
static int say_locked(const char *path, uint32_t number, bool others_opened, struct tk_fault *fault)
{
        if (!others_opened)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EKEYREJECTED,
                                    "the passphrase does not open the keystore %s; try again with "
                                    "the one it was made with",
                                    path);
        return tk_fault_set(fault, TK_FAULT_KEYSTORE_DAMAGED, -EBADMSG,
                            "the keystore %s is damaged: the passphrase opens other versions, but "
                            "not version %" PRIu32 "; restore it from a backup",
                            path, number);
}

static int open_versions(struct tk_keystore *keystore, const char *path,
                         const struct tk_secret *lock, struct tk_fault *fault)
{
        uint32_t failed = 0;
        size_t opened = 0;

        for (size_t i = 0; i < keystore->version_count; i++) {
                struct tk_keystore_version *version = &keystore->versions[i];
                struct aad aad = make_aad(keystore_label, keystore->id, version->number);
                int r = tk_sealed_open(lock, aad.bytes, aad.len, tk_secret_bytes(version->stored),
                                       &version->key);

                if (r == -EBADMSG && failed == 0)
                        failed = version->number;
                else if (r == 0)
                        opened++;
                else if (r != -EBADMSG)
                        return tk_local_fail(path, r, fault);
        }
        return failed == 0 ? 0 : say_locked(path, failed, opened > 0, fault);
}

static int unlock_plain(struct tk_keystore *keystore, const char *path, struct tk_fault *fault)
{
        for (size_t i = 0; i < keystore->version_count; i++) {
                struct tk_keystore_version *version = &keystore->versions[i];
                int r = tk_secret_dup_bytes(tk_secret_bytes(version->stored), TK_KEY_LEN,
                                            &version->key);

                if (r < 0)
                        return tk_local_fail(path, r, fault);
        }
        return 0;
}

/* The key that seals the keys in the file; NULL if none does. */
static int get_seal(const struct tk_keystore *keystore, const char *path,
                    const struct tk_secret *passphrase, struct tk_secret **ret_seal,
                    struct tk_fault *fault)
{
        *ret_seal = NULL;
        if (!keystore->protected)
                return 0;
        if (!passphrase)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EKEYREJECTED,
                                    "the keystore %s is protected by a passphrase, and none was "
                                    "given; set [local] passphrase in the configuration",
                                    path);
        return derive_lock(keystore, path, passphrase, ret_seal, fault);
}

/* Give every version its key. */
static int unlock(struct tk_keystore *keystore, const char *path, const struct tk_secret *seal,
                  struct tk_fault *fault)
{
        if (!keystore->protected)
                return unlock_plain(keystore, path, fault);
        if (!seal)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EKEYREJECTED,
                                    "the keystore %s is protected by a passphrase now; mount again",
                                    path);
        return open_versions(keystore, path, seal, fault);
}

/* Reading it again */

int tk_local_reload(struct tk_local *local, struct tk_fault *fault)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
        struct stat st;
        int r;

        r = load(local->path, &keystore, &st, fault);
        if (r < 0)
                return r;
        assert(keystore);
        r = unlock(keystore, local->path, local->seal, fault);
        if (r < 0)
                return r;
        {
                struct tk_keystore *old;
                char id[ID_TEXT_LEN + 1];

                TK_LOCK_SCOPE(&local->lock);
                tk_hex_encode(keystore->id, TK_KEYSTORE_ID_LEN, id);
                if (strcmp(id, local->id) != 0)
                        return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                            "the keystore %s was replaced by another one (id %s "
                                            "instead of %s); put the right one back",
                                            local->path, id, local->id);
                old = local->keystore;
                local->keystore = TK_TAKE(keystore);
                local->seen = st;
                keystore = old;
        }
        return 0;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
               a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* `key delete` renames the keystore; any other absence says nothing about the key. */
static int check_absent(const struct tk_local *local, struct tk_fault *fault)
{
        char deleted[PATH_LEN_MAX];
        struct stat st;

        snprintf(deleted, sizeof(deleted), "%s" TK_LOCAL_DELETED, local->path);
        if (lstat(deleted, &st) < 0)
                return 0;
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "the keystore %s was deleted; 'turnkeyfs key recover' brings it back",
                            local->path);
}

/* Read the file again if it is another one than before. */
static int refresh(struct tk_local *local, struct tk_fault *fault)
{
        struct stat st;
        bool same;

        if (stat(local->path, &st) < 0)
                return errno == ENOENT ? check_absent(local, fault) : 0;
        {
                TK_LOCK_SCOPE(&local->lock);
                same = is_same_file(&st, &local->seen);
        }
        return same ? 0 : tk_local_reload(local, fault);
}

/* The provider */

static int say_disabled(const struct tk_local *local, uint32_t number, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "version %" PRIu32 " of the root key in the keystore %s is disabled; "
                            "enable it again to use what it protects",
                            number, local->path);
}

/* A version's number and a copy of its key, which its user frees. */
struct found {
        uint32_t number;
        struct tk_secret *key;
};

static void found_done(struct found *found)
{
        tk_secret_free(found->key);
}

/* The enabled version that @text names; @text may come from a damaged volume file. */
static int find_version(struct tk_local *local, const char *text, struct found *ret_found,
                        struct tk_fault *fault)
{
        const struct tk_keystore_version *version;
        uint64_t number = 0;
        int r;

        if (strnlen(text, TK_KMS_VERSION_MAX) == TK_KMS_VERSION_MAX ||
            tk_keystore_number(text, UINT32_MAX, &number) < 0)
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "a key is wrapped by a version that is no number, which no "
                                    "keystore can have (keystore %s); the volume file is damaged, "
                                    "or belongs to another provider",
                                    local->path);
        r = refresh(local, fault);
        if (r < 0)
                return r;
        TK_LOCK_SCOPE(&local->lock);
        version = tk_keystore_find(local->keystore, (uint32_t)number);
        if (!version)
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "the keystore %s has no version %" PRIu64 " of the root key; "
                                    "it may be an old copy: restore the newest one",
                                    local->path, number);
        if (!version->enabled)
                return say_disabled(local, version->number, fault);
        ret_found->number = version->number;
        r = tk_secret_dup_bytes(tk_secret_bytes(version->key), TK_KEY_LEN, &ret_found->key);
        return r < 0 ? tk_local_fail(local->path, r, fault) : 0;
}

/* Refuse what is not ours before any cryptography. */
static int check_wrap(struct tk_local *local, const struct tk_kms_wrap *wrap,
                      struct found *ret_found, struct tk_fault *fault)
{
        uint8_t id[TK_KEYSTORE_ID_LEN];

        if (strncmp(wrap->key_id, local->id, sizeof(wrap->key_id)) != 0) {
                bool printable = strnlen(wrap->key_id, sizeof(wrap->key_id)) == ID_TEXT_LEN &&
                                 tk_hex_decode(wrap->key_id, id, sizeof(id)) == 0;

                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                                    "the keystore %s (id %s) is not the one of this volume, which "
                                    "wants id %s; give the path of the right one as [local] "
                                    "keystore in the configuration",
                                    local->path, local->id,
                                    printable ? wrap->key_id : "(not a keystore's)");
        }
        if (strncmp(wrap->algorithm, algorithm, sizeof(wrap->algorithm)) != 0)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                                    "a key is wrapped by the keystore %s with an algorithm that "
                                    "this release does not know; use the release that made the "
                                    "volume, or a newer one",
                                    local->path);
        if (wrap->blob_len != SEALED_LEN)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                                    "a key wrapped by the keystore %s has %zu bytes instead of %d: "
                                    "the volume file is damaged; restore it from a backup",
                                    local->path, wrap->blob_len, SEALED_LEN);
        return find_version(local, wrap->version, ret_found, fault);
}

/* A keystore's id never changes. */
static struct aad make_wrap_aad(const struct tk_local *local, uint32_t number)
{
        uint8_t id[TK_KEYSTORE_ID_LEN] = {0};

        (void)!tk_hex_decode(local->id, id, sizeof(id));
        return make_aad(wrap_label, id, number);
}

static int local_current(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        struct tk_local *local = impl;
        int r = refresh(local, fault);

        if (r < 0)
                return r;
        TK_LOCK_SCOPE(&local->lock);
        for (size_t i = local->keystore->version_count; i-- > 0;) {
                const struct tk_keystore_version *version = &local->keystore->versions[i];

                if (!version->enabled)
                        continue;
                snprintf(ret_version, TK_KMS_VERSION_MAX, "%" PRIu32, version->number);
                return 0;
        }
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "every version of the root key in the keystore %s is disabled; enable "
                            "one again",
                            local->path);
}

static int local_wrap(void *impl, const char *version_text, const struct tk_secret *key,
                      struct tk_kms_wrap *ret_wrap, struct tk_fault *fault)
{
        struct tk_local *local = impl;
        TK_CLEANUP(found_done) struct found found = {0};
        struct tk_kms_wrap wrap = {.blob_len = SEALED_LEN};
        struct aad aad;
        int r;

        r = find_version(local, version_text, &found, fault);
        if (r < 0)
                return r;
        aad = make_wrap_aad(local, found.number);
        r = tk_sealed_make(found.key, aad.bytes, aad.len, key, wrap.blob);
        if (r < 0)
                return tk_local_fail(local->path, r, fault);
        memcpy(wrap.key_id, local->id, sizeof(local->id));
        memcpy(wrap.algorithm, algorithm, sizeof(algorithm));
        snprintf(wrap.version, sizeof(wrap.version), "%" PRIu32, found.number);
        *ret_wrap = wrap;
        return 0;
}

static int local_unwrap(void *impl, const struct tk_kms_wrap *wrap, struct tk_secret **ret_key,
                        struct tk_fault *fault)
{
        struct tk_local *local = impl;
        TK_CLEANUP(found_done) struct found found = {0};
        struct aad aad;
        int r;

        r = check_wrap(local, wrap, &found, fault);
        if (r < 0)
                return r;
        aad = make_wrap_aad(local, found.number);
        r = tk_sealed_open(found.key, aad.bytes, aad.len, wrap->blob, ret_key);
        if (r == -EBADMSG)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, r,
                                    "a key does not unwrap under version %" PRIu32 " of the "
                                    "keystore %s: the volume file is damaged; restore it from a "
                                    "backup",
                                    found.number, local->path);
        return r < 0 ? tk_local_fail(local->path, r, fault) : 0;
}

static int local_probe(void *impl, const struct tk_kms_wrap *wrap, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;

        return local_unwrap(impl, wrap, &key, fault);
}

static void local_free(void *impl)
{
        struct tk_local *local = impl;

        tk_keystore_free(local->keystore);
        tk_secret_free(local->seal);
        pthread_mutex_destroy(&local->lock);
        free(local);
}

static const struct tk_kms_provider local_provider = {
        .name = "local",
        .current = local_current,
        .wrap = local_wrap,
        .unwrap = local_unwrap,
        .probe = local_probe,
        .free = local_free,
        .admin = &tk_local_admin,
};

int tk_kms_local_open(const struct tk_kms_local_options *options, struct tk_kms **ret_kms,
                      struct tk_fault *fault)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *seal = NULL;
        size_t path_len = strlen(options->keystore);
        struct tk_local *local;
        struct stat st;
        int r;

        r = load(options->keystore, &keystore, &st, fault);
        if (r < 0)
                return r;
        r = get_seal(keystore, options->keystore, options->passphrase, &seal, fault);
        if (r == 0)
                r = unlock(keystore, options->keystore, seal, fault);
        if (r < 0)
                return r;

        local = calloc(1, sizeof(*local) + path_len + 1);
        if (!local)
                return tk_local_fail(options->keystore, -ENOMEM, fault);
        memcpy(local->path, options->keystore, path_len);
        tk_hex_encode(keystore->id, TK_KEYSTORE_ID_LEN, local->id);
        pthread_mutex_init(&local->lock, NULL);
        local->keystore = TK_TAKE(keystore);
        local->seal = TK_TAKE(seal);
        local->seen = st;
        r = tk_kms_new(&local_provider, local, ret_kms);
        return r < 0 ? tk_local_fail(options->keystore, r, fault) : 0;
}

int tk_kms_local_wants_passphrase(const char *path, struct tk_fault *fault)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
        struct stat st;
        int r;

        r = load(path, &keystore, &st, fault);
        return r < 0 ? r : keystore->protected;
}

/* Making a new one */

/* @key as it goes into the file. */
static int store_key(const struct tk_keystore *keystore, uint32_t number,
                     const struct tk_secret *key, const struct tk_secret *lock,
                     struct tk_secret **ret_stored)
{
        uint8_t sealed[SEALED_LEN];
        struct aad aad;
        int r;

        if (!lock)
                return tk_secret_dup_bytes(tk_secret_bytes(key), TK_KEY_LEN, ret_stored);
        aad = make_aad(keystore_label, keystore->id, number);
        r = tk_sealed_make(lock, aad.bytes, aad.len, key, sealed);
        if (r < 0)
                return r;
        return tk_secret_dup_bytes(sealed, sizeof(sealed), ret_stored);
}

int tk_local_add_version(struct tk_keystore *keystore, const struct tk_secret *lock)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_keystore_version version = {.created = (uint64_t)time(NULL), .enabled = true};
        size_t count = keystore->version_count;
        int r;

        version.number = count > 0 ? keystore->versions[count - 1].number + 1 : 1;
        r = tk_random_secret(TK_KEY_LEN, &key);
        if (r < 0)
                return r;
        r = store_key(keystore, version.number, key, lock, &version.stored);
        if (r < 0)
                return r;
        version.key = TK_TAKE(key);
        return tk_keystore_consume_version(keystore, &version);
}

/* The text of a new keystore with version 1. */
static int make_text(const struct tk_kms_local_options *options, struct tk_secret **ret_text,
                     struct tk_fault *fault)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *lock = NULL;
        int r;

        keystore = calloc(1, sizeof(*keystore));
        if (!keystore)
                return tk_local_fail(options->keystore, -ENOMEM, fault);
        keystore->cost = new_cost;
        keystore->protected = options->passphrase != NULL;
        r = tk_random_bytes(keystore->id, sizeof(keystore->id));
        if (r == 0)
                r = tk_random_bytes(keystore->salt, sizeof(keystore->salt));
        if (r < 0)
                return tk_local_fail(options->keystore, r, fault);
        if (keystore->protected) {
                r = derive_lock(keystore, options->keystore, options->passphrase, &lock, fault);
                if (r < 0)
                        return r;
        }
        r = tk_local_add_version(keystore, lock);
        if (r == 0)
                r = tk_keystore_format(keystore, ret_text);
        return r < 0 ? tk_local_fail(options->keystore, r, fault) : 0;
}

static int sync_dir(const char *path)
{
        TK_AUTOCLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        return fsync(fd) < 0 ? -errno : 0;
}

/* Make the directory @path unless it is there; its name is durable in its parent. */
static int make_dir(const char *path)
{
        char parent[PATH_LEN_MAX];
        char *slash;

        if (mkdir(path, 0700) < 0)
                return errno == EEXIST ? 0 : -errno;
        snprintf(parent, sizeof(parent), "%s", path);
        slash = strrchr(parent, '/');
        if (!slash)
                return sync_dir(".");
        slash[slash == parent] = '\0';
        return sync_dir(parent);
}

/* Make the directories in the first @len bytes of @path, and open the last one. */
static int open_parent(const char *path, size_t len, int *ret_fd)
{
        char dir[PATH_LEN_MAX];
        int fd;
        int r;

        if (len >= sizeof(dir))
                return -ENAMETOOLONG;
        memcpy(dir, path, len);
        dir[len] = '\0';

        for (size_t i = 1; i < len; i++) {
                if (dir[i] != '/')
                        continue;
                dir[i] = '\0';
                r = make_dir(dir);
                dir[i] = '/';
                if (r < 0)
                        return r;
        }
        fd = open(len > 0 ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

/* A new file, durable but for its name. */
static int write_new(int dirfd, const char *name, const struct tk_secret *text)
{
        TK_AUTOCLOSE int fd = -1;
        int r;

        fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        if (fchmod(fd, 0600) < 0)
                return -errno;
        r = tk_fdio_pwrite(fd, tk_secret_bytes(text), tk_secret_len(text), 0);
        if (r < 0)
                return r;
        return fsync(fd) < 0 ? -errno : 0;
}

/* Give @sibling the name @name unless that is taken: -EEXIST. */
static int rename_new(int dirfd, const char *sibling, const char *name)
{
        if (renameat2(dirfd, sibling, dirfd, name, RENAME_NOREPLACE) == 0)
                return 0;
        if (errno != EINVAL && errno != ENOSYS)
                return -errno;
        /* A filesystem without RENAME_NOREPLACE: NFS, for one. */
        if (linkat(dirfd, sibling, dirfd, name, 0) < 0)
                return -errno;
        unlinkat(dirfd, sibling, 0);
        return 0;
}

/* Either the whole file comes to be, durably, or nothing; an existing one stays. */
static int publish(const char *path, const struct tk_secret *text)
{
        TK_AUTOCLOSE int dirfd = -1;
        char sibling[NAME_MAX + 1];
        char digits[17];
        uint8_t random[8];
        const char *slash = strrchr(path, '/');
        const char *name = slash ? slash + 1 : path;
        int r;

        if (name[0] == '\0')
                return -EISDIR;
        r = open_parent(path, (size_t)(name - path), &dirfd);
        if (r < 0)
                return r;
        r = tk_random_bytes(random, sizeof(random));
        if (r < 0)
                return r;
        tk_hex_encode(random, sizeof(random), digits);
        if (snprintf(sibling, sizeof(sibling), "%s.%s.new", name, digits) >= (int)sizeof(sibling))
                return -ENAMETOOLONG;

        r = write_new(dirfd, sibling, text);
        if (r == 0)
                r = rename_new(dirfd, sibling, name);
        if (r < 0) {
                unlinkat(dirfd, sibling, 0);
                return r;
        }
        return fsync(dirfd) < 0 ? -errno : 0;
}

static int say_not_made(const char *path, int r, struct tk_fault *fault)
{
        if (r == -EEXIST)
                return tk_fault_set(fault, TK_FAULT_USAGE, r,
                                    "the keystore %s exists already and is never overwritten; use "
                                    "it, or give another path as [local] keystore in the "
                                    "configuration",
                                    path);
        if (r == -EACCES || r == -EPERM || r == -EROFS)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "can't make the keystore %s: %s; give a path that you may "
                                    "write as [local] keystore in the configuration",
                                    path, strerror(-r));
        if (r == -EISDIR || r == -ENOTDIR || r == -ENAMETOOLONG)
                return tk_fault_set(fault, TK_FAULT_CONFIG, r,
                                    "can't make the keystore %s: %s; give the path of a file as "
                                    "[local] keystore in the configuration",
                                    path, strerror(-r));
        return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "can't make the keystore %s: %s", path,
                            strerror(-r));
}

int tk_kms_local_create(const struct tk_kms_local_options *options, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        int r;

        if (options->passphrase && tk_secret_len(options->passphrase) == 0)
                return tk_fault_set(fault, TK_FAULT_PASSPHRASE, -EKEYREJECTED,
                                    "can't make the keystore %s: the passphrase is empty; give "
                                    "one, or set [local] passphrase = none",
                                    options->keystore);
        r = make_text(options, &text, fault);
        if (r < 0)
                return r;
        r = publish(options->keystore, text);
        return r < 0 ? say_not_made(options->keystore, r, fault) : 0;
}
