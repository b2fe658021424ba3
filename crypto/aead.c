/* SPDX-License-Identifier: Apache-2.0 */

/*
 * AES-256-GCM over OpenSSL's EVP.
 *
 * The cipher is fetched once for the process and contexts are kept: fetching for
 * each block would cost more than encrypting it.
 */

#include "crypto/aead.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

struct tk_aead {
        EVP_CIPHER_CTX *ctx;
};

static pthread_once_t cipher_once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *cipher;

static void cipher_fetch(void)
{
        cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
}

int tk_aead_new(struct tk_aead **ret_aead)
{
        TK_CLEANUP(tk_aead_freep) struct tk_aead *aead = NULL;

        pthread_once(&cipher_once, cipher_fetch);
        if (!cipher)
                return -EIO;
        aead = calloc(1, sizeof(*aead));
        if (!aead)
                return -ENOMEM;
        aead->ctx = EVP_CIPHER_CTX_new();
        if (!aead->ctx)
                return -ENOMEM;
        *ret_aead = TK_TAKE(aead);
        return 0;
}

struct tk_aead *tk_aead_free(struct tk_aead *aead)
{
        if (!aead)
                return NULL;
        EVP_CIPHER_CTX_free(aead->ctx); /* wipes the key schedule */
        free(aead);
        return NULL;
}

int tk_aead_set_key(struct tk_aead *aead, const struct tk_secret *key)
{
        if (tk_secret_len(key) != TK_KEY_LEN)
                return -EINVAL;
        if (EVP_CipherInit_ex2(aead->ctx, cipher, tk_secret_bytes(key), NULL, 1, NULL) != 1)
                return -EIO;
        return 0;
}

void tk_aead_clear_key(struct tk_aead *aead)
{
        EVP_CIPHER_CTX_reset(aead->ctx);
}

/* Everything but the tag: IV, AAD and text go through the context. */
static int run(struct tk_aead *aead, const struct tk_aead_msg *msg, int encrypt)
{
        int n;

        if (msg->len > INT_MAX || msg->aad_len > INT_MAX)
                return -EINVAL;
        if (EVP_CipherInit_ex2(aead->ctx, NULL, NULL, msg->iv, encrypt, NULL) != 1)
                return -EIO;
        if (msg->aad_len > 0 &&
            EVP_CipherUpdate(aead->ctx, NULL, &n, msg->aad, (int)msg->aad_len) != 1)
                return -EIO;
        if (msg->len > 0 && EVP_CipherUpdate(aead->ctx, msg->out, &n, msg->in, (int)msg->len) != 1)
                return -EIO;
        return 0;
}

int tk_aead_seal(struct tk_aead *aead, const struct tk_aead_msg *msg,
                 uint8_t ret_tag[TK_AEAD_TAG_LEN])
{
        uint8_t none[1];
        int n;
        int r;

        r = run(aead, msg, 1);
        if (r < 0)
                return r;
        if (EVP_CipherFinal_ex(aead->ctx, none, &n) != 1 ||
            EVP_CIPHER_CTX_ctrl(aead->ctx, EVP_CTRL_AEAD_GET_TAG, TK_AEAD_TAG_LEN, ret_tag) != 1)
                return -EIO;
        return 0;
}

int tk_aead_open(struct tk_aead *aead, const struct tk_aead_msg *msg,
                 const uint8_t tag[TK_AEAD_TAG_LEN])
{
        uint8_t none[1];
        int n;
        int r;

        r = run(aead, msg, 0);
        if (r == 0 && EVP_CIPHER_CTX_ctrl(aead->ctx, EVP_CTRL_AEAD_SET_TAG, TK_AEAD_TAG_LEN,
                                          (void *)(uintptr_t)tag) != 1)
                r = -EIO;
        if (r == 0 && EVP_CipherFinal_ex(aead->ctx, none, &n) != 1)
                r = -EBADMSG;
        if (r < 0)
                tk_wipe(msg->out, msg->len);
        return r;
}

const char *tk_aead_library(void)
{
        return OpenSSL_version(OPENSSL_VERSION);
}
