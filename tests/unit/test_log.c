/* SPDX-License-Identifier: Apache-2.0 */

/* Where lines go: to the journal, to syslog, and what becomes of those that neither takes. */

#include "base/log.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { TEXT_MAX = 4096, FLOOD = 2000 /* more lines than any queue holds */ };

/* A datagram socket in place of the journal's or syslog's. */
static int listen_at(const char *name)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        assert_true(fd >= 0);
        (void)!unlink(name);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
        assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

/* Whether there was a line, and the oldest of them. */
static bool next_line(int fd, char line[TEXT_MAX])
{
        ssize_t n = recv(fd, line, TEXT_MAX - 1, 0);

        assert_true(n >= 0 || errno == EAGAIN);
        line[n < 0 ? 0 : n] = '\0';
        return n >= 0;
}

static void assert_next(int fd, const char *expected)
{
        char line[TEXT_MAX];

        assert_true(next_line(fd, line));
        assert_non_null(strstr(line, expected));
}

static void assert_no_more(int fd)
{
        char line[TEXT_MAX];

        assert_false(next_line(fd, line));
}

/* Whoever listens does so in the directory of the test. */
static int enter(void **state)
{
        setenv("TURNKEYFS_JOURNAL_SOCKET", "journal", 1);
        setenv("TURNKEYFS_SYSLOG_SOCKET", "syslog", 1);
        return tk_test_dir_enter(state);
}

static int leave(void **state)
{
        tk_log_to(TK_LOG_STDERR);
        return tk_test_dir_leave(state);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, leave)

static void test_log_to__journal_first_then_syslog(void **state)
{
        int journal = listen_at("journal");
        TK_AUTOCLOSE int syslog = listen_at("syslog");

        assert_int_equal(tk_log_to(TK_LOG_JOURNAL), 0);
        tk_log(TK_LOG_INFO, "first");
        assert_next(journal, "MESSAGE=first");
        assert_no_more(syslog);

        close(journal);
        tk_log(TK_LOG_INFO, "second");
        assert_next(syslog, "]: second");
        assert_no_more(syslog);
}

static void test_log_to__without_a_journal_syslog(void **state)
{
        TK_AUTOCLOSE int syslog = listen_at("syslog");

        assert_int_equal(tk_log_to(TK_LOG_JOURNAL), -ENOENT);
        tk_log(TK_LOG_ERROR, "a line");
        assert_next(syslog, "<27>"); /* daemon.err */
        assert_no_more(syslog);
}

static void test_log__what_a_restarted_syslog_missed_is_said(void **state)
{
        int before = listen_at("syslog");
        TK_AUTOCLOSE int after = -1;

        assert_int_equal(tk_log_to(TK_LOG_SYSLOG), 0);
        close(before);
        tk_log(TK_LOG_INFO, "first");
        tk_log(TK_LOG_INFO, "second");

        after = listen_at("syslog");
        tk_log(TK_LOG_INFO, "third");
        assert_next(after, "]: 2 lines of the log were lost");
        assert_next(after, "]: third");
        tk_log(TK_LOG_INFO, "fourth");
        assert_next(after, "]: fourth");
        assert_no_more(after);
}

/* The journal says it as well: there may be no syslog at all. */
static void test_log__what_neither_took_is_said(void **state)
{
        TK_AUTOCLOSE int journal = listen_at("journal");
        char line[TEXT_MAX];
        char expected[64];
        int found = 0;

        assert_int_equal(tk_log_to(TK_LOG_JOURNAL), 0);
        for (int i = 0; i < FLOOD; i++)
                tk_log(TK_LOG_INFO, "line %d", i);
        while (next_line(journal, line))
                found++;
        assert_in_range(found, 1, FLOOD - 1);

        tk_log(TK_LOG_INFO, "another");
        snprintf(expected, sizeof(expected), "MESSAGE=%d lines of the log were lost",
                 FLOOD - found);
        assert_next(journal, expected);
        assert_next(journal, "MESSAGE=another");
        assert_no_more(journal);
}

/* syslog(3) knows streams. */
static void test_log__a_stream_of_syslogs_is_no_loss(void **state)
{
        TK_AUTOCLOSE int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        TK_AUTOCLOSE int after = -1;
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "syslog"};

        assert_int_equal(bind(stream, (const struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(stream, 1), 0);
        assert_int_equal(tk_log_to(TK_LOG_SYSLOG), 0);
        tk_log(TK_LOG_INFO, "from a test of turnkeyfs");

        after = listen_at("syslog");
        tk_log(TK_LOG_INFO, "next");
        assert_next(after, "]: next");
}

/* The number that the next descriptor gets. */
static int next_fd(void)
{
        TK_AUTOCLOSE int fd = dup(STDERR_FILENO);

        assert_true(fd >= 0);
        return fd;
}

static void test_log_to__no_descriptor_is_left_behind(void **state)
{
        TK_AUTOCLOSE int journal = listen_at("journal");
        TK_AUTOCLOSE int syslog = listen_at("syslog");
        int free_fd = next_fd();
        int first;

        assert_true(journal >= 0 && syslog >= 0);
        assert_int_equal(tk_log_to(TK_LOG_JOURNAL), 0);
        first = next_fd();
        assert_int_equal(tk_log_to(TK_LOG_JOURNAL), 0);
        assert_int_equal(next_fd(), first);
        assert_int_equal(tk_log_to(TK_LOG_SYSLOG), 0);
        assert_int_equal(next_fd(), free_fd + 1);
        assert_int_equal(tk_log_to(TK_LOG_STDERR), 0);
        assert_int_equal(next_fd(), free_fd);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_log_to__journal_first_then_syslog),
                TEST(test_log_to__without_a_journal_syslog),
                TEST(test_log__what_a_restarted_syslog_missed_is_said),
                TEST(test_log__what_neither_took_is_said),
                TEST(test_log__a_stream_of_syslogs_is_no_loss),
                TEST(test_log_to__no_descriptor_is_left_behind),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
