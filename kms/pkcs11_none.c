/* SPDX-License-Identifier: Apache-2.0 */

/* The stand-in for the `pkcs11` provider in a program that was built without it. */

#include "kms/pkcs11_doctor.h"

#include <errno.h>

int tk_kms_pkcs11_check_uri(const char *uri, struct tk_fault *fault)
{
        (void)uri;
        return tk_fault_set(fault, TK_FAULT_UNSUPPORTED, -ENOTSUP,
                            "this program was built without PKCS#11 (TK_PKCS11=OFF); use one that "
                            "was built with it");
}

int tk_kms_pkcs11_open(const struct tk_kms_pkcs11_options *options, struct tk_kms **ret_kms,
                       struct tk_fault *fault)
{
        (void)ret_kms;
        if (options->reread_free)
                options->reread_free(options->reread_context);
        return tk_kms_pkcs11_check_uri(options->uri, fault);
}

void tk_kms_pkcs11_examine(const struct tk_kms_pkcs11_options *options, tk_kms_finding_fn report,
                           void *context)
{
        struct tk_fault fault = {0};

        (void)!tk_kms_pkcs11_open(options, NULL, &fault);
        report(context, &(struct tk_kms_finding){.level = TK_KMS_FINDING_FAIL,
                                                 .step = "configuration",
                                                 .kind = fault.kind,
                                                 .text = fault.text});
}
