/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the parts of the volume (volume.c, volume_create.c, volume_unlock.c, volume_kek.c) share. */

#include "fs/volume.h"
#include "fs/volume_text.h"

#define TK_VOLUME_FILE "turnkeyfs.volume"

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
                                   const struct tk_secret *volume_key,
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

/* @kms protects KEK version @version; versions come in order. */
TK_MUST_USE int tk_volume_note_kms(struct tk_volume *volume, uint16_t version, struct tk_kms *kms);
