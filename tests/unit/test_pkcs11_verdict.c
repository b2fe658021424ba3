/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/support.h"

#include "fs/lease.h"
#include "kms/pkcs11_verdict.h"
#include <errno.h>

enum { RV_END = 0x1000, KNOWN_MIN = 95 };

static void test_judge__every_value_has_one_verdict(void **state)
{
        unsigned known = 0;

        for (CK_RV rv = 0; rv < RV_END; rv++) {
                enum tk_p11_verdict verdict = tk_p11_judge(rv);

                known += tk_p11_name(rv) != NULL;
                if (!tk_p11_name(rv))
                        assert_int_equal(verdict, TK_P11_AWAY);
        }
        assert_true(known >= KNOWN_MIN);
        assert_int_equal(tk_p11_judge(CKR_VENDOR_DEFINED), TK_P11_AWAY);
        assert_int_equal(tk_p11_judge(CKR_VENDOR_DEFINED | 7), TK_P11_AWAY);
        assert_int_equal(tk_p11_judge(~0UL), TK_P11_AWAY);
}

/* What takes data away for a reason: nothing that a token in trouble could say. */
static void test_judge__few_values_revoke(void **state)
{
        static const CK_RV revoking[] = {
                CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_WRAPPING_KEY_HANDLE_INVALID,
                0xf0 /* CKR_UNWRAPPING_KEY_HANDLE_INVALID */, CKR_KEY_FUNCTION_NOT_PERMITTED};
        unsigned count = 0;

        for (CK_RV rv = 0; rv < RV_END; rv++) {
                int r = tk_p11_errno(tk_p11_judge(rv));

                count += tk_lease_answer_of(r) == TK_LEASE_REFUSED;
        }
        assert_int_equal(count, sizeof(revoking) / sizeof(revoking[0]));
        for (size_t i = 0; i < count; i++)
                assert_int_equal(tk_p11_errno(tk_p11_judge(revoking[i])), -EKEYREVOKED);
}

static void test_judge__what_the_lease_makes_of_it(void **state)
{
        static const struct {
                CK_RV rv;
                enum tk_lease_answer answer;
        } cases[] = {
                {CKR_OK, TK_LEASE_USABLE},
                {CKR_DEVICE_ERROR, TK_LEASE_UNREACHABLE},
                {CKR_DEVICE_MEMORY, TK_LEASE_UNREACHABLE},
                {CKR_DEVICE_REMOVED, TK_LEASE_UNREACHABLE},
                {CKR_TOKEN_NOT_PRESENT, TK_LEASE_UNREACHABLE},
                {CKR_TOKEN_NOT_RECOGNIZED, TK_LEASE_UNREACHABLE},
                {CKR_SESSION_HANDLE_INVALID, TK_LEASE_UNREACHABLE},
                {CKR_SESSION_CLOSED, TK_LEASE_UNREACHABLE},
                {CKR_USER_NOT_LOGGED_IN, TK_LEASE_UNREACHABLE},
                {CKR_GENERAL_ERROR, TK_LEASE_UNREACHABLE},
                {CKR_FUNCTION_FAILED, TK_LEASE_UNREACHABLE},
                {CKR_HOST_MEMORY, TK_LEASE_UNREACHABLE},
                {CKR_CRYPTOKI_NOT_INITIALIZED, TK_LEASE_UNREACHABLE},
                {CKR_MECHANISM_INVALID, TK_LEASE_UNREACHABLE},
                {CKR_ENCRYPTED_DATA_INVALID, TK_LEASE_UNREACHABLE}, /* nothing of the key */
                {CKR_PIN_INCORRECT, TK_LEASE_UNKNOWN_US},
                {CKR_PIN_LOCKED, TK_LEASE_UNKNOWN_US},
                {CKR_PIN_EXPIRED, TK_LEASE_UNKNOWN_US},
                {CKR_USER_PIN_NOT_INITIALIZED, TK_LEASE_UNKNOWN_US},
                {CKR_KEY_FUNCTION_NOT_PERMITTED, TK_LEASE_REFUSED},
                {CKR_KEY_HANDLE_INVALID, TK_LEASE_REFUSED},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                assert_int_equal(tk_lease_answer_of(tk_p11_errno(tk_p11_judge(cases[i].rv))),
                                 cases[i].answer);
}

static void test_fault_kind__every_failure_has_one(void **state)
{
        for (int verdict = TK_P11_GOOD; verdict <= TK_P11_UNCHANGED; verdict++) {
                bool fails = verdict != TK_P11_GOOD;

                assert_int_equal(tk_p11_errno((enum tk_p11_verdict)verdict) < 0, fails);
                assert_int_equal(tk_p11_fault_kind((enum tk_p11_verdict)verdict) != TK_FAULT_NONE,
                                 fails);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_judge__every_value_has_one_verdict),
                TK_TEST(test_judge__few_values_revoke),
                TK_TEST(test_judge__what_the_lease_makes_of_it),
                TK_TEST(test_fault_kind__every_failure_has_one),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
