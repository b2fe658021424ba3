/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* For files that take the place of library functions: the linker's --wrap. */

#include <pthread.h>
#include <sys/types.h>
#include <sys/xattr.h>

/* The function that stands for @name; the real one is __real_@name. */
#define WRAP(type, name, ...)                                                                      \
        type __real_##name(__VA_ARGS__);                                                           \
        type __wrap_##name(__VA_ARGS__);                                                           \
        type __wrap_##name(__VA_ARGS__)

/* Allocations of the simulator's own don't fail (chance.c). */
extern _Thread_local int tk_alloc_paused;

static inline void tk_wrap_unlock(pthread_mutex_t *const *mutex)
{
        tk_alloc_paused--;
        pthread_mutex_unlock(*mutex);
}

/* `lock` is held to the end of the scope. */
void tk_sched_turn(void);
#define LOCKED                                                                                     \
        tk_sched_turn();                                                                           \
        __attribute__((cleanup(tk_wrap_unlock), unused)) pthread_mutex_t *const locked_ = &lock;   \
        pthread_mutex_lock(&lock);                                                                 \
        tk_alloc_paused++
