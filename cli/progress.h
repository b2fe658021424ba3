/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A progress bar on a terminal's stderr; silent anywhere else. For one thread. */

#include "base/cleanup.h"
#include <stdint.h>

struct tk_progress {
        bool on;
        uint64_t total;  /* bytes expected; 0: unknown */
        int64_t last_ms; /* when the line was last drawn */
        int64_t start_ms;
        const char *label; /* borrowed */
};

/* Whether a bar would be seen at all: for those who must compute a total for it. */
bool tk_progress_is_wanted(void);

void tk_progress_init(struct tk_progress *progress, const char *label, uint64_t total);

/* Draw the line again if a while has passed. */
void tk_progress_update(struct tk_progress *progress, uint64_t done);

/* The same where files are counted, not bytes. */
void tk_progress_count(struct tk_progress *progress, uint64_t files);

/* Take the line away: before anything else is printed, and at the end. */
void tk_progress_clear(struct tk_progress *progress);
