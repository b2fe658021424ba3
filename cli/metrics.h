/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Metrics for Prometheus: on a Unix socket, by HTTP, and as a textfile for node_exporter.
 *
 * One thread does both. It serves some clients at a time, each for some seconds, with
 * bounded memory. Socket and the textfile's directory are opened at the start; afterwards
 * nothing is opened but files in that directory.
 */

#include "base/fault.h"
#include <stddef.h>
#include <stdint.h>

struct tk_metrics; /* opaque */

struct tk_metrics_options {
        const char *socket;   /* absolute path; NULL: none */
        const char *group;    /* who may connect beside the owner: name or number; NULL: nobody */
        const char *textfile; /* absolute path; NULL: none */
        unsigned interval_s;  /* between two textfiles */
        /* The page, as a heap text of @ret_len bytes. Called in the metrics' thread. */
        int (*make)(void *context, char **ret_text, size_t *ret_len);
        void *context;
};

/*
 * Start; the first textfile is written at once. @options are copied, but for what they point
 * to. With neither socket nor textfile nothing is started, and *@ret_metrics is NULL.
 */
TK_MUST_USE int tk_metrics_start(const struct tk_metrics_options *options,
                                 struct tk_metrics **ret_metrics, struct tk_fault *fault);

/* End the thread without waiting for clients; remove socket and textfile. NULL is fine. */
struct tk_metrics *tk_metrics_stop(struct tk_metrics *metrics);
TK_DEFINE_CLEANUP(struct tk_metrics *, tk_metrics_stop)
