/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `status --watch`.
 *
 * On a terminal, the alternate screen: what was there before comes back at the end. Each look is
 * drawn over the one before, and what is left of that is wiped line by line, so that nothing
 * flickers. Elsewhere each look is a block of text.
 */

#include "cli/watch.h"

#include "base/clock.h"
#include "cli/status.h"
#include "cli/text.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

/* Lines are not wrapped by the terminal: whatever it takes for wider than we do is cut. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"
#define HOME "\033[H"
#define END_OF_LINE "\033[K\n"
#define WIPE_REST "\033[K\033[J"

enum { INDENT = 16, NARROW = 40, NARROW_INDENT = 2 };

/* Folding -------------------------------------------------------------------- */

static bool is_start(char c)
{
        return ((unsigned char)c & 0xc0) != 0x80; /* of a character in UTF-8 */
}

/* Bytes of the first @width characters of @line, or up to the last space among them. */
static size_t fitting(const char *line, size_t len, unsigned width)
{
        unsigned columns = 0;
        size_t space = 0;

        for (size_t i = 0; i < len; i++) {
                if (line[i] == ' ' && i > 0 && line[i - 1] != ' ')
                        space = i;
                if (is_start(line[i]) && ++columns > width)
                        return line[i] == ' ' ? i : space > 0 ? space : i;
        }
        return len;
}

void tk_watch_fold(FILE *out, const char *text, unsigned width, unsigned rows, const char *end)
{
        unsigned indent = width < NARROW ? NARROW_INDENT : INDENT;
        const char *ended = "";
        unsigned used = 0;

        while (*text) {
                size_t len = strcspn(text, "\n");
                unsigned taken = 0; /* columns, by the indent of what goes below */

                /* The rest of a line starts behind its indent, at its first word. */
                do {
                        size_t fit = fitting(text, len, width > taken ? width - taken : 1);

                        if (used++ == rows)
                                return;
                        fprintf(out, "%s%*s%.*s", ended, (int)taken, "", (int)fit, text);
                        ended = end;
                        text += fit;
                        len -= fit;
                        for (; len > 0 && *text == ' '; len--)
                                text++;
                        taken = indent;
                } while (len > 0);
                if (*text)
                        text++;
        }
}

/* Signals -------------------------------------------------------------------- */

static bool on_screen; /* set before the handlers are */

static void write_raw(const char *text)
{
        (void)!write(STDOUT_FILENO, text, strlen(text));
}

/* Also while we wait for an answer of the mount: nothing is ours that would have to be undone. */
static void end(int signal_number)
{
        (void)signal_number;
        if (on_screen)
                write_raw(LEAVE);
        _exit(0);
}

/* The shell has the terminal until we are continued. */
static void stop(int signal_number)
{
        (void)signal_number;
        write_raw(LEAVE);
        (void)raise(SIGSTOP);
        write_raw(ENTER);
}

static void note(int signal_number)
{
        (void)signal_number; /* the wait was interrupted, which is all */
}

static void catch_signal(int signal_number, void (*handler)(int))
{
        struct sigaction action = {.sa_handler = handler};
        struct sigaction before;

        /* What was ignored from the start, such as by nohup, stays so. */
        if (sigaction(signal_number, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
                (void)sigaction(signal_number, &action, NULL);
}

/* What has the screen drawn again comes while we wait, and only then: @ret_waiting. */
static void catch_signals(sigset_t *ret_waiting)
{
        static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
        sigset_t drawing;

        sigemptyset(&drawing);
        if (on_screen) {
                sigaddset(&drawing, SIGTSTP);
                sigaddset(&drawing, SIGWINCH);
                catch_signal(SIGTSTP, stop);
                catch_signal(SIGWINCH, note);
        }
        (void)sigprocmask(SIG_BLOCK, &drawing, ret_waiting);
        for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
                catch_signal(ending[i], end);
}

/* Looking -------------------------------------------------------------------- */

struct watch {
        const char *cipherdir;
        int64_t interval_ms;
        bool json;
        bool screen;
        json_t *root; /* the present look; NULL: there is none */
        json_t *last; /* the one before */
        const char *why;
        int64_t looked_ms;
        int64_t last_ms;
        int64_t answered_ms; /* when a mount last said how it is; -1: none did */
        struct tk_fault fault;
};

/* 0, or what is wrong with the volume, in the watch's fault. */
static int look(struct watch *watch)
{
        int r;

        json_decref(watch->last);
        watch->last = watch->root;
        watch->last_ms = watch->looked_ms;
        watch->root = NULL;
        watch->fault = (struct tk_fault){0};
        r = tk_status_gather(watch->cipherdir, &watch->root, &watch->why, &watch->fault);
        watch->looked_ms = tk_clock_ms();
        if (json_is_object(json_object_get(watch->root, "daemon")))
                watch->answered_ms = watch->looked_ms;
        return r;
}

static void print_look(const struct watch *watch, FILE *out)
{
        bool gone = watch->answered_ms >= 0 && watch->answered_ms != watch->looked_ms;
        struct tk_status_look at = {
                .root = watch->root,
                .why = watch->why,
                .last = watch->last,
                .apart_ms = watch->looked_ms - watch->last_ms,
                .gone_s = gone ? (watch->looked_ms - watch->answered_ms) / 1000 : -1,
                .now = time(NULL),
        };

        if (watch->root)
                tk_status_print_look(out, &at);
        else
                fprintf(out, "%s\n", watch->fault.text);
}

static void draw(const struct watch *watch)
{
        struct winsize size = {0};
        char *text = NULL;
        size_t len;
        FILE *out = open_memstream(&text, &len);

        if (!out)
                return;
        print_look(watch, out);
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        if (fclose(out) == 0) {
                fputs(HOME, stdout);
                tk_watch_fold(stdout, text, size.ws_col > 0 ? size.ws_col : 80,
                              size.ws_row > 0 ? size.ws_row : 24, END_OF_LINE);
                fputs(WIPE_REST, stdout);
        }
        free(text);
}

/* A look that failed is a line as well: who reads them must not take the last one for the present.
 */
static void print_line(const struct watch *watch)
{
        json_t *line = watch->root ? json_incref(watch->root)
                                   : json_pack("{so}", "error", tk_text_json(watch->fault.text));

        (void)json_dumpf(line, stdout, JSON_COMPACT);
        fputc('\n', stdout);
        json_decref(line);
}

static void show(const struct watch *watch)
{
        if (watch->screen) {
                draw(watch);
        } else if (!watch->json) {
                print_look(watch, stdout);
                fputc('\n', stdout);
        } else {
                print_line(watch);
        }
        (void)fflush(stdout);
}

/* Wait for the time of the next look: whether it has come. Otherwise the screen wants drawing. */
static bool wait_for_next(const struct watch *watch, const sigset_t *waiting)
{
        int64_t left_ms = watch->looked_ms + watch->interval_ms - tk_clock_ms();
        struct timespec left = {.tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000};

        return left_ms <= 0 || ppoll(NULL, 0, &left, waiting) == 0;
}

static void watch_on(struct watch *watch)
{
        sigset_t waiting;

        on_screen = watch->screen;
        catch_signals(&waiting);
        if (watch->screen)
                fputs(ENTER, stdout);
        do {
                show(watch);
                if (wait_for_next(watch, &waiting))
                        (void)look(watch);
        } while (!ferror(stdout));
        if (watch->screen)
                fputs(LEAVE, stdout);
}

static int take_interval(const char *text, int64_t *ret_ms, struct tk_fault *fault)
{
        char *end = NULL;
        double seconds = text ? strtod(text, &end) : 1;

        if (text && (end == text || *end || !(seconds >= 0.1 && seconds <= 3600)))
                return tk_fault_set(fault, TK_FAULT_USAGE, -EINVAL,
                                    "status: --interval takes seconds, from 0.1 to 3600, not '%s'",
                                    text);
        *ret_ms = (int64_t)(seconds * 1000);
        return 0;
}

static bool is_screen(void)
{
        const char *term = getenv("TERM");

        return isatty(STDOUT_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

int tk_watch(const char *cipherdir, const char *interval, bool json, struct tk_fault *fault)
{
        struct watch watch = {.cipherdir = cipherdir,
                              .json = json,
                              .screen = !json && is_screen(),
                              .answered_ms = -1};
        int r;

        r = take_interval(interval, &watch.interval_ms, fault);
        if (r < 0)
                return r;
        r = look(&watch);
        if (r == 0)
                watch_on(&watch); /* ends by a signal, or when nobody takes what is written */
        else
                *fault = watch.fault;
        json_decref(watch.last);
        json_decref(watch.root);
        return r;
}
