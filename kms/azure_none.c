/* SPDX-License-Identifier: Apache-2.0 */

/* The stand-in for the `azure` provider in a program that was built without it. */

#include "kms/azure_doctor.h"

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

void tk_kms_azure_examine(const struct tk_kms_azure_options *options, tk_kms_finding_fn report,
                          void *context)
{
        struct tk_fault fault = {0};

        (void)!tk_kms_azure_open(options, NULL, &fault);
        report(context, &(struct tk_kms_finding){.level = TK_KMS_FINDING_FAIL,
                                                 .step = "configuration",
                                                 .kind = fault.kind,
                                                 .text = fault.text});
}

bool tk_kms_azure_is_key(const char *text)
{
        struct tk_azure_id id;

        return tk_azure_id_parse(text, &id) == 0;
}
