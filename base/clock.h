/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The clock of leases and windows. */

#include <stdint.h>

/*
 * Milliseconds since boot, time asleep included. Nobody sets this clock, and it runs on
 * while the machine sleeps or the process is stopped.
 */
int64_t tk_clock_ms(void);
