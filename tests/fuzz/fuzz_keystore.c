/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any text as a keystore: it is refused with a fault, or it parses and what is
 * written from it parses to the same. Each input is tried as it is, and with a
 * right checksum behind it, which no fuzzer finds by itself.
 */

#include "base/bytes.h"
#include "crypto/mac.h"
#include "kms/keystore.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(bool holds)
{
        if (!holds)
                abort();
}

/* Formatting and parsing again changes nothing. */
static void check_round_trip(const struct tk_keystore *keystore)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *again = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *first = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *second = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;

        require(tk_keystore_format(keystore, &first) == 0);
        text = strndup((const char *)tk_secret_bytes(first), tk_secret_len(first));
        require(text && tk_keystore_parse(text, tk_secret_len(first), "k", &again, NULL) == 0);
        require(again->version_count == keystore->version_count);
        require(tk_keystore_format(again, &second) == 0);
        require(tk_secret_equal(first, second));
}

static void try_text(const char *text, size_t len)
{
        TK_CLEANUP(tk_keystore_freep) struct tk_keystore *keystore = NULL;
        struct tk_fault fault = {0};
        int r = tk_keystore_parse(text, len, "k", &keystore, &fault);

        if (r == 0) {
                require(fault.kind == TK_FAULT_NONE && keystore->version_count > 0);
                check_round_trip(keystore);
                return;
        }
        require(!keystore);
        require((r == -EBADMSG && fault.kind == TK_FAULT_KEYSTORE_DAMAGED) ||
                (r == -ENOTSUP && fault.kind == TK_FAULT_UNSUPPORTED));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        enum { CHECKSUM_MAX = 128 };
        TK_CLEANUP(tk_freep) char *text = malloc(len + CHECKSUM_MAX);
        char digits[2 * TK_MAC_LEN + 1];
        uint8_t digest[TK_MAC_LEN];

        require(text && tk_mac_sha256(bytes, len, digest) == 0);
        if (len > 0)
                memcpy(text, bytes, len);
        text[len] = '\0';
        try_text(text, len);

        tk_hex_encode(digest, sizeof(digest), digits);
        len += (size_t)snprintf(text + len, CHECKSUM_MAX, "[checksum]\nsha256 = %s\n", digits);
        try_text(text, len);
        require(tk_secret_alive() == 0);
        return 0;
}
