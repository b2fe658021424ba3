/* SPDX-License-Identifier: Apache-2.0 */

/* Messages of Entra ID and managed identity: challenges, tokens, forms, assertions. */

#include "kms/azure_auth.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

static void test_tk_azure_auth_parse_challenge__forms(void **state)
{
        static const char *const headers[] = {
                "Bearer authorization=\"https://login.microsoftonline.com/t-1\", "
                "resource=\"https://vault.azure.net\"",
                "bearer authorization_uri=\"https://login.windows.net/t-1/oauth2\" "
                "scope=\"https://vault.azure.net/.default\"",
                "Bearer authorization=\"https://login.windows.net/t-1\",resource="
                "\"https://vault.azure.net/\"",
        };
        struct tk_azure_challenge challenge;

        for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
                assert_int_equal(tk_azure_auth_parse_challenge(headers[i], &challenge), 0);
                assert_string_equal(challenge.tenant, "t-1");
                assert_string_equal(challenge.resource, "https://vault.azure.net");
                assert_false(challenge.wants_claims);
        }
}

static void test_tk_azure_auth_parse_challenge__claims(void **state)
{
        /* {"a":">>?\?>"} has both characters in which the alphabets differ. */
        static const char *const encoded[] = {"eyJhIjoiPj4_Pz4ifQ", "eyJhIjoiPj4/Pz4ifQ=="};
        struct tk_azure_challenge challenge;
        char header[256];

        for (size_t i = 0; i < 2; i++) {
                snprintf(header, sizeof(header),
                         "Bearer realm=\"\", authorization_uri=\"https://l/common\", "
                         "error=\"insufficient_claims\", claims=\"%s\"",
                         encoded[i]);
                assert_int_equal(tk_azure_auth_parse_challenge(header, &challenge), 0);
                assert_true(challenge.wants_claims);
                assert_string_equal(challenge.claims, "{\"a\":\">>?\?>\"}");
        }
}

static void test_tk_azure_auth_parse_challenge__hostile(void **state)
{
        static const char *const headers[] = {
                "Bearer authorization=\"http://evil/t-1\", resource=\"http://vault.azure.net\"",
                "Bearer authorization=\"https://login\", resource=\"https://\"",
                "Bearer authorization=\"https://l/../x?y\", resource=\"https://a/b\"",
                "Bearer authorization=\"https://l/t 1\", resource=\"https://a@b\"",
                "Bearer authorization=https://l/t-1",
                "Bearer claims=\"!!!!\", resource=\"unterminated",
                "Bearer claims=\"W10\"",
                "Bearer ",
        };
        struct tk_azure_challenge challenge;

        for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
                assert_int_equal(tk_azure_auth_parse_challenge(headers[i], &challenge), 0);
                assert_true(challenge.tenant[0] == '\0' || strcmp(challenge.tenant, "..") != 0);
                assert_string_equal(challenge.resource, "");
                assert_string_equal(challenge.claims, "");
        }
        assert_int_equal(tk_azure_auth_parse_challenge("", &challenge), -EBADMSG);
        assert_int_equal(tk_azure_auth_parse_challenge("Basic realm=\"x\"", &challenge), -EBADMSG);
        assert_int_equal(tk_azure_auth_parse_challenge("PoP nonce=\"x\"", &challenge), -EBADMSG);
}

static void test_tk_azure_auth_parse_arc_challenge__only_its_directory(void **state)
{
        static const char *const bad[] = {
                "",
                "Bearer realm=/var/opt/azcmagent/tokens/a.key",
                "Basic realm=/etc/shadow",
                "Basic realm=/var/opt/azcmagent/tokens/../x.key",
                "Basic realm=/var/opt/azcmagent/tokens/a/b.key",
                "Basic realm=/var/opt/azcmagent/tokens/.key",
                "Basic realm=/var/opt/azcmagent/tokens/a.txt",
                "Basic realm=/var/opt/azcmagent/tokensx/a.key",
        };
        char path[64];

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(tk_azure_auth_parse_arc_challenge(bad[i], path, sizeof(path)),
                                 -EBADMSG);
        assert_int_equal(
                tk_azure_auth_parse_arc_challenge("Basic realm=/var/opt/azcmagent/tokens/1-2.key",
                                                  path, sizeof(path)),
                0);
        assert_string_equal(path, "/var/opt/azcmagent/tokens/1-2.key");
        assert_int_equal(tk_azure_auth_parse_arc_challenge(
                                 "Basic realm=/var/opt/azcmagent/tokens/1-2.key", path, 20),
                         -EBADMSG);
}

static int parse_token(const char *text, struct tk_secret **token, int64_t *lifetime)
{
        return tk_azure_auth_parse_token(text, strlen(text), 1000, token, lifetime);
}

static void test_tk_azure_auth_parse_token__lifetimes(void **state)
{
        static const struct {
                const char *text;
                int64_t lifetime;
        } good[] = {
                {"{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"a.b-c_~+/=\"}",
                 3599},
                {"{\"expires_in\":\"86399\",\"expires_on\":\"1\",\"access_token\":\"a.b-c_~+/=\"}",
                 86399},
                {"{\"expires_on\":\"1600\",\"access_token\":\"a.b-c_~+/=\"}", 600},
                {"{\"expires_in\":99999999,\"access_token\":\"a.b-c_~+/=\"}", 100800},
        };

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *token = NULL;
                int64_t lifetime;

                assert_int_equal(parse_token(good[i].text, &token, &lifetime), 0);
                assert_int_equal(lifetime, good[i].lifetime);
                assert_string_equal(tk_text_of(token), "a.b-c_~+/=");
        }
}

static void test_tk_azure_auth_parse_token__refused(void **state)
{
        static const char *const bad[] = {
                "{\"expires_in\":3599}",
                "{\"access_token\":\"abc\"}",
                "{\"access_token\":\"\",\"expires_in\":1}",
                "{\"access_token\":\"a\\r\\nX: y\",\"expires_in\":1}",
                "{\"access_token\":\"a b\",\"expires_in\":1}",
                "{\"access_token\":1,\"expires_in\":1}",
                "{\"access_token\":\"a\",\"expires_in\":0}",
                "{\"access_token\":\"a\",\"expires_in\":-5}",
                "{\"access_token\":\"a\",\"expires_in\":\"5s\"}",
                "{\"access_token\":\"a\",\"expires_in\":true}",
                "{\"access_token\":\"a\",\"expires_on\":\"999\"}",
                "{\"access_token\":\"a\",\"expires_in\":1,\"token_type\":\"pop\"}",
        };
        struct tk_secret *token = NULL;
        int64_t lifetime;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(parse_token(bad[i], &token, &lifetime), -EBADMSG);
        assert_null(token);
}

static void test_tk_azure_auth_parse_cli__fields(void **state)
{
        static const char text[] =
                "{\"accessToken\":\"abc\",\"expiresOn\":\"2025-01-01 12:00:00.000000\","
                "\"expires_on\":1300,\"subscription\":\"s\",\"tenant\":\"t\","
                "\"tokenType\":\"Bearer\"}";
        TK_CLEANUP(tk_secret_freep) struct tk_secret *token = NULL;
        int64_t lifetime;

        assert_int_equal(tk_azure_auth_parse_cli(text, strlen(text), 1000, &token, &lifetime), 0);
        assert_int_equal(lifetime, 300);
        assert_string_equal(tk_text_of(token), "abc");
        assert_int_equal(
                tk_azure_auth_parse_cli("{\"accessToken\":\"abc\"}", 21, 1, &token, &lifetime),
                -EBADMSG);
}

static void test_tk_azure_auth_parse_error__number(void **state)
{
        static const char by_list[] = "{\"error\":\"invalid_client\",\"error_description\":\"x\","
                                      "\"error_codes\":[7000215],\"trace_id\":\"t\"}";
        static const char by_text[] = "{\"error\":\"unauthorized_client\","
                                      "\"error_description\":\"AADSTS700016: no such app\"}";
        struct tk_azure_auth_error error;

        tk_azure_auth_parse_error(by_list, strlen(by_list), &error);
        assert_int_equal(error.number, 7000215);
        assert_string_equal(error.trace_id, "t");
        tk_azure_auth_parse_error(by_text, strlen(by_text), &error);
        assert_int_equal(error.number, 700016);
        tk_azure_auth_parse_error("<html>", 6, &error);
        assert_int_equal(error.number, 0);
        assert_string_equal(error.error, "");
}

static void test_tk_azure_auth_build_form__escapes(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = tk_test_secret("a&b=c+%\0\xff", 9);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *body = NULL;

        assert_int_equal(
                tk_azure_auth_build_form(&(struct tk_azure_token_form){.client_id = "id",
                                                                       .audience = "https://vault/",
                                                                       .claims = "{\"a\":1}",
                                                                       .secret = secret},
                                         &body),
                0);
        assert_string_equal(tk_text_of(body),
                            "client_id=id&scope=https%3A%2F%2Fvault%2F.default&grant_type="
                            "client_credentials&claims=%7B%22a%22%3A1%7D&client_secret="
                            "a%26b%3Dc%2B%25%00%FF");
}

/* The parts between the dots, decoded. */
static size_t jwt_part(char *part, uint8_t *bytes)
{
        size_t len;

        assert_int_equal(tk_base64url_decode(part, bytes, 1000, &len), 0);
        bytes[len] = '\0';
        return len;
}

static void check_assertion(EVP_PKEY *key, struct tk_rsa *rsa, enum tk_rsa_scheme scheme,
                            const char *header_text)
{
        static const uint8_t id[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
        struct tk_rsa_certificate certificate = {.sha1 = {1}, .sha256 = {2}};
        TK_CLEANUP(tk_secret_freep) struct tk_secret *jwt = NULL;
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        EVP_PKEY_CTX *key_ctx = NULL;
        uint8_t bytes[1001];
        char text[4096];
        char *claims;
        char *signature;
        size_t len;

        assert_int_equal(tk_azure_auth_build_assertion(
                                 &(struct tk_azure_assertion){.endpoint = "https://l/t/token",
                                                              .client_id = "app",
                                                              .id = id,
                                                              .now = 1700000000,
                                                              .key = rsa,
                                                              .certificate = &certificate,
                                                              .scheme = scheme},
                                 &jwt),
                         0);
        snprintf(text, sizeof(text), "%s", tk_text_of(jwt));
        claims = strchr(text, '.') + 1;
        signature = strrchr(text, '.') + 1;
        claims[-1] = '\0';
        signature[-1] = '\0';
        jwt_part(text, bytes);
        assert_string_equal((char *)bytes, header_text);
        jwt_part(claims, bytes);
        assert_string_equal((char *)bytes,
                            "{\"aud\":\"https://l/t/token\",\"iss\":\"app\",\"sub\":\"app\","
                            "\"jti\":\"ffffffff-ffff-4fff-bfff-ffffffffffff\",\"nbf\":1700000000,"
                            "\"iat\":1700000000,\"exp\":1700000600}");
        claims[-1] = '.';
        len = jwt_part(signature, bytes);
        assert_int_equal(EVP_DigestVerifyInit(ctx, &key_ctx, EVP_sha256(), NULL, key), 1);
        if (scheme == TK_RSA_PS256)
                assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(key_ctx, RSA_PKCS1_PSS_PADDING), 1);
        assert_int_equal(EVP_DigestVerify(ctx, bytes, len, (const uint8_t *)text, strlen(text)), 1);
        EVP_MD_CTX_free(ctx);
}

static void test_tk_azure_auth_build_assertion__both_schemes(void **state)
{
        EVP_PKEY *key = EVP_RSA_gen(2048);
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pem = NULL;
        TK_CLEANUP(tk_rsa_freep) struct tk_rsa *rsa = NULL;
        BIO *bio = BIO_new(BIO_s_mem());
        char *text;
        long len;

        assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
        len = BIO_get_mem_data(bio, &text);
        pem = tk_test_secret(text, (size_t)len);
        BIO_free(bio);
        assert_int_equal(tk_rsa_new_private(pem, NULL, &rsa), 0);
        check_assertion(key, rsa, TK_RSA_PS256,
                        "{\"alg\":\"PS256\",\"typ\":\"JWT\",\"x5t#S256\":"
                        "\"AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}");
        check_assertion(key, rsa, TK_RSA_RS256,
                        "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"x5t\":"
                        "\"AQAAAAAAAAAAAAAAAAAAAAAAAAA\"}");
        EVP_PKEY_free(key);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST(test_tk_azure_auth_parse_challenge__forms),
                TK_TEST(test_tk_azure_auth_parse_challenge__claims),
                TK_TEST(test_tk_azure_auth_parse_challenge__hostile),
                TK_TEST(test_tk_azure_auth_parse_arc_challenge__only_its_directory),
                TK_TEST(test_tk_azure_auth_parse_token__lifetimes),
                TK_TEST(test_tk_azure_auth_parse_token__refused),
                TK_TEST(test_tk_azure_auth_parse_cli__fields),
                TK_TEST(test_tk_azure_auth_parse_error__number),
                TK_TEST(test_tk_azure_auth_build_form__escapes),
                TK_TEST(test_tk_azure_auth_build_assertion__both_schemes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
