/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * CPUs that stay awake while requests come.
 *
 * A request and its answer each wake a thread that sleeps, mostly on a CPU that is idle. In a
 * virtual machine an idle CPU has been given back to the hypervisor, and to get it again takes
 * 20 to 100 us: several times what a small request takes. So while requests come fast, the
 * kernel is asked by its PM QoS interface (Documentation/power/pm_qos_interface.rst,
 * /dev/cpu_dma_latency) to let idle CPUs wait instead of halt. It gives that up by itself when
 * the descriptor is closed, by kill -9, too.
 */

#include "base/cleanup.h"

struct tk_cpulatency;

/*
 * Whether this machine gains by it at little cost: a KVM guest of at most 8 CPUs whose own halt
 * polling is off.
 */
bool tk_cpulatency_is_gain(void);

/*
 * Open the kernel's interface @path; NULL: /dev/cpu_dma_latency, which is root's. Nothing is
 * asked of the kernel yet.
 */
TK_MUST_USE int tk_cpulatency_new(const char *path, struct tk_cpulatency **ret_cpus);

/* Start the thread that lets go of the CPUs. Without it nothing is asked. */
TK_MUST_USE int tk_cpulatency_start(struct tk_cpulatency *cpus);

/* Called with each request, from any thread: an atomic addition, mostly. NULL is none. */
void tk_cpulatency_note(struct tk_cpulatency *cpus);

/* Lets CPUs halt. NULL is none; returns NULL. */
struct tk_cpulatency *tk_cpulatency_free(struct tk_cpulatency *cpus);
TK_DEFINE_CLEANUP(struct tk_cpulatency *, tk_cpulatency_free)
