/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The program: options, the loop, the second process, and what is printed when
 * the sides differ.
 *
 * Exit codes: 0 no difference, 1 a difference, 2 usage, 3 something beside the
 * test failed (the remount command, the plain directory), 4 an operation hung.
 */

#include "tests/model/model.h"
#include "base/cleanup.h"
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { LOG_LINES = 60, LOG_LINE_LEN = 256, HANG_SECONDS = 120 };
enum { EXIT_SAME = 0, EXIT_DIFFERS = 1, EXIT_USAGE = 2, EXIT_BROKEN = 3, EXIT_HUNG = 4 };

static char log_lines[LOG_LINES][LOG_LINE_LEN];
static _Atomic uint64_t log_count;

/* The operation under way, for the watchdog. */
static struct model_op current;
static _Atomic uint64_t heartbeat;

static void log_op(const struct model_config *config, const struct model_op *op,
                   const struct model_outcome *outcome)
{
        char *line = log_lines[log_count % LOG_LINES];

        model_describe(op, outcome, line, LOG_LINE_LEN);
        log_count++;
        if (config->trace)
                fprintf(stderr, "%s\n", line);
}

static void print_log(void)
{
        uint64_t count = log_count;
        uint64_t first = count > LOG_LINES ? count - LOG_LINES : 0;

        fprintf(stderr, "the last %llu operations, oldest first:\n",
                (unsigned long long)(count - first));
        for (uint64_t i = first; i < count; i++)
                fprintf(stderr, "%s\n", log_lines[i % LOG_LINES]);
}

/* A request that never returns can't be interrupted: another thread ends the process. */
static void *watch(void *context)
{
        uint64_t seen = 0;

        (void)context;
        for (unsigned idle = 0; idle < HANG_SECONDS; idle++) {
                uint64_t now = heartbeat;

                if (now != seen)
                        idle = 0;
                seen = now;
                sleep(1);
        }
        print_log();
        fprintf(stderr, "operation %llu (%s, process %u) has not returned for %d seconds\n",
                (unsigned long long)current.number, model_kind_name(current.kind), current.process,
                HANG_SECONDS);
        _exit(EXIT_HUNG);
}

/* The second process: operations come in by the socket, outcomes go back. */
static void serve(const struct model_config *config, int sock)
{
        struct model_worker *worker = model_worker_new(config, 1);
        struct model_op op;

        while (recv(sock, &op, sizeof(op), 0) == sizeof(op)) {
                struct model_outcome outcome;

                model_worker_run(worker, &op, &outcome);
                if (send(sock, &outcome, sizeof(outcome), 0) != sizeof(outcome))
                        break;
        }
        model_worker_free(worker);
}

static pid_t start_second(const struct model_config *config, int *ret_sock)
{
        int pair[2];
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -1;
        pid = fork();
        if (pid == 0) {
                close(pair[0]);
                serve(config, pair[1]);
                _exit(0);
        }
        close(pair[1]);
        *ret_sock = pair[0];
        return pid;
}

static void send_second(int sock, const struct model_op *op)
{
        if (send(sock, op, sizeof(*op), MSG_NOSIGNAL) != sizeof(*op))
                fprintf(stderr, "the second process does not take orders: %m\n");
}

static void receive_second(int sock, struct model_outcome *outcome)
{
        if (recv(sock, outcome, sizeof(*outcome), 0) != sizeof(*outcome)) {
                memset(outcome, 0, sizeof(*outcome));
                model_differ(outcome, "the second process ended");
        }
}

static void remount(const struct model_config *config, struct model_outcome *outcome)
{
        int status = system(config->remount); /* NOLINT(cert-env33-c): the caller's command */

        memset(outcome, 0, sizeof(*outcome));
        if (status)
                model_differ(outcome, "the remount command ended with status 0x%x", status);
}

static void run_both(struct model_worker *worker, int sock, const struct model_op *op,
                     struct model_outcome *outcome)
{
        struct model_outcome other;

        send_second(sock, op);
        model_worker_run(worker, op, outcome);
        receive_second(sock, &other);
        if (other.differs)
                model_differ(outcome, "second process: %.700s", other.text);
}

static void run_op(const struct model_config *config, struct model_worker *worker, int sock,
                   const struct model_op *op, struct model_outcome *outcome)
{
        if (op->kind == MODEL_REMOUNT) {
                remount(config, outcome);
        } else if (op->kind == MODEL_BURST_WRITE || op->kind == MODEL_BURST_APPEND) {
                run_both(worker, sock, op, outcome);
        } else if (op->process == 0) {
                model_worker_run(worker, op, outcome);
        } else {
                send_second(sock, op);
                receive_second(sock, outcome);
        }
}

static int loop(const struct model_config *config, struct model_plan *plan,
                struct model_worker *worker, int sock)
{
        while (!model_plan_ended(plan)) {
                struct model_outcome outcome;
                struct model_op op;

                model_plan_next(plan, &op);
                current = op;
                heartbeat++;
                run_op(config, worker, sock, &op, &outcome);
                log_op(config, &op, &outcome);
                if (outcome.differs) {
                        print_log();
                        fprintf(stderr, "DIFFERENCE at operation %llu (%s): %s\n",
                                (unsigned long long)op.number, model_kind_name(op.kind),
                                outcome.text);
                        return op.kind == MODEL_REMOUNT ? EXIT_BROKEN : EXIT_DIFFERS;
                }
                model_plan_learn(plan, &op, &outcome);
        }
        return EXIT_SAME;
}

static double seconds_now(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int run(const struct model_config *config)
{
        struct model_plan *plan = model_plan_new(config);
        struct model_worker *worker;
        double start = seconds_now();
        pthread_t watchdog;
        int sock = -1;
        pid_t pid = start_second(config, &sock);
        int r;

        if (pid < 0 || pthread_create(&watchdog, NULL, watch, NULL)) {
                perror("model");
                return EXIT_BROKEN;
        }
        worker = model_worker_new(config, 0);
        r = loop(config, plan, worker, sock);
        close(sock);
        waitpid(pid, NULL, 0);
        model_worker_free(worker);
        model_plan_free(plan);
        printf("seed %llu: %llu operations, %s, %.1f s\n", (unsigned long long)config->seed,
               (unsigned long long)log_count, r == EXIT_SAME ? "no difference" : "FAILED",
               seconds_now() - start);
        return r;
}

/* Both sides begin empty but for the two directories. */
static int prepare(const struct model_config *config)
{
        umask(022);
        for (int side = 0; side < MODEL_SIDES; side++) {
                char path[MODEL_PATH_MAX];

                snprintf(path, sizeof(path), "%s/d1", config->dir[side]);
                if (mkdir(path, 0755) < 0) {
                        fprintf(stderr, "model: %s: %m\n", path);
                        return EXIT_BROKEN;
                }
                model_moving_dir(config, side, false, path);
                if (mkdir(path, 0755) < 0) {
                        fprintf(stderr, "model: %s: %m\n", path);
                        return EXIT_BROKEN;
                }
        }
        return 0;
}

static int usage(void)
{
        fprintf(stderr,
                "usage: tk_model --dir-a DIR --dir-b DIR [--seed N] [--ops N] [--files N]\n"
                "                [--max-size BYTES] [--remount COMMAND] [--remount-every N]\n"
                "                [--skip OPERATION|direct]... [--wild-names] [--trace]\n"
                "DIR-A is the filesystem under test, DIR-B a plain directory; both are empty.\n");
        return EXIT_USAGE;
}

static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},    {"ops", required_argument, NULL, 'o'},
        {"files", required_argument, NULL, 'f'},   {"max-size", required_argument, NULL, 'm'},
        {"dir-a", required_argument, NULL, 'a'},   {"dir-b", required_argument, NULL, 'b'},
        {"remount", required_argument, NULL, 'r'}, {"remount-every", required_argument, NULL, 'e'},
        {"skip", required_argument, NULL, 'k'},    {"wild-names", no_argument, NULL, 'w'},
        {"trace", no_argument, NULL, 't'},         {NULL, 0, NULL, 0},
};

static bool take_skip(struct model_config *config, const char *name)
{
        enum model_kind kind = model_kind_named(name);

        if (!strcmp(name, "direct"))
                config->skip_direct = true;
        else if (kind == MODEL_KINDS || kind == MODEL_OPEN)
                return false;
        else
                config->skip[kind] = true;
        return true;
}

static bool take_option(struct model_config *config, int opt)
{
        switch (opt) {
        case 's':
                config->seed = strtoull(optarg, NULL, 0);
                return true;
        case 'o':
                config->ops = strtoull(optarg, NULL, 0);
                return true;
        case 'f':
                config->names = (unsigned)strtoul(optarg, NULL, 0);
                return config->names > 0 && config->names <= 99;
        case 'm':
                config->max_size = strtoll(optarg, NULL, 0);
                return config->max_size >= MODEL_GROUP;
        case 'w':
                config->wild_names = true;
                return true;
        case 'a':
                config->dir[MODEL_A] = optarg;
                return true;
        case 'b':
                config->dir[MODEL_B] = optarg;
                return true;
        case 'r':
                config->remount = optarg;
                return true;
        case 'e':
                config->remount_every = strtoull(optarg, NULL, 0);
                return true;
        case 'k':
                return take_skip(config, optarg);
        case 't':
                config->trace = true;
                return true;
        default:
                return false;
        }
}

int main(int argc, char **argv)
{
        struct model_config config = {.ops = 10000, .names = 12, .max_size = 3 << 20};
        int opt;
        int r;

        if (getrandom(&config.seed, sizeof(config.seed), 0) != sizeof(config.seed))
                return EXIT_BROKEN;
        config.seed %= 1000000000;
        while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
                if (!take_option(&config, opt))
                        return usage();
        if (!config.dir[MODEL_A] || !config.dir[MODEL_B] || optind != argc)
                return usage();
        printf("seed %llu, %llu operations, %u files of at most %lld bytes\n",
               (unsigned long long)config.seed, (unsigned long long)config.ops, config.names,
               (long long)config.max_size);
        fflush(stdout);
        r = prepare(&config);
        return r ? r : run(&config);
}
