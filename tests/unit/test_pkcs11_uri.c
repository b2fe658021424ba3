/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/support.h"

#include "kms/pkcs11_uri.h"
#include <errno.h>

#define A32 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_parse__token_and_label(void **state)
{
        struct tk_p11_uri uri;

        assert_int_equal(
                tk_p11_uri_parse("pkcs11:token=My%20HSM;serial=17;object=data%3bkey", &uri, NULL),
                0);
        assert_string_equal(uri.label, "data;key");
        assert_string_equal(uri.pinned, "");
        /* The serial number finds the token; what is recorded does without it. */
        assert_non_null(strstr(uri.key_id, "token=My%20HSM"));
        assert_null(strstr(uri.key_id, "serial"));
        assert_true(tk_p11_uri_same_key(&uri, uri.key_id));
        assert_true(tk_p11_uri_same_key(&uri, "pkcs11:object=data%3Bkey;token=My%20HSM"));
        assert_false(tk_p11_uri_same_key(&uri, "pkcs11:object=data%3Bkey;token=My%20HSM2"));
        assert_false(tk_p11_uri_same_key(&uri, "pkcs11:object=other;token=My%20HSM"));
        assert_false(tk_p11_uri_same_key(&uri, ""));
        assert_false(tk_p11_uri_same_key(&uri, "https://v.vault.azure.net/keys/k"));
        tk_p11_uri_done(&uri);
}

static void test_parse__an_id_pins_a_version(void **state)
{
        struct tk_p11_uri uri;

        assert_int_equal(
                tk_p11_uri_parse("pkcs11:token=t;object=o;id=%01%aB;type=private", &uri, NULL), 0);
        assert_string_equal(uri.pinned, "01ab");
        assert_true(uri.only_private);
        assert_false(uri.only_secret);
        tk_p11_uri_done(&uri);
}

static void test_parse__what_can_t_name_a_root_key(void **state)
{
        /* NOLINTBEGIN(bugprone-suspicious-missing-comma): put together on purpose */
        static const char *const bad[] = {
                "",
                "pkcs11",
                "pkcs11:",
                "pkcs11:token=t",
                "pkcs11:object=o",
                "pkcs11:token=;object=o",
                "pkcs11:token=t;object=",
                "pkcs11:token=t;object=%00",
                "pkcs11:token=t;object=o;nonsense=1",
                "pkcs11:token=t;object=o;type=cert",
                "pkcs11:token=t;object=o;type=public",
                "pkcs11:token=t;object=o;id=",
                "pkcs11:token=t;object=o?pin-value=1234",
                "pkcs11:token=t;object=o?pin-source=file:/x",
                "pkcs11:token=t;object=o?module-path=/x.so",
                "pkcs11:token=t;object=o?module-name=x",
                "pkcs11:token=%zz;object=o",
                "https://v.vault.azure.net/keys/k",
                /* 96 bytes of label; 32 bytes of id */
                "pkcs11:token=t;object=" A32 A32 A32,
                "pkcs11:token=t;object=o;id=" A32,
        };
        /* NOLINTEND(bugprone-suspicious-missing-comma) */

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct tk_fault fault = {0};
                struct tk_p11_uri uri;

                assert_int_equal(tk_p11_uri_parse(bad[i], &uri, &fault), -EINVAL);
                assert_int_equal(fault.kind, TK_FAULT_CONFIG);
                tk_p11_uri_done(&uri);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_parse__token_and_label),
                TK_TEST(test_parse__an_id_pins_a_version),
                TK_TEST(test_parse__what_can_t_name_a_root_key),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
