/* SPDX-License-Identifier: Apache-2.0 */

/* The stand-in for the `azure` provider in a program that was built without it. */

#include "kms/azure.h"

#include "kms/azure_id.h"
#include <errno.h>

int tk_kms_azure_open(const struct tk_kms_azure_options *options, struct tk_kms **ret_kms,
                      struct tk_fault *fault)
{
        (void)options;
        (void)ret_kms;
        return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "this program was built without Azure Key Vault (TK_AZURE=OFF); use "
                            "one that was built with it");
}

bool tk_kms_azure_is_key(const char *text)
{
        struct tk_azure_id id;

        return tk_azure_id_parse(text, &id) == 0;
}
