/* SPDX-License-Identifier: Apache-2.0 */

/* Configuration: defaults, every option, every complaint, and its documentation. */

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "base/fdio.h"
#include "conf/schema.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct tk_conf *parse(const char *text)
{
        struct tk_conf *conf = NULL;
        struct tk_fault fault = {0};

        if (tk_conf_parse(text, "t.conf", &conf, &fault) < 0)
                fail_msg("%s", fault.text);
        return conf;
}

static void assert_refused(const char *text, const char *complaint)
{
        struct tk_conf *conf = NULL;
        struct tk_fault fault = {0};

        assert_true(tk_conf_parse(text, "t.conf", &conf, &fault) < 0);
        assert_null(conf);
        assert_int_equal(fault.kind, TK_FAULT_CONFIG);
        assert_string_equal(fault.text, complaint);
}

static void test_conf_new__defaults(void **state)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;

        assert_int_equal(tk_conf_new(&conf), 0);
        assert_null(conf->path);
        assert_null(conf->volume.fingerprint);
        assert_string_equal(conf->kms.provider, "local");
        assert_null(conf->local.keystore);
        assert_int_equal(conf->local.passphrase.source, TK_CONF_SOURCE_NONE);
        assert_int_equal(conf->mount.allow_other, geteuid() == 0);
        assert_null(conf->azure.key);
        assert_true(conf->azure.require_purge_protection);
        assert_false(conf->mount.read_only);
        assert_int_equal(conf->mount.threads, 0);
        assert_false(conf->memory.require_lock);
        assert_int_equal(conf->log.level, TK_CONF_LOG_INFO);
}

static void test_conf_parse__empty_is_default(void **state)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = parse("");

        assert_string_equal(conf->path, "t.conf");
        assert_string_equal(conf->kms.provider, "local");
}

static void test_conf_parse__every_option(void **state)
{
        TK_CLEANUP(tk_conf_freep)
        struct tk_conf *conf =
                parse("# comment\n"
                      "; comment\n"
                      "[volume]\n"
                      "fingerprint = "
                      "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff\n"
                      "[kms]\nprovider = local\nrewrap_rate = 100\n"
                      "[local]\nkeystore = /a b/c.keystore ; remark\npassphrase = file:/p\n"
                      "rotate_every = 7776000\n"
                      "[mount]\nallow_other = no\nread_only=yes\nthreads = 64\n"
                      "[memory]\nlock = require\n"
                      "[log]\nlevel = debug");

        assert_string_equal(conf->volume.fingerprint,
                            "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
        assert_string_equal(conf->local.keystore, "/a b/c.keystore");
        assert_int_equal(conf->local.passphrase.source, TK_CONF_SOURCE_FILE);
        assert_string_equal(conf->local.passphrase.arg, "/p");
        assert_int_equal(conf->local.rotate_every, 7776000);
        assert_int_equal(conf->kms.rewrap_rate, 100);
        assert_false(conf->mount.allow_other);
        assert_true(conf->mount.read_only);
        assert_int_equal(conf->mount.threads, 64);
        assert_true(conf->memory.require_lock);
        assert_int_equal(conf->log.level, TK_CONF_LOG_DEBUG);
}

static void test_conf_parse__every_azure_option(void **state)
{
        TK_CLEANUP(tk_conf_freep)
        struct tk_conf *conf =
                parse("[kms]\nprovider = azure\nprevious = /etc/old.conf\n"
                      "[azure]\nkey = https://v.vault.azure.net/keys/k\nauth = client-secret\n"
                      "client_id = id\ntenant_id = tenant\ncertificate = /c\n"
                      "certificate_password = fd:4\nclient_secret = credential:s\n"
                      "token_file = /t\nauthority = host\naudience = https://a\nca_file = /ca\n"
                      "connect_timeout = 1\nrequest_timeout = 600\nwrap = service\n"
                      "require_purge_protection = no\nfirewall = unreachable\n");

        assert_string_equal(conf->kms.provider, "azure");
        assert_string_equal(conf->kms.previous, "/etc/old.conf");
        assert_string_equal(conf->azure.key, "https://v.vault.azure.net/keys/k");
        assert_int_equal(conf->azure.auth, TK_CONF_AUTH_CLIENT_SECRET);
        assert_string_equal(conf->azure.client_id, "id");
        assert_string_equal(conf->azure.tenant_id, "tenant");
        assert_string_equal(conf->azure.certificate, "/c");
        assert_int_equal(conf->azure.certificate_password.source, TK_CONF_SOURCE_FD);
        assert_string_equal(conf->azure.certificate_password.arg, "4");
        assert_int_equal(conf->azure.client_secret.source, TK_CONF_SOURCE_CREDENTIAL);
        assert_string_equal(conf->azure.client_secret.arg, "s");
        assert_string_equal(conf->azure.token_file, "/t");
        assert_string_equal(conf->azure.authority, "host");
        assert_string_equal(conf->azure.audience, "https://a");
        assert_string_equal(conf->azure.ca_file, "/ca");
        assert_int_equal(conf->azure.connect_timeout, 1);
        assert_int_equal(conf->azure.request_timeout, 600);
        assert_true(conf->azure.wrap_by_service);
        assert_false(conf->azure.require_purge_protection);
        assert_true(conf->azure.firewall_is_outage);
}

static void test_conf_parse__options_of_another_provider(void **state)
{
        assert_refused("[kms]\nprovider = azure\n[azure]\nkey = https://v/keys/k\n"
                       "[local]\nkeystore = /k\n",
                       "t.conf:6: 'keystore' in [local] is for [kms] provider = local, but the "
                       "provider is azure; take the line out, or choose that provider");
        assert_refused("[azure]\nkey = https://v/keys/k\n",
                       "t.conf:2: 'key' in [azure] is for [kms] provider = azure, but the "
                       "provider is local; take the line out, or choose that provider");
        assert_refused("[kms]\nprovider = azure\n",
                       "t.conf: [kms] provider = azure needs the root key's identifier, [azure] "
                       "key = https://VAULT/keys/NAME");
}

static void test_conf_parse__bad_client_secret_is_not_repeated(void **state)
{
        assert_refused("[azure]\nclient_secret = hunter2\n",
                       "t.conf:2: bad value '...' for 'client_secret' in [azure]; expected: none, "
                       "prompt, file:/PATH, fd:N or credential:NAME");
}

static void test_conf_parse__passphrase_sources(void **state)
{
        static const struct {
                const char *value;
                enum tk_conf_source source;
                const char *arg;
        } cases[] = {
                {"none", TK_CONF_SOURCE_NONE, NULL},
                {"prompt", TK_CONF_SOURCE_PROMPT, NULL},
                {"file:/x:y", TK_CONF_SOURCE_FILE, "/x:y"},
                {"fd:0", TK_CONF_SOURCE_FD, "0"},
                {"fd:65535", TK_CONF_SOURCE_FD, "65535"},
                {"credential:a.b", TK_CONF_SOURCE_CREDENTIAL, "a.b"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
                char text[128];

                snprintf(text, sizeof(text), "[local]\npassphrase = %s\n", cases[i].value);
                conf = parse(text);
                assert_int_equal(conf->local.passphrase.source, cases[i].source);
                if (cases[i].arg)
                        assert_string_equal(conf->local.passphrase.arg, cases[i].arg);
                else
                        assert_null(conf->local.passphrase.arg);
        }
}

static void test_conf_parse__bad_passphrase_is_not_repeated(void **state)
{
        static const char *const values[] = {
                "hunter2",      "",         "none ",       "nonesuch",        "prompt:",
                "file:",        "file:rel", "fd:",         "fd:-1",           "fd:1x",
                "fd:65536",     "fd:01",    "credential:", "credential:../x", "credential:a/b",
                "credential:.",
        };

        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
                char text[128];

                snprintf(text, sizeof(text), "[local]\npassphrase = %s\n", values[i]);
                if (strcmp(values[i], "none ") == 0) {
                        tk_conf_free(parse(text)); /* inih strips the space */
                        continue;
                }
                assert_refused(text, "t.conf:2: bad value '...' for 'passphrase' in [local]; "
                                     "expected: none, prompt, file:/PATH, fd:N or "
                                     "credential:NAME");
        }
}

static void test_conf_parse__complaints(void **state)
{
        assert_refused("\n[mount]\nx = 1\n",
                       "t.conf:3: unknown key 'x' in [mount]; known keys are: allow_other, "
                       "read_only, durability, io_uring, keep_cpus_awake, threads, hardening");
        assert_refused("[mont]\nthreads = 1\n",
                       "t.conf:2: unknown section [mont]; known sections are: volume, kms, local, "
                       "azure, pkcs11, mount, memory, metrics, log");
        assert_refused("threads = 1\n",
                       "t.conf:1: 'threads' stands before the first [section]; known sections "
                       "are: volume, kms, local, azure, pkcs11, mount, memory, metrics, log");
        assert_refused("[mount]\nthreads = 1\n\nthreads = 2\n",
                       "t.conf:4: 'threads' in [mount] is given twice, first in line 2 (an "
                       "indented line continues the value above it)");
        assert_refused("[local]\nkeystore = /a\n  /b\n",
                       "t.conf:3: 'keystore' in [local] is given twice, first in line 2 (an "
                       "indented line continues the value above it)");
        assert_refused("[local]\nkeystore = a/b\n",
                       "t.conf:2: bad value 'a/b' for 'keystore' in [local]; expected: an "
                       "absolute path, beginning with /");
        assert_refused("[kms]\nrotation_window = 60\n[local]\n\nrotate_every = 59\n",
                       "t.conf:5: 'rotate_every' in [local] is shorter than [kms] "
                       "rotation_window, or that is 0: a new version has to be taken up before "
                       "the next one comes");
        assert_refused("[local]\nrotate_every = 99999\n[kms]\nrotation_window = 0\n",
                       "t.conf:2: 'rotate_every' in [local] is shorter than [kms] "
                       "rotation_window, or that is 0: a new version has to be taken up before "
                       "the next one comes");
        assert_refused("[mount]\nnonsense\n",
                       "t.conf:2: neither a [section] nor 'key = value' nor a comment");
        assert_refused("[mount\n", "t.conf:1: neither a [section] nor 'key = value' nor a comment");
}

static void test_conf_parse__bad_values(void **state)
{
        static const struct {
                const char *section, *name, *value, *type;
        } cases[] = {
                {"volume", "fingerprint", "00", "64 hexadecimal digits"},
                {"volume", "fingerprint", "", "64 hexadecimal digits"},
                {"kms", "provider", "clown", "local, azure or pkcs11"},
                {"kms", "previous", "a.conf", "an absolute path, beginning with /"},
                {"azure", "key", "http://v/keys/k",
                 "https://VAULT/keys/NAME, or with /VERSION to stay with that one"},
                {"azure", "auth", "password",
                 "default, managed-identity, workload-identity, client-certificate, client-secret "
                 "or azure-cli"},
                {"azure", "client_id", "", "a GUID"},
                {"azure", "connect_timeout", "0", "1 to 600"},
                {"azure", "request_timeout", "601", "1 to 600"},
                {"azure", "wrap", "remote", "local or service"},
                {"azure", "require_purge_protection", "1", "yes or no"},
                {"azure", "firewall", "open", "revoked or unreachable"},
                {"kms", "rewrap_rate", "1000001", "0 to 1000000"},
                {"local", "rotate_every", "1d", "0 to 315360000"},
                {"local", "keystore", "", "an absolute path, beginning with /"},
                {"mount", "allow_other", "maybe", "yes or no"},
                {"mount", "read_only", "1", "yes or no"},
                {"mount", "threads", "65", "0 to 64"},
                {"mount", "threads", "-1", "0 to 64"},
                {"mount", "threads", "0x8", "0 to 64"},
                {"mount", "threads", "99999999999999999999", "0 to 64"},
                {"memory", "lock", "no", "warn or require"},
                {"log", "level", "INFO", "error, warning, info or debug"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                char text[128];
                char complaint[256];

                snprintf(text, sizeof(text), "[%s]\n%s = %s\n", cases[i].section, cases[i].name,
                         cases[i].value);
                snprintf(complaint, sizeof(complaint),
                         "t.conf:2: bad value '%s' for '%s' in [%s]; expected: %s", cases[i].value,
                         cases[i].name, cases[i].section, cases[i].type);
                assert_refused(text, complaint);
        }
}

static void test_conf_parse__long_line(void **state)
{
        char text[400] = "[local]\nkeystore = /";

        memset(text + strlen(text), 'x', 250);
        assert_refused(text, "t.conf:2: the line is longer than 198 characters");
}

static void test_conf_load__from_file(void **state)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        static const char text[] = "[mount]\nthreads = 7\n";
        char path[] = "/tmp/tk-test-conf-XXXXXX";
        struct tk_fault fault = {0};
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        assert_int_equal(tk_fdio_pwrite(fd, text, strlen(text), 0), 0);
        assert_int_equal(tk_conf_load(path, &conf, &fault), 0);
        assert_int_equal(conf->mount.threads, 7);
        assert_string_equal(conf->path, path);

        /* With its NUL. */
        conf = tk_conf_free(conf);
        assert_int_equal(tk_fdio_pwrite(fd, text, sizeof(text), 0), 0);
        assert_int_equal(tk_conf_load(path, &conf, &fault), -EINVAL);
        assert_int_equal(fault.kind, TK_FAULT_CONFIG);
        assert_non_null(strstr(fault.text, "NUL"));

        fault = (struct tk_fault){0};
        assert_int_equal(ftruncate(fd, 65 * 1024L), 0);
        assert_int_equal(tk_conf_load(path, &conf, &fault), -EFBIG);
        assert_int_equal(fault.kind, TK_FAULT_CONFIG);
        close(fd);
        unlink(path);
}

static void test_conf_load__missing(void **state)
{
        struct tk_conf *conf = NULL;
        struct tk_fault fault = {0};

        assert_int_equal(tk_conf_load("/nonexistent/t.conf", &conf, &fault), -ENOENT);
        assert_int_equal(fault.kind, TK_FAULT_CONFIG);
        assert_string_equal(fault.text, "cannot read the configuration /nonexistent/t.conf: No "
                                        "such file or directory");
}

static void test_conf_option__names_are_unique(void **state)
{
        const struct tk_conf_option *option;

        for (size_t i = 0; (option = tk_conf_option_at(i)); i++)
                assert_int_equal(tk_conf_option_find(option->section, option->name), (int)i);
        assert_int_equal(tk_conf_option_find("mount", "keystore"), -1);
}

/* docs/configuration.md, found from where this file was compiled. */
static char *read_documentation(void)
{
        char path[4096];
        char *text = NULL;
        char *cut;
        size_t len;

        snprintf(path, sizeof(path), "%s", __FILE__);
        cut = strstr(path, "tests/unit/test_conf.c");
        assert_non_null(cut);
        snprintf(cut, sizeof(path) - (size_t)(cut - path), "docs/configuration.md");
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, path, 1 << 20, &text, &len), 0);
        return text;
}

/* The table in docs/configuration.md is the option table, row by row. */
static void test_conf_option__documentation_agrees(void **state)
{
        static const char head[] = "| section | key | value | default | meaning |\n"
                                   "|---|---|---|---|---|\n";
        TK_CLEANUP(tk_freep) char *text = read_documentation();
        const struct tk_conf_option *option;
        const char *at;

        at = strstr(text, head);
        assert_non_null(at);
        at += strlen(head);
        for (size_t i = 0; (option = tk_conf_option_at(i)); i++) {
                char row[512];

                snprintf(row, sizeof(row), "| %s | %s | %s | %s | %s |\n", option->section,
                         option->name, option->type, option->fallback, option->help);
                if (strncmp(at, row, strlen(row)) != 0)
                        fail_msg("docs/configuration.md lacks or misplaces the row:\n%s", row);
                at += strlen(row);
        }
        assert_int_equal(*at, '\n');
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_conf_new__defaults),
                cmocka_unit_test(test_conf_parse__empty_is_default),
                cmocka_unit_test(test_conf_parse__every_option),
                cmocka_unit_test(test_conf_parse__every_azure_option),
                cmocka_unit_test(test_conf_parse__options_of_another_provider),
                cmocka_unit_test(test_conf_parse__bad_client_secret_is_not_repeated),
                cmocka_unit_test(test_conf_parse__passphrase_sources),
                cmocka_unit_test(test_conf_parse__bad_passphrase_is_not_repeated),
                cmocka_unit_test(test_conf_parse__complaints),
                cmocka_unit_test(test_conf_parse__bad_values),
                cmocka_unit_test(test_conf_parse__long_line),
                cmocka_unit_test(test_conf_load__from_file),
                cmocka_unit_test(test_conf_load__missing),
                cmocka_unit_test(test_conf_option__names_are_unique),
                cmocka_unit_test(test_conf_option__documentation_agrees),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
