/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The volume: its directory, its file (turnkeyfs.volume) and its lock.
 *
 * The order of use is open (parse), lock, unlock the keys (authenticate), then
 * mount_begin and mount_end. Text layout: docs/format.md, "Volume file". Calls
 * on one volume come from one thread at a time; accessors from any, at any time.
 */

#include "crypto/hpke.h"
#include "fs/keyring.h"
#include "kms/kms.h"
#include <sys/types.h>

enum {
        TK_FINGERPRINT_LEN = 64, /* hexadecimal digits */
        TK_PROTECTORS_MAX = 16,
};

/* Who wraps DEKs; fixed when the volume is made. */
enum tk_dek_wrap {
        TK_DEK_WRAP_KEK, /* a KEK in memory, which the KMS unwraps once per mount */
        TK_DEK_WRAP_KMS, /* the root key itself, by a call for each DEK */
};

/* How names are stored; fixed when the volume is made. */
enum tk_names {
        TK_NAMES_PLAIN,
        TK_NAMES_ENCRYPTED,
};

struct tk_volume; /* opaque: volume.c */

/* One KEK version and who protects it, as status shows it. */
struct tk_volume_kek {
        uint16_t version;
        bool active;        /* false: retired */
        int64_t created;    /* Unix seconds */
        int64_t readmitted; /* the same; 0: it was not retired before */
        unsigned protectors;
};

/*
 * One wrap of a KEK version: what a root key wrapped is the KEK itself, or with an envelope
 * (fs/protector.h) the secret that opens the sealed KEK.
 */
struct tk_volume_wrap {
        uint16_t kek_version;
        unsigned protector; /* number, from 1 */
        char provider[16];
        struct tk_kms_wrap wrap;
        bool has_envelope;
        uint8_t public_half[TK_HPKE_PUBLIC_LEN];
        uint8_t sealed[TK_KEY_LEN + TK_HPKE_OVERHEAD];
};

/*
 * Where a lock holder says who it is, for the message to the next one.
 */
struct tk_volume_holder {
        long pid;
        char doing[512]; /* such as "mounted at /mnt" */
};

struct tk_volume_options {
        uint8_t id[TK_VOLUME_ID_LEN]; /* random */
        enum tk_dek_wrap dek_wrap;
        enum tk_names names;
        uint64_t journal_len; /* bytes; 0: the default */
};

/*
 * Make a volume in the directory @path: made if missing, otherwise it must be
 * empty. The volume file is written last, so that a failure leaves no volume.
 * Nothing stays open.
 */
TK_MUST_USE int tk_volume_create(const char *path, const struct tk_volume_options *options,
                                 struct tk_kms *kms, char ret_fingerprint[TK_FINGERPRINT_LEN + 1],
                                 struct tk_fault *fault);

/*
 * Put @text in the place of the volume file of @path, which is missing or damaged; a
 * damaged one is kept beside it. Whether it is authentic shows when it is unlocked.
 */
TK_MUST_USE int tk_volume_put_back(const char *path, const char *text, struct tk_fault *fault);

/*
 * The volume file was put back, and knows nothing of the mounts since it was saved. The next
 * 256 numbers count as theirs, and as unclean: what they left is judged as after a crash. For
 * an unlocked volume that is not mounted.
 */
TK_MUST_USE int tk_volume_doubt_later_mounts(struct tk_volume *volume, struct tk_fault *fault);

/* Read and parse the volume file of @path. Nothing in it is trusted yet. */
TK_MUST_USE int tk_volume_open(const char *path, struct tk_volume **ret_volume,
                               struct tk_fault *fault);

/* Lets go of the lock, too. */
struct tk_volume *tk_volume_free(struct tk_volume *volume);
TK_DEFINE_CLEANUP(struct tk_volume *, tk_volume_free)

/*
 * Take the volume lock for as long as the volume is open; @doing names the use.
 * -EBUSY with a fault that names the holder. The volume file is read again
 * under the lock.
 */
TK_MUST_USE int tk_volume_lock(struct tk_volume *volume, const char *doing, struct tk_fault *fault);

/* Who holds the lock now: 1 and the holder, 0 if nobody does, or a negative errno. */
TK_MUST_USE int tk_volume_holder(const struct tk_volume *volume,
                                 struct tk_volume_holder *ret_holder);

struct tk_volume_unlock {
        const char *fingerprint; /* pins the volume key; NULL: not pinned */
        int64_t lease_ms; /* how long DEKs that the KMS unwrapped are kept (dek_wrap = kms) */
        struct tk_kms *previous; /* whose key a move to another one leaves; NULL: none. Borrowed
                                  * for as long as the volume is open */
};

/*
 * Unwrap the KEK versions through @kms and authenticate the volume file. With
 * dek_wrap = kms, @kms is borrowed for as long as the volume is open.
 */
TK_MUST_USE int tk_volume_unlock(struct tk_volume *volume, struct tk_kms *kms,
                                 const struct tk_volume_unlock *unlock, struct tk_fault *fault);

/*
 * A new KEK version under the current version of the root key of @kms, proved by
 * an unwrap, stored durably, and current from then on. Nothing happens if the
 * current KEK version is under it already, unless @even_if_current. @kms is
 * borrowed for as long as the volume is open.
 */
TK_MUST_USE int tk_volume_renew_kek(struct tk_volume *volume, struct tk_kms *kms,
                                    bool even_if_current, struct tk_fault *fault);

/*
 * Ask whether every KEK version in use could be unwrapped now, each by the KMS that
 * protects it. The worst answer counts: 0, or what the providers return.
 */
TK_MUST_USE int tk_volume_probe(struct tk_volume *volume, struct tk_fault *fault);

/*
 * Whether the root key that protects the current KEK version has a newer version: 1
 * or 0, or what the provider returns.
 */
TK_MUST_USE int tk_volume_has_new_root(struct tk_volume *volume, struct tk_fault *fault);

/* Who protects the current KEK version; borrowed. */
struct tk_kms *tk_volume_current_kms(struct tk_volume *volume);

/* The number of the protector that the volume was unlocked by; 0 before unlock. */
unsigned tk_volume_own_protector(struct tk_volume *volume);

/* Whether the volume is made for several protectors: each has an envelope. */
bool tk_volume_is_shared(struct tk_volume *volume);

/*
 * One more protector: @envelope is what tk_protector_make made with its root key. The root key
 * that the volume was unlocked by has to open it now: what is refused, or out of reach, adds
 * nothing. -EEXIST with a fault if its key is a protector already; -ENOTSUP with dek_wrap = kms.
 * Durable. May run beside a rotation.
 */
TK_MUST_USE int tk_volume_add_protector(struct tk_volume *volume,
                                        const struct tk_volume_wrap *envelope, unsigned *ret_number,
                                        struct tk_fault *fault);

/*
 * Take protector @number out, durably; not the one that the volume was unlocked by, which has to
 * open it now. -ENOENT with a fault if there is none of that number.
 */
TK_MUST_USE int tk_volume_remove_protector(struct tk_volume *volume, unsigned number,
                                           struct tk_fault *fault);

/* -ENOTSUP with a fault if the volume can't be moved to another root key: it is shared. */
TK_MUST_USE int tk_volume_check_move(struct tk_volume *volume, struct tk_fault *fault);

/*
 * The protector whose root key is that of @kms: its number, and as result what the KMS says of
 * it. -ENOENT with a fault if it is none of the volume's. No unlock is needed.
 */
TK_MUST_USE int tk_volume_find_protector(struct tk_volume *volume, struct tk_kms *kms,
                                         unsigned *ret_number, struct tk_fault *fault);

/* Wipe the volume's keys; its keyring answers @error from then on. Its MAC key stays. */
void tk_volume_close_keys(struct tk_volume *volume, int error);

/* Unwrap them all again; the keyring is open afterwards. */
TK_MUST_USE int tk_volume_reopen_keys(struct tk_volume *volume, struct tk_fault *fault);

/* All KEK versions below @version are retired, durably, and gone from memory. */
TK_MUST_USE int tk_volume_retire_below(struct tk_volume *volume, uint16_t version,
                                       struct tk_fault *fault);

/*
 * The retired KEK version @version comes into use again, durably, until a rotation has
 * ended: by @kms or @previous (NULL: none), which are borrowed for as long as the volume
 * is open. Returns 1 if it is in use already. A fault says what else is in the way, such
 * as a version that never was, or a root key version that is refused or gone. Nobody else
 * uses the volume meanwhile.
 */
TK_MUST_USE int tk_volume_readmit(struct tk_volume *volume, uint16_t version, struct tk_kms *kms,
                                  struct tk_kms *previous, struct tk_fault *fault);

/* Take a mount number, durably, before the first write; it counts as unclean until mount_end. */
TK_MUST_USE int tk_volume_mount_begin(struct tk_volume *volume, struct tk_fault *fault);
TK_MUST_USE int tk_volume_mount_end(struct tk_volume *volume, struct tk_fault *fault);

/* Whether mount @number has not ended cleanly (yet). */
bool tk_volume_is_unclean(struct tk_volume *volume, uint16_t number);

/*
 * Whether mount @number has not ended cleanly and its journal was not replayed since: it is
 * older than this mount, and newer than what tk_volume_note_replay has noted. And: is there any?
 */
bool tk_volume_awaits_replay(struct tk_volume *volume, uint16_t number);
bool tk_volume_any_awaits_replay(struct tk_volume *volume);

/*
 * The journals of all mounts before this one are replayed, and entries with the chain @kept are
 * kept (0: none): durably noted, if it is news.
 */
TK_MUST_USE int tk_volume_note_replay(struct tk_volume *volume, uint64_t kept,
                                      struct tk_fault *fault);

/* The chain of journal entries that are kept; 0: there are none. And: it is another one now. */
uint64_t tk_volume_kept(struct tk_volume *volume);
TK_MUST_USE int tk_volume_note_kept(struct tk_volume *volume, uint64_t kept,
                                    struct tk_fault *fault);

/* The number that mount_begin took; 0 before. */
uint16_t tk_volume_mount_number(const struct tk_volume *volume);

/* Borrowed until the volume is freed. */
const uint8_t *tk_volume_id(const struct tk_volume *volume);
enum tk_dek_wrap tk_volume_dek_wrap(const struct tk_volume *volume);
enum tk_names tk_volume_names(const struct tk_volume *volume);
int64_t tk_volume_created(const struct tk_volume *volume);            /* Unix seconds */
int tk_volume_format(struct tk_volume *volume);                       /* of the volume file */
const char *tk_volume_path(const struct tk_volume *volume);           /* absolute */
int tk_volume_dirfd(const struct tk_volume *volume);                  /* CIPHERDIR */
struct tk_keyring *tk_volume_keyring(const struct tk_volume *volume); /* NULL before unlock */
const char *tk_volume_fingerprint(const struct tk_volume *volume);    /* NULL before unlock */
size_t tk_volume_kek_count(struct tk_volume *volume);
struct tk_volume_kek tk_volume_kek_at(struct tk_volume *volume, size_t i);
size_t tk_volume_wrap_count(struct tk_volume *volume);
/* The newest KEK version, and the root key version that it is under by our own protector ("" if
 * by none). */
struct tk_volume_kek tk_volume_newest_kek(struct tk_volume *volume,
                                          char ret_version[TK_KMS_VERSION_MAX]);
struct tk_volume_wrap tk_volume_wrap_at(struct tk_volume *volume, size_t i);
size_t tk_volume_active_count(struct tk_volume *volume); /* KEK versions not retired */
size_t tk_volume_unclean_count(struct tk_volume *volume);
