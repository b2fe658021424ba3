/* SPDX-License-Identifier: Apache-2.0 */

/* Vector registers, one set of instructions per machine. */

#include "base/registers.h"

#if defined(__x86_64__)

/* All bits of registers 0 to 15, also of the wider ones that they are a part of. */
__attribute__((target("avx"), noinline)) static void wipe_low(void)
{
        __asm__ volatile("vzeroall" ::
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                                   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                                   "xmm15");
}

#define ZERO(n) "vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"

__attribute__((target("avx512f"), noinline)) static void wipe_high(void)
{
        __asm__ volatile(
                ZERO(16) ZERO(17) ZERO(18) ZERO(19) ZERO(20) ZERO(21) ZERO(22) ZERO(23) ZERO(24)
                        ZERO(25) ZERO(26) ZERO(27) ZERO(28) ZERO(29) ZERO(30) ZERO(31)::
                                : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
                                  "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29",
                                  "xmm30", "xmm31");
}

void tk_registers_wipe(void)
{
        if (__builtin_cpu_supports("avx"))
                wipe_low();
        if (__builtin_cpu_supports("avx512f"))
                wipe_high();
}

#elif defined(__aarch64__)

#define ZERO(n) "movi v" #n ".16b, #0\n\t"

void tk_registers_wipe(void)
{
        __asm__ volatile(
                ZERO(0) ZERO(1) ZERO(2) ZERO(3) ZERO(4) ZERO(5) ZERO(6) ZERO(7) ZERO(16) ZERO(17)
                        ZERO(18) ZERO(19) ZERO(20) ZERO(21) ZERO(22) ZERO(23) ZERO(24) ZERO(25)
                                ZERO(26) ZERO(27) ZERO(28) ZERO(29) ZERO(30) ZERO(31)::
                                        : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16",
                                          "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",
                                          "v25", "v26", "v27", "v28", "v29", "v30", "v31");
}

#else

void tk_registers_wipe(void)
{
}

#endif
