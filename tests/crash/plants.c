/* SPDX-License-Identifier: Apache-2.0 */

/* Planted faults, one by one. Each runs in a process of its own, since it may take it down. */

#include "plants.h"

#include "base/plant.h"
#include "explore.h"
#include "workloads.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Each plant, and the workload that it shows in; NULL: any. */
static const struct {
        const char *text;
        const char *workload;
} plants[TK_PLANT_COUNT] = {
        [TK_PLANT_NONE] = {"nothing planted", NULL},
        [TK_PLANT_JOURNAL_UNFLUSHED] = {"the journal's flush left out", "append"},
        [TK_PLANT_EARLY_IN_PLACE] = {"in place before the flush", "overwrite"},
        [TK_PLANT_EARLY_SEAL] = {"seal ahead of durability", "links"},
        [TK_PLANT_TRUNCATE_UNJOURNALED] = {"truncate not journaled", "shrink-extend"},
        [TK_PLANT_JOURNAL_REUSED] = {"journal reused too early", "overwrite-unsynced"},
        [TK_PLANT_FRESH_IN_FSYNC] = {"taken for fresh while an fsync runs", "write-during-sync"},
        [TK_PLANT_HOLES_IN_FSYNC] = {"holes filled while an fsync runs", "fill-during-sync"},
        [TK_PLANT_LATE_RECORD] = {"key record after content", "unpack"},
        [TK_PLANT_RENAME_UNSYNCED] = {"rename before sync", "directories"},
        [TK_PLANT_HELD_UNKEPT] = {"a file that is held is not kept", "held"},
        [TK_PLANT_HELD_UNSYNCED] = {"kept no more before the flush", "held"},
};

/* Whether one of the workloads violates; says which. */
static bool is_found(uint64_t seed, uint64_t states, enum tk_plant plant)
{
        uint64_t tried = 0;

        for (size_t i = 0; i < tk_workload_count; i++) {
                struct tk_explore explore = {.name = tk_workloads[i].name,
                                             .seed = seed,
                                             .second = 8,
                                             .shares = 1,
                                             .stop_after = 1,
                                             .quiet = true};
                struct tk_work work;
                struct tk_check check = {.work = &work};

                if (plants[plant].workload && strcmp(plants[plant].workload, explore.name) != 0)
                        continue;
                tk_workload_record(&tk_workloads[i], seed, &work);
                explore.per_prefix = (unsigned)(states / work.recording.count) + 1;
                tk_explore_run(&explore, &check, &work.recording, &work.start);
                tk_work_done(&work);
                tried += explore.states;
                if (explore.violations > 0) {
                        printf("%-36s found by '%s', state %" PRIu64 ": %.120s\n",
                               plants[plant].text, explore.name, tried, explore.first);
                        return true;
                }
        }
        printf("%-36s not found in %" PRIu64 " states\n", plants[plant].text, tried);
        return false;
}

/* One plant. Whether what came of it is right. */
static bool try_plant(enum tk_plant plant, uint64_t seed, uint64_t states)
{
        bool want = plant != TK_PLANT_NONE;
        int status = 0;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                bool found;

                tk_plant_active = plant;
                /* That nothing is found takes longest, and the other runs say it, too. */
                found = is_found(seed, want ? states : states / 10 + 1, plant);
                fflush(stdout);
                _exit(found ? 1 : 0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
                printf("%-36s FAILED: the process died\n", plants[plant].text);
                return false;
        }
        if (WEXITSTATUS(status) == 2)
                printf("%-36s found: a workload fails\n", plants[plant].text);
        return (WEXITSTATUS(status) != 0) == want;
}

int tk_plants_run(uint64_t seed, uint64_t states)
{
        int bad = 0;

        for (int plant = TK_PLANT_NONE; plant < TK_PLANT_COUNT; plant++) {
                if (try_plant((enum tk_plant)plant, seed, states))
                        continue;
                printf("FAILED: %s\n", plants[plant].text);
                bad++;
        }
        printf("%d planted bugs not found\n", bad);
        return bad;
}
