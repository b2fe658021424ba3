/* SPDX-License-Identifier: Apache-2.0 */

/*
 * AES-SIV from AES-CBC and AES-CTR.
 *
 * OpenSSL has a cipher of this name, but it takes its key anew for each message and
 * fetches its parts again each time: 6 microseconds a name, against 0.6 here. A
 * listing needs one of these for each entry.
 */

#include "crypto/siv.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

enum { BLOCK = 16, CHUNK = 256 };

struct tk_siv {
        EVP_CIPHER_CTX *mac; /* CBC: what CMAC is made of */
        EVP_CIPHER_CTX *ctr;
        size_t half_len;       /* of the key in the contexts; 0: none was set */
        uint8_t last[BLOCK];   /* CMAC's first subkey, for a whole last block */
        uint8_t padded[BLOCK]; /* and its second, for one that was padded */
        uint8_t start[BLOCK];  /* CMAC of a zero block, which S2V begins with */
};

/* CMAC under way: a block is held back, since the last one is treated apart. */
struct cmac {
        struct tk_siv *siv;
        uint8_t held[BLOCK];
        size_t held_len;
};

static const uint8_t zeros[TK_SIV_KEY_LEN];

static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static EVP_CIPHER *cbc[2]; /* by the length of half a key: 16, 32 bytes */
static EVP_CIPHER *ctr[2];

static void fetch(void)
{
        cbc[0] = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
        cbc[1] = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
        ctr[0] = EVP_CIPHER_fetch(NULL, "AES-128-CTR", NULL);
        ctr[1] = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
}

int tk_siv_new(struct tk_siv **ret_siv)
{
        TK_CLEANUP(tk_siv_freep) struct tk_siv *siv = NULL;

        pthread_once(&fetched, fetch);
        if (!cbc[0] || !cbc[1] || !ctr[0] || !ctr[1])
                return -EIO;
        siv = calloc(1, sizeof(*siv));
        if (!siv)
                return -ENOMEM;
        siv->mac = EVP_CIPHER_CTX_new();
        siv->ctr = EVP_CIPHER_CTX_new();
        if (!siv->mac || !siv->ctr)
                return -ENOMEM;
        *ret_siv = TK_TAKE(siv);
        return 0;
}

struct tk_siv *tk_siv_free(struct tk_siv *siv)
{
        if (!siv)
                return NULL;
        EVP_CIPHER_CTX_free(siv->mac); /* these wipe the key schedules */
        EVP_CIPHER_CTX_free(siv->ctr);
        tk_wipe(siv, sizeof(*siv));
        free(siv);
        return NULL;
}

static void xor_block(uint8_t *to, const uint8_t *with)
{
        for (int i = 0; i < BLOCK; i++)
                to[i] ^= with[i];
}

/* Multiply by x in the field of RFC 5297, section 2.3. */
static void double_block(uint8_t block[BLOCK])
{
        uint8_t carry = block[0] >> 7;

        for (int i = 0; i < BLOCK - 1; i++)
                block[i] = (uint8_t)(block[i] << 1 | block[i + 1] >> 7);
        block[BLOCK - 1] = (uint8_t)(block[BLOCK - 1] << 1 ^ (carry ? 0x87 : 0));
}

/* CMAC (RFC 4493) ------------------------------------------------------------- */

/* Whole blocks through CBC, whose chain the context keeps; the last one comes out. */
static int chain(struct tk_siv *siv, const uint8_t *in, size_t len, uint8_t ret_last[BLOCK])
{
        uint8_t out[CHUNK];
        int n = 0;

        while (len > 0) {
                size_t part = len < CHUNK ? len : CHUNK;

                if (EVP_EncryptUpdate(siv->mac, out, &n, in, (int)part) != 1 || n < BLOCK)
                        return -EIO;
                memcpy(ret_last, out + n - BLOCK, BLOCK);
                in += part;
                len -= part;
        }
        return 0;
}

static int cmac_begin(struct cmac *cmac, struct tk_siv *siv)
{
        *cmac = (struct cmac){.siv = siv};
        return EVP_EncryptInit_ex2(siv->mac, NULL, NULL, zeros, NULL) == 1 ? 0 : -EIO;
}

static int cmac_add(struct cmac *cmac, const uint8_t *in, size_t len)
{
        uint8_t passed[BLOCK];
        int r;

        while (len > 0) {
                size_t room = BLOCK - cmac->held_len;
                size_t part = len < room ? len : room;
                size_t whole;

                memcpy(cmac->held + cmac->held_len, in, part);
                cmac->held_len += part;
                in += part;
                len -= part;
                if (len == 0)
                        break;
                r = chain(cmac->siv, cmac->held, BLOCK, passed);
                cmac->held_len = 0;
                whole = (len - 1) / BLOCK * BLOCK;
                if (r == 0)
                        r = chain(cmac->siv, in, whole, passed);
                if (r < 0)
                        return r;
                in += whole;
                len -= whole;
        }
        return 0;
}

static int cmac_end(struct cmac *cmac, uint8_t ret_mac[BLOCK])
{
        const struct tk_siv *siv = cmac->siv;

        if (cmac->held_len < BLOCK) {
                cmac->held[cmac->held_len] = 0x80;
                memset(cmac->held + cmac->held_len + 1, 0, BLOCK - cmac->held_len - 1);
                xor_block(cmac->held, siv->padded);
        } else {
                xor_block(cmac->held, siv->last);
        }
        return chain(cmac->siv, cmac->held, BLOCK, ret_mac);
}

static int cmac_of(struct tk_siv *siv, const uint8_t *in, size_t len, uint8_t ret_mac[BLOCK])
{
        struct cmac cmac;
        int r;

        r = cmac_begin(&cmac, siv);
        if (r == 0)
                r = cmac_add(&cmac, in, len);
        return r < 0 ? r : cmac_end(&cmac, ret_mac);
}

/* Keys ------------------------------------------------------------------------ */

/* Set both contexts to the halves of @key. The ciphers stay if the length does. */
static int set_halves(struct tk_siv *siv, const uint8_t *key, size_t half_len)
{
        bool same = siv->half_len == half_len;
        int i = half_len == 32;

        siv->half_len = 0;
        if (EVP_EncryptInit_ex2(siv->mac, same ? NULL : cbc[i], key, zeros, NULL) != 1 ||
            EVP_EncryptInit_ex2(siv->ctr, same ? NULL : ctr[i], key + half_len, zeros, NULL) != 1)
                return -EIO;
        if (!same && EVP_CIPHER_CTX_set_padding(siv->mac, 0) != 1)
                return -EIO;
        siv->half_len = half_len;
        return 0;
}

int tk_siv_set_key(struct tk_siv *siv, const struct tk_secret *key)
{
        size_t len = tk_secret_len(key);
        int r;

        if (len != TK_SIV_KEY_LEN && len != TK_SIV_KEY_LEN / 2)
                return -EINVAL;
        r = set_halves(siv, tk_secret_bytes(key), len / 2);
        if (r == 0)
                r = chain(siv, zeros, BLOCK, siv->last);
        if (r < 0)
                return r;
        double_block(siv->last);
        memcpy(siv->padded, siv->last, BLOCK);
        double_block(siv->padded);
        return cmac_of(siv, zeros, BLOCK, siv->start);
}

void tk_siv_clear_key(struct tk_siv *siv)
{
        /* Another key in place of this one, since a reset would free and allocate. */
        if (siv->half_len > 0 && set_halves(siv, zeros, siv->half_len) < 0) {
                EVP_CIPHER_CTX_reset(siv->mac);
                EVP_CIPHER_CTX_reset(siv->ctr);
        }
        tk_wipe(siv->last, BLOCK);
        tk_wipe(siv->padded, BLOCK);
        tk_wipe(siv->start, BLOCK);
}

/* SIV --------------------------------------------------------------------------- */

/* S2V's last step, for @in of any length: what it is mixed with is in @mixed. */
static int mac_text(struct tk_siv *siv, uint8_t mixed[BLOCK], const uint8_t *in, size_t len,
                    uint8_t ret_tag[BLOCK])
{
        struct cmac cmac;
        int r;

        r = cmac_begin(&cmac, siv);
        if (r < 0)
                return r;
        if (len >= BLOCK) {
                r = cmac_add(&cmac, in, len - BLOCK);
                xor_block(mixed, in + len - BLOCK);
        } else {
                double_block(mixed);
                for (size_t i = 0; i < len; i++)
                        mixed[i] ^= in[i];
                mixed[len] ^= 0x80;
        }
        if (r == 0)
                r = cmac_add(&cmac, mixed, BLOCK);
        return r < 0 ? r : cmac_end(&cmac, ret_tag);
}

/* S2V of RFC 5297, section 2.4: the tag over the associated data and the text. */
static int make_tag(struct tk_siv *siv, const struct tk_siv_ad *ad, size_t ad_count,
                    const uint8_t *in, size_t len, uint8_t ret_tag[BLOCK])
{
        uint8_t mixed[BLOCK];
        uint8_t mac[BLOCK];
        int r;

        memcpy(mixed, siv->start, BLOCK);
        for (size_t i = 0; i < ad_count; i++) {
                r = cmac_of(siv, ad[i].bytes, ad[i].len, mac);
                if (r < 0)
                        return r;
                double_block(mixed);
                xor_block(mixed, mac);
        }
        return mac_text(siv, mixed, in, len, ret_tag);
}

/* CTR, both ways, from the tag with two of its bits cleared. */
static int run_ctr(struct tk_siv *siv, const uint8_t tag[BLOCK], const uint8_t *in, size_t len,
                   uint8_t *out)
{
        uint8_t counter[BLOCK];
        int n;

        if (len == 0)
                return 0;
        memcpy(counter, tag, BLOCK);
        counter[8] &= 0x7f;
        counter[12] &= 0x7f;
        if (EVP_EncryptInit_ex2(siv->ctr, NULL, NULL, counter, NULL) != 1 ||
            EVP_EncryptUpdate(siv->ctr, out, &n, in, (int)len) != 1)
                return -EIO;
        return 0;
}

int tk_siv_seal(struct tk_siv *siv, const struct tk_siv_ad *ad, size_t ad_count, const void *in,
                size_t len, uint8_t *out)
{
        int r;

        if (len > INT_MAX - TK_SIV_TAG_LEN || siv->half_len == 0)
                return -EINVAL;
        r = make_tag(siv, ad, ad_count, in, len, out);
        return r < 0 ? r : run_ctr(siv, out, in, len, out + TK_SIV_TAG_LEN);
}

int tk_siv_open(struct tk_siv *siv, const struct tk_siv_ad *ad, size_t ad_count, const uint8_t *in,
                size_t len, void *out)
{
        uint8_t tag[BLOCK];
        size_t out_len;
        int r;

        if (len < TK_SIV_TAG_LEN)
                return -EBADMSG;
        if (len > INT_MAX || siv->half_len == 0)
                return -EINVAL;
        out_len = len - TK_SIV_TAG_LEN;
        r = run_ctr(siv, in, in + TK_SIV_TAG_LEN, out_len, out);
        if (r == 0)
                r = make_tag(siv, ad, ad_count, out, out_len, tag);
        if (r == 0 && !tk_bytes_equal_ct(tag, in, TK_SIV_TAG_LEN))
                r = -EBADMSG;
        if (r < 0)
                tk_wipe(out, out_len);
        return r;
}
