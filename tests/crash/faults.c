/* SPDX-License-Identifier: Apache-2.0 */

/* Faults: one at a time, at every place. */

#include "faults.h"

#include "ace.h"
#include "base/secret.h"
#include "calls.h"
#include "check.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { N_MAX = 2000 };

/* What fails. */
struct kind {
        const char *name;
        int error;     /* that the call fails with; 0: a short write */
        bool harmless; /* the library goes on after it */
        bool memory;   /* an allocation */
        bool full;     /* the disk has room for N pages more, instead of the Nth call failing */
};

static const struct kind kinds[] = {
        {"ENOSPC", .error = ENOSPC},
        {"EDQUOT", .error = EDQUOT},
        {"EIO", .error = EIO},
        {"EINTR", .error = EINTR, .harmless = true},
        {"a short write", .harmless = true},
        {"no memory", .error = ENOMEM, .memory = true},
        {"a full disk", .error = ENOSPC, .full = true},
};

/* What came before, by its text in ace: so that something is pending. */
static const char *const preludes[] = {"nothing", "overwrite across blocks", "append",
                                       "cut in a block", "punch across blocks"};

/* One run. */
struct run {
        struct tk_faults *faults;
        const struct kind *kind;
        const char *prelude;
        unsigned op;
        bool encrypted; /* names */
        unsigned long n;
        struct tk_work work;
        struct tk_ace_handles handles;
        bool reported; /* one violation of an operation and an error is enough to read */
};

__attribute__((format(printf, 2, 3))) static void wrong(struct run *run, const char *format, ...)
{
        va_list ap;

        run->faults->violations++;
        if (run->reported)
                return;
        run->reported = true;
        printf("VIOLATION faults: after '%s', '%s' with %s at %lu (%s): ", run->prelude,
               tk_ace_operation_text(run->op), run->kind->name, run->n,
               tk_calls.failed_call ? tk_calls.failed_call : "-");
        va_start(ap, format);
        vprintf(format, ap);
        va_end(ap);
        printf("\n");
        fflush(stdout);
}

static void arm(const struct run *run)
{
        const struct kind *kind = run->kind;

        tk_calls.failed = 0;
        tk_calls.failed_call = NULL;
        tk_alloc_fault = (struct tk_alloc_fault){.fail_at = kind->memory ? run->n : 0};
        if (kind->memory)
                return;
        if (kind->full) {
                tk_calls.capacity = tk_calls.disk.pages_used + run->n - 1;
                return;
        }
        tk_calls.count = 0;
        tk_calls.fail_at = run->n;
        tk_calls.fail_with = kind->error;
        tk_calls.fail_short = kind->error == 0;
}

static void disarm(void)
{
        tk_alloc_fault.fail_at = 0;
        tk_calls.fail_at = 0;
        tk_calls.capacity = 0;
}

static void check_live(struct run *run, const char *when)
{
        struct tk_check check = {.work = &run->work, .at = run->work.recording.count};
        char why[TK_CHECK_WHY];

        if (tk_check_live(&check, &run->work.stand, why) < 0)
                wrong(run, "%s: %s", when, why);
}

/* After a flush that failed below, the system may have dropped what it was to write. */
static bool may_have_lost(const struct run *run)
{
        for (size_t i = 0; i < run->work.recording.count; i++)
                if (run->work.recording.events[i].type == TK_EVENT_SYNC_FAILED)
                        return true;
        return false;
}

/* A flush of the library's own that failed is reported by the next fsync, and by no later one. */
static int sync_afterwards(struct run *run, int handle)
{
        int r = tk_work_fsync(&run->work, handle);

        if (r < 0 && r == -run->kind->error && may_have_lost(run))
                r = tk_work_fsync(&run->work, handle);
        return r;
}

static void flush_all(struct run *run)
{
        int r;

        r = sync_afterwards(run, run->handles.foo);
        if (r == 0)
                r = sync_afterwards(run, run->handles.bar);
        if (r < 0)
                wrong(run, "fsync afterwards: %s", strerror(-r));
        (void)tk_work_fsyncdir(&run->work, "A");
        (void)tk_work_fsyncdir(&run->work, "B");
        (void)tk_work_fsyncdir(&run->work, "");
}

/* A crash at the end of the recording leaves what was acknowledged. */
static void check_crash(struct run *run)
{
        static const struct tk_choice choices[] = {{.how = TK_CHOICE_ALL}, {.how = TK_CHOICE_NONE}};
        struct tk_check check = {.work = &run->work, .at = run->work.recording.count};
        struct tk_states states;
        char why[TK_CHECK_WHY];

        tk_states_init(&states, &run->work.recording, &run->work.start);
        while (tk_states_advance(&states))
                ;
        for (unsigned i = 0; i < 2; i++) {
                struct tk_disk disk;

                tk_states_make(&states, &choices[i], &disk);
                if (tk_check_disk(&check, &disk, why) < 0)
                        wrong(run, "a crash afterwards (%u): %s", i, why);
        }
        tk_states_done(&states);
}

/* OpenSSL does not say that it had no memory. */
static bool is_right_error(const struct run *run, int r)
{
        return r == -run->kind->error || (run->kind->memory && r == -EIO);
}

/* The operation with the fault. Whether it met it. */
static bool meet(struct run *run)
{
        bool met;
        int r;

        run->work.faulty = true;
        arm(run);
        r = tk_ace_do(&run->work, run->op, &run->handles, 77);
        met = tk_calls.failed > 0 || tk_alloc_fault.failed || (run->kind->full && r < 0);
        disarm();
        run->work.faulty = false;
        run->faults->failed += r < 0;
        if (r < 0 && !met)
                wrong(run, "it fails without the fault: %s", strerror(-r));
        else if (r < 0 && (run->kind->harmless || !is_right_error(run, r)))
                wrong(run, "it returns %s", strerror(-r));
        if (r < 0 && run->kind->full &&
            strncmp(tk_ace_operation_text(run->op), "overwrite", 9) == 0)
                wrong(run, "what needs no space fails");
        if (!met)
                return false;
        check_live(run, "right afterwards");
        if (r < 0) {
                r = tk_ace_do(&run->work, run->op, &run->handles, 77);
                if (r < 0)
                        wrong(run, "it fails again, without the fault: %s", strerror(-r));
        }
        return true;
}

static bool run_once(struct run *run)
{
        bool met;

        tk_ace_begin((run->faults->seed + run->n) << 1 | run->encrypted, &run->work, &run->handles);
        for (unsigned op = 0; op < tk_ace_operations(); op++)
                if (strcmp(tk_ace_operation_text(op), run->prelude) == 0)
                        (void)tk_ace_do(&run->work, op, &run->handles, 5);
        met = meet(run);
        if (met) {
                flush_all(run);
                check_live(run, "in the end");
        }
        tk_work_end(&run->work);
        if (met && !may_have_lost(run))
                check_crash(run);
        tk_work_done(&run->work);
        run->faults->runs++;
        return met;
}

/* Mounts and unmounts ---------------------------------------------------------------- */

/*
 * A disk that crashed while something was to be done at the next mount. The mount may
 * fail; when nothing fails any more, it succeeds, and all is there.
 */
static bool mount_once(struct run *run, const struct tk_disk *crashed, bool unmount)
{
        struct tk_check check = {.work = &run->work, .at = run->work.recording.count};
        char why[TK_CHECK_WHY] = "";
        struct tk_stand stand;
        struct tk_disk disk;
        bool met;
        int r;

        tk_disk_clone(crashed, &disk);
        tk_calls_start(&disk);
        if (!unmount)
                arm(run);
        tk_alloc_counted++;
        r = tk_stand_up(&stand, why);
        if (unmount) {
                tk_alloc_counted--;
                arm(run);
                tk_alloc_counted++;
        }
        if (r == 0)
                r = tk_stand_down(&stand, why);
        tk_alloc_counted--;
        met = tk_calls.failed > 0 || tk_alloc_fault.failed;
        disarm();
        if (r < 0 && (!met || run->kind->harmless))
                wrong(run, "a mount fails: %s", why);
        if (tk_calls_stop(&disk) > 0)
                wrong(run, "a mount left descriptors open");
        if (tk_secret_alive() > 1)
                wrong(run, "a mount left %zu secrets in memory", tk_secret_alive());
        if (tk_check_disk(&check, &disk, why) < 0)
                wrong(run, "after a mount that met it: %s", why);
        run->faults->runs++;
        run->faults->failed += r < 0;
        return met;
}

static void fail_mounts(struct tk_faults *faults)
{
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
                struct run run = {.faults = faults, .kind = &kinds[k], .prelude = "a crash"};
                static const struct tk_choice all = {.how = TK_CHOICE_ALL};
                struct tk_states states;
                struct tk_disk crashed;

                if (kinds[k].full)
                        continue;
                tk_ace_begin(faults->seed, &run.work, &run.handles);
                (void)tk_work_write(&run.work, run.handles.foo, 100, 6000, 1);
                (void)tk_work_fsync(&run.work, run.handles.foo);
                (void)tk_work_truncate(&run.work, run.handles.foo, 5000);
                (void)tk_work_fsync(&run.work, run.handles.foo);
                tk_work_end(&run.work);
                tk_states_init(&states, &run.work.recording, &run.work.start);
                while (tk_states_advance(&states))
                        ;
                tk_states_make(&states, &all, &crashed);
                tk_states_done(&states);
                for (run.n = 1; run.n < N_MAX && mount_once(&run, &crashed, false); run.n++)
                        ;
                for (run.n = 1; run.n < N_MAX && mount_once(&run, &crashed, true); run.n++)
                        ;
                tk_disk_done(&crashed);
                tk_work_done(&run.work);
        }
}

void tk_faults_run(struct tk_faults *faults)
{
        unsigned turn = 0;

        if (faults->share == 0)
                fail_mounts(faults);

        for (size_t p = 0; p < sizeof(preludes) / sizeof(preludes[0]); p++) {
                for (unsigned op = 0; op < tk_ace_operations(); op++) {
                        /* A mount and an unmount that fail are another matter. */
                        if (turn++ % faults->shares != faults->share ||
                            strcmp(tk_ace_operation_text(op), "remount") == 0)
                                continue;
                        for (size_t k = 0; k < 2 * sizeof(kinds) / sizeof(kinds[0]); k++) {
                                struct run run = {.faults = faults,
                                                  .kind = &kinds[k / 2],
                                                  .prelude = preludes[p],
                                                  .op = op,
                                                  .encrypted = k % 2};

                                for (run.n = 1; run.n < N_MAX && run_once(&run); run.n++)
                                        ;
                        }
                }
        }
}
