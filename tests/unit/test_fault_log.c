/* SPDX-License-Identifier: Apache-2.0 */

/* Faults and log lines. */

#include "base/fault.h"
#include "base/fdio.h"
#include "base/log.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <fcntl.h>

static void test_fault_set__first_wins(void **state)
{
        struct tk_fault fault = {0};

        assert_int_equal(tk_fault_set(NULL, TK_FAULT_MOUNT, -EIO, "nobody listens"), -EIO);
        assert_int_equal(tk_fault_set(&fault, TK_FAULT_MOUNT, -EIO, "first %d", 1), -EIO);
        assert_int_equal(tk_fault_set(&fault, TK_FAULT_USAGE, -EPERM, "second"), -EPERM);
        assert_int_equal(fault.kind, TK_FAULT_MOUNT);
        assert_string_equal(fault.text, "first 1");
}

static void test_fault_set__long_text_is_cut(void **state)
{
        struct tk_fault fault = {0};
        char text[2000];

        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = '\0';
        assert_int_equal(tk_fault_set(&fault, TK_FAULT_USAGE, -EPERM, "%s", text), -EPERM);
        assert_int_equal(strlen(fault.text), sizeof(fault.text) - 1);
}

/* What @speak logs, from standard error; freed by the caller. */
static char *captured(void (*speak)(void))
{
        TK_AUTOCLOSE int file = open("log", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        TK_AUTOCLOSE int old = dup(STDERR_FILENO);
        char *text = NULL;
        size_t len;

        assert_true(file >= 0 && old >= 0);
        fflush(stderr);
        dup2(file, STDERR_FILENO);
        speak();
        fflush(stderr);
        dup2(old, STDERR_FILENO);
        assert_int_equal(tk_fdio_read_file(AT_FDCWD, "log", 65536, &text, &len), 0);
        return text;
}

static void speak_levels(void)
{
        tk_log(TK_LOG_ERROR, "number %d", 1);
        tk_log(TK_LOG_INFO, "number %d", 2);
        tk_log(TK_LOG_DEBUG, "number %d", 3);
        tk_log_set_level(TK_LOG_ERROR);
        tk_log(TK_LOG_WARNING, "number %d", 4);
        tk_log_limited(TK_LOG_WARNING, "number %d", 5);
        tk_log_set_level(TK_LOG_DEBUG);
        tk_log(TK_LOG_DEBUG, "number %d", 6);
        tk_log_set_level(TK_LOG_INFO);
}

static void test_log__levels(void **state)
{
        TK_CLEANUP(tk_freep) char *text = captured(speak_levels);

        assert_string_equal(text, "turnkeyfs: error: number 1\n"
                                  "turnkeyfs: info: number 2\n"
                                  "turnkeyfs: debug: number 6\n");
}

static void speak_much(void)
{
        for (int i = 0; i < 1000; i++)
                tk_log_limited(TK_LOG_ERROR, "again");
}

static void test_log_limited__lets_twenty_pass(void **state)
{
        TK_CLEANUP(tk_freep) char *text = captured(speak_much);
        unsigned count = 0;

        for (const char *at = text; (at = strstr(at, "again\n")); at++)
                count++;
        /* The period may turn between two lines: then twenty more pass. */
        assert_true(count == 20 || count == 40);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_fault_set__first_wins),
                TK_TEST(test_fault_set__long_text_is_cut),
                TK_TEST_IN_DIR(test_log__levels),
                TK_TEST_IN_DIR(test_log_limited__lets_twenty_pass),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
