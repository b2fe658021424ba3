/* SPDX-License-Identifier: Apache-2.0 */

/*
 * KEK versions: made, adopted, retired and admitted again.
 *
 * A version is proved by an unwrap, then stored, then used.
 */

#include "fs/volume_internal.h"

#include "crypto/random.h"
#include "fs/protector.h"
#include "fs/volume_key.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SPARE_LEN = 64 * 1024 }; /* of the volume file, for mounts that end uncleanly */

int tk_volume_wrap_tested(struct tk_kms *kms, const char *version, const struct tk_secret *key,
                          struct tk_volume_wrap *ret_wrap, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        char root_version[TK_KMS_VERSION_MAX];
        int r;

        r = version ? 0 : tk_kms_current(kms, root_version, fault);
        if (r < 0)
                return r;
        r = tk_kms_wrap(kms, version ? version : root_version, key, &ret_wrap->wrap, fault);
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

/* A new envelope under the root key of @kms, with @kek sealed in it, and opened again as a test. */
static int make_sealed(const struct tk_volume_text *text, struct tk_kms *kms,
                       const struct tk_secret *kek, struct tk_volume_wrap *wrap,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *again = NULL;
        struct tk_volume_wrap envelope;
        int r;

        r = tk_protector_make(text->id, text->fingerprint, kms, NULL, &envelope, &secret, fault);
        if (r < 0)
                return r;
        envelope.kek_version = wrap->kek_version;
        envelope.protector = wrap->protector;
        r = tk_protector_seal(text->id, kek, &envelope);
        if (r == 0)
                r = tk_protector_open(text->id, text->fingerprint, &envelope, secret, &again);
        if (r < 0)
                return r;
        if (!tk_secret_equal(kek, again))
                return -EIO;
        *wrap = envelope;
        return 0;
}

int tk_volume_make_kek(const struct tk_volume_text *text, struct tk_kms *kms, unsigned protector,
                       const struct tk_secret *volume_key, struct tk_volume_text_kek *ret_entry,
                       struct tk_volume_wrap *ret_wrap, struct tk_secret **ret_kek,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        uint16_t version = (uint16_t)(text->kek_count + 1);
        int r;

        *ret_entry = (struct tk_volume_text_kek){
                .kek = {.version = version, .active = true, .created = (int64_t)time(NULL)}};
        *ret_wrap = (struct tk_volume_wrap){.kek_version = version, .protector = protector};
        if (text->dek_wrap == TK_DEK_WRAP_KEK) {
                r = tk_random_secret(TK_KEY_LEN, &kek);
                if (r < 0)
                        return r;
                r = tk_volume_key_seal(text->id, version, kek, volume_key, ret_entry->volume_key);
                if (r < 0)
                        return r;
                ret_entry->volume_key_len = TK_SEALED_KEY_LEN;
        }
        if (tk_volume_text_is_shared(text))
                r = make_sealed(text, kms, kek, ret_wrap, fault);
        else
                r = tk_volume_wrap_tested(kms, NULL, kek ? kek : volume_key, ret_wrap, fault);
        if (r < 0)
                return r;
        *ret_kek = TK_TAKE(kek);
        return 0;
}

int tk_volume_append_kek(struct tk_volume_text *text, const struct tk_volume_text_kek *entry,
                         const struct tk_volume_wrap *wrap)
{
        int r;

        r = tk_volume_text_add_kek(text, entry);
        if (r < 0)
                return r;
        return tk_volume_text_add_wrap(text, wrap);
}

/* Whether the current KEK version is protected as @wrap would protect it. */
static bool is_protected_alike(struct tk_volume *volume, const struct tk_volume_wrap *wrap)
{
        const struct tk_volume_text *text = &volume->text;

        TK_LOCK_SCOPE(&volume->text_lock);
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

int tk_volume_check_not_closed(const struct tk_volume *volume, struct tk_fault *fault)
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
        r = tk_volume_check_not_closed(volume, fault);
        if (r < 0)
                return r;
        return tk_secret_dup_bytes(tk_secret_bytes(volume->volume_key),
                                   tk_secret_len(volume->volume_key), ret_key);
}

int tk_volume_check_room(const struct tk_volume *volume, const struct tk_volume_text *text,
                         struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *formatted = NULL;
        int r = tk_volume_text_format(text, &formatted);

        if (r < 0 || strlen(formatted) + SPARE_LEN < TK_VOLUME_TEXT_MAX)
                return r;
        return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -EOVERFLOW,
                            "%s has had so many KEK versions that its volume file is full; copy "
                            "the data to a new volume",
                            volume->path);
}

/* The new KEK version for those protectors that are not @own, as the newest one is. */
static int seal_for_others(struct tk_volume_text *text, const struct tk_volume_wrap *own,
                           const struct tk_secret *kek)
{
        size_t count = text->wrap_count;
        int r = 0;

        for (size_t i = 0; r == 0 && i < count; i++) {
                struct tk_volume_wrap wrap = text->wraps[i];

                if (wrap.kek_version != own->kek_version - 1 || wrap.protector == own->protector)
                        continue;
                wrap.kek_version = own->kek_version;
                r = tk_protector_seal(text->id, kek, &wrap);
                if (r == 0)
                        r = tk_volume_text_add_wrap(text, &wrap);
        }
        return r;
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
        r = tk_volume_check_not_closed(volume, fault);
        /* What became shared since it was made: the next attempt makes an envelope. */
        if (r == 0 && wrap->has_envelope != (tk_volume_text_is_shared(text)))
                r = tk_fault_set(fault, TK_FAULT_IN_USE, -EAGAIN,
                                 "the protectors of %s changed meanwhile; try again", volume->path);
        if (r == 0)
                r = tk_volume_note_opener(
                        volume, entry->kek.version,
                        (struct tk_volume_opener){.kms = kms, .protector = wrap->protector});
        if (r < 0)
                return r;
        r = tk_volume_append_kek(text, entry, wrap);
        if (r == 0 && wrap->has_envelope)
                r = seal_for_others(text, wrap, owned);
        if (r == 0)
                r = tk_volume_check_room(volume, text, fault);
        if (r == 0)
                r = tk_volume_store_text(volume, fault);
        if (r < 0) {
                text->kek_count = entry->kek.version - 1U;
                text->wrap_count = wrap_count;
                return r;
        }
        volume->edits++;
        if (owned)
                return tk_keyring_add(volume->keyring, entry->kek.version, TK_TAKE(owned));
        return tk_keyring_add_root(volume->keyring, entry->kek.version, kms, &wrap->wrap);
}

/*
 * A root key that is refused is not left behind for another version: that would undo
 * the refusal. Asked after the current version was, so that none comes in between.
 */
static int check_not_refused(struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_fault said = {0};
        int r = tk_volume_probe(volume, &said);

        if (r != -EKEYREVOKED && r != -ENOENT)
                return 0;
        return tk_fault_set(fault, said.kind, r, "%s", said.text);
}

/* All of the text but its lists: a protector may be added meanwhile. */
static void copy_head(struct tk_volume *volume, struct tk_volume_text *ret_head)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        *ret_head = volume->text;
        ret_head->keks = NULL;
        ret_head->wraps = NULL;
        ret_head->unclean = NULL;
}

int tk_volume_renew_kek(struct tk_volume *volume, struct tk_kms *kms, bool even_if_current,
                        struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_volume_text_kek entry;
        struct tk_volume_text head;
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
        if (kms != tk_volume_current_kms(volume)) {
                r = tk_volume_check_move(volume, fault);
                if (r < 0)
                        return r;
        }
        copy_head(volume, &head);
        r = tk_volume_make_kek(&head, kms, tk_volume_own_protector(volume), volume_key, &entry,
                               &wrap, &kek, fault);
        if (r < 0)
                return r;
        if (!even_if_current && is_protected_alike(volume, &wrap))
                return 0;
        r = check_not_refused(volume, fault);
        if (r < 0)
                return r;
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
        r = tk_volume_store_text(volume, fault);
        for (size_t i = 0; r < 0 && i < text->kek_count; i++)
                text->keks[i].kek.active = were_active[i];
        free(were_active);
        return r;
}

int tk_volume_retire_below(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        r = tk_volume_check_not_closed(volume, fault);
        if (r < 0)
                return r;
        r = retire_text(volume, version, fault);
        if (r < 0)
                return r;
        volume->edits++;
        for (uint16_t old = 1; old < version; old++)
                tk_keyring_retire(volume->keyring, old);
        return 0;
}

/* The key of the retired @version, if it is one of this volume's. */
static int unlock_retired(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *found = NULL;
        int r;

        r = tk_volume_unlock_version(volume, &volume->text.keks[version - 1], volume->keyring,
                                     &found, fault);
        if (r < 0 || tk_secret_equal(found, volume->volume_key))
                return r;
        tk_keyring_retire(volume->keyring, version);
        return tk_volume_damaged(volume, "two KEK versions hold different volume keys", fault);
}

/* In the volume file; if it can't be written, it stays retired. */
static int readmit_text(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        struct tk_volume_kek *kek = &volume->text.keks[version - 1].kek;
        struct tk_volume_kek before = *kek;
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        kek->active = true;
        kek->readmitted = (int64_t)time(NULL);
        r = tk_volume_text_is_shared(&volume->text) ? tk_volume_seal_again(volume, version, fault)
                                                    : tk_volume_store_text(volume, fault);
        if (r < 0)
                *kek = before;
        return r;
}

int tk_volume_readmit(struct tk_volume *volume, uint16_t version, struct tk_kms *kms,
                      struct tk_kms *previous, struct tk_fault *fault)
{
        int r;

        if (version == 0 || version > volume->text.kek_count)
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "%s has no KEK version %u; 'turnkeyfs status' lists those that "
                                    "it has",
                                    volume->path, version);
        if (volume->text.keks[version - 1].kek.active)
                return 1;
        volume->openers[version - 1] = (struct tk_volume_opener){
                .kms = tk_volume_choose_kms(volume, version, kms, previous)};
        r = unlock_retired(volume, version, fault);
        if (r < 0)
                return r;
        r = readmit_text(volume, version, fault);
        if (r < 0)
                tk_keyring_retire(volume->keyring, version);
        return r;
}
