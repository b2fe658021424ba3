/* SPDX-License-Identifier: Apache-2.0 */

/* Scratch: per-thread buffers and cipher context, freed with the thread. */

#include "fs/scratch.h"

#include <errno.h>
#include <sys/mman.h>

enum {
        DATA_LEN = TK_REQUEST_BLOCKS * TK_BLOCK_LEN,
        TAGS_LEN = TK_REQUEST_GROUPS * TK_BLOCK_LEN,
        IVS_LEN = (TK_REQUEST_BLOCKS * TK_AEAD_IV_LEN + TK_BLOCK_LEN - 1) / TK_BLOCK_LEN *
                  TK_BLOCK_LEN,
        BUFFERS_LEN = DATA_LEN + TAGS_LEN + IVS_LEN + 2 * TK_BLOCK_LEN,
};

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int key_error;

static struct tk_scratch *scratch_free(struct tk_scratch *scratch)
{
        if (!scratch)
                return NULL;
        tk_aead_free(scratch->aead);
        tk_siv_free(scratch->siv);
        tk_secret_free(scratch->subkey);
        if (scratch->data) {
                tk_wipe(scratch->data, BUFFERS_LEN);
                munmap(scratch->data, BUFFERS_LEN);
        }
        free(scratch);
        return NULL;
}
TK_DEFINE_CLEANUP(struct tk_scratch *, scratch_free)

static void scratch_destroy(void *scratch)
{
        scratch_free(scratch);
}

static void make_key(void)
{
        key_error = pthread_key_create(&key, scratch_destroy);
}

static int scratch_new(struct tk_scratch **ret_scratch)
{
        TK_CLEANUP(scratch_freep) struct tk_scratch *scratch = NULL;
        void *buffers;
        int r;

        scratch = calloc(1, sizeof(*scratch));
        if (!scratch)
                return -ENOMEM;
        r = tk_aead_new(&scratch->aead);
        if (r == 0)
                r = tk_siv_new(&scratch->siv);
        if (r < 0)
                return r;
        r = tk_secret_new(TK_KEY_LEN, &scratch->subkey);
        if (r < 0)
                return r;
        buffers =
                mmap(NULL, BUFFERS_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (buffers == MAP_FAILED)
                return -ENOMEM;
        (void)madvise(buffers, BUFFERS_LEN, MADV_DONTDUMP);
        scratch->data = buffers;
        scratch->tag_pages = scratch->data + DATA_LEN;
        scratch->ivs = scratch->tag_pages + TAGS_LEN;
        scratch->head = scratch->ivs + IVS_LEN;
        scratch->tail = scratch->head + TK_BLOCK_LEN;
        *ret_scratch = TK_TAKE(scratch);
        return 0;
}

int tk_scratch_get(struct tk_scratch **ret_scratch)
{
        struct tk_scratch *scratch;
        int r;

        pthread_once(&key_once, make_key);
        if (key_error)
                return -ENOMEM;
        scratch = pthread_getspecific(key);
        if (!scratch) {
                r = scratch_new(&scratch);
                if (r < 0)
                        return r;
                if (pthread_setspecific(key, scratch) != 0) {
                        scratch_free(scratch);
                        return -ENOMEM;
                }
        }
        *ret_scratch = scratch;
        return 0;
}

struct tk_scratch *tk_scratch_forget(struct tk_scratch *scratch)
{
        if (!scratch)
                return NULL;
        tk_wipe(tk_secret_bytes_mutable(scratch->subkey), TK_KEY_LEN);
        tk_aead_clear_key(scratch->aead);
        return NULL;
}

void tk_scratch_drop(void)
{
        pthread_once(&key_once, make_key);
        if (key_error)
                return;
        scratch_free(pthread_getspecific(key));
        pthread_setspecific(key, NULL);
}
