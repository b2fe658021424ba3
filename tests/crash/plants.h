/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The test of the simulator itself: faults planted in the library (base/plant.h) are found. */

#include <stdbool.h>
#include <stdint.h>

/*
 * Each plant in turn, with workloads until one violates: at most @states states of each.
 * Returns how many were not found, or, with none planted, how many violations there are.
 */
int tk_plants_run(uint64_t seed, uint64_t states);
