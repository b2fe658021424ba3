/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Taking turns.
 *
 * Whose turn it is is given away in the calls that wait. A thread that waits for its turn
 * with a lock that the others want would stop everything: after a while it goes on
 * without, and the recording is one that may not come again.
 */

#include "sched.h"

#include "wrap.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS_MAX = 64, PATIENCE_MS = 200 };

struct thread {
        void *(*run)(void *context);
        void *context;
        pthread_cond_t *waits_for; /* NULL: it does not wait */
        bool timed;                /* it waits with a time limit */
        bool late;                 /* which is over */
        bool ended;
        bool used;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct thread threads[THREADS_MAX]; /* 0: who started it */
static struct thread *turn;                /* NULL: nobody's */
static bool on;
static _Thread_local struct thread *self;
static _Atomic long seconds; /* that have passed */

int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __real_pthread_cond_broadcast(pthread_cond_t *cond);

/* All of these with the lock held. */

static void give_away(void)
{
        if (turn == self)
                turn = NULL;
        __real_pthread_cond_broadcast(&changed);
}

static bool wait_a_moment(struct timespec *until)
{
        if (until->tv_sec == 0) {
                timespec_get(until, TIME_UTC); /* not a clock of chance.c */
                until->tv_nsec += PATIENCE_MS * 1000000L;
                until->tv_sec += until->tv_nsec / 1000000000L;
                until->tv_nsec %= 1000000000L;
        }
        return __real_pthread_cond_timedwait(&changed, &lock, until) != ETIMEDOUT;
}

static void take(void)
{
        struct timespec until = {0};

        while (turn && turn != self && on)
                if (!wait_a_moment(&until))
                        return;
        turn = self;
}

static bool others_wait(void)
{
        for (int i = 0; i < THREADS_MAX; i++)
                if (threads[i].used && &threads[i] != self && !threads[i].ended &&
                    !threads[i].waits_for)
                        return false;
        return true;
}

void tk_sched_start(void)
{
        pthread_mutex_lock(&lock);
        for (int i = 0; i < THREADS_MAX; i++)
                threads[i] = (struct thread){.used = i == 0};
        seconds = 0;
        self = &threads[0];
        turn = self;
        on = true;
        pthread_mutex_unlock(&lock);
}

void tk_sched_stop(void)
{
        pthread_mutex_lock(&lock);
        on = false;
        turn = NULL;
        __real_pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
}

bool tk_sched_is_on(void)
{
        return on;
}

void tk_sched_settle(void)
{
        struct timespec until = {0};

        if (!on || !self)
                return;
        pthread_mutex_lock(&lock);
        give_away();
        while (!others_wait())
                if (!wait_a_moment(&until))
                        break;
        take();
        pthread_mutex_unlock(&lock);
}

void tk_sched_pass(int more)
{
        pthread_cond_t *conds[THREADS_MAX];
        int count = 0;

        if (!on || !self)
                return;
        seconds += more;
        pthread_mutex_lock(&lock);
        for (int i = 0; i < THREADS_MAX; i++) {
                if (!threads[i].waits_for || !threads[i].timed)
                        continue;
                threads[i].late = true;
                conds[count++] = threads[i].waits_for;
        }
        pthread_mutex_unlock(&lock);
        while (count > 0)
                pthread_cond_broadcast(conds[--count]);
}

long tk_sched_seconds(void)
{
        return seconds;
}

void tk_sched_turn(void)
{
        if (!on || !self)
                return;
        pthread_mutex_lock(&lock);
        take();
        pthread_mutex_unlock(&lock);
}

/* The calls that wait --------------------------------------------------------------- */

WRAP(int, pthread_cond_wait, pthread_cond_t *cond, pthread_mutex_t *mutex)
{
        int r;

        if (!on || !self)
                return __real_pthread_cond_wait(cond, mutex);
        pthread_mutex_lock(&lock);
        self->waits_for = cond;
        give_away();
        pthread_mutex_unlock(&lock);
        r = __real_pthread_cond_wait(cond, mutex);
        /* Others may want the mutex before it is this thread's turn. */
        pthread_mutex_unlock(mutex);
        pthread_mutex_lock(&lock);
        self->waits_for = NULL;
        take();
        pthread_mutex_unlock(&lock);
        pthread_mutex_lock(mutex);
        return r;
}

WRAP(int, pthread_cond_timedwait, pthread_cond_t *cond, pthread_mutex_t *mutex,
     const struct timespec *until)
{
        bool late;

        if (!on || !self)
                return __real_pthread_cond_timedwait(cond, mutex, until);
        self->timed = true;
        (void)__wrap_pthread_cond_wait(cond, mutex);
        pthread_mutex_lock(&lock);
        late = self->late;
        self->timed = false;
        self->late = false;
        pthread_mutex_unlock(&lock);
        return late ? ETIMEDOUT : 0;
}

/* Who waits for @cond does not any more: said here, before it runs. */
WRAP(int, pthread_cond_broadcast, pthread_cond_t *cond)
{
        if (!on)
                return __real_pthread_cond_broadcast(cond);
        pthread_mutex_lock(&lock);
        for (int i = 0; i < THREADS_MAX; i++)
                if (threads[i].waits_for == cond)
                        threads[i].waits_for = NULL;
        pthread_mutex_unlock(&lock);
        return __real_pthread_cond_broadcast(cond);
}

WRAP(int, pthread_cond_signal, pthread_cond_t *cond)
{
        return __wrap_pthread_cond_broadcast(cond);
}

static void *run_in_turn(void *context)
{
        void *result;

        self = context;
        pthread_mutex_lock(&lock);
        take();
        pthread_mutex_unlock(&lock);
        result = self->run(self->context);
        pthread_mutex_lock(&lock);
        self->ended = true;
        give_away();
        pthread_mutex_unlock(&lock);
        return result;
}

WRAP(int, pthread_create, pthread_t *ret_thread, const pthread_attr_t *attr,
     void *(*run)(void *context), void *context)
{
        struct thread *thread = NULL;

        if (!on || !self)
                return __real_pthread_create(ret_thread, attr, run, context);
        pthread_mutex_lock(&lock);
        for (int i = 1; i < THREADS_MAX && !thread; i++)
                if (!threads[i].used || threads[i].ended)
                        thread = &threads[i];
        assert(thread);
        *thread = (struct thread){.run = run, .context = context, .used = true};
        pthread_mutex_unlock(&lock);
        return __real_pthread_create(ret_thread, attr, run_in_turn, thread);
}

WRAP(int, pthread_join, pthread_t thread, void **ret_result)
{
        int r;

        if (!on || !self)
                return __real_pthread_join(thread, ret_result);
        pthread_mutex_lock(&lock);
        give_away();
        pthread_mutex_unlock(&lock);
        r = __real_pthread_join(thread, ret_result);
        tk_sched_turn();
        return r;
}
