/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Metrics of a mount in Prometheus' text format, version 0.0.4: docs/monitoring.md. */

#include "cli/serve.h"

/*
 * All metrics of @serve as a heap text of @ret_len bytes, which the caller frees. From any
 * thread; asks no KMS and waits for no file of the mount. -ENOMEM.
 */
TK_MUST_USE int tk_metrics_text(const struct tk_serve *serve, char **ret_text, size_t *ret_len);

/* Write @value into @out as the value of a label: quotes, backslashes and newlines escaped. */
void tk_metrics_label(FILE *out, const char *value);
