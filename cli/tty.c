/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Asking on the terminal.
 *
 * Signals that end or stop the process are only noted while echo is off; they
 * take effect after the terminal has been put back.
 */

#include "cli/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <termios.h>

static const int caught_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
enum { CAUGHT_COUNT = sizeof(caught_signals) / sizeof(caught_signals[0]) };

static volatile sig_atomic_t noted_signal;

static void note_signal(int signal_number)
{
        noted_signal = signal_number;
}

static void catch_signals(struct sigaction saved[CAUGHT_COUNT])
{
        struct sigaction action = {.sa_handler = note_signal}; /* no SA_RESTART: read ends */

        noted_signal = 0;
        for (int i = 0; i < CAUGHT_COUNT; i++)
                (void)sigaction(caught_signals[i], &action, &saved[i]);
}

static void release_signals(const struct sigaction saved[CAUGHT_COUNT])
{
        for (int i = 0; i < CAUGHT_COUNT; i++)
                (void)sigaction(caught_signals[i], &saved[i], NULL);
}

static void write_text(int tty, const char *text)
{
        (void)!write(tty, text, strlen(text));
}

/* In the terminal's line mode one read is one line, or a part of an overlong one. */
static int read_line(int tty, struct tk_secret *secret)
{
        size_t size = tk_secret_len(secret);
        size_t len = 0;

        while (len < size && (len == 0 || tk_secret_bytes(secret)[len - 1] != '\n')) {
                ssize_t n = read(tty, tk_secret_bytes_mutable(secret) + len, size - len);

                if (n < 0 && errno == EINTR && noted_signal == 0)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                len += (size_t)n;
        }
        tk_secret_truncate(secret, len);
        return 0;
}

/* Returns the signal that came meanwhile in @ret_signal, 0 for none. */
static int ask_once(int tty, const char *prompt, struct tk_secret *secret, int *ret_signal)
{
        struct sigaction saved[CAUGHT_COUNT];
        struct termios before;
        struct termios quiet;
        int r;

        if (tcgetattr(tty, &before) < 0)
                return -errno;
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);

        catch_signals(saved);
        /* Quiet before it asks: whoever answers at once is neither shown nor thrown away. */
        if (tcsetattr(tty, TCSAFLUSH, &quiet) < 0) {
                r = -errno;
        } else {
                write_text(tty, prompt);
                r = read_line(tty, secret);
                (void)tcsetattr(tty, TCSAFLUSH, &before);
        }
        write_text(tty, "\n");
        release_signals(saved);
        *ret_signal = (int)noted_signal;
        return r;
}

int tk_tty_ask(const char *prompt, size_t max, struct tk_secret **ret_secret)
{
        TK_AUTOCLOSE int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
        int signal_number;
        int r;

        if (tty < 0)
                return -errno;
        do {
                TK_CLEANUP(tk_secret_freep) struct tk_secret *secret = NULL;

                signal_number = 0;
                r = tk_secret_new(max, &secret);
                if (r < 0)
                        return r;
                r = ask_once(tty, prompt, secret, &signal_number);
                if (signal_number != 0)
                        (void)raise(signal_number);
                if (r == 0)
                        *ret_secret = TK_TAKE(secret);
        } while (r == -EINTR && signal_number == SIGTSTP); /* continued: ask again */
        return r;
}

int tk_tty_confirm(const char *question)
{
        TK_AUTOCLOSE int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
        char answer[16] = "";
        ssize_t n;

        if (tty < 0)
                return -errno;
        /* Only what is typed after the question answers it. */
        (void)tcflush(tty, TCIFLUSH);
        write_text(tty, question);
        n = read(tty, answer, sizeof(answer) - 1);
        if (n < 0)
                return -errno;
        /* The rest of an overlong answer must not reach the shell. */
        if (n > 0 && answer[n - 1] != '\n')
                (void)tcflush(tty, TCIFLUSH);
        return strcmp(answer, "yes\n") == 0;
}

int tk_tty_want_yes(const char *command, const char *question, struct tk_fault *fault)
{
        int r = tk_tty_confirm(question);

        if (r == -ENXIO || r == -ENOENT || r == -ENOTTY)
                return tk_fault_set(fault, TK_FAULT_USAGE, r,
                                    "%s: this has to be confirmed, and there is no terminal to ask "
                                    "on: say --yes if you mean it",
                                    command);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot ask on the terminal: %s",
                                    strerror(-r));
        if (r == 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -ECANCELED, "%s: nothing was done",
                                    command);
        return 0;
}
