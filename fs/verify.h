/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Verify: authenticate every block of every file of a volume, every name, attribute and
 * symlink target; without a mount, or in a mount's daemon beside its requests.
 */

#include "fs/fs.h"

enum tk_verify_kind {
        TK_VERIFY_BLOCK,       /* blocks that do not authenticate, or can't be read */
        TK_VERIFY_RECORD,      /* no usable key record: the file can't be opened */
        TK_VERIFY_RECORD_LOST, /* attribute or copy missing or damaged; the other one serves */
        TK_VERIFY_DIRECTORY,   /* no usable key record: names in it can't be read */
        TK_VERIFY_NAME,        /* a name that does not authenticate; the path ends as stored */
        TK_VERIFY_SIBLING,     /* a long name whose sibling is lost; the path ends as stored */
        TK_VERIFY_SEAL,        /* the file is shorter than its seal, or the seal is gone */
        TK_VERIFY_ATTRIBUTE,   /* an encrypted attribute that does not authenticate */
        TK_VERIFY_TARGET,      /* a symlink's target that does not authenticate */
        TK_VERIFY_UNREADABLE,  /* the backing filesystem refuses the file or directory */
};

struct tk_verify_finding {
        enum tk_verify_kind kind;
        const char *path; /* as applications see it, without a leading slash; names that
                           * can't be read as they are stored */
        uint64_t offset;  /* plaintext range, for TK_VERIFY_BLOCK */
        uint64_t length;
        const char *attribute;  /* its name, or what it is stored as; for TK_VERIFY_ATTRIBUTE */
        const char *renamed_to; /* the entry's new path, after a repair; or NULL */
        bool restored;          /* a lost record, by a repair */
        int repair_error;       /* negative errno of a repair that was tried and failed; or 0 */
        uint16_t retired;       /* KEK version of the record, if it is retired; for TK_VERIFY_RECORD
                                 * and TK_VERIFY_DIRECTORY; else 0 */
        int error;              /* negative errno */
};

struct tk_verify_totals {
        uint64_t files;
        uint64_t directories;
        uint64_t others;
        uint64_t bytes; /* plaintext */
        uint64_t bad_blocks;
        uint64_t records;         /* files and directories without a usable key record */
        uint64_t retired;         /* of these, under a retired KEK version */
        uint16_t retired_version; /* the newest such version */
        uint64_t names;           /* entries whose names can't be read */
        uint64_t orphans;  /* siblings without entries, which a crash may leave: no findings */
        uint64_t repairs;  /* names repaired */
        uint64_t restored; /* records restored */
        uint64_t salvaged; /* damaged files written elsewhere */
        uint64_t findings;
};

struct tk_verify_callbacks {
        void (*finding)(void *context, const struct tk_verify_finding *finding);
        void (*progress)(void *context,
                         const struct tk_verify_totals *so_far); /* often; may be NULL */
        void *context;
        const atomic_bool *stop; /* set it to end the walk with -ECANCELED; may be NULL */
        bool salvage;            /* write what is readable of damaged files to ... */
        int salvage_dirfd;       /* ... below this directory; borrowed */
        bool live;               /* @fs serves a mount: it changes meanwhile */
        bool repair; /* give entries whose names can't be read new ones, restore lost records
                      * from their twins, remove orphans (not beside a mount: one could be a
                      * name in the making) */
};

/*
 * Returns 0 if the walk came to its end, whatever it found; the totals say. -ECANCELED if it
 * was stopped; what requests get if the keys of a live mount were withdrawn.
 */
TK_MUST_USE int tk_verify_run(struct tk_fs *fs, const struct tk_verify_callbacks *callbacks,
                              struct tk_verify_totals *ret_totals, struct tk_fault *fault);
