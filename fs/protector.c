/* SPDX-License-Identifier: Apache-2.0 */

/* Envelopes of protectors: made, sealed to, opened. */

#include "fs/protector.h"

#include "base/bytes.h"
#include "crypto/kdf.h"
#include "crypto/random.h"
#include "fs/volume_internal.h"
#include <errno.h>
#include <string.h>

static const char pair_label[] = "turnkeyfs protector";
static const char seal_label[] = "turnkeyfs sealed KEK";

/* The private half is derived, so that it is for this volume and volume key alone. */
static int derive_private(const uint8_t id[TK_VOLUME_ID_LEN], const char *fingerprint,
                          const struct tk_secret *secret, struct tk_secret **ret_private)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *private_half = NULL;
        uint8_t context[TK_VOLUME_ID_LEN + TK_KEY_LEN];
        int r;

        if (tk_secret_len(secret) != TK_KEY_LEN)
                return -EBADMSG;
        memcpy(context, id, TK_VOLUME_ID_LEN);
        r = tk_hex_decode(fingerprint, context + TK_VOLUME_ID_LEN, TK_KEY_LEN);
        if (r < 0)
                return r;
        r = tk_secret_new(TK_KEY_LEN, &private_half);
        if (r == 0)
                r = tk_kdf_expand(secret, pair_label, context, sizeof(context), private_half);
        if (r < 0)
                return r;
        *ret_private = TK_TAKE(private_half);
        return 0;
}

int tk_protector_make(const uint8_t id[TK_VOLUME_ID_LEN], const char *fingerprint,
                      struct tk_kms *kms, const char *version, struct tk_volume_wrap *ret_wrap,
                      struct tk_secret **ret_secret, struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *private_half = NULL;
        struct tk_volume_wrap wrap = {.has_envelope = true};
        int r;

        r = tk_random_secret(TK_KEY_LEN, &secret);
        if (r == 0)
                r = derive_private(id, fingerprint, secret, &private_half);
        if (r == 0)
                r = tk_hpke_public(private_half, wrap.public_half);
        if (r == 0)
                r = tk_volume_wrap_tested(kms, version, secret, &wrap, fault);
        if (r < 0)
                return r;
        *ret_wrap = wrap;
        if (ret_secret)
                *ret_secret = TK_TAKE(secret);
        return 0;
}

/* Which KEK version of which volume for which protector: what a sealed KEK is bound to. */
struct binding {
        uint8_t bytes[TK_VOLUME_ID_LEN + 2 + 2];
        struct tk_hpke_context context;
};

static void bind(const uint8_t id[TK_VOLUME_ID_LEN], const struct tk_volume_wrap *wrap,
                 struct binding *ret_binding)
{
        memcpy(ret_binding->bytes, id, TK_VOLUME_ID_LEN);
        tk_put_be16(ret_binding->bytes + TK_VOLUME_ID_LEN, wrap->kek_version);
        tk_put_be16(ret_binding->bytes + TK_VOLUME_ID_LEN + 2, (uint16_t)wrap->protector);
        ret_binding->context = (struct tk_hpke_context){.info = (const uint8_t *)seal_label,
                                                        .info_len = sizeof(seal_label) - 1,
                                                        .aad = ret_binding->bytes,
                                                        .aad_len = sizeof(ret_binding->bytes)};
}

int tk_protector_seal(const uint8_t id[TK_VOLUME_ID_LEN], const struct tk_secret *kek,
                      struct tk_volume_wrap *wrap)
{
        struct binding binding;

        if (tk_secret_len(kek) != TK_KEY_LEN)
                return -EINVAL;
        bind(id, wrap, &binding);
        return tk_hpke_seal(wrap->public_half, &binding.context, kek, wrap->sealed);
}

int tk_protector_open(const uint8_t id[TK_VOLUME_ID_LEN], const char *fingerprint,
                      const struct tk_volume_wrap *wrap, const struct tk_secret *secret,
                      struct tk_secret **ret_kek)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *private_half = NULL;
        struct binding binding;
        int r;

        r = derive_private(id, fingerprint, secret, &private_half);
        if (r < 0)
                return r;
        bind(id, wrap, &binding);
        return tk_hpke_open(private_half, &binding.context, wrap->sealed, sizeof(wrap->sealed),
                            ret_kek);
}
