/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any texts and numbers in the requests that we make: what comes out is well-formed, and
 * nothing of a text leaves its place in it.
 *
 * An input is a byte that chooses, 16 bytes of numbers, and texts that end in NUL.
 */

#include "kms/azure_auth.h"
#include "kms/azure_json.h"
#include "kms/azure_msg_admin.h"
#include "kms/text.h"
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { NUMBERS_LEN = 16, TEXTS = 3, KEY_BITS = 2048 };

struct input {
        uint8_t choice;
        uint8_t numbers[NUMBERS_LEN];
        char *texts; /* the buffer of the three */
        const char *text[TEXTS];
        size_t text_len[TEXTS];
};

static struct tk_rsa *private_key;

static void require(bool holds)
{
        if (!holds)
                abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
        EVP_PKEY *key = EVP_RSA_gen(KEY_BITS);
        BIO *bio = BIO_new(BIO_s_mem());
        struct tk_secret *pem;
        char *text;
        long len;

        (void)argc;
        (void)argv;
        require(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
        len = BIO_get_mem_data(bio, &text);
        require(tk_secret_dup_bytes(text, (size_t)len, &pem) == 0);
        require(tk_rsa_new_private(pem, NULL, &private_key) == 0);
        tk_secret_free(pem);
        BIO_free(bio);
        EVP_PKEY_free(key);
        return 0;
}

static void split(struct input *input, const uint8_t *bytes, size_t len)
{
        *input = (struct input){.texts = calloc(1, len + TEXTS + 1)};
        require(input->texts);
        if (len > 0)
                input->choice = *bytes++, len--;
        if (len >= NUMBERS_LEN) {
                memcpy(input->numbers, bytes, NUMBERS_LEN);
                bytes += NUMBERS_LEN;
                len -= NUMBERS_LEN;
        }
        if (len > 0)
                memcpy(input->texts, bytes, len);
        for (size_t i = 0, at = 0; i < TEXTS; i++) {
                input->text[i] = input->texts + at;
                input->text_len[i] = strlen(input->text[i]);
                at += at < len ? input->text_len[i] + 1 : 0;
        }
}

static int64_t number(const struct input *input, int which)
{
        int64_t value;

        memcpy(&value, input->numbers + (size_t)which * sizeof(value), sizeof(value));
        return value;
}

/* JSON, whatever went in; NULL if a text was no UTF-8, which no JSON can hold. */
static json_t *parse(const struct tk_secret *body)
{
        json_t *root = NULL;

        require(strlen(tk_text_of(body)) == tk_text_len(body));
        return tk_azure_json_parse(tk_text_of(body), tk_text_len(body), &root) == 0 ? root : NULL;
}

static void try_form(const struct input *input)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_azure_token_form form = {.client_id = input->text[0], .audience = input->text[1]};
        bool by_secret = input->choice & 1;
        size_t fields = by_secret ? 4 : 5;
        const char *at;

        /* An assertion is a text with its NUL, a secret is its bytes alone. */
        require(tk_secret_dup_bytes(input->text[2], input->text_len[2] + 1, &secret) == 0);
        if (by_secret && input->text_len[2] > 0)
                tk_secret_truncate(secret, input->text_len[2]);
        if (by_secret)
                form.secret = secret;
        else
                form.assertion = secret;
        if (input->choice & 2) {
                form.claims = input->text[2];
                fields++;
        }
        require(tk_azure_auth_build_form(&form, &body) == 0);
        for (at = tk_text_of(body); *at; at++) {
                require(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                               "-._~%+=&:",
                               *at));
                fields -= *at == '&';
        }
        require(fields == 1);
}

static void try_assertion(const struct input *input)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *jwt = NULL;
        struct tk_rsa_certificate certificate = {.not_after = 1};
        struct tk_azure_assertion assertion = {
                .endpoint = input->text[0],
                .client_id = input->text[1],
                .id = input->numbers,
                .now = number(input, 1) / 2,
                .key = private_key,
                .certificate = &certificate,
                .scheme = input->choice & 1 ? TK_RSA_PS256 : TK_RSA_RS256,
        };
        int dots = 0;

        require(tk_azure_auth_build_assertion(&assertion, &jwt) == 0);
        for (const char *at = tk_text_of(jwt); *at; at++) {
                require(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.",
                               *at));
                dots += *at == '.';
        }
        require(dots == 2);
}

static void try_create(const struct input *input)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_kms_key_spec spec = {.bits = (unsigned)number(input, 0),
                                       .not_before = number(input, 0),
                                       .expires = number(input, 1)};
        const char *type;
        json_t *root;

        memcpy(spec.type, input->text[0],
               input->text_len[0] < sizeof(spec.type) ? input->text_len[0] : sizeof(spec.type) - 1);
        require(tk_azure_msg_build_create(&spec, &body) == 0);
        root = parse(body);
        if (root)
                require(tk_azure_json_string(root, "kty", &type) == 0 &&
                        strcmp(type, spec.type) == 0);
        json_decref(root);
}

static void try_import(const struct input *input)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *blob = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *enabled = NULL;
        json_t *root;

        if (input->choice & 1) {
                require(tk_azure_msg_build_import(private_key, input->choice & 2, &body) == 0);
        } else {
                require(tk_secret_dup_bytes(input->text[0], input->text_len[0] + 1, &blob) == 0);
                require(tk_azure_msg_build_import_blob(blob, &body) == 0);
        }
        root = parse(body);
        require(root);
        json_decref(root);
        require(tk_azure_msg_build_enabled(input->choice & 2, &enabled) == 0);
        root = parse(enabled);
        require(root);
        json_decref(root);
}

static void try_policy(const struct input *input)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
        struct tk_kms_rotation_policy policy, back;

        memcpy(&policy, input->numbers, sizeof(policy));
        if (tk_azure_msg_build_policy(&policy, &body) < 0)
                return;
        /* What is too long for a policy is refused when it comes back, not misread. */
        if (tk_azure_msg_parse_policy(tk_text_of(body), tk_text_len(body), &back) == 0)
                require(back.expiry_days == policy.expiry_days &&
                        back.rotate_after_days == policy.rotate_after_days);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        static void (*const tries[])(const struct input *) = {try_form, try_assertion, try_create,
                                                              try_import, try_policy};
        size_t base = tk_secret_alive();
        struct input input;

        split(&input, bytes, len);
        tries[(input.choice >> 2) % (sizeof(tries) / sizeof(tries[0]))](&input);
        require(tk_secret_alive() == base);
        free(input.texts);
        return 0;
}
