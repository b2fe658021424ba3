/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The workloads. */

#include "work.h"

struct tk_workload {
        const char *name;
        void (*run)(struct tk_work *work, uint64_t seed);
        enum tk_dek_wrap dek_wrap;
        enum tk_names names;
        bool by_place;
};

extern const struct tk_workload tk_workloads[];
extern const size_t tk_workload_count;

/* Record one: @work is to be given to tk_work_done. The same seed gives the same recording. */
void tk_workload_record(const struct tk_workload *workload, uint64_t seed, struct tk_work *work);
