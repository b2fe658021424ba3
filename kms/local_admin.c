/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Administration of a keystore: what `turnkeyfs key` does with `local`.
 *
 * A change is made to the file as it is now, under a lock on its directory, so that
 * two programs do not undo each other's; then the file is replaced atomically.
 */

#include "base/fdio.h"
#include "kms/local_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

/* The directory that a keystore is in, open and locked, and its name there. */
struct place {
        int dirfd;
        char *path; /* of the keystore, without symbolic links */
        const char *name;
};

static void place_done(struct place *place)
{
        if (place->dirfd >= 0)
                close(place->dirfd); /* and unlocked */
        free(place->path);
}

static int fail_write(const char *path, int r, struct tk_fault *fault)
{
        if (r == -EACCES || r == -EPERM || r == -EROFS)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "can't write the keystore %s: %s; run this as the user who "
                                    "owns it, and may write its directory",
                                    path, strerror(-r));
        return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "can't write the keystore %s: %s", path,
                            strerror(-r));
}

/* @path: of the keystore, or of where it was, without symbolic links in its last part then. */
static int enter(const char *path, struct place *ret_place, struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *dir = NULL;
        char *slash;

        *ret_place = (struct place){.dirfd = -1, .path = realpath(path, NULL)};
        if (!ret_place->path)
                ret_place->path = strdup(path);
        dir = ret_place->path ? strdup(ret_place->path) : NULL;
        if (!dir)
                return tk_local_fail(path, -ENOMEM, fault);
        slash = strrchr(dir, '/');
        ret_place->name = slash ? ret_place->path + (slash - dir) + 1 : ret_place->path;
        if (slash)
                slash[slash == dir] = '\0';
        ret_place->dirfd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (ret_place->dirfd < 0)
                return fail_write(path, -errno, fault);
        while (flock(ret_place->dirfd, LOCK_EX) < 0)
                if (errno != EINTR)
                        return fail_write(path, -errno, fault);
        return 0;
}

/* Replace the file by @text; on failure memory is as the file again. */
static int store(struct tk_local *local, const struct place *place, const struct tk_secret *text,
                 struct tk_fault *fault)
{
        int r = tk_fdio_replace(place->dirfd, place->name, tk_secret_bytes(text),
                                tk_secret_len(text), 0600);

        if (r < 0)
                (void)!tk_local_reload(local, NULL);
        return r < 0 ? fail_write(local->path, r, fault) : 0;
}

static int admin_list(void *impl, struct tk_kms_key_version **ret_versions, size_t *ret_count,
                      struct tk_fault *fault)
{
        struct tk_local *local = impl;
        struct tk_kms_key_version *versions;
        struct tk_kms_key_version *current = NULL;
        size_t count;

        TK_LOCK_SCOPE(&local->lock);
        count = local->keystore->version_count;
        versions = calloc(count ? count : 1, sizeof(*versions));
        if (!versions)
                return tk_local_fail(local->path, -ENOMEM, fault);
        for (size_t i = 0; i < count; i++) {
                const struct tk_keystore_version *version = &local->keystore->versions[i];

                versions[i] = (struct tk_kms_key_version){.type = "AES 256",
                                                          .enabled = version->enabled,
                                                          .created = (int64_t)version->created};
                snprintf(versions[i].version, sizeof(versions[i].version), "%" PRIu32,
                         version->number);
                if (version->enabled)
                        current = &versions[i];
        }
        if (current)
                current->current = true;
        *ret_versions = versions;
        *ret_count = count;
        return 0;
}

/* A new version in the file at @place, whose lock is held, and whose present state was read. */
static int make_version(struct tk_local *local, const struct place *place,
                        char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        uint32_t number = 0;
        int r;

        {
                /* Until it is formatted: another thread may put the file's state back. */
                TK_LOCK_SCOPE(&local->lock);
                r = tk_local_add_version(local->keystore, local->seal);
                number = local->keystore->versions[local->keystore->version_count - 1].number;
                if (r == 0)
                        r = tk_keystore_format(local->keystore, &text);
        }
        if (r < 0)
                return tk_local_fail(local->path, r, fault);
        r = store(local, place, text, fault);
        if (r < 0)
                return r;
        snprintf(ret_version, TK_KMS_VERSION_MAX, "%" PRIu32, number);
        return 0;
}

static int admin_rotate(void *impl, char ret_version[TK_KMS_VERSION_MAX], struct tk_fault *fault)
{
        struct tk_local *local = impl;
        TK_CLEANUP(place_done) struct place place = {.dirfd = -1};
        int r;

        r = enter(local->path, &place, fault);
        if (r == 0)
                r = tk_local_reload(local, fault);
        return r < 0 ? r : make_version(local, &place, ret_version, fault);
}

/*
 * A version that is from the future was made while the clock was wrong; what it is worth
 * can't be told, and waiting for its day could take years.
 */
static bool is_due(struct tk_local *local, int64_t every_s)
{
        const struct tk_keystore_version *newest;
        int64_t age_s;

        TK_LOCK_SCOPE(&local->lock);
        newest = &local->keystore->versions[local->keystore->version_count - 1];
        age_s = (int64_t)time(NULL) - (int64_t)newest->created;
        return newest->enabled && (age_s >= every_s || age_s < -every_s);
}

static int admin_rotate_due(void *impl, int64_t every_s, char ret_version[TK_KMS_VERSION_MAX],
                            struct tk_fault *fault)
{
        struct tk_local *local = impl;
        TK_CLEANUP(place_done) struct place place = {.dirfd = -1};
        int r;

        r = enter(local->path, &place, fault);
        if (r == 0)
                r = tk_local_reload(local, fault);
        if (r < 0 || !is_due(local, every_s))
                return r;
        r = make_version(local, &place, ret_version, fault);
        return r < 0 ? r : 1;
}

/* Whether it was there. The lock is held. */
static bool change_state(struct tk_keystore *keystore, const char *text, bool enabled)
{
        uint64_t number;

        if (tk_keystore_number(text, UINT32_MAX, &number) < 0)
                return false;
        for (size_t i = 0; i < keystore->version_count; i++) {
                if (keystore->versions[i].number != number)
                        continue;
                keystore->versions[i].enabled = enabled;
                return true;
        }
        return false;
}

static int admin_set_enabled(void *impl, const char *version, bool enabled, struct tk_fault *fault)
{
        struct tk_local *local = impl;
        TK_CLEANUP(place_done) struct place place = {.dirfd = -1};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *text = NULL;
        bool found;
        int r;

        r = enter(local->path, &place, fault);
        if (r == 0)
                r = tk_local_reload(local, fault);
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&local->lock);
                found = change_state(local->keystore, version, enabled);
                r = found ? tk_keystore_format(local->keystore, &text) : 0;
        }
        if (!found)
                return tk_fault_set(fault, TK_FAULT_USAGE, -ENOENT,
                                    "the keystore %s has no version '%s'; 'turnkeyfs key list' "
                                    "shows them",
                                    local->path, version);
        if (r < 0)
                return tk_local_fail(local->path, r, fault);
        return store(local, &place, text, fault);
}

/* Give @from the name @to, which must be free, durably. */
static int rename_durably(const struct place *place, const char *from, const char *to)
{
        if (renameat2(place->dirfd, from, place->dirfd, to, RENAME_NOREPLACE) < 0) {
                if (errno != EINVAL && errno != ENOSYS)
                        return -errno;
                /* A filesystem without RENAME_NOREPLACE. */
                if (linkat(place->dirfd, from, place->dirfd, to, 0) < 0)
                        return -errno;
                if (unlinkat(place->dirfd, from, 0) < 0)
                        return -errno;
        }
        return fsync(place->dirfd) < 0 ? -errno : 0;
}

static int admin_delete(void *impl, struct tk_fault *fault)
{
        const struct tk_local *local = impl;
        TK_CLEANUP(place_done) struct place place = {.dirfd = -1};
        char deleted[NAME_MAX + 1];
        int r;

        r = enter(local->path, &place, fault);
        if (r < 0)
                return r;
        if (snprintf(deleted, sizeof(deleted), "%s" TK_LOCAL_DELETED, place.name) >=
            (int)sizeof(deleted))
                return fail_write(local->path, -ENAMETOOLONG, fault);
        r = rename_durably(&place, place.name, deleted);
        if (r == -EEXIST)
                return tk_fault_set(fault, TK_FAULT_USAGE, r,
                                    "an earlier deleted keystore is in the way: %s" TK_LOCAL_DELETED
                                    "; move it elsewhere, or remove it for ever",
                                    place.path);
        return r < 0 ? fail_write(local->path, r, fault) : 0;
}

int tk_kms_local_recover(const char *path, struct tk_fault *fault)
{
        TK_CLEANUP(place_done) struct place place = {.dirfd = -1};
        char deleted[NAME_MAX + 1];
        int r;

        r = enter(path, &place, fault);
        if (r < 0)
                return r;
        if (snprintf(deleted, sizeof(deleted), "%s" TK_LOCAL_DELETED, place.name) >=
            (int)sizeof(deleted))
                return fail_write(path, -ENAMETOOLONG, fault);
        r = rename_durably(&place, deleted, place.name);
        if (r == -ENOENT)
                return tk_fault_set(fault, TK_FAULT_KEYSTORE_MISSING, r,
                                    "there is no deleted keystore %s" TK_LOCAL_DELETED, place.path);
        if (r == -EEXIST)
                return tk_fault_set(fault, TK_FAULT_USAGE, r,
                                    "the keystore %s is there; nothing is to be recovered", path);
        return r < 0 ? fail_write(path, r, fault) : 0;
}

static int admin_recover(void *impl, struct tk_fault *fault)
{
        const struct tk_local *local = impl;

        return tk_kms_local_recover(local->path, fault);
}

const struct tk_kms_admin tk_local_admin = {
        .list = admin_list,
        .rotate = admin_rotate,
        .rotate_due = admin_rotate_due,
        .set_enabled = admin_set_enabled,
        .delete_key = admin_delete,
        .recover = admin_recover,
};
