/* SPDX-License-Identifier: Apache-2.0 */

/* The clock of leases and windows. */

#include "base/clock.h"

#include <time.h>

int64_t tk_clock_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_BOOTTIME, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
