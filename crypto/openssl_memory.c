/* SPDX-License-Identifier: Apache-2.0 */

/* OpenSSL's memory: wiped when freed, and freed as soon as it is not needed. */

#include "crypto/openssl_memory.h"

#include "base/wiping.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>

/*
 * While a request is under way, the buffer of a TLS record holds a token or an unwrapped key: it
 * is hidden. What ciphers need is smaller and comes often.
 */
enum { RECORD_LEN_MIN = 4096 };

static void *wiping_malloc(size_t len, const char *file, int line)
{
        (void)file;
        (void)line;
        if (len >= RECORD_LEN_MIN)
                return tk_hidden_malloc(len);
        return len > 0 ? tk_wiping_malloc(len) : NULL;
}

static void *wiping_realloc(void *old, size_t len, const char *file, int line)
{
        (void)file;
        (void)line;
        if (len >= RECORD_LEN_MIN)
                return tk_hidden_realloc(old, len);
        if (len > 0)
                return tk_wiping_realloc(old, len);
        tk_wiping_free(old);
        return NULL;
}

static void wiping_free(void *block, const char *file, int line)
{
        (void)file;
        (void)line;
        tk_wiping_free(block);
}

int tk_openssl_wipe_memory(void)
{
        return CRYPTO_set_mem_functions(wiping_malloc, wiping_realloc, wiping_free) == 1 ? 0
                                                                                         : -EBUSY;
}

void tk_openssl_keep_no_records(void *ssl_context)
{
        SSL_CTX_set_mode(ssl_context, SSL_MODE_RELEASE_BUFFERS);
}
