/* SPDX-License-Identifier: Apache-2.0 */

/* A progress bar: one line that is drawn over and over, ten times a second at most. */

#include "cli/progress.h"

#include "cli/text.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { REDRAW_MS = 100, BAR_WIDTH = 30 };

static int64_t now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool tk_progress_is_wanted(void)
{
        const char *term = getenv("TERM");

        return isatty(STDERR_FILENO) && (!term || strcmp(term, "dumb") != 0);
}

void tk_progress_init(struct tk_progress *progress, const char *label, uint64_t total)
{
        *progress = (struct tk_progress){.on = tk_progress_is_wanted(),
                                         .total = total,
                                         .start_ms = now_ms(),
                                         .label = label};
}

static void draw_bar(const struct tk_progress *progress, uint64_t done)
{
        static const char full[] = "##############################";
        static const char rest[] = "..............................";
        double part = done < progress->total ? (double)done / (double)progress->total : 1;
        int filled = (int)(part * (double)BAR_WIDTH);

        fprintf(stderr, "[%.*s%.*s] %3d%%  ", filled, full, BAR_WIDTH - filled, rest,
                (int)(part * 100));
}

/* Whether it is time to draw; @ret_now is set then. */
static bool is_due(struct tk_progress *progress, int64_t *ret_now)
{
        if (!progress->on)
                return false;
        *ret_now = now_ms();
        if (*ret_now - progress->last_ms < REDRAW_MS)
                return false;
        progress->last_ms = *ret_now;
        return true;
}

void tk_progress_count(struct tk_progress *progress, uint64_t files)
{
        int64_t now;

        if (!is_due(progress, &now))
                return;
        fprintf(stderr, "\r\033[K%s  %" PRIu64 " files", progress->label, files);
        fflush(stderr);
}

void tk_progress_update(struct tk_progress *progress, uint64_t done)
{
        int64_t now;
        char size[16];
        char rate[16];

        if (!is_due(progress, &now))
                return;
        fprintf(stderr, "\r\033[K%s  ", progress->label);
        if (progress->total > 0)
                draw_bar(progress, done);
        fprintf(stderr, "%s  %s/s", tk_text_size(done, size),
                tk_text_size(done * 1000 / (uint64_t)(now - progress->start_ms + 1), rate));
        fflush(stderr);
}

void tk_progress_clear(struct tk_progress *progress)
{
        if (!progress->on)
                return;
        fputs("\r\033[K", stderr);
        fflush(stderr);
        progress->last_ms = 0;
}
