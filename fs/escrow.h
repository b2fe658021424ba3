/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Escrow: all key records of a volume in one file, still wrapped, and back from there
 * into a tree that lost them. The file itself is escrow_file.h.
 */

#include "fs/escrow_file.h"
#include "fs/fs.h"

struct tk_escrow_export_totals {
        uint64_t files;       /* records that the escrow holds now */
        uint64_t directories; /* the same */
        uint64_t unchanged;   /* of these, not read again */
        uint64_t gone;        /* were in the escrow before, and are not in the tree any more */
        uint64_t carried;     /* kept as the escrow had them: missing or unreadable in the tree */
        uint64_t unreadable;  /* files and directories that could not be looked at */
        uint64_t retired;     /* records under KEK versions that are retired */
        int note_error;       /* negative errno: the note of it (escrow_note.h) was not written */
};

struct tk_escrow_progress {
        void (*update)(void *context, uint64_t done); /* often; NULL: none */
        void *context;
};

/*
 * Write the escrow of the open @volume as @name in @dirfd; @path is both, for messages.
 * No key is needed, and the volume may be mounted. An escrow that is there is read, and
 * replaced atomically and durably; it must be this volume's.
 */
TK_MUST_USE int tk_escrow_export(struct tk_volume *volume, int dirfd, const char *name,
                                 const char *path, const struct tk_escrow_progress *progress,
                                 struct tk_escrow_export_totals *ret_totals,
                                 struct tk_fault *fault);

/* Open the escrow @path and check it to its end. */
TK_MUST_USE int tk_escrow_open(const char *path, struct tk_escrow_reader **ret_reader,
                               struct tk_fault *fault);

/* What a restore found at one place of the tree. */
enum tk_escrow_outcome {
        TK_ESCROW_RESTORED,  /* the escrow's record was put back */
        TK_ESCROW_FROM_COPY, /* the copy in the file serves, and the attribute was rewritten */
        TK_ESCROW_UNMATCHED, /* in the escrow, but not in the tree: nothing was done */
        TK_ESCROW_MISSING,   /* no usable record, and the escrow has none */
        TK_ESCROW_MISFIT,    /* no usable record, and the escrow's is another file's */
        TK_ESCROW_BAD,       /* no usable record, nor does the escrow's authenticate */
        TK_ESCROW_RETIRED,   /* the same, as its KEK version is retired */
        TK_ESCROW_NEWER,     /* the tree's is under a KEK version that the volume file lacks */
        TK_ESCROW_FAILED,    /* the backing filesystem refuses it */
        TK_ESCROW_OUTCOMES,
};

struct tk_escrow_restore_totals {
        uint64_t files; /* seen in the tree */
        uint64_t directories;
        uint64_t count[TK_ESCROW_OUTCOMES];
        uint16_t retired_version; /* the newest one that a record wanted; 0: none */
};

struct tk_escrow_restore_options {
        bool force; /* replace good records, too, by those that fit as well */
        struct tk_escrow_progress progress;
        /* Each outcome; @error is a negative errno for TK_ESCROW_FAILED. */
        void (*found)(void *context, enum tk_escrow_outcome outcome, const char *path, int error);
        void *context;
};

/*
 * Put the records of @escrow, which was opened and checked, where the tree of @fs lacks
 * them. What is put back opens a block of its file or a name of its directory, if there
 * is any. Returns 0 if the walk came to its end, whatever it found; the totals say.
 */
TK_MUST_USE int tk_escrow_restore(struct tk_fs *fs, struct tk_escrow_reader *escrow,
                                  const struct tk_escrow_restore_options *options,
                                  struct tk_escrow_restore_totals *ret_totals,
                                  struct tk_fault *fault);

/* How many places are left without a usable record. */
uint64_t tk_escrow_unusable(const struct tk_escrow_restore_totals *totals);
