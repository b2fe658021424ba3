/* SPDX-License-Identifier: Apache-2.0 */

/* A secret from each source that needs no terminal, and what is refused. */

#include "base/fdio.h"
#include "cli/secret_source.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <fcntl.h>

static void put(const char *name, const char *bytes, size_t len)
{
        TK_AUTOCLOSE int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(tk_fdio_pwrite(fd, bytes, len, 0), 0);
}

/* The passphrase from @source; NULL with @fault if it is refused. */
static struct tk_secret *get(enum tk_conf_source source, const char *arg, struct tk_fault *fault)
{
        char copy[64] = "";
        struct tk_conf_secret from = {.source = source, .arg = copy};
        struct tk_secret_ask ask = {
                .what = "passphrase", .option = "[local] passphrase", .label = "test"};
        struct tk_secret *passphrase = NULL;
        int r;

        if (arg)
                snprintf(copy, sizeof(copy), "%s", arg);
        memset(fault, 0, sizeof(*fault));
        r = tk_secret_source_read(&from, &ask, &passphrase, fault);
        assert_int_equal(r < 0, fault->kind == TK_FAULT_PASSPHRASE);
        return passphrase;
}

static void assert_is(const struct tk_secret *passphrase, const char *want, size_t len)
{
        assert_non_null(passphrase);
        assert_int_equal(tk_secret_len(passphrase), len);
        assert_memory_equal(tk_secret_bytes(passphrase), want, len);
}

static void assert_file_is(const char *bytes, size_t len, const char *want, size_t want_len)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        const char name[] = "file";
        struct tk_fault fault;

        put(name, bytes, len);
        passphrase = get(TK_CONF_SOURCE_FILE, name, &fault);
        assert_is(passphrase, want, want_len);
}

static void assert_file_refused(const char *bytes, size_t len, const char *why)
{
        const char name[] = "file";
        struct tk_fault fault;

        put(name, bytes, len);
        assert_null(get(TK_CONF_SOURCE_FILE, name, &fault));
        assert_non_null(strstr(fault.text, why));
        if (len > 1)
                assert_null(strstr(fault.text, "xxxx"));
}

static void test_secret_source_read__none(void **state)
{
        struct tk_fault fault;

        assert_null(get(TK_CONF_SOURCE_NONE, NULL, &fault));
        assert_int_equal(fault.kind, TK_FAULT_NONE);
}

static void test_secret_source_read__file(void **state)
{
        assert_file_is("word", 4, "word", 4);
        assert_file_is("word\n", 5, "word", 4);
        assert_file_is("word\n\n", 6, "word\n", 5);
        assert_file_is("two\nlines", 9, "two\nlines", 9);
        assert_file_is(" a\0b ", 5, " a\0b ", 5);
}

static void test_secret_source_read__lengths(void **state)
{
        char bytes[TK_SECRET_SOURCE_MAX + 3];

        memset(bytes, 'x', sizeof(bytes));
        bytes[TK_SECRET_SOURCE_MAX] = '\n';
        assert_file_is(bytes, TK_SECRET_SOURCE_MAX, bytes, TK_SECRET_SOURCE_MAX);
        assert_file_is(bytes, TK_SECRET_SOURCE_MAX + 1, bytes, TK_SECRET_SOURCE_MAX);
        bytes[TK_SECRET_SOURCE_MAX] = 'x';
        assert_file_refused(bytes, TK_SECRET_SOURCE_MAX + 1, "longer");
        assert_file_refused(bytes, sizeof(bytes), "longer");
        assert_file_refused("", 0, "empty");
        assert_file_refused("\n", 1, "empty");
}

static void test_secret_source_read__missing_file(void **state)
{
        const char name[] = "none";
        struct tk_fault fault;

        assert_null(get(TK_CONF_SOURCE_FILE, name, &fault));
        assert_non_null(strstr(fault.text, "none: No such file"));
}

static void test_secret_source_read__descriptor_is_closed_afterwards(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        struct tk_fault fault;
        char number[16];
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(write(fds[1], "pipe\n", 5), 5);
        close(fds[1]);
        snprintf(number, sizeof(number), "%d", fds[0]);
        passphrase = get(TK_CONF_SOURCE_FD, number, &fault);
        assert_is(passphrase, "pipe", 4);
        assert_int_equal(fcntl(fds[0], F_GETFD), -1);
        assert_null(get(TK_CONF_SOURCE_FD, number, &fault));
}

static void test_secret_source_read__credential(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *passphrase = NULL;
        const char name[] = "word";
        struct tk_fault fault;

        unsetenv("CREDENTIALS_DIRECTORY");
        assert_null(get(TK_CONF_SOURCE_CREDENTIAL, name, &fault));
        assert_non_null(strstr(fault.text, "CREDENTIALS_DIRECTORY"));

        put(name, "from systemd", 12);
        assert_int_equal(setenv("CREDENTIALS_DIRECTORY", *state, 1), 0);
        passphrase = get(TK_CONF_SOURCE_CREDENTIAL, name, &fault);
        assert_is(passphrase, "from systemd", 12);
        unsetenv("CREDENTIALS_DIRECTORY");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_secret_source_read__none),
                TK_TEST_IN_DIR(test_secret_source_read__file),
                TK_TEST_IN_DIR(test_secret_source_read__lengths),
                TK_TEST_IN_DIR(test_secret_source_read__missing_file),
                TK_TEST_IN_DIR(test_secret_source_read__descriptor_is_closed_afterwards),
                TK_TEST_IN_DIR(test_secret_source_read__credential),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
