/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The volume: made, opened, unlocked, and written back.
 *
 * The volume file is replaced atomically and only under the volume lock.
 */

#include "fs/volume.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "crypto/random.h"
#include "fs/volume_key.h"
#include "fs/volume_lock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const char volume_file[] = "turnkeyfs.volume";

struct tk_volume {
        char *path;
        int dirfd;
        int lockfd;                /* -1: not locked by us */
        char *raw;                 /* the text as read, for the MAC */
        pthread_mutex_t text_lock; /* guards what changes of text after unlock */
        struct tk_volume_text text;
        struct tk_kms **kms;          /* borrowed: by KEK version - 1, who protects it */
        struct tk_secret *volume_key; /* NULL before unlock, and while the keys are closed */
        struct tk_secret *mac_key;    /* NULL before unlock */
        struct tk_keyring *keyring;   /* NULL before unlock */
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        uint16_t mount_number;
};

/* Write @text with its MAC as the volume file. */
static int store(int dirfd, const struct tk_volume_text *text, const struct tk_secret *mac_key)
{
        TK_CLEANUP(tk_freep) char *signed_text = NULL;
        TK_CLEANUP(tk_freep) char *whole = NULL;
        uint8_t mac[TK_MAC_LEN];
        int r;

        r = tk_volume_text_format(text, &signed_text);
        if (r < 0)
                return r;
        r = tk_mac_hmac(mac_key, signed_text, strlen(signed_text), mac);
        if (r < 0)
                return r;
        r = tk_volume_text_append_mac(signed_text, mac, &whole);
        if (r < 0)
                return r;
        return tk_fdio_replace(dirfd, volume_file, whole, strlen(whole), 0600);
}

/* Create and open -------------------------------------------------------- */

static int check_empty(const char *path, int dirfd, struct tk_fault *fault)
{
        int fd = dup(dirfd);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;
        int r = 0;

        if (!dir) {
                r = -errno;
                if (fd >= 0)
                        close(fd);
                return r;
        }
        if (faccessat(dirfd, volume_file, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                r = tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -EEXIST,
                                 "%s is an encrypted directory already; mount it, or choose "
                                 "another directory",
                                 path);
        while (r == 0 && (entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                if (strcmp(entry->d_name, "lost+found") != 0)
                        r = tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -ENOTEMPTY,
                                         "%s is not empty (it holds '%s'); choose an empty or a "
                                         "new directory",
                                         path, entry->d_name);
        }
        closedir(dir);
        return r;
}

/* The directory of a new volume, open, with its sub-directories and its lock file. */
static int make_directory(const char *path, int *ret_dirfd, struct tk_fault *fault)
{
        TK_AUTOCLOSE int dirfd = -1;
        TK_AUTOCLOSE int lockfd = -1;
        int r;

        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno,
                                    "cannot make the directory %s: %s", path, strerror(errno));
        dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno,
                                    "cannot open the directory %s: %s", path, strerror(errno));
        r = check_empty(path, dirfd, fault);
        if (r < 0)
                return r;

        if (fchmod(dirfd, 0700) < 0 || mkdirat(dirfd, "root", 0755) < 0 ||
            mkdirat(dirfd, "journal", 0700) < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "cannot write into %s: %s",
                                    path, strerror(errno));
        lockfd =
                openat(dirfd, TK_VOLUME_LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (lockfd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "cannot write into %s: %s",
                                    path, strerror(errno));
        *ret_dirfd = TK_TAKE_FD(dirfd);
        return 0;
}

/* @key wrapped by the root key's current version, and unwrapped again as a test. */
static int wrap_tested(struct tk_kms *kms, const struct tk_secret *key,
                       struct tk_volume_wrap *ret_wrap, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        char root_version[TK_KMS_VERSION_MAX];
        int r;

        r = tk_kms_current(kms, root_version, fault);
        if (r < 0)
                return r;
        r = tk_kms_wrap(kms, root_version, key, &ret_wrap->wrap, fault);
        if (r < 0)
                return r;
        r = tk_kms_unwrap(kms, &ret_wrap->wrap, &again, fault);
        if (r < 0)
                return r;
        if (!tk_secret_equal(key, again))
                return tk_fault_set(fault, TK_FAULT_INTERNAL, -EIO,
                                    "the key that the %s provider wrapped did not come back the "
                                    "same; nothing was made",
                                    tk_kms_provider_name(kms));
        snprintf(ret_wrap->provider, sizeof(ret_wrap->provider), "%s", tk_kms_provider_name(kms));
        return 0;
}

/*
 * The next KEK version for the volume of @text: its entry, its wrap by @kms, and the
 * key itself; with dek_wrap = kms there is none, and the volume key is wrapped.
 */
static int make_kek(const struct tk_volume_text *text, struct tk_kms *kms,
                    const struct tk_secret *volume_key, struct tk_volume_text_kek *ret_entry,
                    struct tk_volume_wrap *ret_wrap, struct tk_secret **ret_kek,
                    struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        uint16_t version = (uint16_t)(text->kek_count + 1);
        int r;

        *ret_entry = (struct tk_volume_text_kek){
                .kek = {.version = version, .active = true, .created = (int64_t)time(NULL)}};
        *ret_wrap = (struct tk_volume_wrap){.kek_version = version, .protector = 1};
        if (text->dek_wrap == TK_DEK_WRAP_KEK) {
                r = tk_random_secret(TK_KEY_LEN, &kek);
                if (r < 0)
                        return r;
                r = tk_volume_key_seal(text->id, version, kek, volume_key, ret_entry->volume_key);
                if (r < 0)
                        return r;
                ret_entry->volume_key_len = TK_SEALED_KEY_LEN;
        }
        r = wrap_tested(kms, kek ? kek : volume_key, ret_wrap, fault);
        if (r < 0)
                return r;
        *ret_kek = TK_TAKE(kek);
        return 0;
}

static int add_kek(struct tk_volume_text *text, const struct tk_volume_text_kek *entry,
                   const struct tk_volume_wrap *wrap)
{
        int r;

        r = tk_volume_text_add_kek(text, entry);
        if (r < 0)
                return r;
        return tk_volume_text_add_wrap(text, wrap);
}

static int fill_new(int dirfd, struct tk_volume_text *text, struct tk_kms *kms,
                    char ret_fingerprint[TK_FINGERPRINT_LEN + 1], struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *mac_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_volume_text_kek entry;
        struct tk_volume_wrap wrap;
        int r;

        r = tk_random_secret(TK_KEY_LEN, &volume_key);
        if (r < 0)
                return r;
        r = tk_volume_key_derive_mac(volume_key, &mac_key);
        if (r < 0)
                return r;
        r = tk_volume_key_fingerprint(volume_key, ret_fingerprint);
        if (r < 0)
                return r;
        r = make_kek(text, kms, volume_key, &entry, &wrap, &kek, fault);
        if (r < 0)
                return r;
        r = add_kek(text, &entry, &wrap);
        if (r < 0)
                return r;
        return store(dirfd, text, mac_key);
}

int tk_volume_create(const char *path, const struct tk_volume_options *options, struct tk_kms *kms,
                     char ret_fingerprint[TK_FINGERPRINT_LEN + 1], struct tk_fault *fault)
{
        TK_AUTOCLOSE int dirfd = -1;
        struct tk_volume_text text = {.created = (int64_t)time(NULL),
                                      .dek_wrap = options->dek_wrap};
        int r;

        r = make_directory(path, &dirfd, fault);
        if (r < 0)
                return r;
        memcpy(text.id, options->id, TK_VOLUME_ID_LEN);
        r = fill_new(dirfd, &text, kms, ret_fingerprint, fault);
        tk_volume_text_done(&text);
        if (r < 0) {
                unlinkat(dirfd, TK_VOLUME_LOCK_FILE, 0);
                unlinkat(dirfd, "journal", AT_REMOVEDIR);
                unlinkat(dirfd, "root", AT_REMOVEDIR);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot make the volume file in %s: %s", path, strerror(-r));
        }
        return 0;
}

static int read_text(struct tk_volume *volume, struct tk_fault *fault)
{
        char path[PATH_MAX + sizeof(volume_file) + 1];
        size_t len;
        int r;

        snprintf(path, sizeof(path), "%s/%s", volume->path, volume_file);
        free(volume->raw);
        volume->raw = NULL;
        tk_volume_text_done(&volume->text);
        r = tk_fdio_read_file(volume->dirfd, volume_file, TK_VOLUME_TEXT_MAX, &volume->raw, &len);
        if (r == -ENOENT)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, r,
                                    "%s is not an encrypted directory: it has no %s; make one with "
                                    "'turnkeyfs init'",
                                    volume->path, volume_file);
        if (r == -EFBIG)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, r,
                                    "%s is damaged: it is larger than any volume file; restore it "
                                    "from a backup",
                                    path);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot read %s: %s", path,
                                    strerror(-r));
        if (strlen(volume->raw) != len)
                return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EINVAL,
                                    "%s is damaged: it holds NUL bytes; restore it from a backup",
                                    path);
        return tk_volume_text_parse(volume->raw, path, &volume->text, fault);
}

int tk_volume_open(const char *path, struct tk_volume **ret_volume, struct tk_fault *fault)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        int r;

        volume = calloc(1, sizeof(*volume));
        if (!volume)
                return -ENOMEM;
        pthread_mutex_init(&volume->text_lock, NULL);
        volume->dirfd = -1;
        volume->lockfd = -1;
        volume->path = realpath(path, NULL);
        if (!volume->path)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -errno,
                                    "cannot find the encrypted directory %s: %s", path,
                                    strerror(errno));
        volume->dirfd = open(volume->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (volume->dirfd < 0)
                return tk_fault_set(
                        fault, errno == ENOTDIR ? TK_FAULT_NOT_A_VOLUME : TK_FAULT_PERMISSION,
                        -errno, "cannot open the directory %s: %s", volume->path, strerror(errno));
        r = read_text(volume, fault);
        if (r < 0)
                return r;
        *ret_volume = TK_TAKE(volume);
        return 0;
}

struct tk_volume *tk_volume_free(struct tk_volume *volume)
{
        if (!volume)
                return NULL;
        tk_keyring_free(volume->keyring);
        free(volume->kms);
        tk_secret_free(volume->volume_key);
        tk_secret_free(volume->mac_key);
        pthread_mutex_destroy(&volume->text_lock);
        tk_volume_text_done(&volume->text);
        free(volume->raw);
        free(volume->path);
        tk_volume_lock_release(volume->lockfd);
        if (volume->dirfd >= 0)
                close(volume->dirfd);
        free(volume);
        return NULL;
}

int tk_volume_lock(struct tk_volume *volume, const char *doing, struct tk_fault *fault)
{
        int r;

        r = tk_volume_lock_take(volume->dirfd, volume->path, doing, &volume->lockfd, fault);
        if (r < 0)
                return r;
        return read_text(volume, fault);
}

int tk_volume_holder(const struct tk_volume *volume, struct tk_volume_holder *ret_holder)
{
        return tk_volume_lock_holder(volume->dirfd, ret_holder);
}

/* Keys ------------------------------------------------------------------- */

/* The first wrap of KEK version @version that @kms may be able to open. */
static int find_wrap(const struct tk_volume *volume, const struct tk_kms *kms, uint16_t version,
                     const struct tk_kms_wrap **ret_wrap, struct tk_fault *fault)
{
        for (size_t i = 0; i < volume->text.wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &volume->text.wraps[i];

                if (wrap->kek_version != version ||
                    strcmp(wrap->provider, tk_kms_provider_name(kms)) != 0)
                        continue;
                *ret_wrap = &wrap->wrap;
                return 0;
        }
        return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                            "%s: KEK version %u is not protected by a key of provider '%s'; "
                            "configure the provider that the volume was made with",
                            volume->path, version, tk_kms_provider_name(kms));
}

/*
 * The key of KEK version @version, by whichever of its wraps is for the key of @kms: it
 * says of the others that they name another key.
 */
static int unwrap_by(struct tk_volume *volume, struct tk_kms *kms, uint16_t version,
                     const struct tk_kms_wrap **ret_wrap, struct tk_secret **ret_key,
                     struct tk_fault *fault)
{
        struct tk_fault said = {0};
        int r = 0;

        for (size_t i = 0; i < volume->text.wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &volume->text.wraps[i];

                if (wrap->kek_version != version ||
                    strcmp(wrap->provider, tk_kms_provider_name(kms)) != 0)
                        continue;
                *ret_wrap = &wrap->wrap;
                memset(&said, 0, sizeof(said));
                r = tk_kms_unwrap(kms, &wrap->wrap, ret_key, &said);
                if (r != -ENOENT)
                        break;
        }
        if (r < 0 && said.kind)
                return tk_fault_set(fault, said.kind, r, "%s", said.text);
        if (r == 0 && !*ret_key)
                return find_wrap(volume, kms, version, ret_wrap, fault);
        return r;
}

static int damaged(const struct tk_volume *volume, const char *what, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                            "%s/%s is damaged or was tampered with: %s; restore it from a backup",
                            volume->path, volume_file, what);
}

/* All KEK versions must lead to one volume key. */
static int agree_on_volume_key(const struct tk_volume *volume, struct tk_secret *found,
                               struct tk_secret **volume_key, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned = found;

        if (*volume_key && !tk_secret_equal(*volume_key, owned))
                return damaged(volume, "two KEK versions hold different volume keys", fault);
        if (!*volume_key)
                *volume_key = TK_TAKE(owned);
        return 0;
}

static int unlock_kek(struct tk_volume *volume, const struct tk_volume_text_kek *entry,
                      struct tk_keyring *keyring, struct tk_secret **volume_key,
                      struct tk_fault *fault)
{
        struct tk_kms *kms = volume->kms[entry->kek.version - 1];
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_secret *unsealed;
        const struct tk_kms_wrap *wrap;
        int r;

        r = unwrap_by(volume, kms, entry->kek.version, &wrap, &kek, fault);
        if (r < 0)
                return r;
        if (tk_secret_len(kek) != TK_KEY_LEN)
                return damaged(volume, "a wrapped key has the wrong size", fault);
        r = tk_volume_key_unseal(volume->text.id, entry->kek.version, kek, entry->volume_key,
                                 &unsealed);
        if (r == -EBADMSG)
                return damaged(volume, "the volume key does not authenticate", fault);
        if (r < 0)
                return r;
        r = agree_on_volume_key(volume, unsealed, volume_key, fault);
        if (r < 0)
                return r;
        return tk_keyring_add(keyring, entry->kek.version, TK_TAKE(kek));
}

/* -ENOENT if @wrap is under another key than that of @kms; what else may be wrong shows later. */
static int refuse_other_key(struct tk_kms *kms, const struct tk_kms_wrap *wrap,
                            struct tk_fault *fault)
{
        struct tk_fault said = {0};

        if (tk_kms_probe(kms, wrap, &said) != -ENOENT)
                return 0;
        return tk_fault_set(fault, said.kind, -ENOENT, "%s", said.text);
}

/* With dek_wrap = kms: one call gives the volume key; other versions are asked when needed. */
static int unlock_root(struct tk_volume *volume, const struct tk_volume_text_kek *entry,
                       struct tk_keyring *keyring, struct tk_secret **volume_key,
                       struct tk_fault *fault)
{
        struct tk_kms *kms = volume->kms[entry->kek.version - 1];
        const struct tk_kms_wrap *wrap;
        int r;

        if (*volume_key) {
                r = find_wrap(volume, kms, entry->kek.version, &wrap, fault);
                if (r == 0)
                        r = refuse_other_key(kms, wrap, fault);
                if (r < 0)
                        return r;
        } else {
                r = unwrap_by(volume, kms, entry->kek.version, &wrap, volume_key, fault);
                if (r < 0)
                        return r;
                if (tk_secret_len(*volume_key) != TK_KEY_LEN)
                        return damaged(volume, "a wrapped key has the wrong size", fault);
        }
        return tk_keyring_add_root(keyring, entry->kek.version, kms, wrap);
}

/* Newest first: its KMS answer is the one that matters most. */
static int unlock_versions(struct tk_volume *volume, struct tk_keyring *keyring,
                           struct tk_secret **volume_key, struct tk_fault *fault)
{
        int r;

        for (size_t i = volume->text.kek_count; i-- > 0;) {
                const struct tk_volume_text_kek *entry = &volume->text.keks[i];

                if (!entry->kek.active)
                        continue;
                r = volume->text.dek_wrap == TK_DEK_WRAP_KMS
                            ? unlock_root(volume, entry, keyring, volume_key, fault)
                            : unlock_kek(volume, entry, keyring, volume_key, fault);
                if (r < 0)
                        return r;
        }
        return *volume_key ? 0 : damaged(volume, "no KEK version is active", fault);
}

/* @kms protects KEK version @version; versions come in order. */
static int note_kms(struct tk_volume *volume, uint16_t version, struct tk_kms *kms)
{
        struct tk_kms **all = reallocarray(volume->kms, version, sizeof(struct tk_kms *));

        if (!all)
                return -ENOMEM;
        volume->kms = all;
        volume->kms[version - 1] = kms;
        return 0;
}

static bool has_wrap_of(const struct tk_volume *volume, uint16_t version, const struct tk_kms *kms,
                        const struct tk_kms_wrap **ret_wrap)
{
        struct tk_fault none = {0};

        return find_wrap(volume, kms, version, ret_wrap, &none) == 0;
}

/* Who of the two protects @version. Where both may, the first is asked whether it is its key. */
static struct tk_kms *choose_kms(const struct tk_volume *volume, uint16_t version,
                                 struct tk_kms *kms, struct tk_kms *previous)
{
        const struct tk_kms_wrap *wrap;

        if (!previous || !has_wrap_of(volume, version, previous, &wrap))
                return kms;
        if (!has_wrap_of(volume, version, kms, &wrap) || tk_kms_probe(kms, wrap, NULL) == -ENOENT)
                return previous;
        return kms;
}

static int note_all(struct tk_volume *volume, struct tk_kms *kms, struct tk_kms *previous)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < volume->text.kek_count; i++) {
                const struct tk_volume_kek *kek = &volume->text.keks[i].kek;

                r = note_kms(volume, kek->version,
                             kek->active ? choose_kms(volume, kek->version, kms, previous) : kms);
        }
        return r;
}

static int check_fingerprint(struct tk_volume *volume, const struct tk_secret *volume_key,
                             const char *fingerprint, struct tk_fault *fault)
{
        int r;

        r = tk_volume_key_fingerprint(volume_key, volume->fingerprint);
        if (r < 0)
                return r;
        if (fingerprint && strcasecmp(fingerprint, volume->fingerprint) != 0)
                return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -EKEYREJECTED,
                                    "%s is not the volume that the configuration names: its "
                                    "fingerprint is %s; if it was replaced, find out by whom",
                                    volume->path, volume->fingerprint);
        return 0;
}

static int check_mac(struct tk_volume *volume, const struct tk_secret *mac_key,
                     struct tk_fault *fault)
{
        uint8_t mac[TK_MAC_LEN];
        int r;

        r = tk_mac_hmac(mac_key, volume->raw, volume->text.signed_len, mac);
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(mac, volume->text.mac, TK_MAC_LEN))
                return damaged(volume, "its MAC does not hold", fault);
        return 0;
}

int tk_volume_unlock(struct tk_volume *volume, struct tk_kms *kms,
                     const struct tk_volume_unlock *unlock, struct tk_fault *fault)
{
        TK_CLEANUP(tk_keyring_freep) struct tk_keyring *keyring = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *mac_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *record_mac = NULL;
        int r;

        r = note_all(volume, kms, unlock->previous);
        if (r < 0)
                return r;
        r = tk_keyring_new(volume->text.id, &keyring);
        if (r < 0)
                return r;
        r = unlock_versions(volume, keyring, &volume_key, fault);
        if (r < 0)
                return r;
        r = check_fingerprint(volume, volume_key, unlock->fingerprint, fault);
        if (r < 0)
                return r;
        r = tk_volume_key_derive_mac(volume_key, &mac_key);
        if (r < 0)
                return r;
        r = check_mac(volume, mac_key, fault);
        if (r < 0)
                return r;
        if (volume->text.dek_wrap == TK_DEK_WRAP_KMS) {
                r = tk_volume_key_derive_record_mac(volume_key, &record_mac);
                if (r < 0)
                        return r;
                r = tk_keyring_use_roots(keyring, TK_TAKE(record_mac), unlock->lease_ms);
                if (r < 0)
                        return r;
        }
        volume->keyring = TK_TAKE(keyring);
        volume->volume_key = TK_TAKE(volume_key);
        volume->mac_key = TK_TAKE(mac_key);
        return 0;
}

/* What the one KEK version @entry comes to; its wrap is copied, so that no lock is held meanwhile.
 */
static int probe_version(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        struct tk_kms_wrap copy = {0};
        struct tk_kms *kms = NULL;
        int r = 0;

        {
                TK_LOCK_SCOPE(&volume->text_lock);
                if (volume->text.keks[version - 1].kek.active) {
                        const struct tk_kms_wrap *wrap = NULL;

                        kms = volume->kms[version - 1];
                        r = find_wrap(volume, kms, version, &wrap, fault);
                        if (r == 0)
                                copy = *wrap;
                }
        }
        return r == 0 && kms ? tk_kms_probe(kms, &copy, fault) : r;
}

/* Worse answers first; what is not listed says nothing about the key. */
static int rank(int r)
{
        static const int order[] = {-EKEYREVOKED, -ENOENT, -EACCES, -ENOKEY};

        for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
                if (r == order[i])
                        return (int)i;
        return r == 0 ? 100 : r == -EKEYEXPIRED ? 99 : 50;
}

int tk_volume_probe(struct tk_volume *volume, struct tk_fault *fault)
{
        size_t count = tk_volume_kek_count(volume);
        int worst = 0;

        for (size_t version = 1; version <= count; version++) {
                struct tk_fault said = {0};
                int r = probe_version(volume, (uint16_t)version, &said);

                if (rank(r) >= rank(worst))
                        continue;
                worst = r;
                if (fault)
                        *fault = said;
        }
        return worst;
}

struct tk_kms *tk_volume_current_kms(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->kms[volume->text.kek_count - 1];
}

int tk_volume_has_new_root(struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_kms *kms = tk_volume_current_kms(volume);
        char version[TK_KMS_VERSION_MAX];
        const struct tk_kms_wrap *wrap = NULL;
        int r;

        r = tk_kms_current(kms, version, fault);
        if (r < 0)
                return r;
        TK_LOCK_SCOPE(&volume->text_lock);
        r = find_wrap(volume, kms, (uint16_t)volume->text.kek_count, &wrap, fault);
        return r < 0 ? r : strcmp(wrap->version, version) != 0;
}

void tk_volume_close_keys(struct tk_volume *volume, int error)
{
        /* Both at once: whoever finds the volume key there may add to the keyring. */
        TK_LOCK_SCOPE(&volume->text_lock);
        tk_keyring_close(volume->keyring, error);
        volume->volume_key = tk_secret_free(volume->volume_key);
}

int tk_volume_reopen_keys(struct tk_volume *volume, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        int r;

        r = unlock_versions(volume, volume->keyring, &volume_key, fault);
        if (r < 0) {
                /* What was unwrapped before the failure is not kept. */
                tk_keyring_close(volume->keyring, r);
                return r;
        }
        {
                TK_LOCK_SCOPE(&volume->text_lock);
                volume->volume_key = TK_TAKE(volume_key);
        }
        tk_keyring_reopen(volume->keyring);
        return 0;
}

/* Changes to the volume file ------------------------------------------------ */

static int store_text(struct tk_volume *volume, struct tk_fault *fault)
{
        int r;

        r = store(volume->dirfd, &volume->text, volume->mac_key);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot write %s/%s: %s",
                                    volume->path, volume_file, strerror(-r));
        return 0;
}

/* Whether the current KEK version is protected as @wrap would protect it. */
static bool is_protected_alike(const struct tk_volume *volume, const struct tk_volume_wrap *wrap)
{
        const struct tk_volume_text *text = &volume->text;

        for (size_t i = 0; i < text->wrap_count; i++) {
                const struct tk_volume_wrap *have = &text->wraps[i];

                if (have->kek_version == text->kek_count &&
                    strcmp(have->provider, wrap->provider) == 0 &&
                    strcmp(have->wrap.key_id, wrap->wrap.key_id) == 0 &&
                    strcmp(have->wrap.version, wrap->wrap.version) == 0)
                        return true;
        }
        return false;
}

/*
 * Whether the keys are at hand. Called with the text locked: while they are not, the
 * KEK versions stay as they are, so that they can be unwrapped again meanwhile.
 */
static int check_not_closed(const struct tk_volume *volume, struct tk_fault *fault)
{
        if (volume->volume_key)
                return 0;
        return tk_fault_set(fault, TK_FAULT_KEY_REVOKED, -EKEYREVOKED,
                            "%s is locked: its root key is revoked or out of reach", volume->path);
}

static int dup_volume_key(struct tk_volume *volume, struct tk_secret **ret_key,
                          struct tk_fault *fault)
{
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        r = check_not_closed(volume, fault);
        if (r < 0)
                return r;
        return tk_secret_dup_bytes(tk_secret_bytes(volume->volume_key),
                                   tk_secret_len(volume->volume_key), ret_key);
}

/* The version made is stored, then usable; if it can't be stored, it never was. */
static int adopt_kek(struct tk_volume *volume, struct tk_kms *kms,
                     const struct tk_volume_text_kek *entry, const struct tk_volume_wrap *wrap,
                     struct tk_secret *kek, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned = kek;
        struct tk_volume_text *text = &volume->text;
        size_t wrap_count;
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        wrap_count = text->wrap_count;
        r = check_not_closed(volume, fault);
        if (r == 0)
                r = note_kms(volume, entry->kek.version, kms);
        if (r < 0)
                return r;
        r = add_kek(text, entry, wrap);
        if (r == 0)
                r = store_text(volume, fault);
        if (r < 0) {
                text->kek_count = entry->kek.version - 1U;
                text->wrap_count = wrap_count;
                return r;
        }
        if (owned)
                return tk_keyring_add(volume->keyring, entry->kek.version, TK_TAKE(owned));
        return tk_keyring_add_root(volume->keyring, entry->kek.version, kms, &wrap->wrap);
}

int tk_volume_renew_kek(struct tk_volume *volume, struct tk_kms *kms, bool even_if_current,
                        struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_volume_text_kek entry;
        struct tk_volume_wrap wrap;
        int r;

        if (volume->text.kek_count == UINT16_MAX)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -EOVERFLOW,
                                    "%s has had %u KEK versions, which is all that it can have; "
                                    "copy the data to a new volume",
                                    volume->path, UINT16_MAX);
        r = dup_volume_key(volume, &volume_key, fault);
        if (r < 0)
                return r;
        r = make_kek(&volume->text, kms, volume_key, &entry, &wrap, &kek, fault);
        if (r < 0)
                return r;
        if (!even_if_current && is_protected_alike(volume, &wrap))
                return 0;
        return adopt_kek(volume, kms, &entry, &wrap, TK_TAKE(kek), fault);
}

/* In the volume file; if it can't be written, nothing is retired. */
static int retire_text(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        struct tk_volume_text *text = &volume->text;
        bool *were_active = calloc(text->kek_count, sizeof(*were_active));
        int r;

        if (!were_active)
                return -ENOMEM;
        for (size_t i = 0; i < text->kek_count; i++) {
                were_active[i] = text->keks[i].kek.active;
                text->keks[i].kek.active = were_active[i] && text->keks[i].kek.version >= version;
        }
        r = store_text(volume, fault);
        for (size_t i = 0; r < 0 && i < text->kek_count; i++)
                text->keks[i].kek.active = were_active[i];
        free(were_active);
        return r;
}

int tk_volume_retire_below(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        r = check_not_closed(volume, fault);
        if (r < 0)
                return r;
        r = retire_text(volume, version, fault);
        if (r < 0)
                return r;
        for (uint16_t old = 1; old < version; old++)
                tk_keyring_retire(volume->keyring, old);
        return 0;
}

static bool is_unclean(const struct tk_volume_text *text, uint16_t mount)
{
        for (size_t i = 0; i < text->unclean_count; i++)
                if (text->unclean[i] == mount)
                        return true;
        return false;
}

/* The number behind the last one that stands for no unclean mount; 0 if there is none. */
static uint16_t next_mount_number(const struct tk_volume_text *text)
{
        uint16_t number = text->last_mount;

        for (unsigned tries = 0; tries < UINT16_MAX; tries++) {
                number = number == UINT16_MAX ? 1 : (uint16_t)(number + 1);
                if (!is_unclean(text, number))
                        return number;
        }
        return 0;
}

int tk_volume_mount_begin(struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_volume_text *text = &volume->text;
        uint16_t *unclean;
        uint16_t number;

        TK_LOCK_SCOPE(&volume->text_lock);
        number = next_mount_number(text);
        if (number == 0)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -EOVERFLOW,
                                    "%s has had %u mounts that did not end cleanly, which is all "
                                    "that it can count; copy the data to a new volume",
                                    volume->path, UINT16_MAX);
        unclean = reallocarray(text->unclean, text->unclean_count + 1, sizeof(*unclean));
        if (!unclean)
                return -ENOMEM;
        text->unclean = unclean;
        unclean[text->unclean_count++] = number;
        text->last_mount = number;
        volume->mount_number = number;
        return store_text(volume, fault);
}

int tk_volume_mount_end(struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_volume_text *text = &volume->text;
        size_t kept = 0;

        TK_LOCK_SCOPE(&volume->text_lock);
        for (size_t i = 0; i < text->unclean_count; i++)
                if (text->unclean[i] != volume->mount_number)
                        text->unclean[kept++] = text->unclean[i];
        text->unclean_count = kept;
        return store_text(volume, fault);
}

/* Accessors -------------------------------------------------------------- */

uint16_t tk_volume_mount_number(const struct tk_volume *volume)
{
        return volume->mount_number;
}

const uint8_t *tk_volume_id(const struct tk_volume *volume)
{
        return volume->text.id;
}

enum tk_dek_wrap tk_volume_dek_wrap(const struct tk_volume *volume)
{
        return volume->text.dek_wrap;
}

int64_t tk_volume_created(const struct tk_volume *volume)
{
        return volume->text.created;
}

const char *tk_volume_path(const struct tk_volume *volume)
{
        return volume->path;
}

int tk_volume_dirfd(const struct tk_volume *volume)
{
        return volume->dirfd;
}

struct tk_keyring *tk_volume_keyring(const struct tk_volume *volume)
{
        return volume->keyring;
}

const char *tk_volume_fingerprint(const struct tk_volume *volume)
{
        return volume->keyring ? volume->fingerprint : NULL;
}

size_t tk_volume_kek_count(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->text.kek_count;
}

struct tk_volume_kek tk_volume_kek_at(struct tk_volume *volume, size_t i)
{
        struct tk_volume_kek kek;

        TK_LOCK_SCOPE(&volume->text_lock);
        kek = volume->text.keks[i].kek;
        kek.protectors = 0;
        for (size_t w = 0; w < volume->text.wrap_count; w++)
                kek.protectors += volume->text.wraps[w].kek_version == kek.version;
        return kek;
}

size_t tk_volume_active_count(struct tk_volume *volume)
{
        size_t count = 0;

        TK_LOCK_SCOPE(&volume->text_lock);
        for (size_t i = 0; i < volume->text.kek_count; i++)
                count += volume->text.keks[i].kek.active;
        return count;
}

size_t tk_volume_wrap_count(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->text.wrap_count;
}

struct tk_volume_wrap tk_volume_wrap_at(struct tk_volume *volume, size_t i)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->text.wraps[i];
}

size_t tk_volume_unclean_count(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->text.unclean_count;
}
