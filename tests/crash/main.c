/* SPDX-License-Identifier: Apache-2.0 */

/* tk_crash: the command line. */

#include "ace.h"
#include "base/log.h"
#include "base/plant.h"
#include "crypto/openssl_memory.h"
#include "explore.h"
#include "faults.h"
#include "judge.h"
#include "plants.h"
#include "workloads.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
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
        "  --faults        errors from below and failed allocations, instead of crashes\n"
        "  --recording F   the states of a recorded mount, instead of a workload (live.c)\n"
        "  --keystore F    the keystore of its volume\n"
        "  --program P     asked about each state: the tree's directory and the last `rows` "
        "follow\n"
        "  --plants        whether each fault of base/plant.h is found\n"
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
        bool faults;
        bool plants;
        const char *recording;
        const char *program;
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

static void count(struct report *report, const struct tk_explore *explore)
{
        report->states += explore->states;
        report->distinct += explore->distinct;
        report->again += explore->again;
        report->violations += explore->violations;
}

static struct tk_explore explore_new(const char *name, const struct options *options)
{
        return (struct tk_explore){.name = name,
                                   .seed = options->seed,
                                   .second = options->second,
                                   .shares = 1,
                                   .stop_after = options->stop_after};
}

/* Its share of the states of one workload. */
static struct report explore(const struct tk_workload *workload, const struct options *options,
                             uint64_t budget, unsigned share)
{
        struct tk_explore explore = explore_new(workload->name, options);
        struct report report = {0};
        struct tk_work work;
        struct tk_check check = {.work = &work};

        tk_workload_record(workload, options->seed, &work);
        explore.share = share;
        explore.shares = options->jobs;
        explore.per_prefix = (unsigned)(budget / work.recording.count) + 1;
        tk_explore_run(&explore, &check, &work.recording, &work.start);
        tk_work_done(&work);
        count(&report, &explore);
        return report;
}

/* The same of ace: about PER_SEQUENCE states of as many sequences as that makes. */
static struct report explore_ace(const struct options *options, uint64_t budget, unsigned share)
{
        enum { PER_SEQUENCE = 400, PER_PREFIX = 16 };
        uint64_t wanted = budget / PER_SEQUENCE + 1;
        unsigned all = tk_ace_count();
        struct report report = {0};

        for (uint64_t i = share; i < wanted; i += options->jobs) {
                unsigned index = wanted >= all ? (unsigned)(i % all)
                                               : (unsigned)(tk_mix(options->seed, i, 21) % all);
                char name[32];
                struct tk_explore explore = explore_new(name, options);
                struct tk_work work;
                struct tk_check check = {.work = &work};

                snprintf(name, sizeof(name), "ace-%u", index);
                tk_ace_record(index, options->seed, &work);
                explore.per_prefix = PER_PREFIX;
                tk_explore_run(&explore, &check, &work.recording, &work.start);
                tk_work_done(&work);
                count(&report, &explore);
                if (options->stop_after > 0 && report.violations >= options->stop_after)
                        break;
        }
        return report;
}

/* The same of a recorded mount. */
static struct report explore_recording(const struct options *options, uint64_t budget,
                                       unsigned share)
{
        struct tk_explore explore = explore_new(options->recording, options);
        struct tk_recording recording = {0};
        struct tk_check check = {.judge = tk_judge_state};
        struct report report = {0};
        struct tk_judge *judge;
        struct tk_disk empty;
        size_t lengths;
        int r;

        r = tk_recording_load(options->recording, &recording);
        if (r < 0 || recording.count == 0) {
                fprintf(stderr, "tk_crash: no recording in %s: %s\n", options->recording,
                        strerror(-r));
                exit(2);
        }
        tk_judge_prepare(&recording);
        judge = tk_judge_new(&recording, options->program);
        check.context = judge;
        tk_disk_init(&empty);
        explore.from = tk_judge_start(&recording) + 1;
        explore.share = share;
        explore.shares = options->jobs;
        lengths = recording.count - explore.from + 1;
        explore.per_prefix = (unsigned)(budget / lengths) + 1;
        explore.one_in = (unsigned)(lengths / (budget + 1)) + 1;
        for (size_t i = 0; options->events && i < recording.count; i++)
                tk_event_print(i, &recording.events[i]);
        if (options->state)
                exit(tk_explore_show(options->state, options->seed, &check, &recording, &empty) <
                     0);
        tk_explore_run(&explore, &check, &recording, &empty);
        tk_disk_done(&empty);
        tk_recording_done(&recording);
        tk_judge_free(judge);
        count(&report, &explore);
        return report;
}

/* One workload (NULL: ace), by several processes. */
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
                        struct report mine = options->recording
                                                     ? explore_recording(options, budget, share)
                                             : workload ? explore(workload, options, budget, share)
                                                        : explore_ace(options, budget, share);

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
               options->recording ? options->recording
               : workload         ? workload->name
                                  : "ace",
               sum.states, sum.distinct, sum.again, sum.violations, now() - began,
               failed ? ", FAILED: a process died" : "");
        fflush(stdout);
        total->states += sum.states;
        total->distinct += sum.distinct;
        total->again += sum.again;
        total->violations += sum.violations + (uint64_t)failed;
        return 0;
}

/* One workload (NULL: sequence @index of ace) for people: its recording, one of its states. */
static int show(const struct tk_workload *workload, unsigned index, const struct options *options)
{
        struct tk_work work;
        struct tk_check check = {.work = &work};
        char text[200];
        int r = 0;

        if (workload) {
                tk_workload_record(workload, options->seed, &work);
        } else {
                tk_ace_describe(index, text, sizeof(text));
                printf("%s\n", text);
                tk_ace_record(index, options->seed, &work);
        }
        for (size_t i = 0; options->events && i < work.recording.count; i++)
                tk_event_print(i, &work.recording.events[i]);
        if (options->state)
                r = tk_explore_show(options->state, options->seed, &check, &work.recording,
                                    &work.start);
        tk_work_done(&work);
        return r < 0;
}

static const struct tk_workload *find_workload(const char *name)
{
        for (size_t i = 0; i < tk_workload_count; i++)
                if (strcmp(tk_workloads[i].name, name) == 0)
                        return &tk_workloads[i];
        if (strncmp(name, "ace", 3) == 0)
                return NULL;
        fprintf(stderr, "tk_crash: there is no workload '%s'\n", name);
        exit(2);
}

static int run_faults(const struct options *options)
{
        double began = now();
        int failed = 0;

        /* OpenSSL allocates by way of the library: it, too, runs out of memory. */
        if (tk_openssl_wipe_memory() < 0) {
                fprintf(stderr, "tk_crash: OpenSSL has allocated already\n");
                return 2;
        }
        fflush(NULL);
        for (unsigned share = 0; share < options->jobs; share++) {
                struct tk_faults faults = {
                        .seed = options->seed, .share = share, .shares = options->jobs};

                if (fork() != 0)
                        continue;
                tk_faults_run(&faults);
                printf("faults: %" PRIu64 " runs, %" PRIu64 " errors returned, %" PRIu64
                       " violations\n",
                       faults.runs, faults.failed, faults.violations);
                fflush(stdout);
                _exit(faults.violations > 0);
        }
        for (unsigned share = 0; share < options->jobs; share++) {
                int status = 0;

                wait(&status);
                failed += status != 0;
                if (!WIFEXITED(status))
                        printf("FAILED: a process died\n");
        }
        printf("seed %" PRIu64 ": faults, %.1f s\n", options->seed, now() - began);
        return failed > 0;
}

static void parse(int argc, char **argv, struct options *options)
{
        enum {
                LIST = 1,
                STATES,
                SEED,
                JOBS,
                SECOND,
                STOP,
                STATE,
                EVENTS,
                FAULTS,
                PLANTS,
                PLANT,
                RECORDING,
                KEYSTORE,
                PROGRAM,
                HELP
        };
        static const struct option known[] = {
                {"list", no_argument, NULL, LIST},
                {"states", required_argument, NULL, STATES},
                {"seed", required_argument, NULL, SEED},
                {"jobs", required_argument, NULL, JOBS},
                {"second", required_argument, NULL, SECOND},
                {"stop-after", required_argument, NULL, STOP},
                {"state", required_argument, NULL, STATE},
                {"events", no_argument, NULL, EVENTS},
                {"faults", no_argument, NULL, FAULTS},
                {"recording", required_argument, NULL, RECORDING},
                {"keystore", required_argument, NULL, KEYSTORE},
                {"program", required_argument, NULL, PROGRAM},
                {"plants", no_argument, NULL, PLANTS},
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
                else if (option == FAULTS)
                        options->faults = true;
                else if (option == RECORDING)
                        options->recording = optarg;
                else if (option == KEYSTORE)
                        tk_stand_options.keystore = optarg;
                else if (option == PROGRAM)
                        options->program = optarg;
                else if (option == PLANTS)
                        options->plants = true;
                else if (option == PLANT)
                        tk_plant_active = (enum tk_plant)strtoul(optarg, NULL, 10);
                else if (option == LIST) {
                        for (size_t i = 0; i < tk_workload_count; i++)
                                printf("%s\n", tk_workloads[i].name);
                        printf("ace (%u sequences: ace-N)\n", tk_ace_count());
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
        char *const *names;
        size_t shares;

        /* Large buffers that a mount hardly touches come from the system, all others stay with us.
         */
        mallopt(M_MMAP_THRESHOLD, 512 * 1024);
        mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
        parse(argc, argv, &options);
        names = argv + optind;
        tk_log_set_level(options.state ? TK_LOG_DEBUG : TK_LOG_NONE);
        if (options.plants)
                return tk_plants_run(options.seed, options.states) > 0;
        if (options.faults)
                return run_faults(&options);
        if (*names && (options.state || options.events))
                return show(find_workload(*names),
                            (unsigned)strtoul(*names + strcspn(*names, "-") + 1, NULL, 10),
                            &options);
        /* Ace counts for four. */
        shares = optind < argc ? (size_t)(argc - optind) : tk_workload_count + 4;
        if (options.recording)
                run(NULL, &options, options.states, &total);
        for (; *names; names++)
                run(find_workload(*names), &options, options.states / shares, &total);
        if (optind == argc && !options.recording) {
                for (size_t i = 0; i < tk_workload_count; i++)
                        run(&tk_workloads[i], &options, options.states / shares, &total);
                run(NULL, &options, options.states * 4 / shares, &total);
        }
        printf("seed %" PRIu64 ": %" PRIu64 " states, %" PRIu64 " distinct, %" PRIu64
               " crashed twice, %" PRIu64 " violations, %.1f s\n",
               options.seed, total.states, total.distinct, total.again, total.violations,
               now() - began);
        return total.violations > 0;
}
