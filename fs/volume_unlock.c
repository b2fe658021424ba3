/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A volume's keys: unlocked, probed, closed and reopened.
 *
 * Until the MAC of the volume file holds, nothing in it is trusted.
 */

#include "fs/volume_internal.h"

#include "fs/protector.h"
#include "fs/volume_key.h"
#include <errno.h>
#include <string.h>

/* Whether @opener may be able to open @wrap of KEK version @version. */
static bool may_open(const struct tk_volume_opener *opener, uint16_t version,
                     const struct tk_volume_wrap *wrap)
{
        return wrap->kek_version == version &&
               strcmp(wrap->provider, tk_kms_provider_name(opener->kms)) == 0 &&
               (opener->protector == 0 || wrap->protector == opener->protector);
}

/* The first wrap of KEK version @version that @opener may be able to open. */
static int find_wrap(const struct tk_volume *volume, const struct tk_volume_opener *opener,
                     uint16_t version, const struct tk_volume_wrap **ret_wrap,
                     struct tk_fault *fault)
{
        for (size_t i = 0; i < volume->text.wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &volume->text.wraps[i];

                if (!may_open(opener, version, wrap))
                        continue;
                *ret_wrap = wrap;
                return 0;
        }
        return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                            "%s: KEK version %u is not protected by a key of provider '%s'; "
                            "configure the provider that the volume was made with",
                            volume->path, version, tk_kms_provider_name(opener->kms));
}

/* What a refusal says of our own key is of more use than that it is not another one. */
static void keep_said(struct tk_fault *kept, const struct tk_fault *said)
{
        if (!kept->kind || (kept->kind == TK_FAULT_WRONG_KEY && said->kind != TK_FAULT_WRONG_KEY))
                *kept = *said;
}

/*
 * What the root key of @opener has wrapped of KEK version @version, by whichever of its wraps
 * is for that key: it says of the others that they name another one. @opener learns which.
 */
static int unwrap_by(const struct tk_volume *volume, struct tk_volume_opener *opener,
                     uint16_t version, const struct tk_volume_wrap **ret_wrap,
                     struct tk_secret **ret_key, struct tk_fault *fault)
{
        struct tk_fault kept = {0};
        int r = -ENOENT;

        for (size_t i = 0; r == -ENOENT && i < volume->text.wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &volume->text.wraps[i];
                struct tk_fault said = {0};

                if (!may_open(opener, version, wrap))
                        continue;
                r = tk_kms_unwrap(opener->kms, &wrap->wrap, ret_key, &said);
                *ret_wrap = wrap;
                if (r < 0 && r != -ENOENT)
                        kept = said;
                else if (r < 0)
                        keep_said(&kept, &said);
        }
        if (r == 0)
                opener->protector = (*ret_wrap)->protector;
        if (r == -ENOENT && !kept.kind)
                return find_wrap(volume, opener, version, ret_wrap, fault);
        if (r < 0 && kept.kind)
                return tk_fault_set(fault, kept.kind, r, "%s", kept.text);
        return r;
}

/* The KEK of @wrap, by the @key that its root key unwrapped, which is taken over. */
static int open_wrapped(const struct tk_volume *volume, const char *fingerprint,
                        const struct tk_volume_wrap *wrap, struct tk_secret *key,
                        struct tk_secret **ret_kek, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned = key;
        int r;

        if (tk_secret_len(owned) != TK_KEY_LEN)
                return tk_volume_damaged(volume, "a wrapped key has the wrong size", fault);
        if (!wrap->has_envelope) {
                *ret_kek = TK_TAKE(owned);
                return 0;
        }
        r = tk_protector_open(volume->text.id, fingerprint, wrap, owned, ret_kek);
        if (r == -EBADMSG)
                return tk_volume_damaged(volume, "a sealed KEK does not authenticate", fault);
        return r;
}

/* KEK version @version itself, by its opener. */
static int unwrap_kek(const struct tk_volume *volume, struct tk_volume_opener *opener,
                      uint16_t version, struct tk_secret **ret_kek, struct tk_fault *fault)
{
        const struct tk_volume_wrap *wrap = NULL;
        struct tk_secret *key;
        int r;

        r = unwrap_by(volume, opener, version, &wrap, &key, fault);
        return r < 0 ? r
                     : open_wrapped(volume, volume->text.fingerprint, wrap, key, ret_kek, fault);
}

/* All KEK versions must lead to one volume key. */
static int agree_on_volume_key(const struct tk_volume *volume, struct tk_secret *found,
                               struct tk_secret **volume_key, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *owned = found;

        if (*volume_key && !tk_secret_equal(*volume_key, owned))
                return tk_volume_damaged(volume, "two KEK versions hold different volume keys",
                                         fault);
        if (!*volume_key)
                *volume_key = TK_TAKE(owned);
        return 0;
}

static int unlock_kek(struct tk_volume *volume, const struct tk_volume_text_kek *entry,
                      struct tk_keyring *keyring, struct tk_secret **volume_key,
                      struct tk_fault *fault)
{
        struct tk_volume_opener *opener = &volume->openers[entry->kek.version - 1];
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_secret *unsealed;
        int r;

        r = unwrap_kek(volume, opener, entry->kek.version, &kek, fault);
        if (r < 0)
                return r;
        r = tk_volume_key_unseal(volume->text.id, entry->kek.version, kek, entry->volume_key,
                                 &unsealed);
        if (r == -EBADMSG)
                return tk_volume_damaged(volume, "the volume key does not authenticate", fault);
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
        struct tk_volume_opener *opener = &volume->openers[entry->kek.version - 1];
        const struct tk_volume_wrap *wrap = NULL;
        int r;

        if (*volume_key) {
                r = find_wrap(volume, opener, entry->kek.version, &wrap, fault);
                if (r == 0)
                        r = refuse_other_key(opener->kms, &wrap->wrap, fault);
                if (r < 0)
                        return r;
        } else {
                r = unwrap_by(volume, opener, entry->kek.version, &wrap, volume_key, fault);
                if (r < 0)
                        return r;
                if (tk_secret_len(*volume_key) != TK_KEY_LEN)
                        return tk_volume_damaged(volume, "a wrapped key has the wrong size", fault);
        }
        return tk_keyring_add_root(keyring, entry->kek.version, opener->kms, &wrap->wrap);
}

int tk_volume_unlock_version(struct tk_volume *volume, const struct tk_volume_text_kek *entry,
                             struct tk_keyring *keyring, struct tk_secret **volume_key,
                             struct tk_fault *fault)
{
        return volume->text.dek_wrap == TK_DEK_WRAP_KMS
                       ? unlock_root(volume, entry, keyring, volume_key, fault)
                       : unlock_kek(volume, entry, keyring, volume_key, fault);
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
                r = tk_volume_unlock_version(volume, entry, keyring, volume_key, fault);
                if (r < 0)
                        return r;
        }
        return *volume_key ? 0 : tk_volume_damaged(volume, "no KEK version is active", fault);
}

int tk_volume_note_opener(struct tk_volume *volume, uint16_t version,
                          struct tk_volume_opener opener)
{
        struct tk_volume_opener *all = reallocarray(volume->openers, version, sizeof(*all));

        if (!all)
                return -ENOMEM;
        volume->openers = all;
        volume->openers[version - 1] = opener;
        return 0;
}

static bool has_wrap_of(const struct tk_volume *volume, uint16_t version, struct tk_kms *kms,
                        const struct tk_volume_wrap **ret_wrap)
{
        struct tk_fault none = {0};

        return find_wrap(volume, &(struct tk_volume_opener){.kms = kms}, version, ret_wrap,
                         &none) == 0;
}

/* Where both may, the first is asked whether it is its key. */
struct tk_kms *tk_volume_choose_kms(const struct tk_volume *volume, uint16_t version,
                                    struct tk_kms *kms, struct tk_kms *previous)
{
        const struct tk_volume_wrap *wrap;

        if (!previous || !has_wrap_of(volume, version, previous, &wrap))
                return kms;
        if (!has_wrap_of(volume, version, kms, &wrap) ||
            tk_kms_probe(kms, &wrap->wrap, NULL) == -ENOENT)
                return previous;
        return kms;
}

static int note_all(struct tk_volume *volume, struct tk_kms *kms, struct tk_kms *previous)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < volume->text.kek_count; i++) {
                const struct tk_volume_kek *kek = &volume->text.keks[i].kek;
                struct tk_kms *chosen =
                        kek->active ? tk_volume_choose_kms(volume, kek->version, kms, previous)
                                    : kms;

                r = tk_volume_note_opener(volume, kek->version,
                                          (struct tk_volume_opener){.kms = chosen});
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
        if (tk_volume_text_is_shared(&volume->text) &&
            strcmp(volume->text.fingerprint, volume->fingerprint) != 0)
                return tk_volume_damaged(volume, "its protectors are for another volume key",
                                         fault);
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
                return tk_volume_damaged(volume, "its MAC does not hold", fault);
        return 0;
}

static int give_target_key(const struct tk_volume *volume, struct tk_keyring *keyring,
                           const struct tk_secret *volume_key)
{
        struct tk_secret *key;
        int r;

        if (volume->text.names == TK_NAMES_PLAIN)
                return 0;
        r = tk_volume_key_derive_target(volume_key, &key);
        if (r < 0)
                return r;
        tk_keyring_set_target_key(keyring, key);
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

        /* A shared volume is never moved: its own key opens all KEK versions. */
        r = note_all(volume, kms, tk_volume_is_shared(volume) ? NULL : unlock->previous);
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
        r = give_target_key(volume, keyring, volume_key);
        if (r < 0)
                return r;
        volume->keyring = TK_TAKE(keyring);
        volume->volume_key = TK_TAKE(volume_key);
        volume->mac_key = TK_TAKE(mac_key);
        return 0;
}

/*
 * Who unlocks KEK version @version, and a copy of the wrap, so that no lock is held while it is
 * asked; @ret_kms is NULL if the version is retired.
 */
static int copy_wrap(struct tk_volume *volume, uint16_t version, struct tk_kms **ret_kms,
                     struct tk_volume_wrap *ret_wrap, struct tk_fault *fault)
{
        const struct tk_volume_opener *opener;
        const struct tk_volume_wrap *wrap;
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        *ret_kms = NULL;
        if (!volume->text.keks[version - 1].kek.active)
                return 0;
        opener = &volume->openers[version - 1];
        r = find_wrap(volume, opener, version, &wrap, fault);
        if (r < 0)
                return r;
        *ret_kms = opener->kms;
        *ret_wrap = *wrap;
        return 0;
}

static int probe_version(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        struct tk_volume_wrap wrap;
        struct tk_kms *kms;
        int r;

        r = copy_wrap(volume, version, &kms, &wrap, fault);
        return r == 0 && kms ? tk_kms_probe(kms, &wrap.wrap, fault) : r;
}

static int prove_version(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *have = NULL;
        struct tk_volume_wrap wrap;
        struct tk_secret *key;
        struct tk_kms *kms;
        int r;

        r = copy_wrap(volume, version, &kms, &wrap, fault);
        if (r < 0 || !kms)
                return r;
        r = tk_kms_unwrap(kms, &wrap.wrap, &key, fault);
        if (r == 0)
                r = open_wrapped(volume, volume->fingerprint, &wrap, key, &kek, fault);
        if (r < 0)
                return r;
        r = tk_keyring_dup_kek(volume->keyring, version, &have);
        if (r == -EBADMSG)
                return 0; /* retired meanwhile, by a rotation */
        if (r < 0)
                return r;
        if (!tk_secret_equal(kek, have))
                return tk_volume_damaged(volume, "a KEK version is not the one in use", fault);
        return 0;
}

int tk_volume_prove(struct tk_volume *volume, struct tk_fault *fault)
{
        size_t count = tk_volume_kek_count(volume);
        int r = 0;

        for (size_t version = 1; r == 0 && version <= count; version++)
                r = prove_version(volume, (uint16_t)version, fault);
        return r;
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
        return volume->openers[volume->text.kek_count - 1].kms;
}

unsigned tk_volume_own_protector(struct tk_volume *volume)
{
        TK_LOCK_SCOPE(&volume->text_lock);
        return volume->openers ? volume->openers[volume->text.kek_count - 1].protector : 0;
}

bool tk_volume_is_shared(struct tk_volume *volume)
{
        return tk_volume_format(volume) == TK_VOLUME_FORMAT_SHARED;
}

int tk_volume_has_new_root(struct tk_volume *volume, struct tk_fault *fault)
{
        struct tk_kms *kms = tk_volume_current_kms(volume);
        char version[TK_KMS_VERSION_MAX];
        const struct tk_volume_wrap *wrap = NULL;
        uint16_t newest;
        int r;

        r = tk_kms_current(kms, version, fault);
        if (r < 0)
                return r;
        TK_LOCK_SCOPE(&volume->text_lock);
        newest = (uint16_t)volume->text.kek_count;
        r = find_wrap(volume, &volume->openers[newest - 1], newest, &wrap, fault);
        return r < 0 ? r : strcmp(wrap->wrap.version, version) != 0;
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
        if (r == 0)
                r = give_target_key(volume, volume->keyring, volume_key);
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
