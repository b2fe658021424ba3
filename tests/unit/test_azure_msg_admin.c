/* SPDX-License-Identifier: Apache-2.0 */

/* Messages that change keys: bodies, pages of versions, rotation policies. */

#include "kms/azure_msg_admin.h"
#include "tests/unit/support.h"
#include <errno.h>

#define VERSION "78deebed173b48e48f55abf87ed4cf71"
#define KID "https://v.vault.azure.net/keys/kek/" VERSION

static void test_tk_azure_msg_build_create__texts(void **state)
{
        struct tk_kms_key_spec spec = {.type = "RSA", .bits = 3072, .expires = 1798761600};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;

        assert_int_equal(tk_azure_msg_build_create(&spec, &body), 0);
        assert_string_equal(tk_text_of(body),
                            "{\"kty\":\"RSA\",\"key_size\":3072,\"key_ops\":[\"wrapKey\","
                            "\"unwrapKey\"],\"attributes\":{\"enabled\":true,\"exp\":1798761600}}");
}

static void test_tk_azure_msg_build_import__needs_a_private_key(void **state)
{
        static const uint8_t modulus[256] = {0xc1, [255] = 1};
        static const uint8_t exponent[] = {1, 0, 1};
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        struct tk_secret *body = NULL;

        assert_int_equal(tk_rsa_new_public(modulus, sizeof(modulus), exponent, 3, &rsa), 0);
        assert_int_equal(tk_azure_msg_build_import(rsa, false, &body), -ENOENT);
        assert_null(body);
}

static void test_tk_azure_msg_build_import_blob__whole(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *blob = tk_test_secret("{\"a\":1}", 7);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;

        assert_int_equal(tk_azure_msg_build_import_blob(blob, &body), 0);
        assert_non_null(strstr(tk_text_of(body), "\"kty\":\"RSA-HSM\""));
        assert_non_null(strstr(tk_text_of(body), "\"key_hsm\":\"eyJhIjoxfQ\"}"));
}

static int parse_page(const char *text, struct tk_azure_page *page)
{
        return tk_azure_msg_parse_page(text, strlen(text), page);
}

static void test_tk_azure_msg_parse_page__forms(void **state)
{
        static const struct {
                const char *text;
                size_t count;
                const char *next;
        } good[] = {
                {"{\"value\":[]}", 0, ""},
                {"{\"value\":[],\"nextLink\":null}", 0, ""},
                {"{\"value\":[],\"nextLink\":\"\"}", 0, ""},
                {"{\"value\":[{\"kid\":\"" KID "\",\"attributes\":{\"enabled\":false,\"created\":5}"
                 "}],\"nextLink\":\"https://v.vault.azure.net:443/keys?$skiptoken=x\"}",
                 1, "https://v.vault.azure.net:443/keys?$skiptoken=x"},
        };

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                struct tk_azure_page page;

                assert_int_equal(parse_page(good[i].text, &page), 0);
                assert_int_equal(page.count, good[i].count);
                assert_string_equal(page.next, good[i].next);
                if (page.count > 0) {
                        assert_string_equal(page.items[0].id.version, VERSION);
                        assert_int_equal(page.items[0].attributes.created, 5);
                        assert_false(page.items[0].attributes.enabled);
                }
                tk_azure_page_done(&page);
        }
}

static void test_tk_azure_msg_parse_page__refused(void **state)
{
        static const char *const bad[] = {
                "{}",
                "{\"value\":null}",
                "{\"value\":{}}",
                "{\"value\":[1]}",
                "{\"value\":[],\"nextLink\":7}",
                "{\"value\":[{\"kid\":\"x\",\"attributes\":{\"enabled\":true}}]}",
                "{\"value\":[{\"attributes\":{\"enabled\":true}}]}",
        };
        struct tk_azure_page page = {.items = NULL};
        char *many = malloc(64 + 200);

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(parse_page(bad[i], &page), -EBADMSG);
        snprintf(many, 264, "{\"value\":[%0200d]}", 0);
        for (size_t i = 10; i < 210; i++)
                many[i] = i % 2 ? ',' : '1';
        assert_int_equal(parse_page(many, &page), -EBADMSG);
        free(many);
        assert_null(page.items);
}

static void test_tk_azure_url_is_on__links(void **state)
{
        assert_true(
                tk_azure_url_is_on("https://V.vault.azure.net:443/keys?x", "v.vault.azure.net"));
        assert_true(tk_azure_url_is_on("https://v.x.y:8443/keys", "v.x.y:8443"));
        assert_false(tk_azure_url_is_on("http://v.vault.azure.net/keys", "v.vault.azure.net"));
        assert_false(tk_azure_url_is_on("https://v.vault.azure.net.evil/", "v.vault.azure.net"));
        assert_false(tk_azure_url_is_on("https://v.vault.azure.net@evil/", "v.vault.azure.net"));
        assert_false(tk_azure_url_is_on("https://v.vault.azure.net:1/", "v.vault.azure.net"));
        assert_false(tk_azure_url_is_on("https://evil#v.vault.azure.net/", "v.vault.azure.net"));
        assert_false(tk_azure_url_is_on("/keys", "v.vault.azure.net"));
}

static void test_tk_azure_msg_build_policy__comes_back(void **state)
{
        static const struct tk_kms_rotation_policy policies[] = {
                {0},
                {.rotate_after_days = 90, .notify_before_days = 30},
                {.rotate_before_days = 30, .expiry_days = 120, .notify_before_days = 31},
                {.expiry_days = 28},
        };
        struct tk_kms_rotation_policy both = {.rotate_after_days = 1, .rotate_before_days = 1};
        struct tk_secret *none = NULL;

        for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;
                struct tk_kms_rotation_policy again;

                assert_int_equal(tk_azure_msg_build_policy(&policies[i], &body), 0);
                assert_int_equal(
                        tk_azure_msg_parse_policy(tk_text_of(body), tk_text_len(body), &again), 0);
                assert_int_equal(again.rotate_after_days, policies[i].rotate_after_days);
                assert_int_equal(again.rotate_before_days, policies[i].rotate_before_days);
                assert_int_equal(again.expiry_days, policies[i].expiry_days);
                assert_int_equal(again.notify_before_days, policies[i].notify_before_days);
        }
        assert_int_equal(tk_azure_msg_build_policy(&both, &none), -EINVAL);
}

static void test_tk_azure_msg_parse_policy__durations(void **state)
{
        static const struct {
                const char *text;
                int days; /* -1: refused */
        } durations[] = {
                {"P90D", 90},  {"P3M", 90},  {"P2Y", 730},      {"P1Y2M3D", 428},
                {"P2W", 14},   {"P", -1},    {"90D", -1},       {"P90", -1},
                {"PT1H", -1},  {"P-1D", -1}, {"P1D1D", -1},     {"P1D1Y", -1},
                {"P1.5D", -1}, {"", -1},     {"P9999999D", -1}, {"P999999Y", -1},
        };

        for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
                struct tk_kms_rotation_policy policy = {0};
                char text[128];
                int r;

                snprintf(text, sizeof(text), "{\"attributes\":{\"expiryTime\":\"%s\"}}",
                         durations[i].text);
                r = tk_azure_msg_parse_policy(text, strlen(text), &policy);
                assert_int_equal(r, durations[i].days < 0 ? -EBADMSG : 0);
                if (r == 0)
                        assert_int_equal(policy.expiry_days, durations[i].days);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_tk_azure_msg_build_create__texts),
                TK_TEST(test_tk_azure_msg_build_import__needs_a_private_key),
                TK_TEST(test_tk_azure_msg_build_import_blob__whole),
                TK_TEST(test_tk_azure_msg_parse_page__forms),
                TK_TEST(test_tk_azure_msg_parse_page__refused),
                TK_TEST(test_tk_azure_url_is_on__links),
                TK_TEST(test_tk_azure_msg_build_policy__comes_back),
                TK_TEST(test_tk_azure_msg_parse_policy__durations),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
