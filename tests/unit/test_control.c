/* SPDX-License-Identifier: Apache-2.0 */

/* The control channel: who is answered, and what a bad client can do. */

#include "cli/control.h"
#include "tests/unit/support.h"
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

/* The answer to "slow" begins, and goes on when it may. */
static sem_t begun;
static sem_t may_go_on;

static bool is_slow(const char *request)
{
        return strcmp(request, "slow") == 0;
}

static char *answer(void *context, const char *request)
{
        if (is_slow(request)) {
                sem_post(&begun);
                sem_wait(&may_go_on);
                return strdup("at last");
        }
        return strcmp(request, "status") == 0 ? strdup(context) : NULL;
}

static int open_here(void)
{
        int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static struct tk_control *start(int dirfd, char *text)
{
        struct tk_control_handlers handlers = {.answer = answer, .is_slow = is_slow};
        struct tk_control *control = NULL;
        struct tk_fault fault = {0};

        handlers.answer_context = text;
        sem_init(&begun, 0, 0);
        sem_init(&may_go_on, 0, 0);
        if (tk_control_start(dirfd, &handlers, &control, &fault) < 0)
                fail_msg("%s", fault.text);
        return control;
}

/* A connection, made the plain way. */
static int connect_here(void)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "turnkeyfs.sock"};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        return fd;
}

static void assert_answered(int dirfd, const char *want)
{
        TK_CLEANUP(tk_freep) char *text = NULL;

        assert_int_equal(tk_control_ask(dirfd, "status", &text), 0);
        assert_string_equal(text, want);
}

static double seconds(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_control__answers_and_cleans_up(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "{\"a\":1}";
        struct tk_control *control = start(dirfd, text);
        struct stat st;
        char *none = NULL;

        assert_int_equal(stat("turnkeyfs.sock", &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_answered(dirfd, text);
        assert_answered(dirfd, text);
        assert_null(tk_control_stop(control));
        assert_int_equal(stat("turnkeyfs.sock", &st), -1);
        assert_int_equal(tk_control_ask(dirfd, "status", &none), -ENOENT);
}

static void test_control__replaces_a_stale_socket(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "turnkeyfs.sock"};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char text[] = "fresh";
        char *none = NULL;
        struct tk_control *control;

        assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
        assert_int_equal(tk_control_ask(dirfd, "status", &none), -ECONNREFUSED);
        control = start(dirfd, text);
        assert_answered(dirfd, text);
        tk_control_stop(control);
}

static void test_control__works_in_a_deep_directory(void **state)
{
        static const char name[] = "a-directory-whose-name-is-long-enough-for-two-of-them-to-be-"
                                   "too-much-for-an-address";
        char text[] = "deep";
        struct tk_control *control;

        for (int i = 0; i < 4; i++) {
                assert_int_equal(mkdir(name, 0700), 0);
                assert_int_equal(chdir(name), 0);
        }
        {
                TK_AUTOCLOSE int dirfd = open_here();

                control = start(dirfd, text);
                assert_answered(dirfd, text);
                tk_control_stop(control);
        }
}

static void test_control__large_answer(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        TK_CLEANUP(tk_freep) char *text = malloc(200001);
        struct tk_control *control;

        memset(text, 'x', 200000);
        text[200000] = '\0';
        control = start(dirfd, text);
        assert_answered(dirfd, text);
        tk_control_stop(control);
}

static void test_control__stuck_client_delays_others_briefly(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "here";
        struct tk_control *control = start(dirfd, text);
        int stuck = connect_here();
        double before = seconds();

        assert_answered(dirfd, text);
        assert_true(seconds() - before < 3);
        close(stuck);
        tk_control_stop(control);
}

static void test_control__stuck_clients_do_not_hinder_stop(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "here";
        struct tk_control *control = start(dirfd, text);
        int stuck[8];
        double before;

        for (size_t i = 0; i < 8; i++)
                stuck[i] = connect_here();
        before = seconds();
        tk_control_stop(control);
        assert_true(seconds() - before < 0.4);
        for (size_t i = 0; i < 8; i++)
                close(stuck[i]);
}

static void test_control__unknown_requests_get_no_answer(void **state)
{
        static const char *const requests[] = {"\n", "stop\n", "status \n", "statusstatus\n",
                                               "STATUS\n"};
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "here";
        struct tk_control *control = start(dirfd, text);
        char *none = NULL;

        for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
                int fd = connect_here();
                char byte;

                assert_true(send(fd, requests[i], strlen(requests[i]), MSG_NOSIGNAL) > 0);
                assert_true(recv(fd, &byte, 1, 0) <= 0);
                close(fd);
        }
        /* Which is told apart from a refusal. */
        assert_int_equal(tk_control_ask(dirfd, "stop", &none), -ENOMSG);
        assert_answered(dirfd, text);
        tk_control_stop(control);
}

static void test_control__endless_request_is_cut_off(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "here";
        struct tk_control *control = start(dirfd, text);
        char noise[3 * TK_CONTROL_REQUEST_MAX];
        int fd = connect_here();
        char byte;

        memset(noise, 'x', sizeof(noise));
        (void)!send(fd, noise, sizeof(noise), MSG_NOSIGNAL);
        assert_true(recv(fd, &byte, 1, 0) <= 0);
        close(fd);
        assert_answered(dirfd, text);
        tk_control_stop(control);
}

/* In a child that has become another user, with the mode out of the way. */
static void test_control__other_users_are_not_answered(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "secret";
        struct tk_control *control;
        int status = -1;
        pid_t child;

        if (geteuid() != 0)
                skip();
        control = start(dirfd, text);
        assert_int_equal(chmod("turnkeyfs.sock", 0666), 0);
        assert_int_equal(chmod(".", 0755), 0);
        child = fork();
        if (child == 0) {
                char *got = NULL;

                if (setuid(TK_TEST_NOBODY) < 0)
                        _exit(2);
                _exit(tk_control_ask(dirfd, "status", &got) < 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_answered(dirfd, text);
        tk_control_stop(control);
}

static int ask_slow_here(void)
{
        int fd = connect_here();

        assert_int_equal(send(fd, "slow\n", 5, 0), 5);
        return fd;
}

static void assert_says(int fd, const char *want)
{
        char got[256] = {0};

        assert_int_equal(recv(fd, got, sizeof(got) - 1, MSG_WAITALL), strlen(want));
        assert_string_equal(got, want);
        close(fd);
}

static void test_control__a_slow_answer_delays_no_other(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "quick";
        struct tk_control *control = start(dirfd, text);
        int first = ask_slow_here();
        int second = ask_slow_here();

        sem_wait(&begun);
        assert_answered(dirfd, text);
        assert_answered(dirfd, text);
        sem_post(&may_go_on);
        sem_post(&may_go_on);
        assert_says(first, "at last");
        assert_says(second, "at last");
        tk_control_stop(control);
}

static void test_control__too_many_slow_requests_are_refused_in_words(void **state)
{
        enum { WAITING = 8 };
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "quick";
        struct tk_control *control = start(dirfd, text);
        int fds[1 + WAITING];
        char said[256] = {0};
        int one_too_many;

        fds[0] = ask_slow_here();
        sem_wait(&begun);
        for (int i = 1; i <= WAITING; i++)
                fds[i] = ask_slow_here();
        one_too_many = ask_slow_here();
        assert_true(recv(one_too_many, said, sizeof(said) - 1, MSG_WAITALL) > 0);
        assert_non_null(strstr(said, "the mount is busy with other requests; try again"));
        close(one_too_many);
        assert_answered(dirfd, text);
        for (int i = 0; i <= WAITING; i++)
                sem_post(&may_go_on);
        for (int i = 0; i <= WAITING; i++)
                assert_says(fds[i], "at last");
        tk_control_stop(control);
}

static void test_control__the_end_leaves_nobody_waiting(void **state)
{
        TK_AUTOCLOSE int dirfd = open_here();
        char text[] = "quick";
        char got[256];
        struct tk_control *control = start(dirfd, text);
        int first = ask_slow_here();
        int second;

        sem_wait(&begun);
        second = ask_slow_here();
        assert_answered(dirfd, text); /* so it was taken before that */
        sem_post(&may_go_on);
        sem_post(&may_go_on); /* should it begin before the end */
        tk_control_stop(control);
        while (recv(first, got, sizeof(got), 0) > 0)
                ;
        while (recv(second, got, sizeof(got), 0) > 0)
                ;
        close(first);
        close(second);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_control__answers_and_cleans_up),
                TK_TEST_IN_DIR(test_control__replaces_a_stale_socket),
                TK_TEST_IN_DIR(test_control__works_in_a_deep_directory),
                TK_TEST_IN_DIR(test_control__large_answer),
                TK_TEST_IN_DIR(test_control__stuck_client_delays_others_briefly),
                TK_TEST_IN_DIR(test_control__stuck_clients_do_not_hinder_stop),
                TK_TEST_IN_DIR(test_control__unknown_requests_get_no_answer),
                TK_TEST_IN_DIR(test_control__endless_request_is_cut_off),
                TK_TEST_IN_DIR(test_control__other_users_are_not_answered),
                TK_TEST_IN_DIR(test_control__a_slow_answer_delays_no_other),
                TK_TEST_IN_DIR(test_control__too_many_slow_requests_are_refused_in_words),
                TK_TEST_IN_DIR(test_control__the_end_leaves_nobody_waiting),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
