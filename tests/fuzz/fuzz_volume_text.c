/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any text as a volume file: it is refused with a fault, or it parses and what is
 * written from it parses to the same. Each input is tried as it is, and as the head of
 * a text whose [mac] section is right, which no fuzzer finds by itself.
 */

#include "base/bytes.h"
#include "fs/volume_text.h"
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
static void check_round_trip(const struct tk_volume_text *text)
{
        TK_CLEANUP(tk_freep) char *first = NULL;
        TK_CLEANUP(tk_freep) char *whole = NULL;
        TK_CLEANUP(tk_freep) char *second = NULL;
        struct tk_volume_text again;

        require(tk_volume_text_format(text, &first) == 0);
        require(tk_volume_text_append_mac(first, text->mac, &whole) == 0);
        require(tk_volume_text_parse(whole, "v", &again, NULL) == 0);
        require(again.kek_count == text->kek_count && again.wrap_count == text->wrap_count);
        require(again.unclean_count == text->unclean_count);
        require(again.signed_len == strlen(first));
        require(tk_volume_text_format(&again, &second) == 0);
        require(strcmp(first, second) == 0);
        tk_volume_text_done(&again);
}

static void try_text(const char *text)
{
        struct tk_volume_text parsed;
        struct tk_fault fault = {0};
        int r = tk_volume_text_parse(text, "v", &parsed, &fault);

        if (r == 0) {
                require(fault.kind == TK_FAULT_NONE && parsed.kek_count > 0);
                require(parsed.signed_len < strlen(text));
                check_round_trip(&parsed);
        } else {
                require((r == -EINVAL && fault.kind == TK_FAULT_VOLUME_DAMAGED) ||
                        (r == -ENOTSUP && fault.kind == TK_FAULT_UNSUPPORTED));
        }
        tk_volume_text_done(&parsed);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        static const uint8_t mac[TK_MAC_LEN] = "any MAC";
        TK_CLEANUP(tk_freep) char *text = malloc(len + 1);
        TK_CLEANUP(tk_freep) char *whole = NULL;

        require(text);
        if (len > 0)
                memcpy(text, bytes, len);
        text[len] = '\0';
        try_text(text);
        require(tk_volume_text_append_mac(text, mac, &whole) == 0);
        try_text(whole);
        return 0;
}
