/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `bench`: both sides in turn, some rounds, and the table of medians. Signals only set a
 * flag: whatever happens, what was made is taken away before the program ends.
 */

#include "cli/bench.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/text.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

enum { ROUNDS = 3, PLAIN = 0, ENCRYPTED = 1, SIDES = 2 };

static const struct tk_bench_size usual = {.file_len = (uint64_t)256 << 20,
                                           .random = 16384,
                                           .synced = 1000,
                                           .files = 2000,
                                           .row_ms = 1500};
static const struct tk_bench_size small = {
        .file_len = (uint64_t)8 << 20, .random = 500, .synced = 20, .files = 100, .row_ms = 300};

struct results {
        double values[SIDES][TK_BENCH_ROWS][ROUNDS];
};

/* Signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t stopped_by;

bool tk_bench_stopped(void)
{
        return stopped_by != 0;
}

static void stop(int number)
{
        stopped_by = number;
}

static void catch_signals(void)
{
        static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
        struct sigaction action = {.sa_handler = stop};

        for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
                (void)sigaction(ending[i], &action, NULL);
}

/* Nothing of us is left: end as the signal would have ended us. */
static void end_by_signal(void)
{
        int number = stopped_by;

        if (number == 0)
                return;
        (void)signal(number, SIG_DFL);
        (void)raise(number);
}

/* The work ---------------------------------------------------------------------------------- */

static int cold_plain(void *context, struct tk_fault *fault)
{
        const struct tk_bench_place *place = context;

        return tk_bench_place_forget(place->plain, fault);
}

static int cold_encrypted(void *context, struct tk_fault *fault)
{
        struct tk_bench_place *place = context;
        int r;

        r = tk_bench_place_unmount(place, fault);
        if (r == 0)
                r = tk_bench_place_forget(place->cipherdir, fault);
        if (r == 0)
                r = tk_bench_place_mount(place, fault);
        return r;
}

static int check_space(const char *directory, const struct tk_bench_size *size,
                       struct tk_fault *fault)
{
        /* Both sides, the journal, and some for the disk's filesystem itself. */
        uint64_t wanted =
                2 * (size->file_len + (uint64_t)size->files * 8192) + ((uint64_t)64 << 20);
        char text[16];
        struct statvfs st;

        if (statvfs(directory, &st) < 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -errno, "bench: cannot use %s: %s",
                                    directory, strerror(errno));
        if ((uint64_t)st.f_bavail * st.f_frsize < wanted)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -ENOSPC,
                                    "bench: %s has less than %s free; free some, or measure "
                                    "another directory",
                                    directory, tk_text_size(wanted, text));
        return 0;
}

static void say_round(int round, int side)
{
        if (tk_progress_is_wanted())
                fprintf(stderr, "\r\033[Kround %d of %d: %s", round + 1, ROUNDS,
                        side == PLAIN ? "plain" : "encrypted");
}

static int measure(struct tk_bench_place *place, const struct tk_bench_size *size,
                   struct results *results, struct tk_fault *fault)
{
        const struct tk_bench_side sides[SIDES] = {
                [PLAIN] = {.root = place->plain, .cold = cold_plain, .context = place},
                [ENCRYPTED] = {.root = place->mountpoint, .cold = cold_encrypted, .context = place},
        };
        struct tk_bench_values values;

        for (int round = 0; round < ROUNDS; round++)
                for (int side = 0; side < SIDES; side++) {
                        int r;

                        say_round(round, side);
                        r = tk_bench_run(&sides[side], size, &values, fault);
                        if (r < 0)
                                return r;
                        for (int row = 0; row < TK_BENCH_ROWS; row++)
                                results->values[side][row][round] = values.of[row];
                }
        return 0;
}

/* Output ------------------------------------------------------------------------------------ */

static int by_size(const void *one, const void *other)
{
        const double *a = one;
        const double *b = other;

        return (*a > *b) - (*a < *b);
}

static double median(const double values[ROUNDS])
{
        double sorted[ROUNDS];

        memcpy(sorted, values, sizeof(sorted));
        qsort(sorted, ROUNDS, sizeof(sorted[0]), by_size);
        return sorted[ROUNDS / 2];
}

static void print_table(const char *directory, const struct results *results)
{
        printf("%-30s %-8s %12s %12s %8s\n", "", "", "plain", "encrypted", "ratio");
        for (int row = 0; row < TK_BENCH_ROWS; row++) {
                double plain = median(results->values[PLAIN][row]);
                double encrypted = median(results->values[ENCRYPTED][row]);

                printf("%-30s %-8s %12.0f %12.0f %8.2f\n", tk_bench_texts[row].title,
                       tk_bench_texts[row].unit, plain, encrypted,
                       plain > 0 ? encrypted / plain : 0);
        }
        printf("\nBoth in ");
        tk_text_print(stdout, directory);
        printf(", medians of %d rounds. Cold: the mount is new, and the files' content is not in "
               "memory;\nthe kernel goes on knowing the plain files' names and attributes.\n",
               ROUNDS);
}

static int print_json(const char *directory, const struct results *results)
{
        json_t *rows = json_array();

        for (int row = 0; row < TK_BENCH_ROWS; row++) {
                double plain = median(results->values[PLAIN][row]);
                double encrypted = median(results->values[ENCRYPTED][row]);

                if (json_array_append_new(rows, json_pack("{ss ss sf sf sf}", "name",
                                                          tk_bench_texts[row].name, "unit",
                                                          tk_bench_texts[row].unit, "plain", plain,
                                                          "encrypted", encrypted, "ratio",
                                                          plain > 0 ? encrypted / plain : 0)) < 0) {
                        json_decref(rows);
                        return -ENOMEM;
                }
        }
        return tk_text_print_json(json_pack("{si so si so}", "schema", 1, "directory",
                                            tk_text_json(directory), "rounds", ROUNDS, "rows",
                                            rows));
}

int tk_cmd_bench(const struct tk_args *args, struct tk_fault *fault)
{
        const struct tk_bench_size *size = args->quick ? &small : &usual;
        const char *directory = args->paths[0] ? args->paths[0] : ".";
        struct tk_bench_place place;
        struct results results;
        int r_remove;
        int r;

        r = check_space(directory, size, fault);
        if (r < 0)
                return r;
        catch_signals();
        r = tk_bench_place_make(directory, &place, fault);
        if (r == 0)
                r = measure(&place, size, &results, fault);
        if (tk_progress_is_wanted())
                fputs("\r\033[K", stderr);
        r_remove = tk_bench_place_remove(&place, fault);
        if (r_remove == 0)
                end_by_signal();
        r = r < 0 ? r : r_remove;
        if (r < 0)
                return r;
        if (args->json)
                return print_json(directory, &results);
        print_table(directory, &results);
        return 0;
}
