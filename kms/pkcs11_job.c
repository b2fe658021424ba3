/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Jobs: calls of the module in threads of their own, so that one that hangs holds up
 * nobody for longer than the deadline. Their number is bounded: when that many hang,
 * further calls fail at once.
 */

#include "base/registers.h"
#include "base/thread.h"
#include "kms/pkcs11_internal.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
        END_MS = 1000,
        FIRST_MS = 10000, /* the first call loads the module and logs in; nobody is served yet */
};

int tk_p11_job_new(int (*run)(struct tk_p11 *p11, struct tk_p11_job *job),
                   struct tk_p11_job **ret_job)
{
        struct tk_p11_job *job = calloc(1, sizeof(*job));

        if (!job)
                return -ENOMEM;
        job->run = run;
        *ret_job = job;
        return 0;
}

struct tk_p11_job *tk_p11_job_free(struct tk_p11_job *job)
{
        if (!job)
                return NULL;
        tk_secret_free(job->key);
        tk_p11_versions_done(&job->versions);
        free(job);
        return NULL;
}

static void *thread(void *context)
{
        struct tk_p11_job *job = context;
        struct tk_p11 *p11 = job->p11;

        job->r = job->run(p11, job);
        tk_registers_wipe();
        TK_LOCK_SCOPE(&p11->jobs_lock);
        job->ended = true;
        if (job->late) {
                p11->late--;
                tk_p11_job_free(job); /* before anybody can take it for the last one */
        }
        p11->jobs--;
        pthread_cond_broadcast(&p11->job_ended);
        return NULL;
}

static int say_late(const struct tk_p11 *p11, unsigned deadline_ms, struct tk_fault *fault)
{
        return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                            "the token of the root key %s can't be used now: the PKCS#11 module %s "
                            "did not answer within %u s; if it stays so, look at the token and its "
                            "service, then mount again",
                            p11->uri.key_id, p11->module, deadline_ms / 1000);
}

/* A place among the jobs, or -ENOKEY. The lock is held. */
static int take_place(struct tk_p11 *p11, unsigned deadline_ms, const struct timespec *until,
                      struct tk_fault *fault)
{
        while (p11->jobs == TK_P11_JOBS_MAX) {
                if (p11->late == TK_P11_JOBS_MAX ||
                    pthread_cond_timedwait(&p11->job_ended, &p11->jobs_lock, until) != 0)
                        return say_late(p11, deadline_ms, fault);
        }
        p11->jobs++;
        return 0;
}

/* Whether it ended in time. The lock is held. */
static bool await(struct tk_p11 *p11, struct tk_p11_job *job, const struct timespec *until)
{
        while (!job->ended)
                if (pthread_cond_timedwait(&p11->job_ended, &p11->jobs_lock, until) == ETIMEDOUT &&
                    !job->ended) {
                        job->late = true;
                        p11->late++;
                        p11->was_late = true;
                        return false;
                }
        p11->answered = true;
        return true;
}

int tk_p11_job_run(struct tk_p11 *p11, struct tk_p11_job **job, struct tk_fault *fault)
{
        unsigned deadline_ms = (*job)->deadline_ms ? (*job)->deadline_ms : p11->deadline_ms;
        struct timespec until;
        pthread_t id = 0;
        bool ended;
        int r;

        {
                TK_LOCK_SCOPE(&p11->jobs_lock);
                if (!p11->answered && deadline_ms < FIRST_MS)
                        deadline_ms = FIRST_MS;
                until = tk_thread_deadline(deadline_ms);
                r = take_place(p11, deadline_ms, &until, fault);
        }
        if (r == 0) {
                (*job)->p11 = p11;
                (*job)->ended = false;
                (*job)->fault = (struct tk_fault){0};
                r = tk_thread_start(thread, *job, &id);
                if (r < 0) {
                        TK_LOCK_SCOPE(&p11->jobs_lock);
                        p11->jobs--;
                }
        }
        if (r < 0)
                return r;
        {
                TK_LOCK_SCOPE(&p11->jobs_lock);
                ended = await(p11, *job, &until);
        }
        if (!ended) {
                pthread_detach(id);
                *job = NULL;
                return say_late(p11, deadline_ms, fault);
        }
        pthread_join(id, NULL);
        if ((*job)->fault.kind)
                tk_fault_describe(fault, (*job)->fault.kind, "%s", (*job)->fault.text);
        return (*job)->r;
}

/* Whether all have come back, within a second. */
static bool are_over(struct tk_p11 *p11)
{
        struct timespec until = tk_thread_deadline(END_MS);

        TK_LOCK_SCOPE(&p11->jobs_lock);
        while (p11->jobs > 0)
                if (pthread_cond_timedwait(&p11->job_ended, &p11->jobs_lock, &until) == ETIMEDOUT)
                        return false;
        return true;
}

static int job_disconnect(struct tk_p11 *p11, struct tk_p11_job *job)
{
        (void)job;
        tk_p11_disconnect(p11);
        return 0;
}

/*
 * Handlers and destructors of exit(3) would take away what a thread in the module still uses.
 * The one that was registered last runs first.
 */
static void leave_at_once(int status, void *context)
{
        (void)context;
        (void)fflush(NULL);
        _exit(status);
}

bool tk_p11_end(struct tk_p11 *p11)
{
        TK_CLEANUP(tk_p11_job_freep) struct tk_p11_job *job = NULL;

        if (are_over(p11)) {
                if (!p11->functions)
                        return true;
                if (tk_p11_job_new(job_disconnect, &job) == 0 &&
                    tk_p11_job_run(p11, &job, NULL) == 0)
                        return true;
        }
        (void)on_exit(leave_at_once, NULL);
        return false;
}
