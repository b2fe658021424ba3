/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What each return value of a PKCS#11 module means for the root key. */

#include "base/fault.h"
#include <p11-kit/pkcs11.h>

enum tk_p11_verdict {
        TK_P11_GOOD,
        TK_P11_LOST,        /* the session or its login is gone: begin anew */
        TK_P11_AWAY,        /* token or module can't be used now; nothing is said of the key */
        TK_P11_GONE,        /* the key is not there */
        TK_P11_REFUSED,     /* the key may not be used for this */
        TK_P11_LOGIN,       /* we are not let in */
        TK_P11_DAMAGED,     /* this ciphertext is bad */
        TK_P11_NOT_OFFERED, /* not in this way; another mechanism may do */
        TK_P11_UNCHANGED,   /* the token does not let itself be changed like that */
};

/* One verdict for every value; what is not in the table is TK_P11_AWAY. */
enum tk_p11_verdict tk_p11_judge(CK_RV rv);

/* "CKR_DEVICE_ERROR", or NULL for one that is not in the table. */
const char *tk_p11_name(CK_RV rv);

/* As kms.h has it: 0, -ENOKEY, -EKEYREVOKED, -EACCES, -EBADMSG, -ENOTSUP or -EPERM. */
int tk_p11_errno(enum tk_p11_verdict verdict);
enum tk_fault_kind tk_p11_fault_kind(enum tk_p11_verdict verdict);
