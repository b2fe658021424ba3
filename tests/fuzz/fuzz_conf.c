/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as a configuration: either it parses, or there is a fault that says where. */

#include "conf/conf.h"
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_freep) char *text = NULL;
        struct tk_fault fault = {0};

        text = malloc(len + 1);
        if (!text)
                return 0;
        if (len > 0)
                memcpy(text, bytes, len);
        text[len] = '\0';

        if (tk_conf_parse(text, "fuzz.conf", &conf, &fault) == 0) {
                if (!conf->kms.provider || fault.kind != TK_FAULT_NONE)
                        abort();
        } else if (fault.kind != TK_FAULT_CONFIG || strncmp(fault.text, "fuzz.conf:", 10) != 0) {
                abort();
        }
        return 0;
}
