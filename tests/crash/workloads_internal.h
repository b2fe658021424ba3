/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of workloads share. */

#include "states.h"
#include "workloads.h"
#include <linux/falloc.h>

#define BLOCK UINT64_C(4096)
#define GROUP (124 * BLOCK)

static const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

/* Numbers of a workload's own. */
static inline uint64_t chance(uint64_t *seed, uint64_t below)
{
        *seed = tk_mix(*seed, 1, 2);
        return *seed % below;
}

/* A file of @len bytes, durable. */
static inline int durable_file(struct tk_work *work, const char *path, size_t len)
{
        int handle = tk_work_create(work, path);

        tk_work_write(work, handle, 0, len, 1000);
        tk_work_fsync(work, handle);
        tk_work_fsyncdir(work, "");
        return handle;
}

/* workloads_holes.c */
void tk_workload_preallocated(struct tk_work *work, uint64_t seed);
void tk_workload_fill_during_sync(struct tk_work *work, uint64_t seed);
void tk_workload_fill_before_data(struct tk_work *work, uint64_t seed);
void tk_workload_fill_killed(struct tk_work *work, uint64_t seed);
void tk_workload_anything(struct tk_work *work, uint64_t seed);
void tk_workload_write_during_sync(struct tk_work *work, uint64_t seed);
