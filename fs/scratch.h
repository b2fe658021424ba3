/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Scratch: what one thread needs to move content, made once per thread.
 *
 * Buffers, a cipher context and the subkey of the group in hand. Nothing in it
 * survives a request: a function that returns a pointer into it says so.
 */

#include "crypto/aead.h"
#include "crypto/siv.h"
#include "fs/format.h"

enum {
        TK_REQUEST_MAX = 1024 * 1024, /* bytes of the largest read or write */
        /* Blocks and groups that such a request can touch, when it is not aligned. */
        TK_REQUEST_BLOCKS = TK_REQUEST_MAX / TK_BLOCK_LEN + 1,
        TK_REQUEST_GROUPS = (TK_REQUEST_BLOCKS - 2) / TK_GROUP_BLOCKS + 2,
};

struct tk_scratch {
        struct tk_aead *aead;
        struct tk_siv *siv; /* for names: keyed and cleared within one look-up or listing */
        struct tk_secret *subkey;
        uint8_t *data;      /* TK_REQUEST_BLOCKS blocks */
        uint8_t *tag_pages; /* TK_REQUEST_GROUPS pages */
        uint8_t *ivs;       /* TK_REQUEST_BLOCKS IVs */
        uint8_t *head;      /* one block: the partial first one of a write */
        uint8_t *tail;      /* one block: the partial last one */
};

/* This thread's scratch; it is wiped and freed when the thread ends. -ENOMEM. */
TK_MUST_USE int tk_scratch_get(struct tk_scratch **ret_scratch);

/* Wipe the subkey in hand; the rest stays. NULL is fine. At the end of each request. */
struct tk_scratch *tk_scratch_forget(struct tk_scratch *scratch);
TK_DEFINE_CLEANUP(struct tk_scratch *, tk_scratch_forget)

/* Free this thread's scratch now: for the main thread, which does not end before exit. */
void tk_scratch_drop(void);
