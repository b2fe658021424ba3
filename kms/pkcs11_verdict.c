/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The one table of return values. Revocation loses no data but takes it away, and an outage
 * is waited for: so only what is surely said about the key is TK_P11_GONE or TK_P11_REFUSED.
 */

#include "kms/pkcs11_verdict.h"

#include <errno.h>
#include <stddef.h>

/* Newer than the header of p11-kit 0.24. */
#ifndef CKR_COPY_PROHIBITED
#define CKR_COPY_PROHIBITED 0x1aUL
#endif
#ifndef CKR_AEAD_DECRYPT_FAILED
#define CKR_AEAD_DECRYPT_FAILED 0x42UL
#endif
#ifndef CKR_UNWRAPPING_KEY_HANDLE_INVALID
#define CKR_UNWRAPPING_KEY_HANDLE_INVALID 0xf0UL
#endif
#ifndef CKR_TOKEN_RESOURCE_EXCEEDED
#define CKR_TOKEN_RESOURCE_EXCEEDED 0x201UL
#endif
#ifndef CKR_OPERATION_CANCEL_FAILED
#define CKR_OPERATION_CANCEL_FAILED 0x202UL
#endif

#define ROW(name, verdict)                                                                         \
        {                                                                                          \
                CKR_##name, "CKR_" #name, verdict                                                  \
        }

static const struct row {
        CK_RV rv;
        const char *name;
        enum tk_p11_verdict verdict;
} rows[] = {
        ROW(OK, TK_P11_GOOD),
        ROW(USER_ALREADY_LOGGED_IN, TK_P11_GOOD),
        ROW(CRYPTOKI_ALREADY_INITIALIZED, TK_P11_GOOD),
        ROW(SESSION_CLOSED, TK_P11_LOST),
        ROW(SESSION_HANDLE_INVALID, TK_P11_LOST),
        ROW(USER_NOT_LOGGED_IN, TK_P11_LOST),
        ROW(OPERATION_ACTIVE, TK_P11_LOST),
        ROW(OPERATION_NOT_INITIALIZED, TK_P11_LOST),
        ROW(OPERATION_CANCEL_FAILED, TK_P11_LOST),
        ROW(CRYPTOKI_NOT_INITIALIZED, TK_P11_LOST),
        ROW(SESSION_READ_ONLY, TK_P11_LOST),
        ROW(KEY_CHANGED, TK_P11_LOST),
        ROW(KEY_HANDLE_INVALID, TK_P11_GONE),
        ROW(OBJECT_HANDLE_INVALID, TK_P11_GONE),
        ROW(UNWRAPPING_KEY_HANDLE_INVALID, TK_P11_GONE),
        ROW(WRAPPING_KEY_HANDLE_INVALID, TK_P11_GONE),
        ROW(KEY_FUNCTION_NOT_PERMITTED, TK_P11_REFUSED),
        ROW(PIN_INCORRECT, TK_P11_LOGIN),
        ROW(PIN_INVALID, TK_P11_LOGIN),
        ROW(PIN_LEN_RANGE, TK_P11_LOGIN),
        ROW(PIN_EXPIRED, TK_P11_LOGIN),
        ROW(PIN_LOCKED, TK_P11_LOGIN),
        ROW(PIN_TOO_WEAK, TK_P11_LOGIN),
        ROW(USER_PIN_NOT_INITIALIZED, TK_P11_LOGIN),
        ROW(USER_TYPE_INVALID, TK_P11_LOGIN),
        ROW(NEW_PIN_MODE, TK_P11_LOGIN),
        ROW(NEXT_OTP, TK_P11_LOGIN),
        ROW(ENCRYPTED_DATA_INVALID, TK_P11_DAMAGED),
        ROW(ENCRYPTED_DATA_LEN_RANGE, TK_P11_DAMAGED),
        ROW(WRAPPED_KEY_INVALID, TK_P11_DAMAGED),
        ROW(WRAPPED_KEY_LEN_RANGE, TK_P11_DAMAGED),
        ROW(AEAD_DECRYPT_FAILED, TK_P11_DAMAGED),
        ROW(SIGNATURE_INVALID, TK_P11_DAMAGED),
        ROW(SIGNATURE_LEN_RANGE, TK_P11_DAMAGED),
        ROW(ARGUMENTS_BAD, TK_P11_NOT_OFFERED),
        ROW(MECHANISM_INVALID, TK_P11_NOT_OFFERED),
        ROW(MECHANISM_PARAM_INVALID, TK_P11_NOT_OFFERED),
        ROW(KEY_TYPE_INCONSISTENT, TK_P11_NOT_OFFERED),
        ROW(KEY_SIZE_RANGE, TK_P11_NOT_OFFERED),
        ROW(FUNCTION_NOT_SUPPORTED, TK_P11_NOT_OFFERED),
        ROW(FUNCTION_NOT_PARALLEL, TK_P11_NOT_OFFERED),
        ROW(DATA_INVALID, TK_P11_NOT_OFFERED),
        ROW(DATA_LEN_RANGE, TK_P11_NOT_OFFERED),
        ROW(BUFFER_TOO_SMALL, TK_P11_NOT_OFFERED),
        ROW(KEY_NOT_WRAPPABLE, TK_P11_NOT_OFFERED),
        ROW(KEY_UNEXTRACTABLE, TK_P11_NOT_OFFERED),
        ROW(KEY_NOT_NEEDED, TK_P11_NOT_OFFERED),
        ROW(KEY_NEEDED, TK_P11_NOT_OFFERED),
        ROW(KEY_INDIGESTIBLE, TK_P11_NOT_OFFERED),
        ROW(UNWRAPPING_KEY_SIZE_RANGE, TK_P11_NOT_OFFERED),
        ROW(UNWRAPPING_KEY_TYPE_INCONSISTENT, TK_P11_NOT_OFFERED),
        ROW(WRAPPING_KEY_SIZE_RANGE, TK_P11_NOT_OFFERED),
        ROW(WRAPPING_KEY_TYPE_INCONSISTENT, TK_P11_NOT_OFFERED),
        ROW(PUBLIC_KEY_INVALID, TK_P11_NOT_OFFERED),
        ROW(DOMAIN_PARAMS_INVALID, TK_P11_NOT_OFFERED),
        ROW(CURVE_NOT_SUPPORTED, TK_P11_NOT_OFFERED),
        ROW(ATTRIBUTE_SENSITIVE, TK_P11_NOT_OFFERED),
        ROW(ATTRIBUTE_TYPE_INVALID, TK_P11_NOT_OFFERED),
        ROW(INFORMATION_SENSITIVE, TK_P11_NOT_OFFERED),
        ROW(ATTRIBUTE_READ_ONLY, TK_P11_UNCHANGED),
        ROW(ATTRIBUTE_VALUE_INVALID, TK_P11_UNCHANGED),
        ROW(ACTION_PROHIBITED, TK_P11_UNCHANGED),
        ROW(TEMPLATE_INCOMPLETE, TK_P11_UNCHANGED),
        ROW(TEMPLATE_INCONSISTENT, TK_P11_UNCHANGED),
        ROW(TOKEN_WRITE_PROTECTED, TK_P11_UNCHANGED),
        ROW(COPY_PROHIBITED, TK_P11_UNCHANGED),
        ROW(CANCEL, TK_P11_AWAY),
        ROW(HOST_MEMORY, TK_P11_AWAY),
        ROW(SLOT_ID_INVALID, TK_P11_AWAY),
        ROW(GENERAL_ERROR, TK_P11_AWAY),
        ROW(FUNCTION_FAILED, TK_P11_AWAY),
        ROW(NO_EVENT, TK_P11_AWAY),
        ROW(NEED_TO_CREATE_THREADS, TK_P11_AWAY),
        ROW(CANT_LOCK, TK_P11_AWAY),
        ROW(DEVICE_ERROR, TK_P11_AWAY),
        ROW(DEVICE_MEMORY, TK_P11_AWAY),
        ROW(DEVICE_REMOVED, TK_P11_AWAY),
        ROW(FUNCTION_CANCELED, TK_P11_AWAY),
        ROW(SESSION_COUNT, TK_P11_AWAY),
        ROW(SESSION_PARALLEL_NOT_SUPPORTED, TK_P11_AWAY),
        ROW(SESSION_EXISTS, TK_P11_AWAY),
        ROW(SESSION_READ_ONLY_EXISTS, TK_P11_AWAY),
        ROW(SESSION_READ_WRITE_SO_EXISTS, TK_P11_AWAY),
        ROW(TOKEN_NOT_PRESENT, TK_P11_AWAY),
        ROW(TOKEN_NOT_RECOGNIZED, TK_P11_AWAY),
        ROW(USER_ANOTHER_ALREADY_LOGGED_IN, TK_P11_AWAY),
        ROW(USER_TOO_MANY_TYPES, TK_P11_AWAY),
        ROW(RANDOM_SEED_NOT_SUPPORTED, TK_P11_AWAY),
        ROW(RANDOM_NO_RNG, TK_P11_AWAY),
        ROW(SAVED_STATE_INVALID, TK_P11_AWAY),
        ROW(STATE_UNSAVEABLE, TK_P11_AWAY),
        ROW(MUTEX_BAD, TK_P11_AWAY),
        ROW(MUTEX_NOT_LOCKED, TK_P11_AWAY),
        ROW(EXCEEDED_MAX_ITERATIONS, TK_P11_AWAY),
        ROW(FIPS_SELF_TEST_FAILED, TK_P11_AWAY),
        ROW(LIBRARY_LOAD_FAILED, TK_P11_AWAY),
        ROW(FUNCTION_REJECTED, TK_P11_AWAY),
        ROW(TOKEN_RESOURCE_EXCEEDED, TK_P11_AWAY),
};

static const struct row *find(CK_RV rv)
{
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (rows[i].rv == rv)
                        return &rows[i];
        return NULL;
}

enum tk_p11_verdict tk_p11_judge(CK_RV rv)
{
        const struct row *row = find(rv);

        return row ? row->verdict : TK_P11_AWAY;
}

const char *tk_p11_name(CK_RV rv)
{
        const struct row *row = find(rv);

        return row ? row->name : NULL;
}

int tk_p11_errno(enum tk_p11_verdict verdict)
{
        static const int errors[] = {
                [TK_P11_GOOD] = 0,
                [TK_P11_LOST] = -ENOKEY,
                [TK_P11_AWAY] = -ENOKEY,
                [TK_P11_GONE] = -EKEYREVOKED,
                [TK_P11_REFUSED] = -EKEYREVOKED,
                [TK_P11_LOGIN] = -EACCES,
                [TK_P11_DAMAGED] = -EBADMSG,
                [TK_P11_NOT_OFFERED] = -ENOTSUP,
                [TK_P11_UNCHANGED] = -EPERM,
        };

        return errors[verdict];
}

enum tk_fault_kind tk_p11_fault_kind(enum tk_p11_verdict verdict)
{
        static const enum tk_fault_kind kinds[] = {
                [TK_P11_GOOD] = TK_FAULT_NONE,
                [TK_P11_LOST] = TK_FAULT_KMS_UNREACHABLE,
                [TK_P11_AWAY] = TK_FAULT_KMS_UNREACHABLE,
                [TK_P11_GONE] = TK_FAULT_KEY_REVOKED,
                [TK_P11_REFUSED] = TK_FAULT_KEY_REVOKED,
                [TK_P11_LOGIN] = TK_FAULT_PASSPHRASE,
                [TK_P11_DAMAGED] = TK_FAULT_VOLUME_DAMAGED,
                [TK_P11_NOT_OFFERED] = TK_FAULT_UNSUPPORTED,
                [TK_P11_UNCHANGED] = TK_FAULT_PERMISSION,
        };

        return kinds[verdict];
}
