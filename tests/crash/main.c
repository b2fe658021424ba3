/* SPDX-License-Identifier: Apache-2.0 */

/* tk_crash: the command line. */

#include "base/log.h"
#include "base/plant.h"
#include "explore.h"
#include "workloads.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
        "Usage: tk_crash [OPTION]... [WORKLOAD]...\n"
        "\n"
        "Records workloads on a simulated disk and checks what crashes could leave.\n"
        "\n"
        "  --list          the workloads\n"
        "  --states N      about this many states in all (default 20000)\n"
        "  --seed N        of workloads and states (default 1)\n"
        "  --jobs N        processes (default 1)\n"
        "  --second N      one state in N is crashed again while it is mounted (default 16)\n"
        "  --stop-after N  violations of a workload\n"
        "  --state NAME    show and check this state of the one workload that is given\n"
        "  --events        print the recording\n"
        "  --plant N       with this fault in the library (base/plant.h)\n";

enum tk_plant tk_plant_active;

struct options {
        uint64_t states;
        uint64_t seed;
        unsigned jobs;
        unsigned second;
        unsigned stop_after;
        const char *state;
        bool events;
};

/* What a process tells the one that started it. */
struct report {
        uint64_t states;
        uint64_t distinct;
        uint64_t again;
        uint64_t violations;
};

static double now(void)
{
        struct timespec time;

        clock_gettime(CLOCK_MONOTONIC, &time);
        return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Its share of the states of one workload. */
static struct report explore(const struct tk_workload *workload, const struct options *options,
                             uint64_t budget, unsigned share)
{
        struct tk_explore explore = {.name = workload->name,
                                     .seed = options->seed,
                                     .second = options->second,
                                     .share = share,
                                     .shares = options->jobs,
                                     .stop_after = options->stop_after};
        struct tk_work work;
        struct tk_check check = {.work = &work};

        tk_workload_record(workload, options->seed, &work);
        explore.per_prefix = (unsigned)(budget / work.recording.count) + 1;
        tk_explore_run(&explore, &check, &work.recording, &work.start);
        tk_work_done(&work);
        return (struct report){explore.states, explore.distinct, explore.again, explore.violations};
}

/* One workload, by several processes. */
static int run(const struct tk_workload *workload, const struct options *options, uint64_t budget,
               struct report *total)
{
        struct report sum = {0};
        double began = now();
        int pipes[2];
        int failed = 0;

        if (pipe(pipes) < 0)
                return -errno;
        fflush(NULL);
        for (unsigned share = 0; share < options->jobs; share++) {
                if (fork() == 0) {
                        struct report mine = explore(workload, options, budget, share);

                        _exit(write(pipes[1], &mine, sizeof(mine)) == sizeof(mine) ? 0 : 1);
                }
        }
        close(pipes[1]);
        for (unsigned share = 0; share < options->jobs; share++) {
                struct report mine;
                int status = 0;

                if (read(pipes[0], &mine, sizeof(mine)) == sizeof(mine)) {
                        sum.states += mine.states;
                        sum.distinct += mine.distinct;
                        sum.again += mine.again;
                        sum.violations += mine.violations;
                }
                wait(&status);
                failed += status != 0;
        }
        close(pipes[0]);
        printf("%-26s %8" PRIu64 " states, %8" PRIu64 " distinct, %7" PRIu64
               " crashed twice, %5" PRIu64 " violations, %.1f s%s\n",
               workload->name, sum.states, sum.distinct, sum.again, sum.violations, now() - began,
               failed ? ", FAILED: a process died" : "");
        fflush(stdout);
        total->states += sum.states;
        total->distinct += sum.distinct;
        total->again += sum.again;
        total->violations += sum.violations + (uint64_t)failed;
        return 0;
}

static int show(const struct tk_workload *workload, const struct options *options)
{
        struct tk_work work;
        struct tk_check check = {.work = &work};
        int r = 0;

        tk_workload_record(workload, options->seed, &work);
        for (size_t i = 0; options->events && i < work.recording.count; i++)
                tk_event_print(i, &work.recording.events[i]);
        if (options->state)
                r = tk_explore_show(options->state, options->seed, &check, &work.recording,
                                    &work.start);
        tk_work_done(&work);
        return r < 0;
}

static bool wanted(const char *name, char *const *names)
{
        if (!*names)
                return true;
        for (; *names; names++)
                if (strcmp(*names, name) == 0)
                        return true;
        return false;
}

static void parse(int argc, char **argv, struct options *options)
{
        enum { LIST = 1, STATES, SEED, JOBS, SECOND, STOP, STATE, EVENTS, PLANT, HELP };
        static const struct option known[] = {
                {"list", no_argument, NULL, LIST},
                {"states", required_argument, NULL, STATES},
                {"seed", required_argument, NULL, SEED},
                {"jobs", required_argument, NULL, JOBS},
                {"second", required_argument, NULL, SECOND},
                {"stop-after", required_argument, NULL, STOP},
                {"state", required_argument, NULL, STATE},
                {"events", no_argument, NULL, EVENTS},
                {"plant", required_argument, NULL, PLANT},
                {"help", no_argument, NULL, HELP},
                {NULL, 0, NULL, 0},
        };
        int option;

        while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
                if (option == STATES)
                        options->states = strtoull(optarg, NULL, 10);
                else if (option == SEED)
                        options->seed = strtoull(optarg, NULL, 10);
                else if (option == JOBS)
                        options->jobs = (unsigned)strtoul(optarg, NULL, 10);
                else if (option == SECOND)
                        options->second = (unsigned)strtoul(optarg, NULL, 10);
                else if (option == STOP)
                        options->stop_after = (unsigned)strtoul(optarg, NULL, 10);
                else if (option == STATE)
                        options->state = optarg;
                else if (option == EVENTS)
                        options->events = true;
                else if (option == PLANT)
                        tk_plant_active = (enum tk_plant)strtoul(optarg, NULL, 10);
                else if (option == LIST) {
                        for (size_t i = 0; i < tk_workload_count; i++)
                                printf("%s\n", tk_workloads[i].name);
                        exit(0);
                } else {
                        fputs(usage, option == HELP ? stdout : stderr);
                        exit(option == HELP ? 0 : 2);
                }
        }
}

int main(int argc, char **argv)
{
        struct options options = {.states = 20000, .seed = 1, .jobs = 1, .second = 16};
        struct report total = {0};
        double began = now();
        size_t count = 0;

        parse(argc, argv, &options);
        tk_log_set_level(options.state ? TK_LOG_DEBUG : TK_LOG_NONE);
        for (size_t i = 0; i < tk_workload_count; i++)
                count += wanted(tk_workloads[i].name, argv + optind);
        if (count == 0) {
                fprintf(stderr, "tk_crash: no such workload\n");
                return 2;
        }
        for (size_t i = 0; i < tk_workload_count; i++) {
                if (!wanted(tk_workloads[i].name, argv + optind))
                        continue;
                if (options.state || options.events)
                        return show(&tk_workloads[i], &options);
                run(&tk_workloads[i], &options, options.states / count, &total);
        }
        printf("seed %" PRIu64 ": %" PRIu64 " states, %" PRIu64 " distinct, %" PRIu64
               " crashed twice, %" PRIu64 " violations, %.1f s\n",
               options.seed, total.states, total.distinct, total.again, total.violations,
               now() - began);
        return total.violations > 0;
}
