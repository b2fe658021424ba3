/* SPDX-License-Identifier: Apache-2.0 */

/* Messages of Key Vault: identifiers, key descriptions, wrapped keys, errors, verdicts. */

#include "kms/azure_json.h"
#include "kms/azure_msg.h"
#include "tests/unit/support.h"
#include <errno.h>

#define VERSION "78deebed173b48e48f55abf87ed4cf71"
#define KID "https://v.vault.azure.net/keys/kek/" VERSION

/* Identifiers */

static void test_tk_azure_id_parse__forms(void **state)
{
        struct tk_azure_id id;

        assert_int_equal(tk_azure_id_parse("https://V.Vault.azure.NET/keys/Kek", &id), 0);
        assert_string_equal(id.host, "v.vault.azure.net");
        assert_string_equal(id.name, "Kek");
        assert_string_equal(id.version, "");
        assert_int_equal(tk_azure_id_parse("https://v.vault.localhost:8443/keys/a-1/0aF", &id), 0);
        assert_string_equal(id.host, "v.vault.localhost:8443");
        assert_string_equal(id.version, "0aF");
        assert_int_equal(tk_azure_id_parse("https://v.vault.azure.net:443/keys/a", &id), 0);
        assert_string_equal(id.host, "v.vault.azure.net");
        assert_int_equal(tk_azure_id_parse_deleted("https://v.x.y/deletedkeys/a", &id), 0);
}

static void test_tk_azure_id_parse__refused(void **state)
{
        static const char *const bad[] = {
                "",
                "https://",
                "http://v.vault.azure.net/keys/kek",
                "https://v.vault.azure.net",
                "https://v.vault.azure.net/keys/",
                "https://v.vault.azure.net/keys/kek/",
                "https://v.vault.azure.net/keys//kek",
                /* NOLINTNEXTLINE(bugprone-suspicious-missing-comma): a macro in it */
                "https://v.vault.azure.net/keys/kek/" VERSION "/",
                "https://v.vault.azure.net/keys/kek/a/b",
                "https://v.vault.azure.net/keys/k_k",
                "https://v.vault.azure.net/keys/kek/a-b",
                "https://v.vault.azure.net/keys/kek?x=1",
                "https://v.vault.azure.net/secrets/kek",
                "https://v.vault.azure.net/deletedkeys/kek",
                "https://user@v.vault.azure.net/keys/kek",
                "https://v.vault.azure.net:/keys/kek",
                "https://v.vault.azure.net:0/keys/kek",
                "https://v.vault.azure.net:65536/keys/kek",
                "https://v.vault.azure.net:443x/keys/kek",
                "https://v..net/keys/kek",
                "https://.net/keys/kek",
                "https://v.vault.azure.net./keys/kek",
                "https://v.vault.azure.net\\@evil/keys/kek",
                "https://v%2evault.azure.net/keys/kek",
                "https://[::1]/keys/kek",
        };
        struct tk_azure_id id;
        char longer[400];

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(tk_azure_id_parse(bad[i], &id), -EINVAL);
        snprintf(longer, sizeof(longer), "https://v.net/keys/%0128d", 0);
        assert_int_equal(tk_azure_id_parse(longer, &id), -EINVAL);
        snprintf(longer, sizeof(longer), "https://v.net/keys/%0127d", 0);
        assert_int_equal(tk_azure_id_parse(longer, &id), 0);
        snprintf(longer, sizeof(longer), "https://v.net/keys/k/%064d", 0);
        assert_int_equal(tk_azure_id_parse(longer, &id), -EINVAL);
        snprintf(longer, sizeof(longer), "https://%0128d/keys/k", 0);
        assert_int_equal(tk_azure_id_parse(longer, &id), -EINVAL);
}

static void test_tk_azure_id_same_key__case(void **state)
{
        struct tk_azure_id a;
        struct tk_azure_id b;

        assert_int_equal(tk_azure_id_parse("https://v.vault.azure.net/keys/kek", &a), 0);
        assert_int_equal(tk_azure_id_parse("https://V.VAULT.azure.net/keys/KEK/1", &b), 0);
        assert_true(tk_azure_id_same_key(&a, &b));
        assert_int_equal(tk_azure_id_parse("https://v.vault.azure.net:1/keys/kek", &b), 0);
        assert_false(tk_azure_id_same_key(&a, &b));
        assert_int_equal(tk_azure_id_parse("https://v.vault.azure.net/keys/kek2", &b), 0);
        assert_false(tk_azure_id_same_key(&a, &b));
}

static void test_tk_azure_cloud_of__suffixes(void **state)
{
        assert_string_equal(tk_azure_cloud_of("v.vault.azure.net")->audience,
                            "https://vault.azure.net");
        assert_true(tk_azure_cloud_of("h.managedhsm.azure.net:8443")->managed_hsm);
        assert_string_equal(tk_azure_cloud_of("v.vault.azure.cn")->authority,
                            "login.chinacloudapi.cn");
        assert_string_equal(tk_azure_cloud_of("v.vault.usgovcloudapi.net")->authority,
                            "login.microsoftonline.us");
        assert_null(tk_azure_cloud_of("vault.azure.net"));
        assert_null(tk_azure_cloud_of("v.vault.azure.net.evil.example"));
        assert_null(tk_azure_cloud_of("evilvault.azure.net"));
}

static void test_tk_azure_audience_fits__only_below(void **state)
{
        assert_true(tk_azure_audience_fits("https://vault.azure.net", "v.vault.azure.net"));
        assert_true(tk_azure_audience_fits("https://vault.azure.net/", "v.vault.azure.net:8443"));
        assert_true(tk_azure_audience_fits("https://Vault.localhost:1", "v.vault.localhost:2"));
        assert_false(tk_azure_audience_fits("https://vault.azure.net", "vault.azure.net"));
        assert_false(tk_azure_audience_fits("https://vault.azure.net", "vvault.azure.net"));
        assert_false(tk_azure_audience_fits("https://vault.azure.net", "v.vault.azure.net.x"));
        assert_false(tk_azure_audience_fits("http://vault.azure.net", "v.vault.azure.net"));
        assert_false(tk_azure_audience_fits("https://net", "v.vault.azure.net"));
        assert_false(tk_azure_audience_fits("https://graph.microsoft.com", "v.vault.azure.net"));
        assert_false(tk_azure_audience_fits("https://vault.azure.net/x", "v.vault.azure.net"));
        assert_false(tk_azure_audience_fits("", "v.vault.azure.net"));
}

/* JSON */

static void test_tk_azure_json_parse__strict(void **state)
{
        static const char *const bad[] = {
                "",
                "[]",
                "1",
                "\"a\"",
                "{\"a\":1,\"a\":2}",
                "{\"a\":1",
                "{} {}",
                "{\"a\":}",
                "{\"a\":\"\xff\"}",
                "{\"a\":\"\\u0000\"}",
                "{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
        };
        static const char brackets[] = "{\"[[[[[[[[[[[[[[[[[[[\":\"\\\"{\"}";
        json_t *root = NULL;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(tk_azure_json_parse(bad[i], strlen(bad[i]), &root), -EBADMSG);
        assert_int_equal(tk_azure_json_parse(brackets, strlen(brackets), &root), 0);
        json_decref(root);
}

/* Keys */

static char *key_text(const char *kid, const char *kty, const char *more, const char *attributes)
{
        static char text[4096];
        static const uint8_t modulus[256] = {0xc1, [255] = 1};
        char n[512];

        tk_base64url_encode(modulus, sizeof(modulus), n);
        snprintf(text, sizeof(text),
                 "{\"key\":{\"kid\":\"%s\",\"kty\":\"%s\",\"n\":\"%s\",\"e\":\"AQAB\"%s},"
                 "\"attributes\":{%s},\"tags\":{\"a\":\"b\"},\"unknown\":[1,{}]}",
                 kid, kty, n, more, attributes);
        return text;
}

static int parse_key(const char *text, struct tk_azure_key *ret_key)
{
        return tk_azure_msg_parse_key(text, strlen(text), ret_key);
}

static void test_tk_azure_msg_parse_key__whole(void **state)
{
        struct tk_azure_key key;

        assert_int_equal(
                parse_key(key_text(KID, "RSA-HSM",
                                   ",\"key_ops\":[\"wrapKey\",\"unwrapKey\",\"future\"]",
                                   "\"enabled\":true,\"nbf\":5,\"exp\":1798761600,\"created\":7,"
                                   "\"recoveryLevel\":\"CustomizedRecoverable\","
                                   "\"recoverableDays\":7,\"hsmPlatform\":\"2\""),
                          &key),
                0);
        assert_string_equal(key.id.version, VERSION);
        assert_string_equal(key.type, "RSA-HSM");
        assert_int_equal(key.ops, TK_AZURE_OP_WRAP | TK_AZURE_OP_UNWRAP);
        assert_true(key.attributes.enabled);
        assert_int_equal(key.attributes.not_before, 5);
        assert_int_equal(key.attributes.expires, 1798761600);
        assert_int_equal(key.attributes.updated, -1);
        assert_int_equal(key.attributes.recoverable_days, 7);
        assert_int_equal(key.n_len, 256);
        assert_int_equal(key.e_len, 3);
        assert_true(tk_azure_msg_purge_protected(&key.attributes));
}

static void test_tk_azure_msg_parse_key__refused(void **state)
{
        static const char *const attributes[] = {
                "",
                "\"enabled\":1",
                "\"enabled\":null",
                "\"enabled\":true,\"exp\":\"1\"",
                "\"enabled\":true,\"exp\":1.5",
                "\"enabled\":true,\"exp\":-1",
                "\"enabled\":true,\"exp\":9000000000000000000",
                "\"enabled\":true,\"recoveryLevel\":7",
                /* NOLINTNEXTLINE(bugprone-suspicious-missing-comma): one long text */
                "\"enabled\":true,\"recoveryLevel\":"
                "\"0123456789012345678901234567890123456789012345678901234567890123\"",
        };
        static const char *const kids[] = {"https://v.vault.azure.net/keys/kek",
                                           "http://v.vault.azure.net/keys/kek/1", "",
                                           "https://v.vault.azure.net/keys/kek/" VERSION "/"};
        static const char *const texts[] = {
                "{}",
                "{\"key\":[],\"attributes\":{\"enabled\":true}}",
                "{\"key\":{\"kid\":\"" KID "\",\"kty\":\"RSA\",\"n\":\"AQAB\"},"
                "\"attributes\":{\"enabled\":true}}",
                "{\"key\":{\"kid\":\"" KID "\",\"kty\":\"RSA\",\"n\":\"A+/=\",\"e\":\"AQAB\"},"
                "\"attributes\":{\"enabled\":true}}",
                "{\"key\":{\"kid\":\"" KID "\",\"kty\":\"RSA\",\"key_ops\":[1]},"
                "\"attributes\":{\"enabled\":true}}",
                "{\"key\":{\"kid\":\"" KID "\",\"kty\":\"RSAisAVeryLongType\"},"
                "\"attributes\":{\"enabled\":true}}"};
        struct tk_azure_key key = {.n_len = 77};

        for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
                assert_int_equal(parse_key(key_text(KID, "RSA", "", attributes[i]), &key),
                                 -EBADMSG);
        for (size_t i = 0; i < sizeof(kids) / sizeof(kids[0]); i++)
                assert_int_equal(parse_key(key_text(kids[i], "RSA", "", "\"enabled\":true"), &key),
                                 -EBADMSG);
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                assert_int_equal(parse_key(texts[i], &key), -EBADMSG);
        assert_int_equal(key.n_len, 77);
}

static void test_tk_azure_msg_algorithm__by_type(void **state)
{
        assert_string_equal(tk_azure_msg_algorithm("RSA"), "RSA-OAEP-256");
        assert_string_equal(tk_azure_msg_algorithm("RSA-HSM"), "RSA-OAEP-256");
        assert_string_equal(tk_azure_msg_algorithm("oct-HSM"), "A256KW");
        assert_null(tk_azure_msg_algorithm("EC"));
        assert_null(tk_azure_msg_algorithm(""));
}

static void test_tk_azure_msg_purge_protected__levels(void **state)
{
        static const struct {
                const char *level;
                bool protected;
        } levels[] = {
                {"Purgeable", false},
                {"Recoverable+Purgeable", false},
                {"Recoverable", true},
                {"Recoverable+ProtectedSubscription", true},
                {"CustomizedRecoverable+Purgeable", false},
                {"CustomizedRecoverable", true},
                {"CustomizedRecoverable+ProtectedSubscription", true},
                {"", false},
        };

        for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
                struct tk_azure_attributes attributes = {0};

                snprintf(attributes.recovery_level, sizeof(attributes.recovery_level), "%s",
                         levels[i].level);
                assert_int_equal(tk_azure_msg_purge_protected(&attributes), levels[i].protected);
        }
}

/* Wrapped keys */

static void test_tk_azure_msg_build_crypto__text(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;

        assert_int_equal(tk_azure_msg_build_crypto("RSA-OAEP-256", "\xfb\xff\xfe", 3, &body), 0);
        assert_string_equal(tk_text_of(body), "{\"alg\":\"RSA-OAEP-256\",\"value\":\"-__-\"}");
}

static int parse_crypto(const char *text, struct tk_azure_id *id, struct tk_secret **value)
{
        return tk_azure_msg_parse_crypto(text, strlen(text), id, value);
}

static void test_tk_azure_msg_parse_crypto__good(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *value = NULL;
        struct tk_azure_id id;

        assert_int_equal(parse_crypto("{\"kid\":\"" KID "\",\"value\":\"-__-\"}", &id, &value), 0);
        assert_string_equal(id.name, "kek");
        assert_int_equal(tk_secret_len(value), 3);
        assert_memory_equal(tk_secret_bytes(value), "\xfb\xff\xfe", 3);
}

static void test_tk_azure_msg_parse_crypto__refused(void **state)
{
        static const char *const bad[] = {
                "{\"kid\":\"" KID "\"}",
                "{\"value\":\"AAAA\"}",
                "{\"kid\":\"" KID "\",\"value\":\"\"}",
                "{\"kid\":\"" KID "\",\"value\":null}",
                "{\"kid\":\"" KID "\",\"value\":[1]}",
                "{\"kid\":\"" KID "\",\"value\":\"AA==\"}",
                "{\"kid\":\"" KID "\",\"value\":\"A\"}",
                "{\"kid\":\"" KID "\",\"value\":\"A+AA\"}",
                "{\"kid\":\"https://v.vault.azure.net/keys/kek\",\"value\":\"AAAA\"}",
                "{\"kid\":7,\"value\":\"AAAA\"}",
        };
        struct tk_secret *value = NULL;
        struct tk_azure_id id;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(parse_crypto(bad[i], &id, &value), -EBADMSG);
        assert_null(value);
}

/* Errors */

static enum tk_azure_verdict judge(int status, const char *text)
{
        struct tk_azure_error error;

        tk_azure_msg_parse_error(text, strlen(text), &error);
        return tk_azure_msg_judge(status, &error);
}

#define ERROR(code, inner)                                                                         \
        "{\"error\":{\"code\":\"" code "\",\"message\":\"m\",\"innererror\":{\"code\":\"" inner    \
        "\"}}}"

static void test_tk_azure_msg_judge__table(void **state)
{
        static const struct {
                int status;
                enum tk_azure_verdict verdict;
                const char *text;
        } rows[] = {
                {200, TK_AZURE_GOOD, "{}"},
                {204, TK_AZURE_GOOD, ""},
                {403, TK_AZURE_KEY_DISABLED, ERROR("Forbidden", "KeyDisabled")},
                {403, TK_AZURE_KEY_FORBIDS, ERROR("Forbidden", "KeyOperationForbidden")},
                {403, TK_AZURE_KEY_EXPIRED, ERROR("Forbidden", "KeyExpired")},
                {403, TK_AZURE_KEY_EXPIRED, ERROR("Forbidden", "KeyNotYetValid")},
                {403, TK_AZURE_DENIED_ROLE, ERROR("Forbidden", "ForbiddenByRbac")},
                {403, TK_AZURE_DENIED_POLICY, ERROR("Forbidden", "ForbiddenByPolicy")},
                {403, TK_AZURE_DENIED_POLICY, ERROR("Forbidden", "AccessDenied")},
                {403, TK_AZURE_FIREWALL, ERROR("Forbidden", "ForbiddenByFirewall")},
                {403, TK_AZURE_PRIVATE_ONLY, ERROR("Forbidden", "ForbiddenByConnection")},
                {403, TK_AZURE_DENIED, ERROR("Forbidden", "SomethingNew")},
                {403, TK_AZURE_DENIED_ROLE, "{\"error\":{\"code\":\"ForbiddenByRbac\"}}"},
                {403, TK_AZURE_DENIED, "{\"error\":{\"code\":\"Forbidden\"}}"},
                {403, TK_AZURE_DENIED, "<html>"},
                {403, TK_AZURE_KEY_DISABLED,
                 "{\"error\":{\"code\":\"Forbidden\",\"innererror\":{\"code\":\"New\","
                 "\"innererror\":{\"code\":\"KeyDisabled\"}}}}"},
                {404, TK_AZURE_KEY_GONE, "{\"error\":{\"code\":\"KeyNotFound\"}}"},
                {401, TK_AZURE_NOT_ACCEPTED, ""},
                {400, TK_AZURE_BAD_REQUEST, "{\"error\":{\"code\":\"BadParameter\"}}"},
                {409, TK_AZURE_CONFLICT, ""},
                {408, TK_AZURE_BUSY, ""},
                {429, TK_AZURE_BUSY, ""},
                {500, TK_AZURE_BUSY, ""},
                {503, TK_AZURE_BUSY, ""},
                {302, TK_AZURE_STRANGE, ""},
                {418, TK_AZURE_STRANGE, ""},
                {0, TK_AZURE_STRANGE, ""},
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                assert_int_equal(judge(rows[i].status, rows[i].text), rows[i].verdict);
}

static void test_tk_azure_msg_parse_error__printable(void **state)
{
        static const char text[] = "{\"error\":{\"code\":\"For\\u001b[31mbidden\",\"message\":"
                                   "\"line one\\nline two \xc3\xa4\",\"innererror\":7}}";
        struct tk_azure_error error;

        tk_azure_msg_parse_error(text, strlen(text), &error);
        assert_string_equal(error.code, "For?[31mbidden");
        assert_string_equal(error.message, "line one line two ??");
        assert_string_equal(error.inner, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_tk_azure_id_parse__forms),
                TK_TEST(test_tk_azure_id_parse__refused),
                TK_TEST(test_tk_azure_id_same_key__case),
                TK_TEST(test_tk_azure_cloud_of__suffixes),
                TK_TEST(test_tk_azure_audience_fits__only_below),
                TK_TEST(test_tk_azure_json_parse__strict),
                TK_TEST(test_tk_azure_msg_parse_key__whole),
                TK_TEST(test_tk_azure_msg_parse_key__refused),
                TK_TEST(test_tk_azure_msg_algorithm__by_type),
                TK_TEST(test_tk_azure_msg_purge_protected__levels),
                TK_TEST(test_tk_azure_msg_build_crypto__text),
                TK_TEST(test_tk_azure_msg_parse_crypto__good),
                TK_TEST(test_tk_azure_msg_parse_crypto__refused),
                TK_TEST(test_tk_azure_msg_judge__table),
                TK_TEST(test_tk_azure_msg_parse_error__printable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
