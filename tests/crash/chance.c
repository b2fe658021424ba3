/* SPDX-License-Identifier: Apache-2.0 */

/* Random bytes that can be had again, and allocations that fail. */

#include "calls.h"

#include "sched.h"
#include "wrap.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;

void tk_calls_seed(uint64_t seed)
{
        random_state = seed;
}

static uint64_t next_random(void)
{
        uint64_t z = random_state += 0x9e3779b97f4a7c15ULL;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        return z ^ z >> 31;
}

WRAP(ssize_t, getrandom, void *buf, size_t len, unsigned flags)
{
        uint8_t *at = buf;

        (void)flags;
        for (size_t done = 0; done < len; done += 8) {
                uint64_t word = next_random();

                memcpy(at + done, &word, len - done < 8 ? len - done : 8);
        }
        return (ssize_t)len;
}

/* Time, and the number of the process: they go into what is recorded. */

WRAP(int, clock_gettime, clockid_t clock, struct timespec *ret_now)
{
        static _Atomic long ticks;

        if (!tk_sched_is_on())
                return __real_clock_gettime(clock, ret_now);
        *ret_now = (struct timespec){.tv_sec = TK_DISK_NOW + tk_sched_seconds(),
                                     .tv_nsec = ticks++ % 1000000000L};
        return 0;
}

/* Always as long. */
WRAP(pid_t, getpid, void)
{
        return 1000000 + __real_getpid() % 1000000;
}

/* Allocation ---------------------------------------------------------------------- */

struct tk_alloc_fault tk_alloc_fault;
_Thread_local int tk_alloc_paused;
_Thread_local int tk_alloc_counted;

static bool refused(void)
{
        if (tk_alloc_fault.fail_at == 0 || tk_alloc_counted == 0 || tk_alloc_paused > 0 ||
            ++tk_alloc_fault.count != tk_alloc_fault.fail_at)
                return false;
        tk_alloc_fault.failed = true;
        errno = ENOMEM;
        return true;
}

WRAP(void *, malloc, size_t len)
{
        return refused() ? NULL : __real_malloc(len);
}

WRAP(void *, calloc, size_t count, size_t len)
{
        return refused() ? NULL : __real_calloc(count, len);
}

WRAP(void *, realloc, void *old, size_t len)
{
        return refused() ? NULL : __real_realloc(old, len);
}

WRAP(void *, reallocarray, void *old, size_t count, size_t len)
{
        return refused() ? NULL : __real_reallocarray(old, count, len);
}

WRAP(char *, strdup, const char *text)
{
        return refused() ? NULL : __real_strdup(text);
}

/* A state's check takes less time than mapping and clearing the scratch: it is kept. */
WRAP(void, tk_scratch_drop, void)
{
        (void)__real_tk_scratch_drop;
}
