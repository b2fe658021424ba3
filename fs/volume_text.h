/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The volume file's text: parse and format, without I/O and without keys.
 *
 * Layout: docs/format.md, "Volume file". What was parsed is not authentic until
 * volume.c has checked the MAC.
 */

#include "crypto/mac.h"
#include "crypto/sealed.h"
#include "fs/volume.h"

enum {
        TK_VOLUME_FORMAT = 1,
        TK_VOLUME_FORMAT_SHARED = 2, /* with envelopes, for several protectors */
        TK_VOLUME_TEXT_MAX = 1024 * 1024,
};

struct tk_volume_text_kek {
        struct tk_volume_kek kek;
        uint8_t volume_key[TK_SEALED_KEY_LEN]; /* sealed under this KEK version */
        size_t volume_key_len; /* 0 with dek_wrap = kms: the wraps hold the volume key itself */
};

struct tk_volume_text {
        char fingerprint[TK_FINGERPRINT_LEN + 1]; /* with envelopes, otherwise empty */
        uint8_t id[TK_VOLUME_ID_LEN];
        int64_t created; /* Unix seconds */
        enum tk_dek_wrap dek_wrap;
        enum tk_names names;

        struct tk_volume_text_kek *keks; /* version i + 1 at i, without gaps */
        size_t kek_count;
        struct tk_volume_wrap *wraps;
        size_t wrap_count;

        uint16_t last_mount;
        uint16_t replayed_mount; /* no journal of it or of one before it counts any more */
        uint64_t kept;           /* chain of the journal entries that are kept; 0: there are none */
        uint16_t *unclean;       /* numbers of mounts that have not ended cleanly */
        size_t unclean_count;

        uint8_t mac[TK_MAC_LEN];
        size_t signed_len; /* bytes of the text that the MAC covers */
};

/*
 * Parse the NUL-terminated @text of @path, which is named in complaints. -EINVAL
 * or -ENOTSUP (a newer format) with a fault. @ret_text is to be done with
 * tk_volume_text_done, also after a failure.
 */
TK_MUST_USE int tk_volume_text_parse(const char *text, const char *path,
                                     struct tk_volume_text *ret_text, struct tk_fault *fault);

/*
 * The text up to the [mac] section: what the MAC covers. The caller frees it. -ENOMEM;
 * -EINVAL if a provider gave a text that would not be read as it is.
 */
TK_MUST_USE int tk_volume_text_format(const struct tk_volume_text *text, char **ret_signed);

/* @signed_text with its [mac] section. The caller frees it. */
TK_MUST_USE int tk_volume_text_append_mac(const char *signed_text, const uint8_t mac[TK_MAC_LEN],
                                          char **ret_text);

/* Whether it is made for several protectors, each with an envelope: the format is then SHARED. */
bool tk_volume_text_is_shared(const struct tk_volume_text *text);

/* Room for KEK version @version and its sealed volume key; versions come in order. */
TK_MUST_USE int tk_volume_text_add_kek(struct tk_volume_text *text,
                                       const struct tk_volume_text_kek *kek);
TK_MUST_USE int tk_volume_text_add_wrap(struct tk_volume_text *text,
                                        const struct tk_volume_wrap *wrap);

void tk_volume_text_done(struct tk_volume_text *text);
