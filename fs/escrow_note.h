/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * When the last escrow was exported: a note in CIPHERDIR for `status` and `doctor`.
 *
 * An export has no keys, so it is not authenticated: whoever writes it can only have a
 * reminder come too late or too early. Layout: docs/format.md.
 */

#include "fs/volume.h"

struct tk_escrow_note {
        int64_t exported; /* Unix seconds, when the export began */
        uint16_t kek;     /* the oldest KEK version in use that a record was under; 0: no record */
};

/* Write @note into the CIPHERDIR @dirfd, whose owner it gets; atomically. */
TK_MUST_USE int tk_escrow_note_write(int dirfd, const struct tk_escrow_note *note);

/* The note in the CIPHERDIR of @volume. -ENOENT if there is none, -EBADMSG if it is none. */
TK_MUST_USE int tk_escrow_note_read(const struct tk_volume *volume,
                                    struct tk_escrow_note *ret_note);

/* Whether a rotation has ended since, so that records in that escrow can't be used. */
bool tk_escrow_note_is_outdated(struct tk_volume *volume, const struct tk_escrow_note *note);
