/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the parts of the volume (volume.c, volume_create.c, volume_unlock.c, volume_kek.c) share. */

#include "fs/volume.h"
#include "fs/volume_text.h"

#define TK_VOLUME_FILE "turnkeyfs.volume"

/* Who unlocks a KEK version, and by which of its wraps. */
struct tk_volume_opener {
        struct tk_kms *kms; /* borrowed */
        unsigned protector; /* 0: not known yet, the first one of the provider */
};

struct tk_volume {
        char *path;
        int dirfd;
        int lockfd;                /* -1: not locked by us */
        char *raw;                 /* the text as read, for the MAC */
        pthread_mutex_t text_lock; /* guards what changes of text after unlock */
        struct tk_volume_text text;
        struct tk_volume_opener *openers; /* by KEK version - 1 */
        unsigned edits; /* under text_lock: how often KEK versions or wraps have changed */
        struct tk_secret *volume_key; /* NULL before unlock, and while the keys are closed */
        struct tk_secret *mac_key;    /* NULL before unlock */
        struct tk_keyring *keyring;   /* NULL before unlock */
        char fingerprint[TK_FINGERPRINT_LEN + 1];
        uint16_t mount_number;   /* of this mount; 0 if it has none */
        uint16_t previous_mount; /* the newest before it */
};

/* Write @text with its MAC as the volume file in @dirfd, atomically and durably. */
TK_MUST_USE int tk_volume_store(int dirfd, const struct tk_volume_text *text,
                                const struct tk_secret *mac_key);

/* The same for an unlocked volume, with a fault. The text lock is held. */
TK_MUST_USE int tk_volume_store_text(struct tk_volume *volume, struct tk_fault *fault);

/* The fault of a volume file that does not hold together; returns -EBADMSG. */
TK_MUST_USE int tk_volume_damaged(const struct tk_volume *volume, const char *what,
                                  struct tk_fault *fault);

/*
 * The next KEK version for the volume of @text: its entry, its wrap by @kms, proved by an
 * unwrap, and the key itself; with dek_wrap = kms there is none, and the volume key is wrapped.
 */
TK_MUST_USE int tk_volume_make_kek(const struct tk_volume_text *text, struct tk_kms *kms,
                                   unsigned protector, const struct tk_secret *volume_key,
                                   struct tk_volume_text_kek *ret_entry,
                                   struct tk_volume_wrap *ret_wrap, struct tk_secret **ret_kek,
                                   struct tk_fault *fault);

/* Add what tk_volume_make_kek made to @text. */
TK_MUST_USE int tk_volume_append_kek(struct tk_volume_text *text,
                                     const struct tk_volume_text_kek *entry,
                                     const struct tk_volume_wrap *wrap);

/* Who of the two protects @version (@previous NULL: the first), as far as can be told. */
struct tk_kms *tk_volume_choose_kms(const struct tk_volume *volume, uint16_t version,
                                    struct tk_kms *kms, struct tk_kms *previous);

/*
 * Unwrap what the noted KMS protects as @entry and add it to @keyring. @volume_key is what
 * it leads to, made if NULL; if not, it must be the same.
 */
TK_MUST_USE int tk_volume_unlock_version(struct tk_volume *volume,
                                         const struct tk_volume_text_kek *entry,
                                         struct tk_keyring *keyring, struct tk_secret **volume_key,
                                         struct tk_fault *fault);

/* @opener unlocks KEK version @version; versions come in order. */
TK_MUST_USE int tk_volume_note_opener(struct tk_volume *volume, uint16_t version,
                                      struct tk_volume_opener opener);

/*
 * @key wrapped by @version of the root key of @kms (NULL: the current one), and unwrapped again
 * as a test: @ret_wrap gets provider and wrap.
 */
TK_MUST_USE int tk_volume_wrap_tested(struct tk_kms *kms, const char *version,
                                      const struct tk_secret *key, struct tk_volume_wrap *ret_wrap,
                                      struct tk_fault *fault);

/* -EOVERFLOW with a fault if @text is near the size that no volume file may have. */
TK_MUST_USE int tk_volume_check_room(const struct tk_volume *volume,
                                     const struct tk_volume_text *text, struct tk_fault *fault);

/*
 * Whether the keys are at hand. Called with the text locked: while they are not, the
 * KEK versions stay as they are, so that they can be unwrapped again meanwhile.
 */
TK_MUST_USE int tk_volume_check_not_closed(const struct tk_volume *volume, struct tk_fault *fault);

/*
 * All protectors of the newest KEK version get @version, which is in the keyring and active in the
 * text, and nobody else does: stored. The text is locked.
 */
TK_MUST_USE int tk_volume_seal_again(struct tk_volume *volume, uint16_t version,
                                     struct tk_fault *fault);

/*
 * Unwrap all KEK versions in use, by who unlocked them: the root key opens the volume now, and
 * to the same keys.
 */
TK_MUST_USE int tk_volume_prove(struct tk_volume *volume, struct tk_fault *fault);
