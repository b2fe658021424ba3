/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What failed, said to a person: a class for the exit code and one sentence.
 *
 * Functions that a command calls (open a volume, load a configuration) take a
 * struct tk_fault beside their negative errno and describe the failure in it:
 * what failed, on which path or key, why, and what to do next. The command
 * prints it; nobody below logs it as well.
 */

#include "base/cleanup.h"

/* One class per exit code of the program; the numbers are the exit codes. */
enum tk_fault_kind {
        TK_FAULT_NONE = 0,
        TK_FAULT_INTERNAL = 1,         /* anything without a class of its own */
        TK_FAULT_USAGE = 2,            /* the command line is wrong */
        TK_FAULT_CONFIG = 3,           /* the configuration is wrong */
        TK_FAULT_NOT_A_VOLUME = 4,     /* no volume at that path, or one there already */
        TK_FAULT_VOLUME_DAMAGED = 5,   /* the volume file does not parse or authenticate */
        TK_FAULT_IN_USE = 6,           /* mounted elsewhere, or busy */
        TK_FAULT_KEYSTORE_MISSING = 7, /* the keystore file is not there */
        TK_FAULT_KEYSTORE_DAMAGED = 8, /* the keystore file does not parse or authenticate */
        TK_FAULT_PASSPHRASE = 9,       /* the passphrase is wrong or missing */
        TK_FAULT_WRONG_KEY = 10,       /* the key is not this volume's */
        TK_FAULT_KMS_UNREACHABLE = 11, /* the KMS does not answer */
        TK_FAULT_KEY_REVOKED = 12,     /* the KMS refuses the key: disabled, deleted, denied */
        TK_FAULT_KEY_EXPIRED = 13,     /* the key is outside its dates */
        TK_FAULT_DATA_DAMAGED = 14,    /* verify found damage */
        TK_FAULT_MOUNT = 15,           /* the mount itself failed */
        TK_FAULT_PERMISSION = 16,      /* the operating system refused */
        TK_FAULT_NOT_MOUNTED = 17,     /* nothing of ours is mounted there */
        TK_FAULT_UNSUPPORTED = 18,     /* format of a newer release, or a missing feature */
        TK_FAULT_WINDOW_MISSED = 19,   /* a rotation took longer than its window */
        TK_FAULT_ESCROW = 20,          /* the escrow is missing, damaged or no escrow at all */
};

enum { TK_FAULT_TEXT_MAX = 1536 };

struct tk_fault {
        enum tk_fault_kind kind;
        char text[TK_FAULT_TEXT_MAX];
};

/*
 * Describe a failure: @fault gets @kind and the formatted sentence, the first
 * description wins. @fault may be NULL.
 */
TK_PRINTF(3, 4)
void tk_fault_describe(struct tk_fault *fault, enum tk_fault_kind kind, const char *fmt, ...);

/* Add a formatted piece to the sentence; cut where it does not fit. */
TK_PRINTF(2, 3)
void tk_fault_add(struct tk_fault *fault, const char *fmt, ...);

/*
 * Describe it and return @r, so that callers can `return tk_fault_set(...)`. A macro, so
 * that static analysis sees which value comes back.
 */
#define tk_fault_set(fault, kind, r, ...)                                                          \
        __extension__({                                                                            \
                tk_fault_describe(fault, kind, __VA_ARGS__);                                       \
                (r);                                                                               \
        })
