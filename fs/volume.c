/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The volume: opened, locked, and written back.
 *
 * The volume file is replaced atomically and only under the volume lock. Making one is
 * volume_create.c, its keys are volume_unlock.c, its KEK versions volume_kek.c.
 */

#include "fs/volume_internal.h"

#include "base/fdio.h"
#include "fs/volume_lock.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Mounts that there may have been since a volume file that is put back was saved. */
enum { LATER_MOUNTS = 256 };

/* Write @text with its MAC as the volume file. */
int tk_volume_store(int dirfd, const struct tk_volume_text *text, const struct tk_secret *mac_key)
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
        return tk_fdio_replace(dirfd, TK_VOLUME_FILE, whole, strlen(whole), 0600);
}

static int read_text(struct tk_volume *volume, struct tk_fault *fault)
{
        char path[PATH_MAX + sizeof(TK_VOLUME_FILE) + 1];
        size_t len;
        int r;

        snprintf(path, sizeof(path), "%s/%s", volume->path, TK_VOLUME_FILE);
        free(volume->raw);
        volume->raw = NULL;
        tk_volume_text_done(&volume->text);
        r = tk_fdio_read_file(volume->dirfd, TK_VOLUME_FILE, TK_VOLUME_TEXT_MAX, &volume->raw,
                              &len);
        if (r == -ENOENT)
                return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, r,
                                    "%s is not an encrypted directory: it has no %s; make one with "
                                    "'turnkeyfs init'",
                                    volume->path, TK_VOLUME_FILE);
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
        free(volume->openers);
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

int tk_volume_damaged(const struct tk_volume *volume, const char *what, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_VOLUME_DAMAGED, -EBADMSG,
                            "%s/%s is damaged or was tampered with: %s; restore it from a backup",
                            volume->path, TK_VOLUME_FILE, what);
}

int tk_volume_store_text(struct tk_volume *volume, struct tk_fault *fault)
{
        int r;

        r = tk_volume_store(volume->dirfd, &volume->text, volume->mac_key);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r, "cannot write %s/%s: %s",
                                    volume->path, TK_VOLUME_FILE, strerror(-r));
        return 0;
}

static bool is_unclean(const struct tk_volume_text *text, uint16_t mount)
{
        for (size_t i = 0; i < text->unclean_count; i++)
                if (text->unclean[i] == mount)
                        return true;
        return false;
}

/* How many numbers @to comes behind @from; they begin again at 1 behind 65535. */
static unsigned distance(uint16_t from, uint16_t to)
{
        return ((unsigned)to + UINT16_MAX - from) % UINT16_MAX;
}

static bool awaits_replay(const struct tk_volume *volume, uint16_t mount)
{
        const struct tk_volume_text *text = &volume->text;
        uint16_t newest = volume->mount_number > 0 ? volume->previous_mount : text->last_mount;
        unsigned behind = distance(text->replayed_mount, mount);

        return behind > 0 && behind <= distance(text->replayed_mount, newest) &&
               is_unclean(text, mount);
}

static bool any_awaits_replay(const struct tk_volume *volume)
{
        for (size_t i = 0; i < volume->text.unclean_count; i++)
                if (awaits_replay(volume, volume->text.unclean[i]))
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
        if (!any_awaits_replay(volume)) /* so it stays near, and numbers can begin again */
                text->replayed_mount = text->last_mount;
        unclean[text->unclean_count++] = number;
        volume->previous_mount = text->last_mount;
        text->last_mount = number;
        volume->mount_number = number;
        return tk_volume_store_text(volume, fault);
}

int tk_volume_doubt_later_mounts(struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_volume_text *text = &volume->text;
        uint16_t *unclean;

        TK_LOCK_SCOPE(&volume->text_lock);
        unclean = reallocarray(text->unclean, text->unclean_count + LATER_MOUNTS, sizeof(*unclean));
        if (!unclean)
                return -ENOMEM;
        text->unclean = unclean;
        for (unsigned i = 0; i < LATER_MOUNTS; i++) {
                uint16_t number = next_mount_number(text);

                if (number == 0)
                        break;
                unclean[text->unclean_count++] = number;
                text->last_mount = number;
        }
        return tk_volume_store_text(volume, fault);
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
        return tk_volume_store_text(volume, fault);
}

bool tk_volume_is_unclean(struct tk_volume *volume, uint16_t number)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return is_unclean(&volume->text, number);
}

bool tk_volume_awaits_replay(struct tk_volume *volume, uint16_t number)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return awaits_replay(volume, number);
}

bool tk_volume_any_awaits_replay(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return any_awaits_replay(volume);
}

uint64_t tk_volume_kept(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->text.kept;
}

int tk_volume_note_kept(struct tk_volume *volume, uint64_t kept, struct tk_fault *fault)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        volume->text.kept = kept;
        return tk_volume_store_text(volume, fault);
}

int tk_volume_note_replay(struct tk_volume *volume, uint64_t kept, struct tk_fault *fault)
{
        struct tk_volume_text *text = &volume->text;

        TK_LOCK_SCOPE(&volume->text_lock);
        if (!any_awaits_replay(volume) && text->kept == kept)
                return 0;
        text->kept = kept;
        text->replayed_mount = volume->mount_number > 0 ? volume->previous_mount : text->last_mount;
        return tk_volume_store_text(volume, fault);
}

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

enum tk_names tk_volume_names(const struct tk_volume *volume)
{
        return volume->text.names;
}

int tk_volume_format(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return tk_volume_text_is_shared(&volume->text) ? TK_VOLUME_FORMAT_SHARED : TK_VOLUME_FORMAT;
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

struct tk_volume_kek tk_volume_newest_kek(struct tk_volume *volume,
                                          char ret_version[TK_KMS_VERSION_MAX])
{
        unsigned own = tk_volume_own_protector(volume);
        struct tk_volume_kek kek = {0};

        ret_version[0] = '\0';
        TK_LOCK_SCOPE(&volume->text_lock);
        for (size_t i = 0; i < volume->text.kek_count; i++)
                if (volume->text.keks[i].kek.version > kek.version)
                        kek = volume->text.keks[i].kek;
        for (size_t i = 0; i < volume->text.wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &volume->text.wraps[i];

                if (wrap->kek_version == kek.version && wrap->protector == own)
                        memcpy(ret_version, wrap->wrap.version, TK_KMS_VERSION_MAX);
        }
        return kek;
}

size_t tk_volume_unclean_count(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->text.unclean_count;
}
