/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Clean-up at the end of a scope, and ownership that shows.
 *
 * Acquire into a local marked TK_CLEANUP; hand it out with TK_TAKE as the last
 * step. A lock taken with TK_LOCK_SCOPE ends with its scope.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define TK_MUST_USE __attribute__((warn_unused_result))
#define TK_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define TK_CLEANUP(fn) __attribute__((cleanup(fn)))
#define TK_TAKE(p)                                                                                 \
        __extension__({                                                                            \
                __typeof__(p) taken_ = (p);                                                        \
                (p) = NULL;                                                                        \
                taken_;                                                                            \
        })
#define TK_DEFINE_CLEANUP(type, fn)                                                                \
        static inline void fn##p(type *p) /* NOLINT(bugprone-macro-parentheses): a type */         \
        {                                                                                          \
                (void)fn(*p);                                                                      \
        }

static inline void tk_freep(void *p)
{
        free(*(void **)p);
}

/* A descriptor that closes with its scope; -1 is "none". */
#define TK_AUTOCLOSE TK_CLEANUP(tk_closep)
static inline void tk_closep(const int *fd)
{
        if (*fd >= 0)
                close(*fd);
}
#define TK_TAKE_FD(fd)                                                                             \
        __extension__({                                                                            \
                int taken_ = (fd);                                                                 \
                (fd) = -1;                                                                         \
                taken_;                                                                            \
        })

static inline pthread_mutex_t *tk_mutex_enter(pthread_mutex_t *mutex)
{
        pthread_mutex_lock(mutex);
        return mutex;
}

static inline void tk_mutex_leavep(pthread_mutex_t **mutex)
{
        pthread_mutex_unlock(*mutex);
}

#define TK_LOCK_CONCAT_(a, b) a##b
#define TK_LOCK_NAME_(line) TK_LOCK_CONCAT_(tk_lock_scope_, line)
#define TK_LOCK_SCOPE(mutex)                                                                       \
        TK_CLEANUP(tk_mutex_leavep)                                                                \
        __attribute__((unused)) pthread_mutex_t *TK_LOCK_NAME_(__LINE__) = tk_mutex_enter(mutex)
