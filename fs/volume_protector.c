/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Protectors: added, removed, proved.
 *
 * The KMS is asked first, without a lock; then, under the lock of the text, a list of wraps is
 * made anew and stored, and only then is it the volume's.
 */

#include "fs/volume_internal.h"

#include "fs/protector.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Names ----------------------------------------------------------------- */

static bool same_key(const struct tk_volume_wrap *a, const struct tk_volume_wrap *b)
{
        return strcmp(a->provider, b->provider) == 0 && strcmp(a->wrap.key_id, b->wrap.key_id) == 0;
}

static bool is_active(const struct tk_volume_text *text, const struct tk_volume_wrap *wrap)
{
        return text->keks[wrap->kek_version - 1].kek.active;
}

/* The wrap of the newest KEK version by protector @number; NULL: there is none. */
static struct tk_volume_wrap *newest_wrap(const struct tk_volume_text *text, unsigned number)
{
        for (size_t i = 0; i < text->wrap_count; i++)
                if (text->wraps[i].kek_version == text->kek_count &&
                    text->wraps[i].protector == number)
                        return &text->wraps[i];
        return NULL;
}

/* The lowest number that no KEK version in use has a wrap of; 0: none is free. */
static unsigned free_number(const struct tk_volume_text *text)
{
        bool taken[TK_PROTECTORS_MAX + 1] = {false};

        for (size_t i = 0; i < text->wrap_count; i++)
                if (is_active(text, &text->wraps[i]))
                        taken[text->wraps[i].protector] = true;
        for (unsigned number = 1; number <= TK_PROTECTORS_MAX; number++)
                if (!taken[number])
                        return number;
        return 0;
}

/* Checks ---------------------------------------------------------------- */

int tk_volume_check_move(struct tk_volume *volume, struct tk_fault *fault)
{
        if (!tk_volume_is_shared(volume))
                return 0;
        return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "%s is made for several protectors, and is not moved from one root key "
                            "to another by 'rotate --to'; use 'turnkeyfs protector add' for the "
                            "new one, 'turnkeyfs protector remove' for the old one, and 'turnkeyfs "
                            "rotate'",
                            volume->path);
}

static int say_changed(const struct tk_volume *volume, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_IN_USE, -EAGAIN,
                            "the keys of %s changed meanwhile, by a rotation; try again",
                            volume->path);
}

/* Whether @envelope can be added as things are. The text is locked. */
static int check_addition(const struct tk_volume *volume, const struct tk_volume_wrap *envelope,
                          struct tk_fault *fault)
{
        const struct tk_volume_text *text = &volume->text;
        size_t active = 0;

        if (text->dek_wrap == TK_DEK_WRAP_KMS)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                                    "%s was made with dek_wrap = kms: its one root key wraps each "
                                    "file's key itself, and a file's key record has room for one; "
                                    "several protectors need a volume with dek_wrap = kek",
                                    volume->path);
        for (size_t i = 0; i < text->wrap_count; i++)
                if (is_active(text, &text->wraps[i]) && same_key(&text->wraps[i], envelope))
                        return tk_fault_set(
                                fault, TK_FAULT_USAGE, -EEXIST,
                                "the %s key %s is protector %u of %s already; to bring it to a "
                                "newer version of its key, remove it and add it again, or run "
                                "'turnkeyfs rotate' with its configuration",
                                envelope->provider, envelope->wrap.key_id, text->wraps[i].protector,
                                volume->path);
        for (size_t i = 0; i < text->kek_count; i++)
                active += text->keks[i].kek.active;
        if (!tk_volume_text_is_shared(text) && active > 1)
                return tk_fault_set(fault, TK_FAULT_IN_USE, -EBUSY,
                                    "a rotation of %s is unfinished; add a protector when "
                                    "'turnkeyfs rotate' is through",
                                    volume->path);
        if (free_number(text) == 0)
                return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOSPC,
                                    "%s has %d protectors, which is all that it can have; remove "
                                    "one that is no longer needed",
                                    volume->path, TK_PROTECTORS_MAX);
        return 0;
}

/* The list of wraps ------------------------------------------------------ */

/* A text with a list of wraps of its own; the rest is borrowed from @volume. */
static int begin_edit(const struct tk_volume *volume, struct tk_volume_text *ret_text)
{
        struct tk_volume_wrap *wraps;

        wraps = reallocarray(NULL, volume->text.wrap_count + 1, sizeof(*wraps));
        if (!wraps)
                return -ENOMEM;
        memcpy(wraps, volume->text.wraps, volume->text.wrap_count * sizeof(*wraps));
        *ret_text = volume->text;
        ret_text->wraps = wraps;
        return 0;
}

/* Whether what is written of @text can be read. */
static int check_text(const struct tk_volume_text *text)
{
        static const uint8_t no_mac[TK_MAC_LEN];
        TK_CLEANUP(tk_freep) char *signed_text = NULL;
        TK_CLEANUP(tk_freep) char *whole = NULL;
        struct tk_volume_text again = {0};
        struct tk_fault ignored = {0};
        int r;

        r = tk_volume_text_format(text, &signed_text);
        if (r == 0)
                r = tk_volume_text_append_mac(signed_text, no_mac, &whole);
        if (r == 0)
                r = tk_volume_text_parse(whole, "", &again, &ignored);
        if (r == 0 && again.wrap_count != text->wrap_count)
                r = -EINVAL;
        tk_volume_text_done(&again);
        return r;
}

/* Only what has changed: the rest is read without the lock. */
static void take_wraps(struct tk_volume_text *text, const struct tk_volume_text *from)
{
        text->wraps = from->wraps;
        text->wrap_count = from->wrap_count;
        memcpy(text->fingerprint, from->fingerprint, sizeof(text->fingerprint));
}

/* Store @text in the place of the volume's; its list of wraps is taken over, also on failure. */
static int finish_edit(struct tk_volume *volume, struct tk_volume_text *text,
                       struct tk_fault *fault)
{
        struct tk_volume_text before = volume->text;
        int r;

        r = check_text(text);
        if (r == -EINVAL || r == -ENOTSUP)
                r = tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                 "what the protector says of its key does not fit into the volume "
                                 "file of %s; nothing was changed",
                                 volume->path);
        if (r == 0)
                r = tk_volume_check_room(volume, text, fault);
        if (r < 0) {
                free(text->wraps);
                return r;
        }
        take_wraps(&volume->text, text);
        r = tk_volume_store_text(volume, fault);
        if (r < 0) {
                take_wraps(&volume->text, &before);
                free(text->wraps);
                return r;
        }
        free(before.wraps);
        volume->edits++;
        return 0;
}

/* Adding ----------------------------------------------------------------- */

/* @envelope as the wrap of KEK version @version by protector @number, the KEK sealed in it. */
static int seal_version(struct tk_volume *volume, const struct tk_volume_wrap *envelope,
                        uint16_t version, unsigned number, struct tk_volume_wrap *ret_wrap)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_volume_wrap wrap = *envelope;
        int r;

        r = tk_keyring_dup_kek(volume->keyring, version, &kek);
        if (r < 0)
                return r;
        wrap.kek_version = version;
        wrap.protector = number;
        wrap.has_envelope = true;
        r = tk_protector_seal(volume->text.id, kek, &wrap);
        if (r == 0)
                *ret_wrap = wrap;
        return r;
}

/* The only protector so far gets its envelope. One KEK version is in use. */
static int make_shared(struct tk_volume *volume, const struct tk_volume_wrap *own,
                       struct tk_volume_text *text)
{
        struct tk_volume_wrap *wrap = newest_wrap(text, own->protector);

        if (!wrap)
                return -EAGAIN;
        memcpy(text->fingerprint, volume->fingerprint, sizeof(text->fingerprint));
        return seal_version(volume, own, wrap->kek_version, own->protector, wrap);
}

static int add_everywhere(struct tk_volume *volume, const struct tk_volume_wrap *envelope,
                          unsigned number, struct tk_volume_text *text)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < text->kek_count; i++) {
                struct tk_volume_wrap wrap;

                if (!text->keks[i].kek.active)
                        continue;
                r = seal_version(volume, envelope, text->keks[i].kek.version, number, &wrap);
                if (r == 0)
                        r = tk_volume_text_add_wrap(text, &wrap);
        }
        return r;
}

/* What is known before the KMS is asked. */
struct start {
        unsigned edits;
        bool shared;
        struct tk_kms *kms;        /* our own */
        struct tk_volume_wrap own; /* of the newest KEK version */
};

static int begin(struct tk_volume *volume, struct start *ret_start, struct tk_fault *fault)
{
        const struct tk_volume_opener *opener;
        const struct tk_volume_wrap *own;
        int r;

        TK_LOCK_SCOPE(&volume->text_lock);
        r = tk_volume_check_not_closed(volume, fault);
        if (r < 0)
                return r;
        opener = &volume->openers[volume->text.kek_count - 1];
        own = newest_wrap(&volume->text, opener->protector);
        if (!own)
                return say_changed(volume, fault);
        *ret_start = (struct start){.edits = volume->edits,
                                    .shared = tk_volume_text_is_shared(&volume->text),
                                    .kms = opener->kms,
                                    .own = *own};
        return 0;
}

/* Nothing has changed since @start was taken. The text is locked. */
static int check_unchanged(const struct tk_volume *volume, const struct start *start,
                           struct tk_fault *fault)
{
        int r = tk_volume_check_not_closed(volume, fault);

        return r == 0 && volume->edits != start->edits ? say_changed(volume, fault) : r;
}

static int add_locked(struct tk_volume *volume, const struct start *start,
                      const struct tk_volume_wrap *own, const struct tk_volume_wrap *envelope,
                      unsigned *ret_number, struct tk_fault *fault)
{
        struct tk_volume_text text = {0};
        unsigned number;
        int r;

        r = check_unchanged(volume, start, fault);
        if (r == 0)
                r = check_addition(volume, envelope, fault);
        if (r == 0)
                r = begin_edit(volume, &text);
        if (r < 0)
                return r;
        number = free_number(&text);
        if (!start->shared)
                r = make_shared(volume, own, &text);
        if (r == 0)
                r = add_everywhere(volume, envelope, number, &text);
        if (r < 0) {
                free(text.wraps);
                return r;
        }
        r = finish_edit(volume, &text, fault);
        if (r == 0)
                *ret_number = number;
        return r;
}

int tk_volume_add_protector(struct tk_volume *volume, const struct tk_volume_wrap *envelope,
                            unsigned *ret_number, struct tk_fault *fault)
{
        struct tk_volume_wrap own = {0};
        struct start start = {0};
        int r;

        r = begin(volume, &start, fault);
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&volume->text_lock);
                r = check_addition(volume, envelope, fault);
        }
        /* A key that is refused, and does not know it yet, must not be left behind for another. */
        if (r == 0)
                r = tk_volume_prove(volume, fault);
        /* Under the version that it is under: a newer one is for a rotation to take up. */
        if (r == 0 && !start.shared)
                r = tk_protector_make(volume->text.id, volume->fingerprint, start.kms,
                                      start.own.wrap.version, &own, NULL, fault);
        if (r < 0)
                return r;
        own.protector = start.own.protector;
        TK_LOCK_SCOPE(&volume->text_lock);
        return add_locked(volume, &start, &own, envelope, ret_number, fault);
}

/* Removing --------------------------------------------------------------- */

static int say_no_such(const struct tk_volume *volume, unsigned number, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_USAGE, -ENOENT,
                            "%s has no protector %u; 'turnkeyfs protector list' shows them",
                            volume->path, number);
}

/* Whether @number may go. The text is locked. */
static int check_removal(const struct tk_volume *volume, unsigned number, struct tk_fault *fault)
{
        const struct tk_volume_text *text = &volume->text;
        bool there = false;

        for (size_t i = 0; i < text->wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &text->wraps[i];

                if (!is_active(text, wrap) || wrap->protector != number)
                        continue;
                there = true;
                if (volume->openers[wrap->kek_version - 1].protector == number)
                        return tk_fault_set(
                                fault, TK_FAULT_USAGE, -EINVAL,
                                "%s was opened by protector %u itself; to remove it, use the "
                                "configuration of one that stays: so it is sure that the volume "
                                "can be opened afterwards",
                                volume->path, number);
        }
        return there ? 0 : say_no_such(volume, number, fault);
}

/* All wraps of the protector, those of retired KEK versions under its key as well. */
static void drop_wraps(struct tk_volume_text *text, unsigned number)
{
        const struct tk_volume_wrap *newest = newest_wrap(text, number);
        const struct tk_volume_wrap gone = newest ? *newest : (struct tk_volume_wrap){0};
        size_t kept = 0;

        for (size_t i = 0; i < text->wrap_count; i++) {
                const struct tk_volume_wrap *wrap = &text->wraps[i];

                if (wrap->protector == number && (is_active(text, wrap) || same_key(wrap, &gone)))
                        continue;
                text->wraps[kept++] = *wrap;
        }
        text->wrap_count = kept;
}

int tk_volume_remove_protector(struct tk_volume *volume, unsigned number, struct tk_fault *fault)
{
        struct tk_volume_text text = {0};
        struct start start = {0};
        int r;

        r = begin(volume, &start, fault);
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&volume->text_lock);
                r = check_removal(volume, number, fault);
        }
        if (r == 0)
                r = tk_volume_prove(volume, fault);
        if (r < 0)
                return r;
        TK_LOCK_SCOPE(&volume->text_lock);
        r = check_unchanged(volume, &start, fault);
        if (r == 0)
                r = begin_edit(volume, &text);
        if (r < 0)
                return r;
        drop_wraps(&text, number);
        return finish_edit(volume, &text, fault);
}

/* Admitting again --------------------------------------------------------- */

/* Those who have come since have no wrap of it, and those who have gone must not count again. */
static int seal_to_present(struct tk_volume *volume, uint16_t version, struct tk_volume_text *text)
{
        size_t kept = 0;
        int r = 0;

        for (size_t i = 0; i < text->wrap_count; i++)
                if (text->wraps[i].kek_version != version)
                        text->wraps[kept++] = text->wraps[i];
        text->wrap_count = kept;
        for (size_t i = 0; r == 0 && i < kept; i++) {
                struct tk_volume_wrap newest = text->wraps[i];
                struct tk_volume_wrap wrap;

                if (newest.kek_version != text->kek_count)
                        continue;
                r = seal_version(volume, &newest, version, newest.protector, &wrap);
                if (r == 0)
                        r = tk_volume_text_add_wrap(text, &wrap);
        }
        return r;
}

int tk_volume_seal_again(struct tk_volume *volume, uint16_t version, struct tk_fault *fault)
{
        struct tk_volume_text text = {0};
        int r;

        r = begin_edit(volume, &text);
        if (r < 0)
                return r;
        r = seal_to_present(volume, version, &text);
        if (r < 0) {
                free(text.wraps);
                return r;
        }
        r = finish_edit(volume, &text, fault);
        if (r == 0)
                volume->openers[version - 1] = volume->openers[volume->text.kek_count - 1];
        return r;
}

/* Finding ---------------------------------------------------------------- */

int tk_volume_find_protector(struct tk_volume *volume, struct tk_kms *kms, unsigned *ret_number,
                             struct tk_fault *fault)
{
        size_t count = tk_volume_wrap_count(volume);

        for (size_t i = 0; i < count; i++) {
                struct tk_volume_wrap wrap = tk_volume_wrap_at(volume, i);
                struct tk_fault said = {0};
                int r;

                if (wrap.kek_version != tk_volume_kek_count(volume) ||
                    strcmp(wrap.provider, tk_kms_provider_name(kms)) != 0)
                        continue;
                r = tk_kms_probe(kms, &wrap.wrap, &said);
                if (r == -ENOENT && said.kind == TK_FAULT_WRONG_KEY)
                        continue;
                *ret_number = wrap.protector;
                return r < 0 && said.kind ? tk_fault_set(fault, said.kind, r, "%s", said.text) : r;
        }
        return tk_fault_set(fault, TK_FAULT_WRONG_KEY, -ENOENT,
                            "the configured root key is no protector of %s; 'turnkeyfs protector "
                            "list' shows those that are",
                            tk_volume_path(volume));
}
